"""Supervised learning on the labelled images alone: the baseline that a sceptic asks for first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kontrast import losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder


class Supervised(Method):
    """One augmented view, a linear classifier, cross-entropy (Goodfellow et al., *Deep Learning*, 2016, section 6.2).

    Images without a label add nothing. Multi-label data get one binary cross-entropy a class.
    """

    fills_space: ClassVar[bool] = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of supervised training."""

        dropout: float = 0.0
        """Share of the representation dropped before the classifier."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None, *, num_classes: int) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        self.classify = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(encoder.width, num_classes))

    @classmethod
    def reads_labels(cls, config: Any = None) -> bool:
        """Always."""
        return True

    def forward(self, batch: Batch) -> Objective:
        """Cross-entropy of the labelled images of the batch."""
        assert batch.label is not None, "commands refuse data without labels"
        representation = self.encoder(self.augment(batch.image))
        loss = losses.classification(self.classify(representation), batch.label)
        return Objective(loss, {"spread": measures.spread(representation.detach())})

    def predict(self, image: Tensor) -> Tensor:
        """Logits `(n, classes)` of images as they are, without augmentation."""
        logits: Tensor = self.classify(self.encoder(image))
        return logits
