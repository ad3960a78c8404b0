"""Weighted k-nearest-neighbour votes.

Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*, CVPR 2018.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kontrast.evaluate.metrics import check_labels
from kontrast.evaluate.neighbours import nearest

BLOCK = 2**24
"""Votes held at a time: 64 MB."""

Features = Tensor | NDArray[Any]


@torch.no_grad()
def knn_predict(
    bank: Features,
    bank_labels: Features,
    queries: Features,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float32]:
    """Votes of each query's nearest labelled features for their classes, each worth `exp(cosine / temperature)`.

    Args:
        bank: `(n, d)` features, on the device to search on; normalised here. A zero vector is as far from everything as
            a right angle.
        bank_labels: `(n,)` integers, or `(n, num_classes)` in {0, 1, NaN}.
        queries: `(m, d)` features.
        num_classes: Columns of the answer, also where `bank_labels` miss some.
        k: Neighbours that vote; all of the bank where it has fewer.
        temperature: Divides the cosines; the smaller, the more the nearest decides.

    Returns:
        `(m, num_classes)` in 0..1. Rows sum to 1 for `(n,)` labels. For multi-label data each class has the mean of its
        known neighbours; where it has none among the `k`, its share of the bank, and 0.5 where the bank knows nothing
        of it. Memory is bounded: queries come in blocks.

    Raises:
        ValueError: Shapes do not fit, the bank is empty, a value is not finite, a label, `k` or `temperature` is out of
            range.
    """
    bank = _floats(bank)
    queries = _floats(queries).to(bank.device)
    labels = torch.as_tensor(bank_labels).to(bank.device)
    _check(bank, labels, queries, num_classes, k, temperature)
    k = min(k, len(bank))
    targets = labels.float() if labels.ndim == 2 else F.one_hot(labels.long(), num_classes).float()
    share = targets.nanmean(0).nan_to_num(0.5)
    size = max(1, BLOCK // (k * num_classes))
    blocks = (torch.split(found, size) for found in nearest(bank, queries, k))
    predicted = torch.cat([_votes(cosine, targets[rows], temperature) for cosine, rows in zip(*blocks, strict=True)])
    return torch.where(predicted.isnan(), share, predicted).cpu().numpy()


def _votes(cosine: Tensor, neighbours: Tensor, temperature: float) -> Tensor:
    """Weighted means of the known targets `(m, k, classes)` of the nearest, `(m, classes)`; NaN where none is known."""
    votes = (cosine / temperature)[:, :, None].masked_fill(neighbours.isnan(), -torch.inf).softmax(1)
    return (votes * neighbours.nan_to_num(0)).sum(1)


def _floats(features: Features) -> Tensor:
    return torch.as_tensor(features).detach().float()


def _check(bank: Tensor, labels: Tensor, queries: Tensor, num_classes: int, k: int, temperature: float) -> None:
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or len(bank) == 0:
        raise ValueError(
            f"bank is (n, d) and queries are (m, d), n at least 1; got {tuple(bank.shape)} and {tuple(queries.shape)}"
        )
    if labels.shape not in ((len(bank),), (len(bank), num_classes)):
        raise ValueError(
            f"labels are ({len(bank)},) or ({len(bank)}, {num_classes}), as the bank is; got {tuple(labels.shape)}"
        )
    if not (bank.isfinite().all() and queries.isfinite().all()):
        raise ValueError("features are finite; got NaN or infinity, so look at the encoder that made them")
    if k < 1 or temperature <= 0:
        raise ValueError(f"k is at least 1 and temperature above 0; got {k} and {temperature}")
    check_labels(labels.cpu().numpy(), num_classes)
