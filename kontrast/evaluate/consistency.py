"""Do image space and text space agree? The zero-shot label of an image against the label of its neighbours.

Goel et al., *CyCLIP: Cyclic Contrastive Language-Image Pretraining*, NeurIPS 2022; the rule for ties is their code's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kontrast.evaluate.metrics import Array
from kontrast.evaluate.neighbours import nearest


def consistency(image: Tensor, predicted: Array, bank: Tensor, bank_labels: Array, *, k: int) -> NDArray[np.bool_]:
    """Whether the zero-shot label of each image is the one that most of its k nearest training images have.

    Args:
        image: `(n, d)`, any length.
        predicted: `(n,)` integers, their zero-shot labels.
        bank: `(b, d)`, training images.
        bank_labels: `(b,)` integers, their true labels.
        k: In 1..b.

    Returns:
        `(n,)`; their mean is Consistency(k).

    Raises:
        ValueError: Shapes do not fit, or k is out of range.
    """
    predicted, bank_labels = np.asarray(predicted), np.asarray(bank_labels)
    if predicted.shape != (len(image),) or bank_labels.shape != (len(bank),) or not 1 <= k <= len(bank):
        raise ValueError(
            f"there is one label an image, and k is 1..{len(bank)}; got {len(image)} images with {predicted.shape}, "
            f"{len(bank)} in the bank with {bank_labels.shape}, and k = {k}"
        )
    rows = nearest(bank.detach().float(), image.detach().float(), k)[1]
    return np.asarray(neighbour_label(bank_labels[rows.cpu().numpy()]) == predicted)


def neighbour_label(labels: Array) -> NDArray[np.int64]:
    """The most frequent label of each row; where several lead, the farthest neighbour is dropped until one does.

    Args:
        labels: `(n, k)` integers of 0 or more, the nearest first.

    Returns:
        `(n,)`.
    """
    found, is_open = np.empty(len(labels), dtype=np.int64), np.ones(len(labels), dtype=bool)
    for k in range(labels.shape[1], 0, -1):
        near = labels[is_open, :k]
        times = (near[:, :, None] == near[:, None]).sum(2)
        leader = near[np.arange(len(near)), times.argmax(1)]
        leads_alone = ((times < times.max(1, keepdims=True)) | (near == leader[:, None])).all(1)
        now = np.flatnonzero(is_open)[leads_alone]
        found[now], is_open[now] = leader[leads_alone], False
    return found
