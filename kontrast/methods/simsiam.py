"""SimSiam: Chen & He, *Exploring Simple Siamese Representation Learning*, CVPR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from kontrast import losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.errors import InputError
from kontrast.methods.base import Method, Objective, each_alone
from kontrast.nn.encoders import Encoder
from kontrast.nn.heads import mlp


class SimSiam(Method):
    """Each view predicts the other; stopping the gradient of the target prevents collapse (algorithm 1)."""

    prefers_batch_norm: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of SimSiam, at the values of the paper."""

        width: int = 2048
        """Width of the projection and of its hidden layers."""
        layers: int = 3
        """Linear layers of the projector; 2 in the code of Lu et al., 2021."""
        affine: bool = False
        """Whether the projection's norm learns a scale and a shift, as it does there."""
        bottleneck: int = 512
        """Width inside the predictor."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        if config.layers < 1:
            raise InputError(f"a projector has layers; SimSiam's --layers is {config.layers}, so give 2 or 3")
        width = config.width
        self.project: nn.Module = mlp(
            encoder.width, *[width] * config.layers, last_norm=True, last_affine=config.affine
        )
        self.predict: nn.Module = mlp(width, config.bottleneck, width)

    def forward(self, batch: Batch) -> Objective:
        """Symmetric negative cosine between each prediction and the other view's projection."""
        a, b = each_alone(self.project, each_alone(self.encoder, self.views(batch.image)))
        p, q = each_alone(self.predict, (a, b))
        loss = (losses.negative_cosine(p, b) + losses.negative_cosine(q, a)) / 2
        return Objective(loss, {"spread": measures.spread(a.detach())})

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The predictor keeps its learning rate to the end (section 4.2)."""
        return [
            {"params": [*self.encoder.parameters(), *self.project.parameters()], "lr": lr},
            {"params": list(self.predict.parameters()), "lr": lr, "constant_lr": True},
        ]
