"""Images that are arrays already: an `.npz` (MedMNIST's too), or a torch data set read once into memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations, class_codes, group_codes, part_names
from kontrast.data.decode import Layout, arrange, cannot_convert, largest_store, smaller_than_crop
from kontrast.errors import InputError

_MEDMNIST_PARTS = ("train", "val", "test")
_MOST_CHANNELS = 64
"""A longer side is taken for a height or width."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayListing:
    """Images in memory, of one shape."""

    name: str
    names: tuple[str, ...]
    pixels: NDArray[Any]
    """`(n, height, width, channels)` uint8, uint16 or float32 in 0..1."""
    annotations: Annotations


def list_npz(path: Path) -> ArrayListing:
    """Reads `images` [+ `labels`, `groups`], or MedMNIST's `train_images`, `train_labels`, `val_...`, `test_...`.

    Raises:
        InputError: Not an .npz of plain arrays, other keys, or images and labels that cannot be used.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"an .npz must hold plain arrays; {path} does not ({error}): save it with numpy.savez"
        ) from error
    if "images" in content:
        return _plain(path, content)
    parts = [part for part in _MEDMNIST_PARTS if f"{part}_images" in content]
    if parts:
        return _medmnist(path, content, parts)
    raise InputError(
        f"an .npz must hold `images`, or `train_images` and so on; {path} holds {', '.join(content) or 'nothing'}: "
        "rename the array of the images"
    )


def read_dataset(source: Iterable[Any], *, name: str) -> ArrayListing:
    """Reads image tensors, or pairs of an image tensor and a label, once into memory.

    Args:
        source: Yields `(height, width)` or `(channels, height, width)`, uint8, uint16 or float in 0..1, of one shape.
            A label is an integer (-1 for none), a text, or a vector of 0, 1 and NaN for multi-label data.
        name: What the data are called in messages and pages.

    Raises:
        InputError: Something else is yielded, shapes differ, or nothing is yielded.
    """
    images: list[NDArray[Any]] = []
    labels: list[Any] = []
    for item in _items(source):
        image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        images.append(_image(image, name, len(images)))
        labels.append(label)
    if not images:
        raise InputError(f"data must hold images; {name} yielded none: check the data set")
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise InputError(
            f"all images of a data set must have one shape; {name} has {shapes[0]} and {shapes[1]}: resize them"
        )
    pixels = _channels_last(np.stack(images), name, channels_first=True)
    known = None if all(label is None for label in labels) else _stack_labels(labels, name)
    annotations = _annotations(known, len(images), name)
    return ArrayListing(name=name, names=_numbered("image", len(images)), pixels=pixels, annotations=annotations)


def arranged(listing: ArrayListing, *, size: int | None, channels: int | None) -> NDArray[Any]:
    """The images as `(n, channels, store, store)`, by the same rules as images from files.

    Raises:
        InputError: The images are smaller than the crop.
    """
    _, height, width, own_channels = listing.pixels.shape
    longest = max(height, width)
    if size is not None and longest < size:
        raise smaller_than_crop(f"{listing.name} {height} x {width}", longest, size, count=len(listing.pixels))
    channels = channels or own_channels
    if channels != own_channels and {channels, own_channels} != {1, 3}:
        raise cannot_convert(listing.name, own_channels, channels)
    layout = Layout(store=min(longest, largest_store(size)), channels=channels, dtype=listing.pixels.dtype.name)
    if height == width == layout.store and own_channels == channels:
        return np.ascontiguousarray(listing.pixels.transpose(0, 3, 1, 2))
    result = np.empty((len(listing.pixels), channels, layout.store, layout.store), listing.pixels.dtype)
    for position, pixels in enumerate(listing.pixels):
        result[position] = arrange(pixels, layout)
    return result


def _plain(path: Path, content: Mapping[str, NDArray[Any]]) -> ArrayListing:
    pixels = _channels_last(content["images"], str(path))
    annotations = _annotations(content.get("labels"), len(pixels), str(path), groups=content.get("groups"))
    return ArrayListing(name=str(path), names=_numbered("image", len(pixels)), pixels=pixels, annotations=annotations)


def _medmnist(path: Path, content: Mapping[str, NDArray[Any]], parts: list[str]) -> ArrayListing:
    blocks = [_channels_last(content[f"{part}_images"], str(path)) for part in parts]
    if len({(block.shape[1:], block.dtype) for block in blocks}) > 1:
        found = ", ".join(f"{part} {block.shape[1:]} {block.dtype}" for part, block in zip(parts, blocks, strict=True))
        raise InputError(
            f"the parts of an .npz must have images of one shape and type; {path} has {found}: convert them"
        )
    labels = [content[f"{part}_labels"] for part in parts if f"{part}_labels" in content]
    if labels and len(labels) < len(parts):
        raise InputError(
            f"all parts of an .npz have labels or none; {path} has {', '.join(content)}: add or remove them"
        )
    for part, block in zip(parts, blocks, strict=True):
        if labels and len(content[f"{part}_labels"]) != len(block):
            raise _wrong_number(str(path), len(content[f"{part}_labels"]), len(block))
    names = tuple(name for part, block in zip(parts, blocks, strict=True) for name in _numbered(part, len(block)))
    of_each = [part for part, block in zip(parts, blocks, strict=True) for _ in range(len(block))]
    known = np.concatenate(labels) if labels else None
    annotations = _annotations(known, len(names), str(path), parts=part_names(of_each, origin=str(path)))
    return ArrayListing(name=str(path), names=names, pixels=np.concatenate(blocks), annotations=annotations)


def _channels_last(images: NDArray[Any], name: str, *, channels_first: bool = False) -> NDArray[Any]:
    """`(n, height, width, channels)` from that, from `(n, height, width)` or from `(n, channels, height, width)`."""
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and (channels_first or _is_channels_first(images.shape[1:])):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] > _MOST_CHANNELS or 0 in images.shape:
        raise InputError(
            f"images must have 1 to {_MOST_CHANNELS} channels: (n, h, w), (n, h, w, c) or (n, c, h, w); {name} has "
            f"{images.shape}: reshape them"
        )
    return _checked_range(images, name)


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the first of three sides is the channels: 1 or 3 decide, else the shorter of first and last."""
    first, _, last = shape
    if {first, last} & {1, 3}:
        return last not in (1, 3)
    return first < last


