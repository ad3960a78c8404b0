"""`kontrast finetune classification RUN`: a classifier from an encoder and all labels.

How sure the classifier is must be learned from images that it has not learned from, and labels are too few to give some
away. So the classifier that is delivered learns from every training label, and a second one, trained in the same way
without a fifth of them, is asked about that fifth: its temperature is the delivered one's. A classifier with fewer
labels errs more, so this temperature is if anything too high, on the side of doubt. The test images, which neither has
seen, say how well it fits: their calibration error is written with and without it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from kontrast import distributed
from kontrast.augment.geometry import Geometry, is_on
from kontrast.augment.intensity import Intensity
from kontrast.augment.policies import Policy
from kontrast.commands.assemble import (
    build_policy,
    claim_folder,
    named,
    num_shared,
    write_json,
)
from kontrast.commands.call import keyword_call
from kontrast.commands.card import CARD, folder_card
from kontrast.commands.provenance import provenance
from kontrast.commands.run import OpenRun, RunOptions, open_run, reopened, run_policy
from kontrast.data import ImageSet, validation_part
from kontrast.errors import InputError
from kontrast.evaluate import finetune as tuning
from kontrast.evaluate.calibration import HIGHEST, calibrated, reliability, risk_coverage, temperature
from kontrast.evaluate.hyper_rule import BATCH_SIZE, HyperRule
from kontrast.evaluate.intervals import estimate
from kontrast.evaluate.metrics import METRICS
from kontrast.files import whole_file
from kontrast.methods.supervised import Supervised
from kontrast.nn.classifier import ClassifierSpec, save_classifier
from kontrast.nn.encoders import Encoder
from kontrast.train.fit import Fit

log = logging.getLogger("kontrast")

FEWEST = 20
"""Held-out images below which a temperature would be noise: it then does more harm, on average, than none."""
Halves = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Finetune(Fit, RunOptions):
    """Train a classifier, encoder and all, on the labelled training images; score it on the test images."""

    task: str
    """classification."""
    out: Path
    """Folder to write: encoder, classifier.safetensors, classifier.json, evaluations/test.json, MODEL_CARD.md."""
    rule: Literal["none", "bit"] = "none"
    """`bit` is BiT's: steps, rate, warm-up, decay, MixUp and size by the number of images and their size alone, so that
    --epochs, --lr, --optimiser, --weight-decay and --warmup are not read."""
    policy: str | None = None
    """Augmentation; by default the run's: where it was learned, what was learned. With --rule bit, crops, which are
    mirrored if the run's policy mirrors."""
    epochs: int = 30
    """Passes over the labelled images."""
    batch_size: int | None = None
    """Labelled images a step; by default 64, and 512 with --rule bit, which large images and GPUs may be too small
    for: the rate goes with it."""
    calibrate: bool = True
    """Train a second classifier without a fifth of the labels, to learn how sure to be; it takes nearly as long."""


def run(options: Finetune) -> Path:
    """Fine-tune; returns the folder of the new run."""
    distributed.start()
    named(options.task, ("classification",), "task")
    named(options.rule, ("none", "bit"), "rule")
    options.check()
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"a step needs images; --batch-size is {options.batch_size}, so give 64 or so")
    opened = open_run(options, "fine-tuning")
    rule = None
    if options.rule == "bit":
        opened, rule = _as_the_rule_says(opened)
    labelled = opened.train.take(opened.train.labelled)
    policy, augment = _policy(options, opened, rule)
    config = _config(options, rule, len(labelled))
    claim_folder(options.out, _settings(options, opened, config, policy), resume=False, can_resume=False)
    method = _train(config, opened.encoder, labelled, augment, seed=options.seed, out=options.out)
    spec = _calibrated_spec(options, rule, opened.encoder, labelled, augment)
    head = method.classify[-1]
    assert isinstance(head, nn.Linear)
    write_json(options.out / "run.json", _origin(options, opened, labelled))
    save_classifier(head, spec, options.out)
    _score(options.out, opened, labelled, method, spec)
    with whole_file(options.out / CARD) as partial:
        partial.write_text(folder_card(options.out), encoding="utf-8")
    log.info("the classifier is in %s, and what to know of it in %s", options.out, options.out / CARD)
    return options.out


