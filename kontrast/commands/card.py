"""Model cards: Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019, as Markdown beside the weights.

A card says what is known from the run's own files and no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from kontrast.commands.loading import classifier_lines
from kontrast.commands.markdown import fenced, inline, table
from kontrast.commands.provenance import versions
from kontrast.data.reading import Reading
from kontrast.evaluate.metrics import METRICS
from kontrast.nn.classifier import ClassifierSpec, load_classifier
from kontrast.nn.encoders import EncoderSpec

CARD = "MODEL_CARD.md"
MOST_CLASSES = 30
"""Classes that are named."""
_PROTOCOLS = ("test", "finetune", "linear", "focal", "knn")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about."""

    encoder: EncoderSpec
    width: int
    """Of the representation."""
    classifier: ClassifierSpec | None = None
    """None where the weights are an encoder's alone."""
    run: Path
    """Folder of the run, or a file of weights."""
    loading: Sequence[str]
    """Lines of Python that load the weights."""


def folder_card(run: Path) -> str:
    """The card of a folder of `kontrast finetune classification`."""
    found = load_classifier(run)
    return model_card(
        Subject(
            encoder=found.encoder.spec,
            width=found.encoder.width,
            classifier=found.spec,
            run=run,
            loading=classifier_lines(found),
        )
    )


def model_card(subject: Subject) -> str:
    """The card, as Markdown.

    Args:
        subject: Its `run` is looked into for `config.yaml`, `run.json` and `evaluations/*.json`; what is missing is
            said to be unknown. Scores are those of the finished run, so a snapshot of it has none.
    """
    known = _Known(subject.run)
    sections = {
        "What it is": _what(subject),
        "How it was made": _made(subject, known),
        "Scores": _scores(subject, known),
        "Calibration": _calibration(subject, known),
        "Limits": [f"- {line}" for line in _limits(subject, known)],
        "How to load it": fenced(subject.loading),
        "Versions": _versions(known),
    }
    kind = "classifier" if subject.classifier else "encoder"
    parts = [f"# Model card: {kind} {inline(subject.encoder.name)}"]
    parts += ["\n".join([f"## {title}", "", *lines]) for title, lines in sections.items() if lines]
    return "\n\n".join(parts) + "\n"


_READING = tuple(field.name for field in fields(Reading))
"""Settings of how medical formats become images; who uses the weights must show them images in the same way."""


class _Known:
    """What a run's folder says of itself; empty where it says nothing."""

    def __init__(self, run: Path) -> None:
        snapshot = run.parent.name == "encoders" and run.is_file()
        self.epoch = run.stem.removeprefix("epoch_").lstrip("0") if snapshot else ""
        folder = run.parent.parent if snapshot else run
        self.settings = _read(folder / "config.yaml")
        self.run = _read(folder / "run.json")
        self.is_tuned = self.settings.get("method") == "classification"
        before = _dict(self.run.get("pretraining"))
        self.pretraining = _dict(before.get("settings")) if self.is_tuned else self.settings
        self.pretrained_on = before if self.is_tuned else self.run
        names = () if snapshot else _PROTOCOLS
        found = {name: _read(folder / "evaluations" / f"{name}.json") for name in names}
        self.evaluations = {name: content for name, content in found.items() if content}


def _what(subject: Subject) -> list[str]:
    spec = subject.encoder
    image = f"images of {spec.size} × {spec.size} px, {spec.channels} channel{'s' * (spec.channels > 1)}"
    what = f"An encoder ({inline(spec.name)}, {spec.stem} stem) from {image}, to {subject.width} numbers each."
    if subject.classifier is None:
        return [what]
    how = "any number of" if subject.classifier.multilabel else "one of"
    names = [inline(name) for name in subject.classifier.classes]
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    shown = f"{', '.join(names[:MOST_CLASSES])}{more}"
    return [f"{what} On it a linear classifier that gives an image {how} {len(names)} classes: {shown}."]


