"""How many queries were answered rightly, with an interval."""

from __future__ import annotations

import numpy as np

from kontrast.evaluate.intervals import Estimate, estimate
from kontrast.evaluate.metrics import Array, Floats


def share(is_right: Array, *, groups: Array | None = None, num_resamples: int = 1000, seed: int = 0) -> Estimate:
    """The share of queries that were answered rightly, by one model, with its 95 % interval over queries.

    Args:
        is_right: `(n,)` bool, n at least 2.
        groups: `(n,)`, what queries must not be resampled without: the image of a text, the patient of an image.
        num_resamples: Of the queries.
        seed: Of the resamples.

    Returns:
        Value and interval in 0..1; its "test images" are the queries.

    Raises:
        ValueError: Fewer than two queries or groups.
    """
    is_right = np.asarray(is_right)
    labels = np.ones(len(is_right), dtype=np.int64)
    predictions = as_probabilities(is_right)[None, None]
    return estimate(labels, predictions, "accuracy", groups=groups, num_resamples=num_resamples, seed=seed)


def as_probabilities(is_right: Array) -> Floats:
    """`(n,)` bool as probabilities `(n, 2)` whose accuracy against labels of 1 is the share of what is right.

    So that seeds and arms can be compared by `intervals.estimate` and `intervals.difference`.
    """
    right = np.asarray(is_right, dtype=np.float64)
    return np.stack([1 - right, right], axis=1)
