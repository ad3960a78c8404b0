"""SimCLR: Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kontrast import losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.distributed import gather
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder
from kontrast.nn.heads import mlp


class SimCLR(Method):
    """Two views of an image attract each other; the views of all other images in the batch repel (algorithm 1).

    Both views pass the networks in one call, as in the authors' code, so batch norm sees 2n views at once.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of SimCLR."""

        temperature: float = 0.2
        """Divides the cosine similarities; the paper has 0.1 on ImageNet and 0.5 on CIFAR-10."""
        width: int = 128
        """Width of the embedding; the paper's."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        self.temperature = config.temperature
        self.project = mlp(encoder.width, encoder.width, config.width)

    def forward(self, batch: Batch) -> Objective:
        """NT-Xent between the projections of two views."""
        a, b = self.project(self.encoder(torch.cat(self.views(batch.image)))).chunk(2)
        loss = losses.nt_xent(gather(a), gather(b), temperature=self.temperature)
        return Objective(loss, {"spread": measures.spread(a.detach())})
