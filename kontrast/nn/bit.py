"""The `.npz` files of BiT: Kolesnikov et al., *Big Transfer (BiT): General Visual Representation Learning*, ECCV 2020.

Such a file holds a pre-activation ResNet with weight-standardised convolutions and group norm. Kernels are (height,
width, in, out). Nothing is unpickled, and no array is read before its header says that it has the shape of the tensor
that it is for; so a file can declare what it likes, and never takes more memory than the network.
"""

from __future__ import annotations

import io
import math
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.files import whole_file

MEAN, STD = (0.5,), (0.5,)
"""Of the images that BiT learned from, in 0..1; every channel alike."""

_STEM = "resnet/root_block/standardized_conv2d/kernel"
_CLASSIFIER = {"resnet/head/conv2d/kernel": "head.fc.weight", "resnet/head/conv2d/bias": "head.fc.bias"}
_STEM_SIDES = {3, 7}
"""Of the stem's kernel, in pixels: the small stem's and BiT's own."""
_HEADER_BYTES = 4096
"""More than the header of a plain array takes: about 128."""


class _Header(NamedTuple):
    """What a `.npy` file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_bit(net: nn.Module, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file of BiT's by the network's names, and why which arrays were left out.

    The classifier is left out, and so are a stem's kernel of 7 × 7 px where the network has the small stem of 3 × 3 (or
    the reverse) and the scale and shift of group norm where the network has another norm, which would take them
    silently, since its parameters have the same names.

    Args:
        net: A timm ResNetV2 of BiT's architecture; its norms may be others.
        path: The `.npz` file.

    Returns:
        Convolutions `(out, in, height, width)`, scales and shifts, float32, the first for three channels or for the
        network's; and reasons by name of the array.

    Raises:
        InputError: Not a whole `.npz` of plain arrays, another architecture, or an array is missing, unexpected or of
            another shape.
    """
    places = _places(net)
    with _explained(path), zipfile.ZipFile(path) as archive:
        headers = _headers(archive, path)
        _check_names(places, headers, path)
        left_out = _left_out(places, headers, net)
        _check_shapes({name: place for name, place in places.items() if name not in left_out}, headers, net, path)
        tensors = {place: _tensor(archive, name) for name, place in places.items() if name not in left_out}
    return tensors, left_out


def write_bit(net: nn.Module, path: Path) -> None:
    """Write a network in the layout of BiT's files, its classifier too if it has one; atomically.

    The layout has no place for mean and deviation of the images: without an `encoder.json`'s content beside it, under
    the same name with `.json`, the file is read as one of BiT's own, at 0.5 and 0.5.

    Args:
        net: A timm ResNetV2 of BiT's architecture, with group norm.
        path: The `.npz` file.

    Raises:
        InputError: Another architecture, or another norm.
    """
    places, state = _places(net), net.state_dict()
    others = [place for name, place in places.items() if "/group_norm/" in name and not _is_group_norm(net, place)]
    if others:
        raise InputError(
            f"BiT's files hold group norm; {len(others)} scales and shifts of this network belong to "
            f"{_norm_of(net, others[0])}, so save it as .safetensors"
        )
    places |= {name: place for name, place in _CLASSIFIER.items() if place in state}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **{name: _array(state[place]) for name, place in places.items()})  # type: ignore[arg-type]


def _places(net: Any) -> dict[str, str]:
    """For every array of the layout but the classifier's, the name of its tensor in the network."""
    if type(net).__name__ != "ResNetV2":
        raise InputError(f"BiT's files are for timm's ResNetV2; got {type(net).__name__}, so use resnetv2_50x1_bit")
    places = {_STEM: "stem.conv.weight", **_affine("resnet", "norm")}
    for i, stage in enumerate(net.stages):
        for j, block in enumerate(stage.blocks):
            unit, ours = f"resnet/block{i + 1}/unit{j + 1:02d}", f"stages.{i}.blocks.{j}"
            for number, letter in enumerate("abc", start=1):
                places[f"{unit}/{letter}/standardized_conv2d/kernel"] = f"{ours}.conv{number}.weight"
                places |= _affine(f"{unit}/{letter}", f"{ours}.norm{number}")
            if block.downsample is not None:
                places[f"{unit}/a/proj/standardized_conv2d/kernel"] = f"{ours}.downsample.conv.weight"
    own = {name for name, _ in net.named_parameters() if not name.startswith("head.")}
    plain = [layer for layer in net.stages.modules() if isinstance(layer, nn.Conv2d) and not _is_standardised(layer)]
    if own != set(places.values()) or plain:
        raise InputError(
            "BiT's files are for pre-activation bottlenecks with one convolution as stem and weight standardisation; "
            "this ResNetV2 is built otherwise, so use one of the resnetv2_*_bit"
        )
    return places