def _checked_range(images: NDArray[Any], name: str) -> NDArray[Any]:
    if images.dtype.name in ("uint8", "uint16"):
        return images
    if images.dtype.kind != "f":
        raise InputError(f"images must be uint8, uint16 or float in 0..1; {name} has {images.dtype}: convert them")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"floating-point images must lie in 0..1; {name} has {low:g} to {high:g}: divide by their range"
        )
    return images.astype(np.float32)


def _annotations(
    labels: NDArray[Any] | None,
    count: int,
    name: str,
    *,
    groups: NDArray[Any] | None = None,
    parts: NDArray[np.str_] | None = None,
) -> Annotations:
    for values in (labels, groups):
        if values is not None and len(values) != count:
            raise _wrong_number(name, len(values), count)
    codes, classes = (None, ()) if labels is None else _codes(labels, name)
    group, named = (None, ()) if groups is None else group_codes([str(value) for value in groups.reshape(count)])
    return Annotations(labels=codes, classes=classes, groups=group, group_names=named, parts=parts)


def _codes(labels: NDArray[Any], name: str) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        values = labels.astype(np.float64)
        if not np.isin(values[~np.isnan(values)], (0, 1)).all():
            raise InputError(f"multi-label values are 0, 1 or NaN for unknown; {name} has others: convert them")
        return values, tuple(str(column) for column in range(labels.shape[1]))
    flat = labels.reshape(len(labels))
    if flat.dtype.kind == "f":
        if not (np.isfinite(flat).all() and (flat == np.rint(flat)).all()):
            bad = int(np.flatnonzero(~np.isfinite(flat) | (flat != np.rint(flat)))[0])
            raise InputError(
                f"labels must be whole numbers or names; {name} has {flat[bad]} at image {bad}: use -1 for none"
            )
        flat = flat.astype(np.int64)
    if flat.dtype.kind == "b":
        flat = flat.astype(np.int64)
    return class_codes(["" if flat.dtype.kind in "iu" and value < 0 else str(value) for value in flat])


def _items(source: Any) -> Iterable[Any]:
    """In order of position where there is a length, since a data set of torch need not stop by itself."""
    return (source[position] for position in range(len(source))) if hasattr(source, "__len__") else iter(source)


def _image(image: Any, name: str, position: int) -> NDArray[Any]:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float() if image.dtype in (torch.bfloat16, torch.float16) else image.detach().cpu()
        image = image.numpy()
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise InputError(
            f"a data set must yield images as tensors (h, w) or (c, h, w), or pairs with a label; item {position} "
            f"of {name} is {type(image).__name__} {getattr(image, 'shape', '')}: "
            "add a transform such as torchvision's PILToTensor"
        )
    return image


def _stack_labels(labels: list[Any], name: str) -> NDArray[Any]:
    """Labels as one array; a label that is None is -1."""
    values = [np.asarray(-1 if label is None else label) for label in labels]
    if len({value.shape for value in values}) > 1 or values[0].ndim > 1:
        raise InputError(
            f"a label must be a number, a name, or a vector of one length; {name} mixes them: use one kind"
        )
    if len({value.dtype.kind in "US" for value in values}) > 1:
        return np.array(["" if label is None else str(label) for label in labels])
    return np.stack(values)


def _numbered(part: str, count: int) -> tuple[str, ...]:
    return tuple(f"{part}/{number}" for number in range(count))


def _wrong_number(name: str, labels: int, images: int) -> InputError:
    return InputError(
        f"every image has one label; {name} has {labels} labels or groups for {images} images: use -1 for none"
    )
