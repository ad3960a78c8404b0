"""Finding an image by its text and a text by its image, where an image has one text or several.

Recall at k is the share of queries that find a right answer among the first k (the standard of image-text retrieval:
Faghri et al., *VSE++*, BMVC 2018, section 4.1). Ties count against the model, so that one that maps all to a point
finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from kontrast.evaluate.intervals import Estimate
from kontrast.evaluate.metrics import Array
from kontrast.evaluate.shares import share

CUTOFFS = (1, 5, 10)
BLOCK = 2**23
"""Cosines held at a time: 64 MB of float64."""
TIE = 1e-12
"""Cosines no further apart than this are one: products of equal embeddings may differ in the last of 53 bits."""

RightAnswers = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""From rows of queries `(b,)` to which keys are right for them, `(b, keys)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Of each query the rank of its best right answer, from 1."""

    image_to_text: NDArray[np.int64]
    """`(n,)`, one an image: 1 + the texts of no right answer that are as near as its nearest own text, or nearer."""
    text_to_image: NDArray[np.int64]
    """`(m,)`, one a text: 1 + the other images that are as near as its own, or nearer."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Scores of one direction of search."""

    recall: dict[int, Estimate]
    """Share of queries whose rank is k or less, by k."""
    median_rank: float
    mean_rank: float
    num_queries: int
    num_candidates: int


def retrieval_ranks(
    image: Tensor,
    text: Tensor,
    image_of: Array,
    *,
    texts: Sequence[str] | None = None,
    merge_identical_text: bool = False,
) -> Ranks:
    """Rank all texts for each image and all images for each text, by cosine, exactly.

    Args:
        image: `(n, d)`, unique images, any length.
        text: `(m, d)`, their texts.
        image_of: `(m,)` integers, the row of `image` that each text belongs to; each image has one text or more.
        texts: The `m` texts themselves; only merging reads them.
        merge_identical_text: Whether equal texts share their images as right answers, and an image with such a text
            has all of them for its own.

    Returns:
        Ranks, whatever the block size. Memory is O((n + m) d): queries come in blocks.

    Raises:
        ValueError: Shapes do not fit, an image has no text, a value is not finite, or texts to merge are missing.
    """
    image_of = np.asarray(image_of)
    _check(image, text, image_of)
    if merge_identical_text and (texts is None or len(texts) != len(text)):
        raise ValueError(f"merging compares the {len(text)} texts; got {'none' if texts is None else len(texts)}")
    wording = _numbers(texts or ()) if merge_identical_text else np.arange(len(text))
    ones = np.ones(len(text), dtype=bool)
    has = sparse.csr_matrix((ones, (image_of, wording)), shape=(len(image), int(wording.max()) + 1), dtype=bool)
    image, text = (F.normalize(each.detach().double(), dim=1) for each in (image, text))
    had = has.T.tocsr()
    return Ranks(
        image_to_text=_ranks(image, text, lambda rows: has[rows].toarray()[:, wording]),
        text_to_image=_ranks(text, image, lambda rows: had[wording[rows]].toarray()),
    )


def retrieval(ranks: Ranks, image_of: Array, *, groups: Array | None = None, seed: int = 0) -> dict[str, Direction]:
    """Recall at 1, 5 and 10 with intervals, median and mean rank, as "image_to_text" and "text_to_image".

    Args:
        ranks: Those of `retrieval_ranks`.
        image_of: `(m,)` as there: texts of one image are resampled together.
        groups: `(n,)`, the patient of each image, resampled as a whole with all its texts.
        seed: Of the resamples.

    Raises:
        ValueError: Fewer than two images, or groups.
    """
    image_of = np.asarray(image_of)
    of_text = image_of if groups is None else np.asarray(groups)[image_of]
    return {
        "image_to_text": _direction(ranks.image_to_text, len(image_of), groups, seed),
        "text_to_image": _direction(ranks.text_to_image, len(ranks.image_to_text), of_text, seed),
    }


def _numbers(texts: Sequence[str]) -> NDArray[np.int64]:
    """The same number for equal texts."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)


def _direction(ranks: NDArray[np.int64], num_candidates: int, groups: Array | None, seed: int) -> Direction:
    return Direction(
        recall={k: share(ranks <= k, groups=groups, seed=seed) for k in CUTOFFS},
        median_rank=float(np.median(ranks)),
        mean_rank=float(ranks.mean()),
        num_queries=len(ranks),
        num_candidates=num_candidates,
    )


def _ranks(query: Tensor, key: Tensor, right_answers: RightAnswers) -> NDArray[np.int64]:
    """1 + the wrong keys that are as near as the nearest right one."""
    found = []
    for rows in np.array_split(np.arange(len(query)), -(-len(query) * len(key) // BLOCK)):
        is_right = torch.from_numpy(right_answers(rows)).to(key.device)
        cosine = query[torch.from_numpy(rows).to(key.device)] @ key.T
        best = cosine.masked_fill(~is_right, -torch.inf).amax(1, keepdim=True)
        found.append(1 + ((cosine >= best - TIE) & ~is_right).sum(1))
    ranks: NDArray[np.int64] = torch.cat(found).cpu().numpy()
    return ranks


def _check(image: Tensor, text: Tensor, image_of: Array) -> None:
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1] or len(image) == 0:
        raise ValueError(
            f"images are (n, d) and texts (m, d), n at least 1; got {tuple(image.shape)} and {tuple(text.shape)}"
        )
    if image_of.shape != (len(text),) or not np.array_equal(np.unique(image_of), np.arange(len(image))):
        raise ValueError(
            f"each text belongs to one of the {len(image)} images, and each image has a text; got {len(image_of)} "
            f"rows for {len(text)} texts, naming {len(np.unique(image_of))} images"
        )
    if not (image.isfinite().all() and text.isfinite().all()):
        raise ValueError("embeddings are finite; got NaN or infinity, so look at the towers that made them")
