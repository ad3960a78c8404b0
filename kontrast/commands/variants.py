"""The methods of a study, each with settings of its own: `simclr`, or `learned_views:mode=adversarial,policy=xray`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from kontrast.commands.assemble import named
from kontrast.errors import InputError
from kontrast.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method as one arm of a study trains it."""

    key: str
    """Names files and runs."""
    title: str
    """What the page calls it."""
    method: str
    config: Any
    """Its settings."""
    policy: str | None
    """Its augmentation; None for that of the study."""

    @property
    def reads_labels(self) -> bool:
        """Whether it is trained anew for each draw of labels."""
        return METHODS[self.method].reads_labels(self.config)


def variant(text: str, configs: Mapping[str, Any]) -> Variant:
    """What an entry of `--methods` means.

    Args:
        text: A method, and after a colon settings that differ: `NAME:KEY=VALUE,KEY=VALUE`; `policy` is one of them.
        configs: Settings of methods, by name; those not named have their defaults.

    Raises:
        InputError: There is no such method or setting, or a value is of the wrong kind.
    """
    name, _, rest = text.partition(":")
    method = METHODS[named(name, METHODS, "method")]
    if name == "supervised":
        raise InputError("supervised learning is always in a study, as its baseline; leave it out of --methods")
    config, policy = configs.get(name) or method.Config(), None
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"settings of one method are written {name}:KEY=VALUE,KEY=VALUE; got {text!r}")
        if key == "policy":
            policy = value
            continue
        named(key, (*(f.name for f in fields(config)), "policy"), f"setting of {name}")
        config = replace(config, **{key: _typed(key, value, getattr(config, key), text)})
    title = method.__name__ if not rest else f"{method.__name__} ({rest.replace(',', ', ')})"
    return Variant(key=re.sub(r"\W+", "_", text).strip("_"), title=title, method=name, config=config, policy=policy)


def _typed(key: str, value: str, default: Any, text: str) -> Any:
    """The value in the type of the setting's default."""
    try:
        return type(default)(value)
    except ValueError as error:
        raise InputError(
            f"{key} is a {type(default).__name__}, such as {default}; {text!r} has {value!r}, so change it"
        ) from error
