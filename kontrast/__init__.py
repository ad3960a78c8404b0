"""Kontrast: from many unlabelled images and a few labels to the best encoder they allow, with the evidence.

Names are loaded when they are first used, so that `import kontrast` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import kontrast.evaluate
import kontrast.study  # noqa: F401  # both packages become callable below

_HOME = {
    "BYOL": "kontrast.methods",
    "Batch": "kontrast.batch",
    "CLIP": "kontrast.methods",
    "EBCLR": "kontrast.methods",
    "Fit": "kontrast.train",
    "InputError": "kontrast.errors",
    "LearnedViews": "kontrast.methods",
    "Loader": "kontrast.data",
    "MoCo": "kontrast.methods",
    "SimCLR": "kontrast.methods",
    "SimSiam": "kontrast.methods",
    "Supervised": "kontrast.methods",
    "check": "kontrast.commands.check",
    "compare": "kontrast.commands.compare",
    "embed": "kontrast.commands.embed",
    "encoder": "kontrast.nn.encoders",
    "export": "kontrast.commands.export",
    "features": "kontrast.evaluate.features",
    "finetune": "kontrast.commands.finetune",
    "fit": "kontrast.train",
    "linear_probe": "kontrast.evaluate.linear",
    "load": "kontrast.commands.load",
    "predict": "kontrast.commands.predict",
    "pretrain": "kontrast.commands.pretrain",
    "search": "kontrast.commands.search",
}

__all__ = [  # noqa: RUF022  # plain order, as a test holds
    "BYOL",
    "Batch",
    "CLIP",
    "EBCLR",
    "Fit",
    "InputError",
    "LearnedViews",
    "Loader",
    "MoCo",
    "SimCLR",
    "SimSiam",
    "Supervised",
    "check",
    "compare",
    "embed",
    "encoder",
    "evaluate",
    "export",
    "features",
    "finetune",
    "fit",
    "linear_probe",
    "load",
    "predict",
    "pretrain",
    "search",
    "study",
]


class _Verb(ModuleType):
    """A package that is a verb as well: `kontrast.study(data=..., out=...)` runs the command of that name."""

    def __call__(self, **options: Any) -> Any:
        verb = self.__name__.rpartition(".")[2]
        return getattr(import_module(f"kontrast.commands.{verb}"), verb)(**options)


for _package in ("kontrast.evaluate", "kontrast.study"):
    sys.modules[_package].__class__ = _Verb


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kontrast' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
