"""Supervised learning on the labelled images alone: the baseline that a sceptic asks for first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from kontrast import losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.errors import InputError
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
        mixup: float = 0.0
        """Alpha of MixUp (Zhang et al., ICLR 2018): a batch is mixed with itself in shares drawn from
        Beta(alpha, alpha), labels likewise; 0 for none."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None, *, num_classes: int) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        if not 0 <= config.mixup < math.inf:
            raise InputError(f"--mixup is the alpha of a Beta distribution, 0 for none; got {config.mixup}")
        self.mixup = config.mixup
        self.classify = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(encoder.width, num_classes))

    @classmethod
    def reads_labels(cls, config: Any = None) -> bool:
        """Always."""
        return True

    def forward(self, batch: Batch) -> Objective:
        """Cross-entropy of the labelled images of the batch."""
        assert batch.label is not None, "commands refuse data without labels"
        image, shares = self.augment(batch.image), [(1.0, batch.label)]
        if self.mixup and self.training:
            share = float(Beta(self.mixup, self.mixup).sample())
            order = torch.randperm(len(image), device=image.device)
            image = share * image + (1 - share) * image[order]
            shares = [(share, batch.label), (1 - share, batch.label[order])]
        representation = self.encoder(image)
        logits = self.classify(representation)
        loss = torch.stack([share * losses.classification(logits, label) for share, label in shares]).sum()
        return Objective(loss, {"spread": measures.spread(representation.detach())})

    def predict(self, image: Tensor) -> Tensor:
        """Logits `(n, classes)` of images as they are, without augmentation."""
        logits: Tensor = self.classify(self.encoder(image))
        return logits
