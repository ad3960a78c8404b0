"""The methods of a study, each with settings of its own: `simclr`, or `learned_views:mode=adversarial,policy=xray`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from kontrast.commands.assemble import EncoderOptions, NormChoice, named
from kontrast.errors import InputError
from kontrast.methods import METHODS
from kontrast.nn.norms import Affine

CHOICES: dict[str, tuple[str, ...]] = {
    "policy": (), "init": ("none",), "norm": get_args(NormChoice), "norm_affine": get_args(Affine)
}  # fmt: skip
"""Settings of the whole study that an arm may have otherwise, and their values where these are few.

Of weights there is one kind a study, `--init`, so that what they give without a contrastive stage is a baseline.
"""


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
    shared: Mapping[str, str]
    """Those of `CHOICES` that it has otherwise than the study."""

    @property
    def policy(self) -> str | None:
        """Its augmentation; None for that of the study."""
        return self.shared.get("policy")

    @property
    def reads_labels(self) -> bool:
        """Whether it is trained anew for each draw of labels."""
        return METHODS[self.method].reads_labels(self.config)


def variant(text: str, configs: Mapping[str, Any]) -> Variant:
    """What an entry of `--methods` means.

    Args:
        text: A method, and after a colon settings that differ: `NAME:KEY=VALUE,KEY=VALUE`; those of `CHOICES` too.
        configs: Settings of methods, by name; those not named have their defaults.

    Raises:
        InputError: There is no such method or setting, or a value is of the wrong kind.
    """
    name, _, rest = text.partition(":")
    method = METHODS[named(name, METHODS, "method")]
    if name == "supervised":
        raise InputError("supervised learning is always in a study, as its baseline; leave it out of --methods")
    config, shared = configs.get(name) or method.Config(), {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"settings of one method are written {name}:KEY=VALUE,KEY=VALUE; got {text!r}")
        named(key, (*(f.name for f in fields(config)), *CHOICES), f"setting of {name}")
        if key in CHOICES:
            shared[key] = named(value, CHOICES[key], key) if CHOICES[key] else value
            continue
        config = replace(config, **{key: _typed(key, value, getattr(config, key), text)})
    title = method.__name__ if not rest else f"{method.__name__} ({rest.replace(',', ', ')})"
    return Variant(key=re.sub(r"\W+", "_", text).strip("_"), title=title, method=name, config=config, shared=shared)


def spelled_out(methods: Iterable[str], configs: Mapping[str, Any], options: EncoderOptions) -> tuple[str, ...]:
    """Entries of `--methods` as they are meant where the encoder of a study has batch norm of its own.

    A method that cannot have it gets the encoder without norms, and then SimCLR is trained both ways, so that what the
    norms give or take is not laid at the method's door. Arms with given weights or norms stay as they are.
    """
    found, twins = [], []
    for text in methods:
        one = variant(text, configs)
        chosen = encoder_options(options, one)
        is_free = (chosen.norm, chosen.init) == ("own", "none")
        found.append(_without_norm(text) if is_free and METHODS[one.method].refuses_batch_norm(one.config) else text)
        if is_free and one.method == "simclr":
            twins.append(_without_norm(text))
    if found == [*methods]:
        return tuple(found)
    meant: dict[tuple[str, str, str], str] = {}
    for text in found + twins:
        meant.setdefault(_meaning(variant(text, configs)), text)
    return tuple(meant.values())


def _meaning(one: Variant) -> tuple[str, str, str]:
    return one.method, repr(one.config), repr(sorted(one.shared.items()))


def _without_norm(text: str) -> str:
    name, _, rest = text.partition(":")
    return f"{name}:{rest and rest + ','}norm=none"


def encoder_options(options: EncoderOptions, chosen: Variant) -> EncoderOptions:
    """Those of the study as this arm has them."""
    return replace(options, **chosen.shared)  # type: ignore[arg-type]


def _typed(key: str, value: str, default: Any, text: str) -> Any:
    """The value in the type of the setting's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(default)(value)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{key} is a {type(default).__name__}, such as {default}; {text!r} has {value!r}, so change it"
        ) from error
