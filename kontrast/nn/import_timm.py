"""Import timm, and open_clip, also where torchvision's compiled extension does not match torch.

They need only the Python parts of torchvision, but importing it fails with "operator torchvision::nms does not
exist" wherever the extension was built for another torch: a common broken install, and the normal state beside a CPU
build of torch. The operators are then declared, without an implementation, and the import is tried once more.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

from kontrast.errors import InputError

_declared: list[torch.library.Library] = []  # declarations live as long as their library object


def import_timm() -> ModuleType:
    """The `timm` module."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        _declare_operators()
    import timm

    module: ModuleType = timm
    return module


def import_open_clip() -> ModuleType:
    """The `open_clip` module.

    Raises:
        InputError: It is not installed.
    """
    import_timm()
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            "open_clip:NAME needs open_clip, which is not installed: pip install 'kontrast[clip]'"
        ) from error
    module: ModuleType = open_clip
    return module


def _declare_operators() -> None:
    spec = find_spec("torchvision")
    assert spec is not None, "its import has just failed half-way"
    assert spec.origin is not None
    for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    _declared.append(library)
    for operator in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"\)', source))):
        library.define(f"{operator}() -> ()")  # type: ignore[no-untyped-call]
