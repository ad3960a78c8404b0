"""What the encoder sees: a map of the test images, near images of a few, and the views of the augmentation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kontrast.augment.policies import Policy
from kontrast.data import ImageSet
from kontrast.data.images import SCALES
from kontrast.study.closeup import NO_LABEL, label_text
from kontrast.study.contents import Atlas, ClassCount, Compared, Gallery, Neighbour, Picture, Projection, Query, Samples
from kontrast.study.pictures import encoded, picture, sheet, shown, window

Floats = NDArray[np.float32]
MOST_POINTS = 1000
"""Thumbnails of an atlas."""
COLUMNS = 40
LARGEST_TILE = 40
"""Side of a thumbnail, in pixels: with a thousand of them the page stays below 5 MB."""
AROUND = 10
"""Neighbours by which the purity of an atlas is told."""
QUERIES, NEIGHBOURS = 6, 5
IMAGES, VIEWS = 6, 6
COMPARED_IMAGES, COMPARED_VIEWS = 4, 6
SHEETS = 4
"""Pictures of samples, each along the training."""
SIDE = 96
"""Of pictures beside each other, in pixels."""


def class_counts(train: ImageSet, test: ImageSet) -> tuple[ClassCount, ...]:
    """How many images each class has; of multi-label data, the positives."""
    return tuple(
        ClassCount(name=name, labelled=_count(train, code), test=_count(test, code))
        for code, name in enumerate(train.classes)
    )


def atlas(test: ImageSet, features: Floats, *, title: str) -> Atlas:
    """A map of at most a thousand test images, each class in proportion.

    Args:
        test: The test images.
        features: `(n, width)` representations of them.
        title: Whose they are.
    """
    chosen = stratified(test, MOST_POINTS)
    found = unit(features[chosen])
    part = test.take(chosen)
    tile = min(test.size, LARGEST_TILE)
    codes = np.full(len(part), -1) if part.labels is None or part.is_multilabel else part.labels
    return Atlas(
        title=title,
        note=f"{_shown_of(len(chosen), len(test))} {_purity(found, codes)}".strip(),
        projections=tuple(_projections(found)),
        classes=test.classes,
        codes=tuple(int(code) for code in codes),
        names=part.names,
        sheet=sheet(part, np.arange(len(part)), tile=tile, columns=COLUMNS),
        tile=tile,
        columns=COLUMNS,
    )


def queries(train: ImageSet, test: ImageSet, train_features: Floats, test_features: Floats) -> tuple[Query, ...]:
    """A few test images, of different classes first, and what lies nearest to each among all other images."""
    bank = np.concatenate([unit(train_features), unit(test_features)])
    found = []
    for position in _one_of_each(test, QUERIES):
        similarity = bank @ bank[len(train) + position]
        similarity[len(train) + position] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
        neighbours = tuple(_neighbour(train, test, int(at), float(similarity[at])) for at in nearest)
        found.append(Query(**_told(test, position), neighbours=neighbours))
    return tuple(found)


def gallery(train: ImageSet, policy: Policy, *, name: str, size: int) -> Gallery:
    """Views of a few training images, as training makes them."""
    chosen = _evenly(train, IMAGES)
    rows = zip(chosen, _views(train, chosen, policy, VIEWS), strict=True)
    return Gallery(
        note=f"Policy {name}; the encoder sees {size} × {size} pixels.",
        rows=tuple((picture(train, int(position), side=SIDE), *views) for position, views in rows),
        names=tuple(train.names[position] for position in chosen),
    )


def compared(train: ImageSet, before: Policy, after: Policy) -> tuple[Compared, ...]:
    """A few training images, and views of them under two policies of the same operations, from the same draws."""
    chosen = _evenly(train, COMPARED_IMAGES)
    both = (_views(train, chosen, policy, COMPARED_VIEWS) for policy in (before, after))
    return tuple(
        Compared(
            name=train.names[position], original=picture(train, int(position), side=SIDE), before=earlier, after=later
        )
        for position, earlier, later in zip(chosen, *both, strict=True)
    )


def samples(title: str, files: Mapping[int, Path], *, seed: int) -> Samples:
    """What an arm's model makes of images along the training, at most `SHEETS` times, from the first to the last.

    Args:
        title: Of the arm.
        files: Pictures by their epoch, at least one.
        seed: Of the run that they are from.
    """
    epochs = sorted(files)
    shown = dict.fromkeys(epochs[at] for at in np.linspace(0, len(epochs) - 1, SHEETS).round().astype(np.int64))
    return Samples(
        title=title,
        note=f"Seed {seed}, after so many epochs: the images of its replay buffer whose chains are the longest.",
        sheets=tuple((epoch, _sheet_of(files[epoch])) for epoch in shown),
    )


def _sheet_of(file: Path) -> Picture:
    with Image.open(file) as whole:
        return Picture(data=file.read_bytes(), media="image/png", width=whole.width, height=whole.height)


def stratified(data: ImageSet, most: int) -> NDArray[np.int64]:
    """At most so many positions, always the same ones, each class in proportion."""
    if len(data) <= most:
        return np.arange(len(data))
    order = np.random.default_rng(0).permutation(len(data))
    if data.labels is not None and not data.is_multilabel:
        order = order[np.argsort(data.labels[order], kind="stable")]
    return np.sort(order[np.linspace(0, len(data) - 1, most).round().astype(np.int64)])


def unit(features: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    found: Floats = features / np.maximum(length, 1e-12)
    return found


def _projections(features: Floats) -> Iterator[Projection]:
    yield _pca(features)
    if find_spec("umap") and len(features) > 3:
        yield _umap(features)


def _pca(features: Floats) -> Projection:
    """The two directions of greatest variance, each turned so that its largest entry is positive."""
    centred = features.astype(np.float64) - features.mean(0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2] * np.sign(directions[np.arange(2), np.abs(directions[:2]).argmax(1)])[:, None]
    kept = float((scale[:2] ** 2).sum() / max((scale**2).sum(), 1e-12))
    note = (
        f"Principal components of the representations at length 1; the plane keeps {100 * kept:.0f} % of the variance."
    )
    return _projection("PCA", note, centred @ directions.T)


def _umap(features: Floats) -> Projection:
    """McInnes, Healy & Melville, *UMAP*, arXiv:1802.03426, 2018."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at each call that a seed costs it its threads
        import umap

        places = umap.UMAP(metric="cosine", random_state=0, n_neighbors=min(15, len(features) - 1)).fit_transform(
            features
        )
    return _projection("UMAP", "UMAP keeps near images together; distances between groups mean little.", places)


