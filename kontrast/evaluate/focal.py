"""The linear probe of Lu et al.: a classifier on a frozen encoder, learned by SGD under augmentation, by focal loss.

Source: Lu, Jha & Huo, *Contrastive Learning Meets Transfer Learning: A Case Study In Medical Image Analysis*, arXiv
2103.03166, 2021, and its code. Theirs keeps the epoch that scores best on a selection part; this is the last epoch, and
views are those of the policy, where theirs are crops and flips.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from kontrast import losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.data import ImageSet, Loader
from kontrast.methods.base import Objective
from kontrast.methods.supervised import Supervised
from kontrast.nn.encoders import Encoder
from kontrast.train.fit import Fit, fit

STEPS = 480
"""Of the optimiser; rounded up to whole epochs."""
BATCH_SIZE = 128
LR = 3.0
"""For a batch of 256."""


class FocalProbe(Supervised):
    """A linear classifier on an encoder that stays as it is."""

    def train(self, mode: bool = True) -> FocalProbe:
        """Training mode is that of the augmentation and the classifier; the encoder predicts."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: Batch) -> Objective:
        """Focal loss (gamma 2) of the labelled images of the batch."""
        assert batch.label is not None, "commands refuse data without labels"
        with torch.no_grad():
            representation = self.encoder(self.augment(batch.image))
        loss = losses.focal(self.classify(representation), batch.label)
        return Objective(loss, {"spread": measures.spread(representation)})

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The classifier alone."""
        return [{"params": list(self.classify.parameters()), "lr": lr}]


def focal_probe(encoder: Encoder, labelled: ImageSet, augment: Policy, training: Fit, *, seed: int = 0) -> FocalProbe:
    """Learn a linear classifier on a frozen encoder.

    Args:
        encoder: Stays as it is; it becomes part of the result.
        labelled: Every image of it has a label.
        augment: The policy of training; predictions are made without it.
        training: Its precision and device are used.
        seed: Of the classifier's first weights, of the order and of the augmentation.

    Returns:
        The probe, in evaluation mode; last epoch.
    """
    torch.manual_seed(seed)
    probe = FocalProbe(encoder, augment, num_classes=len(labelled.classes))
    loader = Loader(labelled, BATCH_SIZE, seed=seed)
    own = Fit(epochs=-(-STEPS // len(loader)), lr=LR, weight_decay=0.0, warmup=0.0, seed=seed)
    own = replace(own, precision=training.precision, device=training.device)
    fit(probe, loader, own, title="focal probe", show=False)
    return probe
