"""Batches of a data set in an order that depends on the seed and the epoch alone, on the device that trains."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, tee
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kontrast.batch import Batch
from kontrast.data.images import ImageSet

RESIDENT_SHARE = 0.25
"""Images stay on a GPU for good where they take at most this share of its free memory; training needs the rest."""
STREAM_FROM = 4 << 30
"""Bytes of pixels from which a processor reads ahead. Less lies in the page cache after the first epoch; gathering a
batch from there takes a hundredth of a step at most, and a thread for it takes as much from the cores that train."""
_BLOCK = 1024
_AHEAD = 3
_THREADS = 2
T = TypeVar("T")
R = TypeVar("R")


Positions = NDArray[np.int64]
Source = Callable[[Iterable[Positions]], Iterator[Batch]]
"""From the positions of each batch to the batches, in the same order."""


class Loader:
    """Shuffled batches of `data`; `epoch(7)` is the same with or without epochs 0 to 6 before it, for resuming.

    A batch larger than the data is one batch of all of them. Of several texts of an image, each epoch draws one. How
    images reach the device has no part in what they are:

    - a GPU keeps a small set whole, as the integers that are stored, and picks batches there (`RESIDENT_SHARE`);
    - larger sets are gathered into pinned memory by two threads, three batches ahead, while it computes;
    - a processor gathers each batch when it is asked for, and reads ahead only from large sets (`STREAM_FROM`).

    Raises:
        ValueError: The data are empty, or `batch_size` is below 1.
    """

    def __init__(
        self, data: ImageSet, batch_size: int, *, seed: int = 0, drop_last: bool = True, labelled_share: float = 0.0
    ) -> None:
        """Set what batches are made of.

        Args:
            data: The images.
            batch_size: Images of each.
            seed: Of the order.
            drop_last: Whether an epoch ends with its last full batch.
            labelled_share: Above 0, every batch has the same number of labelled images: this share of it at least,
                their share in the data at least, two at least, and none of them twice. Where labels are few, they
                come more often than the others in the same number of batches, all of which are full.
        """
        if len(data) == 0 or batch_size < 1:
            raise ValueError(f"a loader needs images and a batch size of at least 1; got {len(data)} and {batch_size}")
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.labelled_share = labelled_share
        self._sources: dict[torch.device, Source] = {}

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.drop_last:
            return max(1, len(self.data) // self.batch_size)
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """The batches of epoch `number`, counted from 0, on `device`.

        Raises:
            Exception: Whatever went wrong in reading ahead, at the batch that it went wrong in.
        """
        target = torch.device(device)
        if target not in self._sources:  # once a run: free memory is another matter when training has begun
            self._sources[target] = choose_source(self.data, target)
        rng = np.random.default_rng([self.seed, number])
        chunks = self._mixed(rng) if self.labelled_share else self._shuffled(rng)
        if self.data.texts is None:
            yield from self._sources[target](chunks)
        else:
            yield from self._with_texts(chunks, self._sources[target], number)

    def _with_texts(self, chunks: Iterator[Positions], source: Source, number: int) -> Iterator[Batch]:
        """The batches at these positions, with a text of each image that depends on seed, epoch and image alone."""
        assert self.data.texts is not None
        drawn = np.random.default_rng([self.seed, number, 1]).random(len(self.data))
        counts = np.array([len(texts) for texts in self.data.texts])
        chosen = np.floor(drawn * counts).astype(np.int64)
        known, asked = tee(chunks)
        for positions, batch in zip(known, source(asked), strict=True):
            yield replace(batch, text=tuple(self.data.texts[at][chosen[at]] for at in positions))

    def _shuffled(self, rng: np.random.Generator) -> Iterator[Positions]:
        order = rng.permutation(len(self.data))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]

    def _mixed(self, rng: np.random.Generator) -> Iterator[Positions]:
        """Batches with as many labelled images each."""
        labelled = self.data.labelled
        others = np.setdiff1d(np.arange(len(self.data)), labelled)
        size = min(self.batch_size, len(self.data))
        wanted = max(2, math.ceil(size * max(self.labelled_share, len(labelled) / len(self.data))))
        count = min(max(wanted, size - len(others)), len(labelled), size)
        pairs = zip(_rounds(labelled, count, rng), _rounds(others, size - count, rng), strict=True)
        for first, second in islice(pairs, len(self)):
            yield np.concatenate([first, second])


def choose_source(data: ImageSet, device: torch.device) -> Source:
    """How images reach the device: see `Loader`."""
    needed = len(data) * data.pixels[:1].nbytes
    if device.type == "cuda" and needed <= RESIDENT_SHARE * _free_memory(device):
        return Resident(data, device)
    if device.type == "cuda":
        return lambda chunks: (batch.to(device) for batch in ahead(lambda chunk: _pinned(data.batch(chunk)), chunks))
    if needed >= STREAM_FROM:
        return lambda chunks: (batch.to(device) for batch in ahead(data.batch, chunks))
    return lambda chunks: (data.batch(chunk).to(device) for chunk in chunks)


def _free_memory(device: torch.device) -> int:
    """Bytes of a GPU that nothing holds, what torch keeps for its next tensors included."""
    spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + spare


def _rounds(positions: Positions, size: int, rng: np.random.Generator) -> Iterator[Positions]:
    """Endless parts of so many positions, none with a repetition; what does not fill one waits for a next round."""
    while True:
        order = rng.permutation(positions)
        yield from (order[start : start + size] for start in range(0, max(1, len(order) - size + 1), max(1, size)))


class Resident:
    """All images on a device, as the integers that are stored; batches are picked there."""

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        self.image = torch.from_numpy(data.pixels[:0].copy()).to(device).new_empty((len(data), *data.pixels.shape[1:]))
        labels, rows = [], []
        for start in range(0, len(data), _BLOCK):  # in blocks, since a GPU may have more memory to spare than its host
            block = data.batch(np.arange(start, min(start + _BLOCK, len(data)))).to(device)
            self.image[start : start + len(block)] = block.image
            labels.append(block.label)
            rows.append(block.index)
        self.label, self.index = _joined(labels), _joined(rows)

    def __call__(self, chunks: Iterable[Positions]) -> Iterator[Batch]:
        """The batches at these positions."""
        for chunk in chunks:
            rows = torch.from_numpy(chunk)
            if self.image.is_cuda:
                rows = rows.pin_memory().to(self.image.device, non_blocking=True)
            label, index = (t if t is None else t[rows] for t in (self.label, self.index))
            yield Batch(image=_pick(self.image, rows), label=label, index=index)


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` on each item, in order, with the next few already under way in threads.

    Closing the iterator, dropping it or an exception, Ctrl-C included, drops what has not begun and ends the threads.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="kontrast-loader")
    try:
        pending: deque[Future[R]] = deque(pool.submit(work, item) for item in islice(rest, _AHEAD))
        while pending:
            done = pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def _pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU copies from by itself."""
    label, index = (t if t is None else t.pin_memory() for t in (batch.label, batch.index))
    return replace(batch, image=batch.image.pin_memory(), label=label, index=index)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """One tensor of all, or None where the data do not have that field."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _pick(image: Tensor, rows: Tensor) -> Tensor:
    """`image[rows]`; torch moves uint16 about but cannot index it on a GPU, so its bits pass as int16."""
    if image.dtype == torch.uint16:
        return image.view(torch.int16)[rows].view(torch.uint16)
    return image[rows]
