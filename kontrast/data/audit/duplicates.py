"""Which images are copies of each other: the same pixels, or the same picture encoded, scaled or shifted anew.

Candidates are the nearest by the low frequencies of their thumbnails, found by exact search in blocks; each candidate
is then verified by `likeness.unlike`. A pair counts as near-duplicates where almost nothing is left unexplained, or
where little is and far less than between the image and others like it: two handwritten ones may be as alike as two
encodings of one, but then there are many ones as near as that. Several copies of one picture count together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kontrast.data.audit.likeness import Floats, Looks, Positions, unlike
from kontrast.data.images import ImageSet, blocks
from kontrast.data.progress import progress

CERTAIN = 0.001
"""Unexplained share up to which two images are near-duplicates whatever else there is."""
POSSIBLE = 0.015
"""Unexplained share up to which they may be, if nothing else is nearly as near."""
STANDS_OUT = 0.125
"""Share of the unexplained of the next images that a pair stays below if it stands out."""
CANDIDATES = 8
TURNS = tuple((quarters, mirrored) for mirrored, quarters in product((False, True), range(4)))[1:]
"""Quarters of a circle, and whether mirrored before: all ways to turn an image other than none."""
_FREQUENCIES = 8
_PRODUCTS = 2**24
_COMPARED = 2**14
_GROUP = 64
_LEAST = 0.5
"""Cosine of two descriptions from which on the images are looked at more closely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of images, by their positions."""

    first: Positions
    second: Positions
    unlike: Floats
    """Unexplained share of each."""
    turned: NDArray[np.bool_]
    """Whether one is the other turned or mirrored."""

    def __len__(self) -> int:
        return len(self.first)


@dataclass(eq=False)
class _Found:
    """Pairs as they are collected."""

    first: list[Positions] = field(default_factory=list)
    second: list[Positions] = field(default_factory=list)
    unlike: list[Floats] = field(default_factory=list)
    turned: list[NDArray[np.bool_]] = field(default_factory=list)

    def pairs(self) -> Pairs:
        return Pairs(
            first=np.concatenate([np.zeros(0, np.int64), *self.first]),
            second=np.concatenate([np.zeros(0, np.int64), *self.second]),
            unlike=np.concatenate([np.zeros(0, np.float32), *self.unlike]),
            turned=np.concatenate([np.zeros(0, np.bool_), *self.turned]),
        )


def copies(*sets: ImageSet) -> Positions:
    """A code for each image of all sets in a row, `(n,)`: the same for the same pixels, of the same type and shape."""
    codes: dict[bytes, int] = {}
    found = [codes.setdefault(digest, len(codes)) for data in sets for digest in _digests(data)]
    return np.array(found, dtype=np.int64)


def near(looks: Looks, *, turned: bool = False, also: Positions | None = None) -> Pairs:
    """Pairs of near-duplicates among images.

    Args:
        looks: What they look like; copies of the same pixels should be there once.
        turned: Whether to find those that are turned by quarters of a circle, or mirrored, as well.
        also: `(n, k)` further candidates of each image, such as its neighbours by an encoder; -1 for none.

    Returns:
        Each pair once, with `first < second`, sorted by how unlike they are.
    """
    return _near(looks, looks, turned=turned, also=also, within=True)


def near_across(queries: Looks, bank: Looks, *, turned: bool = False) -> Pairs:
    """Pairs of near-duplicates with one image among the queries (`first`) and one in the bank (`second`)."""
    return _near(queries, bank, turned=turned, also=None, within=False)


def clusters(count: int, first: Positions, second: Positions) -> Positions:
    """A code for each of `count` images, `(count,)`: the same for all that pairs join, however many steps it takes."""
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _near(queries: Looks, bank: Looks, *, turned: bool, also: Positions | None, within: bool) -> Pairs:
    found = _Found()
    if not len(queries) or not len(bank) or (within and len(bank) < 2):
        return found.pairs()
    mean, spread = _statistics(bank)
    keys = _described(bank, mean, spread)
    for way in ((0, False), *(TURNS if turned else ())):
        shown = queries if way == (0, False) else queries.turned(*way)
        candidates = _candidates(_described(shown, mean, spread), keys, within=within)
        if also is not None:
            candidates = np.concatenate([candidates, also], axis=1)
        _verify(shown, bank, candidates, found, within=within, turned=way != (0, False))
    return _once(found.pairs(), within=within)


def _candidates(queries: Floats, keys: Floats, *, within: bool) -> Positions:
    """Rows of the nearest keys of each query, `(n, k)`, -1 where none is near."""
    found = []
    with progress("Searching for duplicates", total=len(queries)) as advance:
        for rows in _nearest(queries, keys, within=within):
            found.append(rows)
            advance(len(rows))
    return np.concatenate(found)


def _verify(queries: Looks, bank: Looks, candidates: Positions, found: _Found, *, within: bool, turned: bool) -> None:
    """Adds those candidates, `(n, k)` rows of the bank or -1, that are near-duplicates."""
    row, column = np.nonzero(candidates >= 0)
    first, second = row, candidates[row, column]
    left = np.ones(candidates.shape, np.float32)
    with progress("Comparing candidates", total=len(first)) as advance:
        for start in range(0, len(first), _COMPARED):
            part = slice(start, start + _COMPARED)
            left[row[part], column[part]] = unlike(queries.take(first[part]), bank.take(second[part]))
            advance(len(first[part]))
    most = _most(left)
    value = left[row, column]
    allowed = np.minimum(most[first], most[second]) if within and not turned else most[first]
    is_near = (value < CERTAIN) | ((value < POSSIBLE) & (value < allowed))
    found.first.append(first[is_near])
    found.second.append(second[is_near])
    found.unlike.append(value[is_near])
    found.turned.append(np.full(int(is_near.sum()), turned))


def _most(left: Floats) -> Floats:
    """The unexplained share `(n,)` below which candidates of an image stand out, from that of each, `(n, k)`.

    In the order of their shares, those stand out that lie before the last wide gap: copies of one picture are all near,
    and nothing else is nearly as near. The nearest also does that is far nearer than the third.
    """
    ordered = np.sort(left, axis=1)
    is_gap = (ordered[:, :-1] < POSSIBLE) & (ordered[:, :-1] < STANDS_OUT * ordered[:, 1:])
    beyond = np.where(is_gap, ordered[:, 1:], 0).max(axis=1, initial=0)
    third = ordered[:, :3].max(axis=1)
    return np.asarray(STANDS_OUT * np.maximum(beyond, third))


def _once(pairs: Pairs, *, within: bool) -> Pairs:
    """Each pair once, unturned if it may be; the most alike first."""
    first, second = pairs.first, pairs.second
    if within:
        first, second = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((pairs.unlike, pairs.turned, second, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), np.bool_)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    order, first, second = order[new], first[new], second[new]
    rank = np.argsort(pairs.unlike[order], kind="stable")
    order = order[rank]
    return Pairs(first=first[rank], second=second[rank], unlike=pairs.unlike[order], turned=pairs.turned[order])


def _statistics(looks: Looks) -> tuple[Floats, Floats]:
    """What to take off each low frequency and to divide it by, so that those in which the images differ count alike."""
    found = np.concatenate([_frequencies(looks.grey[rows]) for rows in _slices(len(looks))])
    if len(looks) <= 2 * CANDIDATES:  # around the mean of two images, they would be opposite
        return np.zeros_like(found[0]), np.ones_like(found[0])
    spread = found.std(axis=0)
    return found.mean(axis=0), spread + 0.05 * spread.max() + 1e-6


def _described(looks: Looks, mean: Floats, spread: Floats) -> Floats:
    """`(n, 63)` of length 1, to be compared by their products."""
    found = np.concatenate([(_frequencies(looks.grey[rows]) - mean) / spread for rows in _slices(len(looks))])
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9))


def _frequencies(grey: NDArray[np.float16]) -> Floats:
    """The 8 x 8 lowest of each thumbnail, less the mean: `(n, 63)`."""
    rows = dct(grey.astype(np.float32), axis=1, norm="ortho")[:, :_FREQUENCIES]
    both = dct(rows, axis=2, norm="ortho")[:, :, :_FREQUENCIES]
    return np.asarray(both.reshape(len(grey), -1)[:, 1:])


def _nearest(queries: Floats, keys: Floats, *, within: bool) -> Iterator[Positions]:
    """Rows of the nearest keys of some queries at a time, `(m, k)`, or -1 where they are not near; itself left out."""
    step = max(1, min(1024, _PRODUCTS // len(keys)))
    for start in range(0, len(queries), step):
        products = queries[start : start + step] @ keys.T
        if within:
            products[np.arange(len(products)), start + np.arange(len(products))] = -2
        yield _largest(products)


def _largest(products: Floats) -> Positions:
    """Columns of the largest of each row that are at least `_LEAST`, else -1: `(m, k)`.

    The k largest lie in those k groups of columns that have the largest maxima, which spares sorting the others.
    """
    count = products.shape[1]
    num_groups, kept = count // _GROUP, min(CANDIDATES, count)
    rows = np.arange(len(products))[:, None]
    columns = np.broadcast_to(np.arange(count), products.shape)
    if num_groups > 2 * CANDIDATES:
        rest = np.arange(num_groups * _GROUP, count)
        maxima = products[:, : num_groups * _GROUP].reshape(len(products), _GROUP, num_groups).max(axis=1)
        groups = np.argpartition(-maxima, kept - 1, axis=1)[:, :kept]
        members = (np.arange(_GROUP)[:, None] * num_groups + groups[:, None, :]).reshape(len(products), -1)
        columns = np.concatenate([members, np.broadcast_to(rest, (len(products), len(rest)))], axis=1)
    values = products[rows, columns]
    best = np.argpartition(-values, kept - 1, axis=1)[:, :kept]
    return np.where(values[rows, best] >= _LEAST, columns[rows, best], -1)


def _digests(data: ImageSet) -> Iterator[bytes]:
    kind = f"{data.pixels.dtype.name} {data.pixels.shape[1:]}".encode()
    for block in blocks(data.pixels, data.rows):
        for image in block:
            yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=kind[:64]).digest()


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + 4096) for start in range(0, count, 4096))
