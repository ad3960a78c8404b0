"""`kontrast evaluate zeroshot | retrieval | consistency RUN`: what two towers make of images that they never saw.

All three ask the test part of the run's own data, or of `--data`, of which nothing is learned here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from kontrast import measures
from kontrast.commands.assemble import require_labels, require_texts, write_json
from kontrast.commands.provenance import provenance
from kontrast.commands.run import OpenRun, RunOptions, open_run
from kontrast.commands.texts import warn_of_cut
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.classes import Classes, read_classes
from kontrast.evaluate.consistency import consistency
from kontrast.evaluate.corruptions import Corruption, CorruptionName
from kontrast.evaluate.embeddings import image_embeddings, text_embeddings
from kontrast.evaluate.intervals import Estimate, estimate
from kontrast.evaluate.retrieval import Direction, retrieval, retrieval_ranks
from kontrast.evaluate.shares import share
from kontrast.evaluate.zeroshot import (
    absence_embeddings,
    class_embeddings,
    coarse,
    cosines,
    fine,
    in_top,
    zero_shot,
    zero_shot_findings,
)
from kontrast.nn.towers import Towers, load_towers
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")

TEXTS = "texts"
"""The value of `--classes` by which each image's first text is its class."""
TOP = (1, 3, 5, 10)
NEIGHBOURS = (1, 3, 5, 10)


