"""Where a result came from: versions, machine, data."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from kontrast.data import ImageSet

PACKAGES = ("kontrast", "torch", "timm", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that shape results, and the kind of machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}, "device": device}


def provenance(data: ImageSet) -> dict[str, Any]:
    """What `run.json` holds: the data's fingerprint and counts, and the versions."""
    return {"data": data.name, "fingerprint": data.fingerprint, "images": len(data), "versions": versions()}
