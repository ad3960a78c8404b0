"""Weights from files: safetensors, npz and pth. Nothing is ever unpickled."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kontrast.errors import InputError
from kontrast.nn import bit, lite0

log = logging.getLogger("kontrast")

_PREFIXES = ("module.", "state_dict.", "encoder.net.", "encoder.", "backbone.", "net.", "model.")
_CLASSIFIERS = ("fc.", "classifier.", "head.", "head_dist.", "last_linear.")
_NAMED = 8
"""Names of tensors in one line of the log."""


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """What became of every tensor of a file, and of every tensor of the network that it was loaded into."""

    loaded: tuple[str, ...]
    """The network's names of those that it took from the file."""
    adapted: dict[str, str]
    """Of these, by name, those whose shape was changed to fit, and how."""
    missing: tuple[str, ...]
    """The network's names of those that keep what they had."""
    left_out: dict[str, str]
    """The file's names of those that are known and were not used, and why; without the prefixes of training code."""
    unexpected: tuple[str, ...]
    """The file's names of those that the network does not know, likewise."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation of images in 0..1 that belong to the weights, where their layout says so."""


def load_weights(net: nn.Module, path: Path) -> KeyReport | None:
    """Load what fits into a timm network, in place, and log how much that was and which keys it was not.

    A classifier in the file is left out. A first convolution for three channels is summed to one, or spread to more;
    under weight standardisation, as in BiT, its filters keep their form and lose their scale.

    Args:
        net: A timm network without classifier.
        path: A `.safetensors`, a `.pth`/`.pt` of plain tensors, a `.npz` as BiT's or ViT's authors write it, or a run's
            folder.

    Returns:
        What became of every key; None for ViT's `.npz`, which timm reads and does not say.

    Raises:
        InputError: No such file, another suffix, not weights, or nothing in it fits; of BiT, also anything amiss.
    """
    path = path / "encoder.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--init names a file of weights, 'none' or 'pretrained'; there is no file {path}")
    if path.suffix not in (*_READERS, ".npz"):
        raise InputError(f"weights are read from .safetensors, .npz, .pth or .pt; got {path.name}, so convert it first")
    if path.suffix == ".npz" and type(net).__name__ != "ResNetV2":
        _load_npz(net, path)
        return None
    report = _load_bit(net, path) if path.suffix == ".npz" else _load_state(net, _READERS[path.suffix](path), path)
    _log(report, path)
    return report


def _load_bit(net: nn.Module, path: Path) -> KeyReport:
    found, left_out = bit.read_bit(net, path)
    return _take(net, found, left_out=left_out, unexpected=(), statistics=(bit.MEAN, bit.STD))


def _load_state(net: nn.Module, found: dict[str, Tensor], path: Path) -> KeyReport:
    state = {_stripped(k): v for k, v in found.items()}
    statistics = None
    if lite0.is_lite(state):
        state, statistics = lite0.renamed(net, state), (lite0.MEAN, lite0.STD)
    own = net.state_dict()
    left_out = _left_out(net, state)
    fits = {k: v for k, v in state.items() if k in own and k not in left_out}
    if not any(k.endswith("weight") for k in fits):
        raise InputError(
            f"the weights must belong to the encoder's architecture; none of the {len(found)} tensors in {path.name} "
            f"fits (first key there {next(iter(found), 'none')!r}, here {next(iter(own))!r}), so name its --encoder"
        )
    unexpected = tuple(k for k in state if k not in own and k not in left_out)
    return _take(net, fits, left_out=left_out, unexpected=unexpected, statistics=statistics)


def _left_out(net: nn.Module, state: dict[str, Tensor]) -> dict[str, str]:
    """Which tensors of a file are not for this network although it may know their names, and why."""
    own = net.state_dict()
    reasons = {k: "classifier" for k in state if k not in own and k.startswith(_CLASSIFIERS)}
    reasons |= {
        k: "another shape" for k, v in state.items() if k in own and _fit_channels(v, own[k]).shape != own[k].shape
    }
    for name, layer in net.named_modules():
        has_run = f"{name}.running_mean" in state
        runs = isinstance(layer, _BatchNorm) and layer.track_running_stats
        if isinstance(layer, nn.GroupNorm | _BatchNorm) and has_run != runs:
            reasons |= {k: "of another norm" for k in (f"{name}.weight", f"{name}.bias") if k in state}
    return reasons


def _take(
    net: nn.Module,
    found: dict[str, Tensor],
    *,
    left_out: dict[str, str],
    unexpected: tuple[str, ...],
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> KeyReport:
    """Load tensors that fit by name, and by shape but for the channels of the first convolution."""
    own = net.state_dict()
    fitted = {k: _fit_channels(v, own[k]) for k, v in found.items()}
    net.load_state_dict(fitted, strict=False)
    return KeyReport(
        loaded=tuple(k for k in own if k in fitted),
        adapted={
            k: f"{tuple(found[k].shape)} to {tuple(v.shape)}" for k, v in fitted.items() if v.shape != found[k].shape
        },
        missing=tuple(k for k in own if k not in fitted),
        left_out=left_out,
        unexpected=unexpected,
        statistics=statistics,
    )


def _log(report: KeyReport, path: Path) -> None:
    """Counts in one line; names, up to a limit, of all that a user may not have meant."""
    log.info(
        "%s: %d tensors loaded, %d of them adapted in shape; %d missing, %d left out, %d unexpected",
        *(path.name, len(report.loaded), len(report.adapted)),
        *(len(report.missing), len(report.left_out), len(report.unexpected)),
    )
    named = {"missing and kept as they were": list(report.missing), "unexpected and not used": list(report.unexpected)}
    for name, reason in report.left_out.items():
        if reason != "classifier":
            named.setdefault(f"left out ({reason})", []).append(name)
    for what, names in named.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            log.warning("%s, tensors %s: %s%s", path.name, what, ", ".join(names[:_NAMED]), more)
    for name, how in report.adapted.items():
        log.info("%s: %s adapted from %s", path.name, name, how)


def _load_npz(net: Any, path: Path) -> None:
    if not hasattr(net, "load_pretrained"):
        raise InputError(
            f"timm reads .npz files of ViT, and Kontrast those of BiT; {type(net).__name__} needs a .safetensors"
        )
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path.name} is not a whole .npz file; fetch it again")
    try:
        net.load_pretrained(str(path))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, AssertionError, RuntimeError) as error:
        raise InputError(
            f"{path.name} does not hold this encoder's weights in the layout timm reads: {error}"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise InputError(f"{path.name} is not a whole safetensors file ({error}); fetch it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes torch's reader raises anything
        raise InputError(
            f"a .pth may hold plain tensors only, since anything else could run code; {path.name} holds more or is "
            "damaged, so save its state_dict alone"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        found = found.get(key, found) if isinstance(found, dict) else {}
    return {k: v for k, v in found.items() if isinstance(v, Tensor)}


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
}


def _stripped(key: str) -> str:
    """The key without the names that training code puts before a network."""
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _fit_channels(found: Tensor, own: Tensor) -> Tensor:
    """A first convolution for as many channels as ours has: summed to one, else repeated or cut at the same total."""
    if found.ndim != 4 or own.ndim != 4 or found.shape[2:] != own.shape[2:] or found.shape[1] != 3:
        return found
    if own.shape[1] == 1:
        return found.sum(dim=1, keepdim=True)
    if own.shape[1] != 3 and own.shape[0] == found.shape[0]:
        return found.repeat(1, -(-own.shape[1] // 3), 1, 1)[:, : own.shape[1]] * (3 / own.shape[1])
    return found