@dataclass(frozen=True, kw_only=True)
class MatchingOptions:
    """What evaluation by texts asks; nothing else reads these."""

    classes: str | None = None
    """For zeroshot and consistency: a JSON file such as {"classes": ["cat", "dog"], "templates": ["a photo of a {}."]};
    `texts`, by which the first text of each image names its class; by default the names of the labels as they are."""
    merge_texts: bool = False
    """For retrieval: let images of equal texts stand for each other, as reports of normal findings do."""
    corrupt: CorruptionName | None = None
    """For zeroshot, retrieval and consistency: change test images first, as worse devices would."""


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """A run's towers, and the images they are asked about."""

    opened: OpenRun
    towers: Towers
    image: Tensor
    """`(n, d)`, embeddings of the test images."""

    @property
    def test(self) -> ImageSet:
        return self.opened.test

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Each different text once, so that equal texts are equal to the last bit."""
        warn_of_cut(self.towers.text, texts, "texts")
        different = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        return text_embeddings(self.towers, tuple(different))[[different[text] for text in texts]]


@dataclass(frozen=True, kw_only=True)
class _Question:
    """Classes, and which of them each test image belongs to."""

    classes: Classes
    label: NDArray[Any]
    """`(n,)` integers, or `(n, classes)` in {0, 1, NaN}."""


def score_matching(protocol: str, options: RunOptions, asked: MatchingOptions, device: str) -> dict[str, Any]:
    """Ask a run's towers about test images; the answer is written to `RUN/evaluations`, as `_file_name` has it.

    Args:
        protocol: A name in `MATCHING`.
        options: The run, and images other than its own.
        asked: How.
        device: As in `choose_device`.

    Returns:
        What was written; scores are `Estimate`.

    Raises:
        InputError: The run left no towers, its data lack the labels or texts, or are too few; or no such classes.
    """
    _check_flags(protocol, asked)
    towers = load_towers(options.run).to(choose_device(device))
    by_text = protocol == "retrieval" or asked.classes == TEXTS
    instead = "ask by the texts of the images, --classes texts" if protocol == "zeroshot" else ""
    opened = open_run(options, protocol, by="texts" if by_text else "labels", instead=instead)
    change = None if asked.corrupt is None else Corruption(asked.corrupt)
    matched = _Matched(opened=opened, towers=towers, image=image_embeddings(towers, opened.test, change=change))
    scores = MATCHING[protocol](matched, asked)
    console = Console(stderr=True, highlight=False)
    if "chance" in scores:
        console.print(f"{protocol}: {scores['classes']:,} classes, so chance is {100 * scores['chance']:.2g} %")
    for name, value in _estimates(scores):
        console.print(f"{protocol}, {name}: {value}")
    found = {"protocol": protocol, "settings": vars(options), **scores, "test_images": len(opened.test)}
    found |= {"test_images_seen_in_pretraining": opened.num_seen, **provenance(opened.train)}
    path = options.run / "evaluations" / f"{_file_name(protocol, options, asked)}.json"
    write_json(path, found)
    log.info("all scores are in %s", path)
    return found


def _check_flags(protocol: str, asked: MatchingOptions) -> None:
    """Refuse a flag that the protocol does not read, since an answer to another question would look like one to it."""
    if protocol == "retrieval" and asked.classes is not None:
        raise InputError(f"retrieval asks by texts and knows no classes; --classes is {asked.classes}, so leave it out")
    if protocol != "retrieval" and asked.merge_texts:
        raise InputError(f"only retrieval merges texts; got --merge-texts for {protocol}, so leave it out")


def _zeroshot(matched: _Matched, asked: MatchingOptions) -> dict[str, Any]:
    """Accuracy of the nearest class; of findings that may be present together, AUROC of presence against absence."""
    question = _question(matched.test, asked)
    text, groups = class_embeddings(question.classes, matched.encode_text), matched.test.groups
    temperature = matched.towers.temperature.item()
    about = {"classes": len(question.classes.names), "chance": 1 / len(question.classes.names)}
    if question.label.ndim == 2:
        absent = absence_embeddings(question.classes, matched.encode_text)
        answers = zero_shot_findings(matched.image, text, absent, temperature=temperature)
        known = ~np.isnan(question.label).all(axis=0)  # a finding that nobody labelled has no score
        scored = estimate(question.label[:, known], answers[:, known][None, None], "auroc", groups=groups)
        return {"classes": int(known.sum()), "chance": 0.5, "auroc": scored}
    label, score = torch.from_numpy(question.label), cosines(matched.image, text)
    found = {f"top_{k}": share(in_top(score, label, k), groups=groups) for k in TOP if k < len(text)}
    if asked.classes != TEXTS:  # by its own text a class is hardly more than an image, and has no variance to speak of
        answers = zero_shot(matched.image, text, temperature=temperature)
        found["balanced_accuracy"] = estimate(question.label, answers[None, None], "balanced_accuracy", groups=groups)
    if coarser := question.classes.superclasses:
        found["fine"] = share(fine(score, label, coarser), groups=groups)
        found["coarse"] = share(coarse(score, label, coarser), groups=groups)
    space = {
        "label_alignment": measures.label_alignment(matched.image, text, label).item(),
        "label_uniformity": measures.label_uniformity(matched.image, text, label).item(),
    }
    return {**about, **found, **space}


def _retrieval(matched: _Matched, asked: MatchingOptions) -> dict[str, Any]:
    """Recall of an image's texts and of a text's image among all test images, and how the space is shaped."""
    assert matched.test.texts is not None, "open_run refuses data without texts"
    texts = [text for known in matched.test.texts for text in known]
    image_of = np.repeat(np.arange(len(matched.test)), [len(known) for known in matched.test.texts])
    embedded = matched.encode_text(texts)
    ranks = retrieval_ranks(matched.image, embedded, image_of, texts=texts, merge_identical_text=asked.merge_texts)
    first = embedded[torch.from_numpy(np.searchsorted(image_of, np.arange(len(matched.test))))]
    directions = retrieval(ranks, image_of, groups=matched.test.groups)
    space = {
        "alignment": measures.alignment(matched.image, first).item(),
        "uniformity": measures.cross_uniformity(matched.image, first).item(),
    }
    return {"texts": len(texts), "merged_texts": asked.merge_texts, **directions, **space}


def _consistency(matched: _Matched, asked: MatchingOptions) -> dict[str, Any]:
    """How often the class that the texts give an image is the one that its nearest training images have."""
    if asked.classes == TEXTS:
        raise InputError(
            "consistency compares with the labels of training images, and test images have other texts than these; "
            "--classes is texts, so leave it out or name a file"
        )
    question = _question(matched.test, asked)
    if question.label.ndim == 2:
        raise InputError(
            f"consistency compares one class an image; those of {matched.test.name} may have several, so name --labels "
            "with one each"
        )
    known = matched.opened.train.take(matched.opened.train.labelled)
    if not len(known):
        raise InputError(
            f"consistency compares with the labels of training images; none of {matched.opened.train.name} has one, so "
            "label some with --labels"
        )
    bank, bank_label = image_embeddings(matched.towers, known), _labels(known, question.classes)
    text = class_embeddings(question.classes, matched.encode_text)
    predicted = cosines(matched.image, text).argmax(1).numpy()
    return {
        f"k_{k}": share(consistency(matched.image, predicted, bank, bank_label, k=k), groups=matched.test.groups)
        for k in NEIGHBOURS
        if k <= len(known)
    }


MATCHING: dict[str, Callable[[_Matched, MatchingOptions], dict[str, Any]]] = {
    "consistency": _consistency,
    "retrieval": _retrieval,
    "zeroshot": _zeroshot,
}
"""Protocols for runs that have towers of images and of texts."""


def _question(test: ImageSet, asked: MatchingOptions) -> _Question:
    if asked.classes == TEXTS:
        require_texts(test, "zeroshot by texts")
        assert test.texts is not None
        numbers = {name: number for number, name in enumerate(sorted({known[0] for known in test.texts}))}
        return _Question(
            classes=Classes(names=tuple(numbers)), label=np.array([numbers[known[0]] for known in test.texts])
        )
    require_labels(test, "zeroshot")
    classes = Classes(names=test.classes) if asked.classes is None else read_classes(Path(asked.classes))
    return _Question(classes=classes, label=_labels(test, classes))


def _labels(data: ImageSet, classes: Classes) -> NDArray[Any]:
    """The labels of the images, by the numbers of the classes; findings that nobody labelled are unknown."""
    assert data.labels is not None
    numbers = np.array(classes.numbers(data.classes, data.name))
    if data.labels.ndim == 1:
        found: NDArray[Any] = numbers[data.labels]
        return found
    findings = np.full((len(data), len(classes.names)), np.nan)
    findings[:, numbers] = data.labels
    return findings


def _file_name(protocol: str, options: RunOptions, asked: MatchingOptions) -> str:
    """Of the answer: those to other protocols, classes, data and corruptions stand beside each other."""
    other = None if options.data is None else re.sub(r"[^A-Za-z0-9]+", "-", Path(options.data).name).strip("-")
    classes = None if asked.classes is None else Path(asked.classes).stem
    merged = "merged" if asked.merge_texts else None
    return "-".join(part for part in (protocol, classes, merged, other, asked.corrupt) if part)


def _estimates(found: Mapping[str, Any]) -> list[tuple[str, Estimate]]:
    """Every estimate with its name, those of both directions of retrieval too."""
    named = []
    for name, value in found.items():
        if isinstance(value, Estimate):
            named.append((name, value))
        elif isinstance(value, Direction):
            named += [(f"{name}, recall at {k}", each) for k, each in value.recall.items()]
    return named
