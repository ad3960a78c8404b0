"""Weights from files: safetensors, npz and pth. Nothing is ever unpickled."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kontrast.errors import InputError

log = logging.getLogger("kontrast")

_PREFIXES = ("module.", "state_dict.", "encoder.net.", "encoder.", "backbone.", "net.", "model.")
_CLASSIFIERS = ("fc.", "classifier.", "head.", "head_dist.", "last_linear.")


def load_weights(net: nn.Module, path: Path) -> None:
    """Load what fits into a timm network, in place, and log which keys did not.

    A classifier in the file is left out. A first convolution for three channels is summed to one, or spread to more.

    Args:
        net: A timm network without classifier.
        path: A `.safetensors`, a `.pth`/`.pt` of plain tensors, a `.npz` in the layout timm reads, or a run's folder.

    Raises:
        InputError: No such file, another suffix, not weights, or nothing in it fits.
    """
    path = path / "encoder.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--init names a file of weights, 'none' or 'pretrained'; there is no file {path}")
    if path.suffix == ".npz":
        _load_npz(net, path)
        return
    if path.suffix not in _READERS:
        raise InputError(f"weights are read from .safetensors, .npz, .pth or .pt; got {path.name}, so convert it first")
    _load_state(net, _READERS[path.suffix](path), path)


def _load_state(net: nn.Module, found: dict[str, Tensor], path: Path) -> None:
    state = {_stripped(k): v for k, v in found.items()}
    own = net.state_dict()
    state = {k: _fit_channels(v, own[k]) if k in own else v for k, v in state.items()}
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if not any(k.endswith("weight") for k in fits):
        raise InputError(
            f"the weights must belong to the encoder's architecture; none of the {len(found)} tensors in {path.name} "
            f"fits (first key there {next(iter(found), 'none')!r}, here {next(iter(own))!r}), so name its --encoder"
        )
    net.load_state_dict(fits, strict=False)
    missing = [k for k in own if k not in fits]
    unexpected = [k for k in state if k not in fits and not k.startswith(_CLASSIFIERS)]
    log.info("loaded %d of %d tensors from %s", len(fits), len(own), path.name)
    for what, keys in (("kept at random", missing), ("not used", unexpected)):
        if keys:
            log.warning("%s, %d tensors %s: %s", path.name, len(keys), what, ", ".join(keys[:8]))


def _load_npz(net: Any, path: Path) -> None:
    if not hasattr(net, "load_pretrained"):
        raise InputError(f"timm reads .npz files for BiT and ViT only; {type(net).__name__} needs a .safetensors")
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
    """A first convolution for as many channels as ours has: summed to one, else repeated at the same total."""
    if found.ndim != 4 or own.ndim != 4 or found.shape[2:] != own.shape[2:] or found.shape[1] != 3:
        return found
    if own.shape[1] == 1:
        return found.sum(dim=1, keepdim=True)
    if own.shape[1] > 3 and own.shape[0] == found.shape[0]:
        return found.repeat(1, -(-own.shape[1] // 3), 1, 1)[:, : own.shape[1]] * (3 / own.shape[1])
    return found
