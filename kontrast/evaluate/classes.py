"""The names of classes and the sentences that they stand in, from a JSON file in which nothing is ever executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kontrast.errors import InputError

KEYS = {"classes", "templates", "superclasses", "absent"}
EXAMPLE = '{"classes": ["cat", "dog"], "templates": ["a photo of a {}."]}'


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What zero-shot classification asks images about."""

    names: tuple[str, ...]
    """In the order of the labels."""
    templates: tuple[str, ...] = ("{}",)
    """Sentences with `{}` where the name stands."""
    superclasses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """For each coarse class the numbers of its classes; empty, or every class is in one of them."""
    labels: tuple[str, ...] = ()
    """What tables of labels call the classes, where that is not their names."""
    absent: tuple[str, ...] = ("no {}",)
    """Templates that deny a class; they are asked of data whose images may belong to several classes or to none."""

    def prompts(self, number: int) -> list[str]:
        """Every template with the name of that class for `{}`, which is replaced as it stands."""
        return _filled(self.templates, self.names[number])

    def denials(self, number: int) -> list[str]:
        """Every template that denies that class."""
        return _filled(self.absent, self.names[number])

    def numbers(self, labels: Sequence[str], data: str) -> tuple[int, ...]:
        """Which class each label of a data set stands for: one of that name or number, in that order.

        Raises:
            InputError: There is no such class.
        """
        known = {name: number for number, name in enumerate(self.names)}
        known |= {name: number for number, name in enumerate(self.labels)}
        counted = {str(number): number for number in range(len(self.names))}
        chosen = known if set(labels) & set(known) else counted
        if missing := [label for label in labels if label not in chosen]:
            raise InputError(
                f"every label of the images is a class, by its name or number; {data} has {missing[0]!r}, and the "
                f"classes are {', '.join(self.labels or self.names)[:80]}: add it, or write classes as "
                '{"label": "words"}'
            )
        return tuple(chosen[label] for label in labels)


def read_classes(path: Path) -> Classes:
    """Read `{"classes": [...], "templates": [...], "superclasses": {"name": [numbers of classes]}, "absent": [...]}`.

    All but the classes may be missing. `{"classes": {"label": "words"}}` says what stands for each label.

    Raises:
        InputError: There is no such file, it is not JSON, or breaks one of those rules.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"classes are a JSON file such as {EXAMPLE}; {path} is none ({error}), so write one"
        ) from error
    if not isinstance(found, dict) or set(found) - KEYS or "classes" not in found:
        seen = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f"a file of classes has classes, and may have templates, superclasses and absent; {path} has "
            f"{seen or 'nothing'}, so write it like {EXAMPLE}"
        )
    given = found["classes"]
    words, labels = ([*given.values()], tuple(given)) if isinstance(given, dict) else (given, ())
    names = _sentences(words, path, "classes are names, each once")
    return Classes(
        names=names,
        labels=labels,
        templates=_templates(found.get("templates", ["{}"]), path),
        absent=_templates(found.get("absent", ["no {}"]), path),
        superclasses=_superclasses(found.get("superclasses", {}), len(names), path),
    )


def _filled(templates: Sequence[str], name: str) -> list[str]:
    return [template.replace("{}", name) for template in templates]


def _templates(found: Any, path: Path) -> tuple[str, ...]:
    templates = _sentences(found, path, "templates are sentences, each once")
    if without := [template for template in templates if "{}" not in template]:
        raise InputError(f"a template has {{}} where the class stands; {path} has {without[0]!r}, so put it in")
    return templates


def _sentences(found: Any, path: Path, rule: str) -> tuple[str, ...]:
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(one, str) and one.strip() and _is_unicode(one) for one in found)
    ):
        raise InputError(f"{rule}; {path} has {str(found)[:60]}, so write a list of texts that are not empty")
    if doubles := {one for one in found if found.count(one) > 1}:
        raise InputError(f"{rule}; {path} has {min(doubles)!r} twice, so take one out")
    return tuple(found)


def _is_unicode(text: str) -> bool:
    """Not so for half of a pair of surrogates, which JSON can write and no text can hold."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _superclasses(found: Any, num_classes: int, path: Path) -> dict[str, tuple[int, ...]]:
    numbers = [number for part in found.values() for number in _items(part)] if isinstance(found, dict) else None
    each_once = list(range(num_classes))
    if numbers is None or not all(type(number) is int for number in numbers) or sorted(numbers) not in ([], each_once):
        raise InputError(
            f"superclasses hold the numbers 0..{num_classes - 1} of the classes, each once; {path} has "
            f'{str(found)[:60]}, so write like {{"animals": [0, 1]}}'
        )
    return {name: tuple(part) for name, part in found.items()}


def _items(part: Any) -> list[Any]:
    return part if isinstance(part, list) and part else [None]
