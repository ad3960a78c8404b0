"""What embeddings look like, in a few numbers. Pure functions, read by methods, health, evaluation and pages."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 2**24
"""Distances held at a time: 64 MB of float32."""


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
        a: `(n, d)`, one view of each image; or the images.
        b: `(n, d)`, the other; or their texts, as Goel et al., *CyCLIP*, NeurIPS 2022, measure them.

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


def cross_uniformity(image: Tensor, text: Tensor) -> Tensor:
    """Log of the mean Gaussian potential exp(-2 ||I_j - T_k||²) of images and others' texts, k < j (CyCLIP's code).

    Args:
        image: `(n, d)`, with n >= 2, any length.
        text: `(n, d)`, of their texts, in the same order.

    Returns:
        Scalar in -8..0; smaller is more uniform. Memory is bounded: images come in blocks.
    """
    image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
    total = image.new_zeros((), dtype=torch.float64)
    for first, cosine in _cosines(image, text):
        potential = (4 * (cosine - 1)).exp()  # of squared distances 2 - 2 cos
        total += potential.tril(first - 1).sum(dtype=torch.float64)
    return (total * 2 / (len(image) * (len(image) - 1))).log().float()


def label_alignment(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """Mean cosine of images and the texts of their classes (CyCLIP's code); large is aligned, unlike in `alignment`.

    Args:
        image: `(n, d)`, any length.
        text: `(classes, d)`, the embedding of each class.
        label: `(n,)` int64.

    Returns:
        Scalar in -1..1.
    """
    image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
    return (image * text[label]).sum(1).mean()


def label_uniformity(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """Log of the mean of exp(-<I_j, T_y(k)>) over images j and the class texts of other images k (CyCLIP's code).

    Args:
        image: `(n, d)`, with n >= 2, any length.
        text: `(classes, d)`, the embedding of each class.
        label: `(n,)` int64.

    Returns:
        Scalar in -1..1; large is uniform, unlike in `uniformity`. Memory is O(n classes).
    """
    image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
    potential = (-(image @ text.T)).double().exp()
    counts = torch.bincount(label, minlength=len(text)).double()
    own = potential.gather(1, label[:, None]).sum()
    return (((potential @ counts).sum() - own) / (len(image) * (len(image) - 1))).log().float()


def _cosines(image: Tensor, text: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Products of all rows, some images at a time, each time with the number of the first."""
    step = max(1, _BLOCK // len(text))
    for first in range(0, len(image), step):
        yield first, image[first : first + step] @ text.T