def _made(subject: Subject, known: _Known) -> list[str]:
    if not known.settings:
        return ["Not known: the run that these weights came from is not beside them."]
    spec, before = subject.encoder, known.pretraining
    rows = [
        ("Pre-training", _said(before, "method")),
        ("Weights it began from", _of_file(before.get("init"))),
        ("Images", _of_data(known.pretrained_on, before)),
        ("Fingerprint of images", inline(known.pretrained_on.get("fingerprint", "not known"))),
        ("Epochs, batch size, seed", _said(before, "epochs", "batch_size", "seed")),
        ("Augmentation", _said(before, "policy")),
    ]
    reading = {name: before.get(name) for name in _READING if before.get(name)}
    if reading:
        rows.append(("Images were read with", ", ".join(f"{name} {inline(value)}" for name, value in reading.items())))
    rows += _tuned_rows(known) if known.is_tuned else []
    rows.append(("Normalisation", f"mean {_numbers(spec.mean)}, deviation {_numbers(spec.std)}, of images in 0..1"))
    rows.append(
        ("Which epoch", f"snapshot after epoch {inline(known.epoch)}" if known.epoch else "the last; none was chosen")
    )
    return table(("", "Value"), rows)


def _tuned_rows(known: _Known) -> list[tuple[str, str]]:
    run, counts = known.run, known.run.get("labels_per_class")
    counts = counts if isinstance(counts, list) and len(counts) <= MOST_CLASSES else []
    classes = f"; per class {', '.join(map(_count, counts))}" if counts else ""
    return [
        ("Labelled images it learned from", f"{_of_data(run, known.settings)}{classes}"),
        ("Test images", f"{_count(run.get('test_images'))}; split: {inline(run.get('split', 'not known'))}"),
        ("Groups (patients, lesions, volumes)", _count(run.get("groups")) if run.get("groups") else "none were given"),
        ("Fine-tuning: epochs, batch size, seed", _said(known.settings, "epochs", "batch_size", "seed")),
        *([("Settings", "by BiT's rule")] if known.settings.get("rule") == "bit" else []),
    ]


def _scores(subject: Subject, known: _Known) -> list[str]:
    rows = [row for name, content in known.evaluations.items() for row in _score_rows(subject, name, content)]
    if not rows:
        return ["Nothing was measured: no score of these weights is known, so measure before you rely on them."]
    shown = table(("Classifier", "Labels", "Draws", *(name.replace("_", " ") for name in METRICS)), rows)
    draws = [_whole(row.get("draws")) for name, content in known.evaluations.items() for row in _rows(name, content)]
    also = " and, in rows of several draws, over these" if max(draws) > 1 else ""
    return [*shown, "", f"With 95 % intervals over test images (whole groups where there are groups){also}."]