def _affine(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}/group_norm/gamma": f"{ours}.weight", f"{theirs}/group_norm/beta": f"{ours}.bias"}


def _is_standardised(layer: nn.Module) -> bool:
    return type(layer).__name__ == "StdConv2d"


def _is_group_norm(net: nn.Module, place: str) -> bool:
    return isinstance(net.get_submodule(place.rpartition(".")[0]), nn.GroupNorm)


def _norm_of(net: nn.Module, place: str) -> str:
    return type(net.get_submodule(place.rpartition(".")[0])).__name__


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what damaged bytes make zipfile and numpy raise, which is anything, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = textwrap.shorten(str(error), 120) or type(error).__name__
        raise InputError(f"{path.name} is not a whole .npz file of plain arrays ({said}); fetch it again") from error


def _headers(archive: zipfile.ZipFile, path: Path) -> dict[str, _Header]:
    """The headers of all arrays by name; their content is not read."""
    headers: dict[str, _Header] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in headers:
            raise InputError(f"an .npz file holds an array once; {path.name} holds {name} twice, so fetch it again")
        headers[name] = _header(archive, info, path)
    return headers


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Header:
    """The header of one array, from as many bytes as a header may have.

    Raises:
        InputError: Python objects.
        ValueError: No array, or one of another length than its header says.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError(f"{info.filename} is compressed in a way that numpy does not write")
    with archive.open(info) as file:
        start = io.BytesIO(file.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise InputError(
            f"weights are plain arrays, since anything else could run code; {info.filename} of {path.name} "
            "holds Python objects, which are not read, so fetch the file from where it was published"
        )
    if start.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.filename} has not the length that its header says")
    return _Header(shape, dtype)


def _check_names(places: Mapping[str, str], headers: Mapping[str, _Header], path: Path) -> None:
    """Refuses arrays that no tensor of the network is for, and tensors of the network without an array."""
    strange = [name for name in headers if name not in places and name not in _CLASSIFIER]
    missing = [name for name in places if name not in headers]
    for what, names in (("lacks", missing), ("has besides", strange)):
        if names:
            raise InputError(
                f"a file of BiT's holds the arrays of its network and no others; {path.name} {what} {_some(names)}, "
                "so name the --encoder that it belongs to, or fetch it again"
            )


def _left_out(places: Mapping[str, str], headers: Mapping[str, _Header], net: nn.Module) -> dict[str, str]:
    """Which arrays of the file are not for this network, and why."""
    reasons = {name: "classifier" for name in headers if name in _CLASSIFIER}
    for name, place in places.items():
        if "/group_norm/" in name and not _is_group_norm(net, place):
            reasons[name] = f"group norm's, and the network has {_norm_of(net, place)}"
    theirs, ours = headers[_STEM].shape, _shape(net.state_dict()[places[_STEM]])
    if len(theirs) == 4 and {theirs[0], theirs[1], *ours[:2]} == _STEM_SIDES and theirs[3] == ours[3]:
        reasons[_STEM] = f"a stem of {theirs[0]} × {theirs[1]} px, and the network's has {ours[0]} × {ours[1]}"
    return reasons


def _check_shapes(places: Mapping[str, str], headers: Mapping[str, _Header], net: nn.Module, path: Path) -> None:
    """Refuses arrays of another shape than their tensors have, but for three channels in the stem, and of no floats."""
    state = net.state_dict()
    for name, place in places.items():
        shape, dtype = headers[name]
        expected = _shape(state[place])
        colour = (*expected[:2], 3, expected[-1]) if name == _STEM else expected
        if shape not in (expected, colour) or dtype.kind != "f":
            raise InputError(
                f"{name} of this encoder is {expected}, floating point; in {path.name} it is {shape}, {dtype}, so name "
                "the --encoder that the file belongs to, or fetch it again"
            )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor's array in the file."""
    shape = tuple(tensor.shape)
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape


def _tensor(archive: zipfile.ZipFile, name: str) -> Tensor:
    with archive.open(f"{name}.npy") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = tensor.detach().to("cpu", torch.float32)
    return np.ascontiguousarray((found.permute(2, 3, 1, 0) if found.ndim == 4 else found).numpy())


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
