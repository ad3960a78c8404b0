"""Policies as YAML files, with units: what a run leaves as `policy.yaml` and `--policy` reads."""

from __future__ import annotations

import difflib
import math
from numbers import Real
from pathlib import Path
from typing import Any

from kontrast.augment.operations import OPERATIONS, Constant, Operation, compose, constants, in_use
from kontrast.augment.policies import Policy
from kontrast.errors import InputError
from kontrast.files import whole_file

PADDINGS = ("zeros", "border", "reflection")
SUFFIXES = (".yaml", ".yml")


def write(policy: Policy, path: Path, *, channels: int = 3) -> None:
    """Write a plain policy; reading it again gives the same views bit for bit.

    Args:
        policy: What to write.
        path: Where.
        channels: Of the images that it is for; operations on colour are left out where these are not three.

    Raises:
        OSError: The file cannot be written; what was at `path` is still there.
    """
    lines = [
        "# An augmentation policy: operations that are not named do nothing. Use it with --policy, or change it.",
        f"size: {policy.size}  # pixels, side of the views; for others, what is in pixels is scaled",
        f"padding: {policy.geometry.padding}  # outside the image: {', '.join(PADDINGS)}",
    ]
    found = constants(policy)
    lines += [f"{name}: {_text(found[name])}  # {OPERATIONS[name].what}" for name in in_use(found, channels)]
    with whole_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path, *, size: int, channels: int) -> Policy:
    """Read a policy for views of `size` pixels of images of so many channels.

    Raises:
        InputError: There is no such file, it is no policy, an operation is unknown or does not fit the channels, or a
            strength is out of its bounds.
    """
    import yaml

    if not path.is_file():
        raise InputError(f"--policy names a policy or a YAML file of one; there is no file {path}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"a policy is YAML, one `operation: strength` a line; {path} is not: {error}") from error
    if not isinstance(found, dict):
        raise InputError(
            f"a policy is YAML, one `operation: strength` a line; {path} holds a {type(found).__name__} instead"
        )
    of_size, padding = found.pop("size", size), found.pop("padding", "zeros")
    if padding not in PADDINGS:
        raise InputError(f"padding is one of {', '.join(PADDINGS)}; {path} has {padding!r}, so change it")
    if not _is_number(of_size) or not 1 <= of_size < math.inf:
        raise InputError(f"size is the side of the views in pixels, 1 or more; {path} has {of_size!r}, so change it")
    values: dict[str, Constant] = {}
    for name, value in found.items():
        operation = _known(str(name), path)
        if operation.colour and channels != 3:
            raise InputError(
                f"{name} changes colour, so it needs images of three channels; these have {channels}: take it out of "
                f"{path}, or add --channels 3"
            )
        values[name] = _checked(name, operation, value, path)
        if operation.pixels and of_size != size:
            low, high = values[name]  # type: ignore[misc]
            values[name] = (low * size / of_size, high * size / of_size)
    return compose(size, padding, dict(values))


def _known(name: str, path: Path) -> Operation:
    if name in OPERATIONS:
        return OPERATIONS[name]
    near = difflib.get_close_matches(name, OPERATIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(OPERATIONS)}"
    raise InputError(f"a policy is made of known operations; {path} has {name!r}: {hint}")


def _checked(name: str, operation: Operation, value: Any, path: Path) -> Constant:
    """The constant of an operation, if it is one within its bounds."""
    value = [_number(end) for end in value] if isinstance(value, list) else _number(value)
    if operation.form in ("width", "probability"):
        if not _is_number(value) or not 0 <= value <= operation.limit:
            raise InputError(
                f"{name} ({operation.what}) is a number in 0..{operation.limit:g}; {path} has {value!r}, so change it"
            )
        return float(value)
    least, most = operation.ends()
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(end) for end in value):
        raise InputError(
            f"{name} ({operation.what}) is a pair within [{least:g}, {most:g}]; {path} has {value!r}, so change it"
        )
    low, high = (float(end) for end in value)
    if not least <= low <= high <= most or high == 0:
        raise InputError(
            f"{name} ({operation.what}) is a pair within {least:g}..{most:g}, the smaller first, the other above 0; "
            f"{path} has {value!r}, so change it"
        )
    return low, high


def _number(value: Any) -> Any:
    """What YAML takes for text although it is a number, such as 1e-5."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _text(constant: Constant) -> str:
    """As YAML reads it: a number with an exponent has a point, too."""
    if isinstance(constant, tuple):
        return f"[{', '.join(map(_text, constant))}]"
    digits, exponent, power = repr(float(constant)).partition("e")
    return digits + (".0" if exponent and "." not in digits else "") + exponent + power
