"""Protocols: what one encoder makes of one draw of labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.augment.policies import Policy
from kontrast.data import ImageSet
from kontrast.evaluate.finetune import FineTuning, finetune, predict
from kontrast.evaluate.focal import focal_probe
from kontrast.evaluate.knn import knn_predict
from kontrast.evaluate.linear import linear_probe
from kontrast.evaluate.stored import stored_features
from kontrast.methods.supervised import Supervised
from kontrast.nn.encoders import Encoder

log = logging.getLogger("kontrast")

ProtocolName = Literal["knn", "linear", "focal", "finetune"]
Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the protocols."""

    k: int = 20
    """Neighbours that vote in k-NN."""
    knn_temperature: float = 0.07
    """Weight of a neighbour is exp(cosine / temperature)."""
    finetuning: FineTuning = field(default_factory=FineTuning)
    """How the encoder is fine-tuned."""


class Subject:
    """One encoder before one data set; its features are computed when a protocol first asks, and kept in the cache."""

    def __init__(self, encoder: Encoder, train: ImageSet, test: ImageSet, augment: Policy, settings: Settings) -> None:
        self.encoder, self.train, self.test = encoder, train, test
        self.augment, self.settings = augment, settings

    @cached_property
    def train_features(self) -> NDArray[np.float32]:
        """`(n, width)` of the training images."""
        return stored_features(self.encoder, self.train)

    @cached_property
    def test_features(self) -> NDArray[np.float32]:
        """`(m, width)` of the test images."""
        return stored_features(self.encoder, self.test)

    def features(self, query: Positions | None) -> NDArray[np.float32]:
        """`(n, width)` of some training images, or of all test images."""
        return self.test_features if query is None else self.train_features[query]

    def labels(self, labelled: Positions) -> NDArray[Any]:
        """Labels of some training images."""
        assert self.train.labels is not None, "commands refuse data without labels"
        found: NDArray[Any] = self.train.labels[labelled]
        return found


Queries = Sequence[Positions | None]
"""What to predict: training images by position, or None for all test images."""
Answers = list[NDArray[np.floating[Any]]]
"""Probabilities `(n, classes)`, one array for each of the queries."""


def _knn(subject: Subject, labelled: Positions, queries: Queries, seed: int) -> Answers:
    if subject.settings.k > len(labelled):
        log.info("k-NN: all %d labelled images vote, since k is %d", len(labelled), subject.settings.k)

    def answer(asked: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return knn_predict(
            torch.from_numpy(subject.train_features[labelled]).to(subject.encoder.mean.device),
            subject.labels(labelled),
            asked,
            num_classes=len(subject.train.classes),
            k=subject.settings.k,
            temperature=subject.settings.knn_temperature,
        )

    return [answer(subject.features(query)) for query in queries]


def _linear(subject: Subject, labelled: Positions, queries: Queries, seed: int) -> Answers:
    groups = subject.train.groups
    asked = [subject.features(query) for query in queries]
    probe = linear_probe(
        subject.train_features[labelled],
        subject.labels(labelled),
        np.concatenate(asked),
        num_classes=len(subject.train.classes),
        groups=None if groups is None else groups[labelled],
        seed=seed,
    )
    return np.split(probe.probabilities, np.cumsum([len(part) for part in asked])[:-1])


def _focal(subject: Subject, labelled: Positions, queries: Queries, seed: int) -> Answers:
    chosen, training = subject.train.take(labelled), subject.settings.finetuning.training
    return _predict(focal_probe(subject.encoder, chosen, subject.augment, training, seed=seed), subject, queries)


def _finetune(subject: Subject, labelled: Positions, queries: Queries, seed: int) -> Answers:
    chosen = subject.train.take(labelled)
    method = finetune(subject.encoder, chosen, subject.augment, subject.settings.finetuning, seed=seed)
    return _predict(method, subject, queries)


def _predict(method: Supervised, subject: Subject, queries: Queries) -> Answers:
    return [predict(method, subject.test if query is None else subject.train.take(query)) for query in queries]


PROTOCOLS: dict[str, Callable[[Subject, Positions, Queries, int], Answers]] = {
    "finetune": _finetune,
    "focal": _focal,
    "knn": _knn,
    "linear": _linear,
}
"""From a subject, the positions of its labelled training images, what to predict, and a seed, to probabilities."""
