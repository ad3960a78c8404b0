"""Where a result came from: versions, machine, data."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kontrast.data import ImageSet
from kontrast.distributed import allowed_cores

PACKAGES = ("kontrast", "torch", "timm", "numpy", "scikit-learn", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that shape results, and the kind of machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), **dict(_installed()), "device": device}


def _installed() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # those of extras may be missing
            yield name, version(name)


def hardware() -> str:
    """The processor, how many of its cores, and the GPU if there is one."""
    device = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {allowed_cores()} cores, {platform.system()}{device}"


def provenance(data: ImageSet) -> dict[str, Any]:
    """What `run.json` holds: fingerprints of images and of labels and split, counts, and the versions."""
    return {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "images": len(data),
        "annotations": _annotations_fingerprint(data),
        "versions": versions(),
    }


def _annotations_fingerprint(data: ImageSet) -> str:
    """SHA-256 (hex) over which images of the whole set these are, and their classes, labels, groups and texts."""
    digest = hashlib.sha256("\0".join(data.classes).encode("utf-8", "surrogateescape"))
    for array in (data.rows, data.labels, data.groups):
        digest.update(b"none" if array is None else array.tobytes())
    for texts in data.texts or ():
        digest.update("\0".join([str(len(texts)), *texts, ""]).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _processor() -> str:
    """Its name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