def _projection(title: str, note: str, places: NDArray[Any]) -> Projection:
    low, high = places.min(0), places.max(0)
    x, y = ((places - low) / np.maximum(high - low, 1e-12)).T.tolist()
    return Projection(title=title, note=note, x=tuple(x), y=tuple(y))


def _shown_of(num_shown: int, num_images: int) -> str:
    if num_shown == num_images:
        return f"All {num_images:,} test images."
    return f"{num_shown:,} of {num_images:,} test images, each class in proportion."


def _purity(features: Floats, codes: NDArray[Any]) -> str:
    """How often near images share a class, beside how often any two do."""
    num_classes = len(np.unique(codes))
    if num_classes < 2 or (codes < 0).any() or len(features) <= AROUND:
        return ""
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    near = np.argpartition(-similarity, AROUND, axis=1)[:, :AROUND]
    pure = float((codes[near] == codes[:, None]).mean())
    counts = np.unique(codes, return_counts=True)[1]
    chance = float((counts * (counts - 1)).sum() / (len(codes) * (len(codes) - 1)))
    return (
        f"Of the {AROUND} nearest of each, {100 * pure:.0f} % share its class; of any, {100 * chance:.0f} %. "
        "Nearness is taken in all dimensions, not in the plane."
    )


def _one_of_each(test: ImageSet, most: int) -> list[int]:
    """Positions of test images, the first of a fixed order of each class; then further ones."""
    order = np.random.default_rng(0).permutation(len(test))
    if test.labels is None or test.is_multilabel:
        return [int(position) for position in order[:most]]
    first = [order[np.flatnonzero(test.labels[order] == code)[:1]] for code in range(len(test.classes))]
    ahead = np.concatenate(first)
    return [int(position) for position in np.concatenate([ahead, np.setdiff1d(order, ahead)])[:most]]


def _neighbour(train: ImageSet, test: ImageSet, at: int, similarity: float) -> Neighbour:
    part: Literal["train", "test"] = "train" if at < len(train) else "test"
    told = _told(train, at) if part == "train" else _told(test, at - len(train))
    return Neighbour(**told, part=part, similarity=similarity)


def _told(data: ImageSet, position: int) -> dict[str, Any]:
    label = None if data.labels is None else label_text(data.labels[position], data.classes)
    label = None if label == NO_LABEL else label
    return {"picture": picture(data, position, side=SIDE), "name": data.names[position], "label": label}


def _evenly(data: ImageSet, most: int) -> NDArray[np.int64]:
    """At most so many positions, from the first to the last."""
    return np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(np.int64)


def _views(train: ImageSet, chosen: NDArray[np.int64], policy: Policy, num_views: int) -> Iterator[tuple[Picture, ...]]:
    """For each chosen image its views under a policy, always the same ones."""
    stored = train.batch(chosen).image
    generator = torch.Generator().manual_seed(0)
    views = torch.stack([policy(stored, generator) for _ in range(num_views)], dim=1)
    for position, row in zip(chosen, views, strict=True):
        yield tuple(_of_views(row, train.pixels[train.rows[position]]))


def _of_views(views: torch.Tensor, original: NDArray[Any]) -> Iterator[Picture]:
    """`(v, c, h, w)` in 0..1 as pictures, stretched as that of their original is."""
    low, high = (bound / SCALES[original.dtype.name] for bound in window(original))
    stretched = ((views - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).byte()
    for view in stretched.numpy():
        yield encoded(shown(view, side=SIDE))


def _count(data: ImageSet, code: int) -> int:
    if data.labels is None:
        return 0
    return int(np.sum(data.labels == code if not data.is_multilabel else data.labels[:, code] == 1))