def _rows(name: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    """One for the test of a classifier; for a protocol, one for each number of labels."""
    rows = content.get("rows") if name != "test" else [{**content, "draws": 1}]
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _score_rows(subject: Subject, name: str, content: dict[str, Any]) -> list[tuple[str, ...]]:
    tested = "this classifier" if subject.classifier else "the classifier trained with this encoder"
    title = tested if name == "test" else f"{name} on the encoder"
    return [
        (title, _count(row.get("labels")), _count(row.get("draws")), *_estimates(_dict(row.get("scores"))))
        for row in _rows(name, content)
    ]


def _calibration(subject: Subject, known: _Known) -> list[str]:
    if subject.classifier is None:
        return []
    found = _dict(known.evaluations.get("test", {}).get("calibration"))
    said = inline(subject.classifier.calibration, longest=300)
    lines = [f"Temperature {subject.classifier.temperature:.3g}. {said}"]
    if found:
        lines.append(
            f"Expected calibration error on the test images: {_percent(found.get('ece_after'))}, and "
            f"{_percent(found.get('ece_before'))} without the temperature (15 bins; with few test images it comes out "
            "too high)."
        )
    rows = known.evaluations.get("test", {}).get("risk_coverage")
    rows = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
    answers = [
        (_number(r.get("abstain_below")), _percent(r.get("answered")), _estimate(r.get("accuracy"))) for r in rows
    ]
    return [*lines, "", *table(("Abstain below", "Answered", "Accuracy of the answers"), answers)] if rows else lines


def _limits(subject: Subject, known: _Known) -> list[str]:
    lines = ["Not validated for clinical use; not a medical device."]
    if known.evaluations:
        lines += [_of_the_test(known)]
        lines += ["One encoder, trained once: intervals do not say how another training would have ended."]
    if subject.classifier:
        lines += [_of_other_images(subject.classifier)]
    if known.is_tuned and not known.run.get("groups"):
        lines += [
            "No groups were given. If one patient has several images, some may have trained and others tested, "
            "and scores are then too high."
        ]
    seen = max((_whole(c.get("test_images_seen_in_pretraining")) for c in known.evaluations.values()), default=0)
    if seen:
        lines += [
            f"Leak: {seen:,} of the test images were among those of pre-training, without labels; scores may be "
            "too high."
        ]
    shared = max((_whole(c.get("test_images_sharing_a_group")) for c in known.evaluations.values()), default=0)
    if shared:
        lines += [
            f"Leak: the split is by image, and {shared:,} of the test images share a group with training images, so "
            "scores are too high."
        ]
    if any(str(settings.get("data")).startswith("sample:") for settings in (known.settings, known.pretraining)):
        lines += ["Sample data were used, which are there to try things out: these scores say nothing of other images."]
    return lines


def _of_other_images(classifier: ClassifierSpec) -> str:
    if classifier.multilabel:
        return (
            "It knows its classes only. Of what is none of them it says nothing, and an image of another kind gets an "
            "answer for each class too, sometimes a sure one."
        )
    return "It always chooses among its classes. An image of none of them gets an answer too, sometimes a sure one."


def _of_the_test(known: _Known) -> str:
    if known.run.get("split") == "the data's own":
        return (
            "Test images are those of the data's own split; scanners, sites and populations beyond it were not tested."
        )
    return (
        "Test images are from the same source as training images. Other scanners, sites and populations were not "
        "tested, and scores there are usually lower."
    )


def _versions(known: _Known) -> list[str]:
    trained_with = _dict(known.run.get("versions"))
    rows = [
        (inline(name), inline(trained_with.get(name, "not known")), inline(now)) for name, now in versions().items()
    ]
    return table(("", "Trained with", "Card written with"), rows)


def _read(file: Path) -> dict[str, Any]:
    """A file of JSON or YAML; empty where there is none, or something else in it."""
    try:
        text = file.read_text(encoding="utf-8")
        return _dict(json.loads(text) if file.suffix == ".json" else yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _of_data(run: dict[str, Any], settings: dict[str, Any]) -> str:
    """How many images of what; of a path only the end, since the rest is about somebody's machine."""
    name = str(run.get("data", settings.get("data", "not known")))
    count = f"{_count(run.get('images'))} images of " if "images" in run else ""
    return count + (inline(name) if name.startswith("sample:") else _of_file(name))


def _of_file(value: object) -> str:
    return inline(re.split(r"[/\\]", str(value).rstrip("/\\"))[-1])


def _said(settings: dict[str, Any], *names: str) -> str:
    return ", ".join(inline(settings.get(name, "not known")) for name in names)


def _estimates(scores: dict[str, Any]) -> Iterable[str]:
    return (_estimate(scores.get(name)) for name in METRICS)


def _estimate(value: object) -> str:
    found = (_dict(value).get(name) for name in ("value", "low", "high"))
    numbers = [100 * number for number in found if isinstance(number, float | int)]
    if len(numbers) < 3:
        return "–"
    score, low, high = numbers
    return f"{score:.1f} % [{low:.1f}, {high:.1f}]" if score == score else "undefined"


def _percent(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "not known"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "–"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "not known"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