def _as_the_rule_says(opened: OpenRun) -> tuple[OpenRun, HyperRule]:
    """BiT-HyperRule for these images, and the images and the encoder at its size.

    Raises:
        InputError: The encoder was built for one size.
    """
    own = opened.train if opened.settings["size"] is None else reopened(opened, None).train
    rule, encoder = HyperRule.of(len(opened.train.labelled), own.size), opened.encoder
    if encoder.has_fixed_size:
        raise InputError(
            f"BiT's rule shows an encoder images of {rule.crop} px; this {encoder.spec.name} takes those of "
            f"{encoder.spec.size} px only, so leave --rule out"
        )
    encoder.spec = replace(encoder.spec, size=rule.crop)
    smallest = own.size if own.facts is None else int(own.facts.shape.max(axis=1).min())
    return reopened(opened, rule.crop if smallest >= rule.crop else None), rule  # reading enlarges nothing; views do


def _policy(options: Finetune, opened: OpenRun, rule: HyperRule | None) -> tuple[str, Policy]:
    """The augmentation, and what the settings call it."""
    spec = opened.encoder.spec
    name = options.policy or run_policy(options.run, opened.settings)
    augment = build_policy(name, spec.size, spec.channels)
    if rule is None or options.policy is not None:
        return name, augment
    flip = 0.5 if is_on(augment.geometry.flip) else 0.0
    return "bit", Policy(Geometry(rule.crop, area=(rule.area, rule.area), flip=flip), Intensity())


