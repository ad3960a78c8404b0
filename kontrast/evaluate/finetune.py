"""Fine-tuning: the whole encoder learns the labels. From a fresh encoder, this is supervised learning from scratch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kontrast.augment.policies import Policy
from kontrast.data import ImageSet, Loader
from kontrast.evaluate.features import apply
from kontrast.evaluate.hyper_rule import BATCH_SIZE, LR, HyperRule
from kontrast.methods.supervised import Supervised
from kontrast.nn.encoders import Encoder
from kontrast.train.fit import Fit, fit

ROUNDS = 30
"""At most so many epochs are made of the steps of BiT's rule; at the end of each, all is written."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How labels are learned end to end."""

    steps: int = 1000
    """Optimiser steps, whatever the number of labels; rounded up to whole epochs."""
    batch_size: int = 64
    """Labelled images a step; all of them where there are fewer."""
    training: Fit = field(default_factory=Fit)
    """Optimiser, precision and device: for a baseline, those of pre-training. Its epochs and seed are not read."""
    rule: HyperRule | None = None
    """Decides steps, rate, decay and MixUp instead, and a classifier that begins at zero; `batch_size` still holds."""


def finetune(
    encoder: Encoder,
    labelled: ImageSet,
    augment: Policy,
    config: FineTuning,
    *,
    seed: int = 0,
    out: Path | None = None,
    title: str = "fine-tuning",
    show: bool = False,
) -> Supervised:
    """Train a copy of the encoder and a new linear classifier on labelled images, under the given augmentation.

    Args:
        encoder: Where to start from; stays as it is.
        labelled: Every image of it has a label.
        augment: The policy of training; predictions are made without it.
        config: How long and how.
        seed: Of the classifier's first weights, of the order and of the augmentation.
        out: Folder of the run, as in `train.fit`.
        title: Shown before the progress line.
        show: Whether to show progress.

    Returns:
        The trained method, in evaluation mode; last epoch.
    """
    torch.manual_seed(seed)
    rule = config.rule
    mixup = rule.mixup if rule else 0.0
    method = Supervised(deepcopy(encoder), augment, Supervised.Config(mixup=mixup), num_classes=len(labelled.classes))
    if rule:
        nn.init.zeros_(method.classify[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(method.classify[-1].bias)  # type: ignore[arg-type]
        labelled = _enough(labelled, rule, config.batch_size)
    loader = Loader(labelled, config.batch_size, seed=seed)
    how = training(config, len(labelled), seed)
    fit(method, loader, how, out=out, title=title, show=show, schedule=rule)
    return method


def training(config: FineTuning, num_images: int, seed: int) -> Fit:
    """How so many images are learned: as the settings say, or the rule."""
    rule = config.rule
    steps = rule.steps if rule else config.steps
    epochs = -(-steps // max(1, num_images // config.batch_size))
    found = replace(config.training, epochs=epochs, seed=seed)
    if rule is None:
        return found
    own = replace(found, optimiser="sgd", lr=LR * 256 / BATCH_SIZE, weight_decay=0.0, warmup=rule.warmup / rule.steps)
    return replace(own, schedule_epochs=None)


def _enough(labelled: ImageSet, rule: HyperRule, batch_size: int) -> ImageSet:
    """The images, so often that they fill the rule's batches in `ROUNDS` epochs: its rate is for full ones."""
    wanted = batch_size * -(-rule.steps // ROUNDS)
    return labelled.take(np.tile(np.arange(len(labelled)), -(-wanted // len(labelled))))


def logits(method: Supervised, data: ImageSet) -> NDArray[np.float32]:
    """What the classifier says of each image before any softmax or sigmoid: `(n, classes)` float32."""
    return apply(nn.Sequential(method.encoder, method.classify), method.encoder, data)


def predict(method: Supervised, data: ImageSet) -> NDArray[np.float64]:
    """Probabilities `(n, classes)`: softmax, or one sigmoid a class for multi-label data."""
    answers = torch.from_numpy(logits(method, data)).double()
    found: NDArray[np.float64] = (answers.sigmoid() if data.is_multilabel else answers.softmax(dim=1)).numpy()
    return found
