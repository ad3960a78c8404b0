"""What to type so that a command has its options again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from kontrast.commands.assemble import as_written


def flags(options: Any, *, without: Collection[str] = ()) -> list[str]:
    """The flags, with their values, of all options that are not at their defaults, in order.

    Args:
        options: Of a command.
        without: Names of options that stand elsewhere.
    """
    written = as_written(vars(options))
    typed = [f for f in fields(options) if f.name not in without and getattr(options, f.name) != f.default]
    return [word for field in typed for word in _flag(field.name.replace("_", "-"), written[field.name])]


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
