"""Losses as pure functions of embeddings: no state, no processes, no configuration.

Every similarity is a cosine: embeddings may have any length and are normalised here, in float32 also under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    query: Tensor, key: Tensor, positive: Tensor, *, temperature: float, exclude: Tensor | None = None
) -> Tensor:
    """Cross-entropy of picking each query's positive among all keys (van den Oord et al., 2018, equation 4).

    Args:
        query: `(n, d)`, any length; normalised here.
        key: `(m, d)`.
        positive: `(n,)` int64, for each query the row of `key` that matches it.
        temperature: Divides the cosine similarities.
        exclude: `(n,)` int64, for each query one row of `key` to leave out: the query itself.

    Returns:
        Scalar, the mean over queries. Memory is O(n m).

    Raises:
        ValueError: `query` and `key` differ in width, or `positive` does not name one row of `key` for each query.
    """
    _check_width(query, key)
    if positive.shape != query.shape[:1] or not bool(((positive >= 0) & (positive < len(key))).all()):
        raise ValueError(
            f"positive names one of the {len(key)} keys for each of the {len(query)} queries; "
            f"got shape {tuple(positive.shape)} with values up to {int(positive.max())}"
        )
    logits = _cosine(query, key) / temperature
    if exclude is not None:
        logits = logits.scatter(1, exclude[:, None], float("-inf"))
    return F.cross_entropy(logits, positive)


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy: each view finds its partner among 2n - 1 views (SimCLR, equation 1).

    Args:
        a: `(n, d)`, one view of each image.
        b: `(n, d)`, the other view, in the same order.
        temperature: Divides the cosine similarities.

    Returns:
        Scalar, the mean over the 2n views; log(2n - 1) for embeddings that say nothing.

    Raises:
        ValueError: The two views differ in shape.
    """
    _check_pairs(a, b)
    views = torch.cat([a, b])
    rows = torch.arange(len(views), device=views.device)
    return info_nce(views, views, rows.roll(len(a)), temperature=temperature, exclude=rows)


def queue_info_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Each query against its own key and a queue of old keys; other keys of the batch play no part (MoCo, equation 1).

    Args:
        query: `(n, d)`.
        key: `(n, d)`, the positive of each query.
        queue: `(m, d)`, negatives of every query.
        temperature: Divides the cosine similarities.

    Returns:
        Scalar, the mean over queries.

    Raises:
        ValueError: Shapes of query and key differ, or the queue has another width.
    """
    _check_pairs(query, key)
    _check_width(query, queue)
    with _float32(query):
        own = F.cosine_similarity(query.float(), key.float(), dim=1)[:, None]
        logits = torch.cat([own, _cosine(query, queue)], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine of prediction and target; no gradient flows into the target (SimSiam, equations 1 and 3).

    Args:
        prediction: `(n, d)`.
        target: `(n, d)`.

    Returns:
        Scalar in -1..1; -1 is also what collapsed embeddings reach.

    Raises:
        ValueError: Shapes differ.
    """
    _check_pairs(prediction, target)
    with _float32(prediction):
        return -F.cosine_similarity(prediction.float(), target.detach().float(), dim=1).mean()


def classification(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the images that have a label; per-class binary cross-entropy where labels are multi-label.

    Args:
        logits: `(n, classes)`.
        label: `(n,)` int64 with -1 for none, or `(n, classes)` float in {0, 1, NaN}, NaN for unknown.

    Returns:
        Scalar, the mean over known labels; 0 (with zero gradient) when none is known.
    """
    logits = logits.float()
    if label.ndim == 1:
        return F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / (label >= 0).sum().clamp(min=1)
    known = ~label.isnan()
    each = F.binary_cross_entropy_with_logits(logits, label.nan_to_num().float(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    with _float32(a):
        return F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).T


def _float32(tensor: Tensor) -> torch.autocast:
    """A temperature of 0.05 needs more than the eight bits of bf16, so autocast ends where similarities begin."""
    return torch.autocast(tensor.device.type, enabled=False)


def _check_width(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings are (n, d) with one width d; got {tuple(a.shape)} and {tuple(b.shape)}")


def _check_pairs(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"the two views of each image are compared, so both have one shape (n, d); "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
