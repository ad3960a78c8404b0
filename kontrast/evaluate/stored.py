"""Features kept on disk, by what they were made from, so that no command computes them twice.

    <root>/features/<key>.npy       key: SHA-256 of the encoder's code, description and weights, and of the images

The folder is bounded; what was not read for the longest goes first. Deleting it, or a disk that is full or read-only,
costs nothing but the time to compute again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.data import ImageSet
from kontrast.data.cache import cache_root
from kontrast.evaluate.features import features
from kontrast.nn.encoders import Encoder

VERSION = 1
"""Raised whenever `features` answers otherwise for the same encoder and images."""
LARGEST = 4 * 2**30
"""Bytes that all files may take together."""


def stored_features(encoder: Encoder, data: ImageSet, *, cache: Path | None = None) -> NDArray[np.float32]:
    """Representations `(n, width)` as `features` makes them, read from the cache where they are in it.

    Args:
        encoder: Its weights are hashed each time.
        data: Images whose content is known by a fingerprint; others are computed and not kept.
        cache: In place of the user's cache folder.

    Raises:
        InputError: The images have another number of channels than the encoder reads.
    """
    if not data.fingerprint:
        return features(encoder, data)
    path = cache_root(cache) / "features" / f"{_key(encoder, data)}.npy"
    found = _read(path, (len(data), encoder.width))
    if found is None:
        found = features(encoder, data)
        _write(path, found)
    return found


def _key(encoder: Encoder, data: ImageSet) -> str:
    device = encoder.mean.device
    made_by = [VERSION, torch.__version__, version("timm"), device.type, str(encoder.mean.dtype), asdict(encoder.spec)]
    digest = hashlib.sha256(json.dumps([*made_by, data.fingerprint, data.names]).encode())
    digest.update(np.ascontiguousarray(data.rows).data)
    for name, weight in encoder.net.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The array, marked as just used; None where there is none, or not the whole of it."""
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    with contextlib.suppress(OSError):  # a cache that others own may still be read
        os.utime(path)
    return found if found.shape == shape and found.dtype == np.float32 else None


def _write(path: Path, found: NDArray[np.float32]) -> None:
    """Atomic; features that cannot be kept cost a second computation and nothing else."""
    if found.nbytes > LARGEST:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, found.nbytes)
        handle, name = tempfile.mkstemp(prefix=".unfinished-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, found, allow_pickle=False)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def _make_room(folder: Path, needed: int) -> None:
    """Removes what was not used for the longest, what killed processes left among it, until `needed` bytes fit in."""
    states = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda item: item[0].st_mtime)
    total = needed + sum(state.st_size for state, _ in states)
    for state, file in states:
        if total <= LARGEST:
            return
        file.unlink(missing_ok=True)
        total -= state.st_size
