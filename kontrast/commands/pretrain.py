"""`kontrast pretrain METHOD`: learn an encoder from images, without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kontrast import distributed
from kontrast.commands.assemble import (
    DataOptions,
    EncoderOptions,
    build_encoder,
    build_method,
    build_policy,
    check_same_data,
    claim_folder,
    data_name,
    named,
    open_data,
    policy_files,
    require_labels,
    require_texts,
    split,
    texts_settled,
)
from kontrast.commands.call import keyword_call
from kontrast.commands.provenance import provenance
from kontrast.commands.texts import OWN, TextOptions, shuffled_texts
from kontrast.commands.towers import as_towers_begin, build_towers, check_towers
from kontrast.data import ImageSet, Loader, validation_part
from kontrast.errors import InputError
from kontrast.evaluate.features import features
from kontrast.evaluate.knn import knn_predict
from kontrast.evaluate.linear import linear_probe
from kontrast.evaluate.metrics import METRICS
from kontrast.methods import METHODS
from kontrast.nn.encoders import Encoder
from kontrast.nn.text import TextTower
from kontrast.train.fit import Fit, fit

log = logging.getLogger("kontrast")

MONITORED = 2000
"""At most so many labelled images are looked at when scores are followed during training."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Fit, EncoderOptions, TextOptions, DataOptions):
    """Learn an encoder from images; test images, where labels or texts make a split possible, are never used."""

    method: str
    """byol, clip, cyclip, ebclr, learned_views, moco, simclr, simsiam or supervised."""
    out: Path
    """Folder of the run: config.yaml, metrics.jsonl, checkpoint/, encoder.safetensors, encoder.json; of `ebclr` also
    energy.safetensors and samples/, of `clip` and `cyclip` towers.safetensors, towers.json and tokenizer.json."""
    config: Any = None
    """The method's own settings, such as `SimCLR.Config(temperature=0.1)`."""
    batch_size: int = 256
    """Images a step; each gives two views, or for `clip` one view and one text."""
    evaluate_every: int = 0
    """Epochs between k-NN and linear scores on a validation part of the labelled images; 0 for never."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""


def run(options: Pretrain) -> Path:
    """Train a method on images and write its run; returns the folder."""
    distributed.start()
    method = METHODS[named(options.method, METHODS, "method")]
    options = texts_settled(options, are_used=method.reads_texts)
    train = split(open_data(options)).train
    pretrain_on(train, options, title=options.method)
    log.info("the encoder is in %s", options.out)
    return options.out


def pretrain_on(train: ImageSet, options: Pretrain, *, title: str, monitored: ImageSet | None = None) -> None:
    """Train on images that are already open and split.

    Args:
        train: The images, with the labels that the method may see.
        options: How.
        title: Shown before the progress line.
        monitored: The same images with the labels by which scores are followed; by default those of `train`.
    """
    if options.method == "supervised":
        require_labels(train, "supervised learning")
        train = train.take(train.labelled)
    options.check()
    if options.batch_size < 1:
        raise InputError(f"a step needs images; --batch-size is {options.batch_size}, so give 256 or so")
    if options.evaluate_every < 0:
        raise InputError(f"--evaluate-every is a number of epochs, 0 for never; got {options.evaluate_every}")
    if len(train) < 2:
        raise InputError(f"pre-training contrasts images with each other, so it needs two; got {len(train)}, add some")
    if METHODS[named(options.method, METHODS, "method")].reads_texts:
        require_texts(train, options.method)
        train = shuffled_texts(train, seed=options.seed) if options.shuffle_texts else train
    options, built, text = _parts(options, train)
    policy = build_policy(options.policy, built.spec.size, train.channels)
    method = build_method(options.method, options.config, built, policy, train, texts=options, text=text)
    monitor = _monitor(monitored or train) if options.evaluate_every else None
    claim_folder(options.out, settings(options), resume=options.resume)
    check_same_data(options.out, provenance(train) | {"policies": policy_files([options.policy])})
    loader = Loader(train, options.batch_size, seed=options.seed, labelled_share=method.labelled_share)
    fit(
        method,
        loader,
        options,
        out=options.out,
        resume=options.resume,
        evaluate=monitor,
        evaluate_every=options.evaluate_every or 1,
        title=title,
    )


def settings(options: Pretrain) -> dict[str, Any]:
    """The run's settings as flags at rest: the content of `config.yaml`, which `--recipe` reads."""
    flat = {key: value for key, value in vars(options).items() if key not in ("config", "out", "resume")}
    flat["data"] = data_name(options.data)
    flat |= options.update_rule(METHODS[options.method])._asdict()
    return {**flat, **asdict(options.config or METHODS[options.method].Config())}


def _parts(options: Pretrain, train: ImageSet) -> tuple[Pretrain, Encoder, TextTower | None]:
    """The encoder, the text tower where one comes with it, and the options as they then are."""
    if options.towers == OWN:
        return options, build_encoder(options, train, options.size or train.size, seed=options.seed), None
    check_towers(options, options, options.method)
    towers = build_towers(options, options, train, options.size, seed=options.seed)
    config = as_towers_begin(options.config or METHODS[options.method].Config(), towers)
    return replace(options, encoder=options.towers, config=config), towers.encoder, towers.text


def _monitor(train: ImageSet) -> Callable[[Encoder], dict[str, float]]:
    """Scores an encoder on a validation part of the labelled training images; nothing is chosen by them."""
    labelled = train.labelled
    labelled = labelled[np.linspace(0, len(labelled) - 1, min(len(labelled), MONITORED)).round().astype(np.int64)]
    seen = train.take(labelled)
    parts = None if seen.labels is None or not len(seen) else validation_part(seen.labels, groups=seen.groups)
    if parts is None:
        raise InputError(
            "--evaluate-every scores on labelled images, at least two of each class; "
            f"{train.name} has {len(seen)} labelled ones, so name --labels or leave the flag out"
        )
    fitted, held = (seen.take(part) for part in parts)

    def scores(encoder: Encoder) -> dict[str, float]:
        known, asked = features(encoder, fitted), features(encoder, held)
        assert fitted.labels is not None
        assert held.labels is not None
        bank = torch.from_numpy(known).to(encoder.mean.device)
        votes = knn_predict(bank, fitted.labels, asked, num_classes=len(train.classes))
        probe = linear_probe(known, fitted.labels, asked, num_classes=len(train.classes), strengths=(0.01, 1.0))
        accuracy = METRICS["accuracy"]
        return {
            "knn_accuracy": accuracy(held.labels, votes),
            "linear_accuracy": accuracy(held.labels, probe.probabilities),
        }

    return scores


pretrain = keyword_call(Pretrain, run)
