"""A method of one's own is a module that maps a batch to an objective; there is nothing to register.

This one is VICReg without its projection (Bardes, Ponce & LeCun, *VICReg*, ICLR 2022): views agree, each feature
varies, and no two features say the same.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kontrast import Batch, Fit, Loader, data, encoder, features, fit, measures
from kontrast.augment import policies
from kontrast.methods import Method, Objective


class PlainVICReg(Method):
    """Invariance, variance and covariance of the representations themselves (equation 6)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Weights of the three terms, at the values of the paper."""

        invariance: float = 25.0
        variance: float = 25.0
        covariance: float = 1.0

    def __init__(self, encoder, augment, config=None):
        super().__init__(encoder, augment)
        self.config = config or self.Config()

    def forward(self, batch: Batch) -> Objective:
        a, b = (self.encoder(view).float() for view in self.views(batch.image))
        loss = self.config.invariance * F.mse_loss(a, b)
        for z in (a, b):
            centred = z - z.mean(dim=0)
            loss = loss + self.config.variance / 2 * F.relu(1 - centred.std(dim=0)).mean()
            covariance = centred.T @ centred / (len(z) - 1)
            loss = loss + self.config.covariance * (covariance.fill_diagonal_(0) ** 2).sum() / z.shape[1]
        return Objective(loss, {"spread": measures.spread(a.detach())})


torch.manual_seed(0)
images = data.open("sample:digits-5k").take(range(0, 5000, 4))
method = PlainVICReg(encoder("resnet10t", channels=1, size=28, stem="standard"), policies.digits(28))
rows = fit(method, Loader(images, 128), Fit(epochs=3))
found = torch.from_numpy(features(method.encoder, images))
print(f"loss {rows[0]['loss']:.1f} -> {rows[-1]['loss']:.1f}, effective rank {measures.effective_rank(found):.0f}")
