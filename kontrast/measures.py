"""What embeddings look like, in four numbers. Pure functions, read by methods, health and pages."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def spread(embedding: Tensor) -> Tensor:
    """Standard deviation of the normalised embeddings, times sqrt(d): 1 on a uniform sphere, 0 when collapsed.

    Args:
        embedding: `(n, d)`, any length.

    Returns:
        Scalar in 0..1 (Chen & He, *SimSiam*, CVPR 2021, section 4.1, scaled by sqrt(d)).
    """
    unit = F.normalize(embedding.float(), dim=1)
    found: Tensor = unit.std(dim=0, unbiased=False).mean() * math.sqrt(unit.shape[1])
    return found


def effective_rank(embedding: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values (Roy & Vetterli, EUSIPCO 2007), of centred embeddings.

    Args:
        embedding: `(n, d)`.

    Returns:
        Scalar in 1..min(n, d): how many directions the embeddings really use; 1 when all are one point.
    """
    centred = embedding.double() - embedding.double().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    if values.sum() <= 1e-9 * (1 + embedding.double().abs().sum()):
        return torch.ones(())
    share = values / values.sum()
    return torch.exp(-torch.xlogy(share, share).sum()).float()


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of the two views of an image on the unit sphere (Wang & Isola, ICML 2020).

    Args:
        a: `(n, d)`, one view of each image.
        b: `(n, d)`, the other.

    Returns:
        Scalar in 0..4; smaller is better aligned.
    """
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(dim=1).mean()


def uniformity(embedding: Tensor) -> Tensor:
    """Log of the mean Gaussian potential exp(-2 ||x - y||²) over all pairs (Wang & Isola, ICML 2020, t = 2).

    Args:
        embedding: `(n, d)`, with n >= 2.

    Returns:
        Scalar in -8..0; smaller is more uniform, 0 when all are one point.
    """
    unit = F.normalize(embedding.float(), dim=1)
    return torch.pdist(unit).square().mul(-2).exp().mean().log()
