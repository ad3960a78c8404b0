"""Batches of a data set in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kontrast.batch import Batch
from kontrast.data.images import ImageSet


class Loader:
    """Shuffled batches of `data`; `epoch(7)` is the same with or without epochs 0 to 6 before it, for resuming.

    A batch larger than the data is one batch of all of them.

    Raises:
        ValueError: The data are empty, or `batch_size` is below 1.
    """

    def __init__(self, data: ImageSet, batch_size: int, *, seed: int = 0, drop_last: bool = True) -> None:
        if len(data) == 0 or batch_size < 1:
            raise ValueError(f"a loader needs images and a batch size of at least 1; got {len(data)} and {batch_size}")
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.drop_last:
            return max(1, len(self.data) // self.batch_size)
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, counted from 0."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.data))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self.data.batch(order[start : start + self.batch_size])
