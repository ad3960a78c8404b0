"""From a command's options and its function to one keyword-only Python call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Options = TypeVar("Options")
Result = TypeVar("Result")


def keyword_call(options: Callable[P, Options], run: Callable[[Options], Result]) -> Callable[P, Result]:
    """A function that takes the fields of the options as keywords, with their types and defaults, and runs them."""
    several = {f.name for f in fields(options) if f.type == "tuple[Path, ...]"}  # type: ignore[arg-type]
    paths = {f.name for f in fields(options) if f.type in ("Path", "Path | None")}  # type: ignore[arg-type]

    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        for name, value in kwargs.items():
            if name in paths and isinstance(value, str):
                kwargs[name] = Path(value)
            if name in several:
                kwargs[name] = tuple(map(Path, [value] if isinstance(value, str | Path) else value))  # type: ignore[call-overload]
        return run(options(*args, **kwargs))

    call.__doc__ = f"{run.__doc__}\n\nEvery keyword is a field of `{getattr(options, '__qualname__', options)}`."
    call.__wrapped__ = options  # type: ignore[attr-defined]  # its signature is what `help()` shows
    return call