def _config(options: Finetune, rule: HyperRule | None, num_images: int) -> tuning.FineTuning:
    batch_size = options.batch_size or (BATCH_SIZE if rule else 64)
    steps = options.epochs * max(1, num_images // batch_size)
    return tuning.FineTuning(steps=steps, batch_size=batch_size, training=options, rule=rule)


def _settings(options: Finetune, opened: OpenRun, config: tuning.FineTuning, policy: str) -> dict[str, Any]:
    """The run's settings with those of this training."""
    training = tuning.training(config, len(opened.train.labelled), options.seed)
    own = {f.name: getattr(training, f.name) for f in fields(Fit)} | training.update_rule(Supervised)._asdict()
    own |= {"batch_size": config.batch_size, "policy": policy, "method": options.task, "init": str(options.run)}
    if config.rule:
        own |= {"epochs": round(config.rule.steps * config.batch_size / len(opened.train.labelled), 1)}
    return {**opened.settings, **own, "rule": options.rule, "calibrate": options.calibrate}


def _train(
    config: tuning.FineTuning,
    encoder: Encoder,
    labelled: ImageSet,
    augment: Policy,
    *,
    seed: int,
    out: Path | None = None,
) -> Supervised:
    """A classifier of these images; without a folder, it is the one to calibrate by."""
    title = "fine-tuning" if out else "calibrating"
    return tuning.finetune(encoder, labelled, augment, config, seed=seed, out=out, title=title, show=True)


def _calibrated_spec(
    options: Finetune, rule: HyperRule | None, encoder: Encoder, labelled: ImageSet, augment: Policy
) -> ClassifierSpec:
    """What the outputs will mean: their classes and, where labels allow, the temperature."""
    spec = ClassifierSpec(classes=labelled.classes, multilabel=labelled.is_multilabel)
    if not options.calibrate:
        return _uncalibrated(spec, "switched off by --no-calibrate")
    halves = _halves(labelled)
    if halves is None:
        return _uncalibrated(spec, f"too few labels to hold out {FEWEST} images with every class on both sides")
    rest, held = (labelled.take(half) for half in halves)
    assert held.labels is not None
    config = _config(options, rule, len(rest))
    logits = tuning.logits(_train(config, encoder, rest, augment, seed=options.seed), held)
    if METRICS["accuracy"](held.labels, calibrated(logits, temperature=1.0, multilabel=spec.multilabel)) == 1:
        return _uncalibrated(
            spec, f"all {len(held)} held-out images were classified rightly, so none shows how it errs"
        )
    found = temperature(logits, held.labels)
    said = (
        f"Temperature found on {len(held)} training images by a second classifier, trained in the same way on the "
        f"other {len(rest)}."
    )
    if found == HIGHEST:
        said += " It is the highest allowed: its answers there were hardly better than guesses."
    return replace(spec, temperature=found, calibration=said)


def _uncalibrated(spec: ClassifierSpec, reason: str) -> ClassifierSpec:
    log.warning("probabilities are not calibrated: %s", reason)
    return replace(spec, calibration=f"Not calibrated: {reason}.")


def _halves(labelled: ImageSet) -> Halves | None:
    """Labelled images to train on and to hold out: the data's own validation part, else a fifth by class and group."""
    given = _own_validation(labelled)
    if given is not None:
        return given
    assert labelled.labels is not None
    drawn = validation_part(labelled.labels, groups=labelled.groups)
    return drawn if drawn is not None and len(drawn[1]) >= FEWEST else None


def _own_validation(labelled: ImageSet) -> Halves | None:
    """The data's own validation part and the rest; None where it is small, cuts a group, or leaves a class out."""
    if labelled.parts is None or labelled.labels is None:
        return None
    held = labelled.parts == "validation"
    if held.sum() < FEWEST or held.all():
        return None
    if labelled.groups is not None and np.isin(labelled.groups[held], labelled.groups[~held]).any():
        return None
    if labelled.labels.ndim == 1 and len(np.setdiff1d(labelled.labels[held], labelled.labels[~held])):
        return None
    return np.flatnonzero(~held), np.flatnonzero(held)


def _score(out: Path, opened: OpenRun, labelled: ImageSet, method: Supervised, spec: ClassifierSpec) -> None:
    """Write what the test images say of the classifier to `evaluations/test.json`, and show it."""
    test = opened.test
    assert test.labels is not None
    logits = tuning.logits(method, test)
    plain = calibrated(logits, temperature=1.0, multilabel=spec.multilabel)
    answers = calibrated(logits, temperature=spec.temperature, multilabel=spec.multilabel)
    scores = {name: estimate(test.labels, answers[None, None], name, groups=test.groups) for name in METRICS}
    before, after = (reliability(test.labels, given).ece for given in (plain, answers))
    calibration = {"temperature": spec.temperature, "how": spec.calibration, "bins": 15}
    calibration |= {"ece_before": before, "ece_after": after}
    found: dict[str, Any] = {"classes": list(spec.classes), "labels": len(labelled), "scores": scores}
    found |= {"calibration": calibration, "risk_coverage": risk_coverage(test.labels, answers, groups=test.groups)}
    found |= {"test_images_seen_in_pretraining": opened.num_seen, **provenance(labelled)}
    found |= {"test_images_sharing_a_group": num_shared(opened.train, test)}
    write_json(out / "evaluations" / "test.json", found)
    console = Console(stderr=True, highlight=False)
    for name, score in scores.items():
        console.print(f"{name} {score} on {len(test):,} test images ({score.scope})")
    console.print(
        f"expected calibration error {100 * after:.1f} %, and {100 * before:.1f} % without the temperature "
        f"{spec.temperature:.2f}"
    )


def _origin(options: Finetune, opened: OpenRun, labelled: ImageSet) -> dict[str, Any]:
    """Content of `run.json`: the labelled images, how they were split, and the run that this one began from."""
    parts = opened.test.parts
    given = parts is not None and bool(np.isin(parts, ["test", "validation"]).all())
    found = {**provenance(labelled), "labels_per_class": _per_class(labelled), "test_images": len(opened.test)}
    found["groups"] = None if labelled.groups is None else len(np.unique(labelled.groups))
    found["split"] = "the data's own" if given else f"a fifth of the labelled images, drawn {_how_drawn(labelled)}"
    return found | {"pretraining": _before(options.run)}


def _how_drawn(labelled: ImageSet) -> str:
    drawn = "at random" if labelled.is_multilabel else "by class"
    if labelled.groups is None:
        return drawn
    return f"{drawn}, through groups" if labelled.may_cut_groups else f"{drawn} in whole groups"


def _per_class(labelled: ImageSet) -> list[int]:
    """Labels of each class, in its order; for multi-label data, images that have the class."""
    assert labelled.labels is not None
    if labelled.is_multilabel:
        counts = (labelled.labels == 1).sum(axis=0)
    else:
        counts = np.bincount(labelled.labels, minlength=len(labelled.classes))
    return [int(count) for count in counts]


def _before(run: Path) -> dict[str, Any]:
    """Settings and provenance of the run that this one began from, since that folder may be gone one day."""
    import yaml

    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    file = run / "run.json"
    return {"settings": settings, **(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})}


finetune = keyword_call(Finetune, run)
