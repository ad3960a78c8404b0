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
from kontrast.methods.supervised import Supervised
from kontrast.nn.encoders import Encoder
from kontrast.train.fit import Fit, fit


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How labels are learned end to end."""

    steps: int = 1000
    """Optimiser steps, whatever the number of labels; rounded up to whole epochs."""
    batch_size: int = 64
    """Labelled images a step; all of them where there are fewer."""
    training: Fit = field(default_factory=Fit)
    """Optimiser, precision and device: for a baseline, those of pre-training. Its epochs and seed are not read."""


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
    method = Supervised(deepcopy(encoder), augment, num_classes=len(labelled.classes))
    loader = Loader(labelled, config.batch_size, seed=seed)
    training = replace(config.training, epochs=-(-config.steps // len(loader)), seed=seed)
    fit(method, loader, training, out=out, title=title, show=show)
    return method


def logits(method: Supervised, data: ImageSet) -> NDArray[np.float32]:
    """What the classifier says of each image before any softmax or sigmoid: `(n, classes)` float32."""
    return apply(nn.Sequential(method.encoder, method.classify), method.encoder, data)


def predict(method: Supervised, data: ImageSet) -> NDArray[np.float64]:
    """Probabilities `(n, classes)`: softmax, or one sigmoid a class for multi-label data."""
    answers = torch.from_numpy(logits(method, data)).double()
    found: NDArray[np.float64] = (answers.sigmoid() if data.is_multilabel else answers.softmax(dim=1)).numpy()
    return found
