"""`kontrast predict RUN DATA`: what a classifier says of each image, how sure it is, and where it keeps silent.

One row an image, in the order of the data:

    path          of the image, as the data name it
    prediction    the most probable class; empty where the classifier abstains
    confidence    its probability, given also where it abstains
    abstained     yes or no
    p:NAME        the calibrated probability of each class

Multi-label data get an answer for each class, each with a confidence of its own, p or 1 - p. `prediction` is then a
JSON list of the classes that are present and `unanswered` one of those whose confidence is too low; `confidence` is the
lowest of the answers that are given, and `abstained` says whether any class is unanswered.

A run of clip labels images by the texts of `--classes`, without having seen a label. Its p:NAME are the softmax of the
cosines of image and texts over the temperature that the run has learned. They rank the classes and add up to 1, but
nothing calibrates them: of answers with a confidence of 0.9, nine in ten need not be right.

Paths are written so that no spreadsheet takes one for a formula (see `files`). Names of classes are the user's own and
stay as they are, so that predictions can be compared with labels; in the header they follow "p:".
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kontrast import distributed
from kontrast.commands.assemble import DataOptions, open_data
from kontrast.commands.call import keyword_call
from kontrast.commands.files import TABLES, Columns, check_out, path_cell, write_table
from kontrast.commands.run import read_as_trained, run_settings
from kontrast.commands.texts import warn_of_cut
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.calibration import calibrated, confidences
from kontrast.evaluate.classes import EXAMPLE, read_classes
from kontrast.evaluate.embeddings import image_embeddings, text_embeddings
from kontrast.evaluate.features import apply
from kontrast.evaluate.metrics import Floats
from kontrast.evaluate.zeroshot import class_embeddings, zero_shot
from kontrast.nn.classifier import is_classifier, load_classifier
from kontrast.nn.encoders import Encoder
from kontrast.nn.towers import has_towers, load_towers
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Predict(DataOptions):
    """Write predictions with probabilities, those of classifiers calibrated: .csv or .parquet, one row an image."""

    run: Path
    """Folder of `kontrast finetune classification`; with --classes, of a run of clip."""
    classes: Path | None = None
    """JSON file such as {"classes": ["cat", "dog"], "templates": ["a photo of a {}."]}, by whose texts a run of clip
    labels images; the probabilities are then not calibrated."""
    out: Path
    """File to write; its suffix names the format."""
    abstain_below: float = 0.0
    """Give no answer where the confidence is lower; a classifier's evaluations/test.json says what that cost."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Said:
    """What is said of images."""

    data: ImageSet
    classes: tuple[str, ...]
    """As tables of labels call them."""
    probabilities: Floats
    """`(n, classes)`."""
    multilabel: bool = False


def run(options: Predict) -> Path:
    """Predict the classes of images; returns the path of the file."""
    distributed.start()
    check_out(options.out, TABLES, "predictions")
    if not 0 <= options.abstain_below <= 1:
        raise InputError(f"a confidence lies in 0..1; --abstain-below is {options.abstain_below}, so give 0.8 or so")
    said = _by_classifier(options) if _is_of_a_classifier(options) else _by_texts(options)
    columns = {"path": [path_cell(name) for name in said.data.names], **_answers(said, options.abstain_below)}
    write_table(options.out, columns)
    silent = columns["abstained"].count("yes")
    log.info("predictions for %d images are in %s; %d of them abstain", len(said.data), options.out, silent)
    return options.out


def _is_of_a_classifier(options: Predict) -> bool:
    """Whether the run says by itself what the classes are, and not by `--classes`."""
    if is_classifier(options.run) and options.classes is not None:
        raise InputError(
            f"a classifier has classes of its own; {options.run} is one, so leave --classes out or name a run of clip"
        )
    if options.classes is None and has_towers(options.run) and not is_classifier(options.run):
        raise InputError(
            f"a run of clip labels images by the texts of classes; {options.run} is one and --classes is missing, so "
            f"write a file such as {EXAMPLE} and name it"
        )
    return options.classes is None


def _by_classifier(options: Predict) -> _Said:
    classifier = load_classifier(options.run).to(choose_device(options.device))
    data = _open(options, classifier.encoder)
    logits = apply(nn.Sequential(classifier.encoder, classifier.head), classifier.encoder, data)
    spec = classifier.spec
    found = calibrated(logits, temperature=spec.temperature, multilabel=spec.multilabel)
    return _Said(data=data, classes=spec.classes, probabilities=found, multilabel=spec.multilabel)


def _by_texts(options: Predict) -> _Said:
    assert options.classes is not None, "asked before"
    classes = read_classes(options.classes)
    if len(classes.names) < 2:
        raise InputError(
            f"an image is given one of two classes or more; {options.classes} has {classes.names[0]!r} alone, so add "
            "another"
        )
    towers = load_towers(options.run).to(choose_device(options.device))
    data = _open(options, towers.encoder)
    sentences = [text for number in range(len(classes.names)) for text in classes.prompts(number)]
    warn_of_cut(towers.text, sentences, "sentences of classes")
    text = class_embeddings(classes, partial(text_embeddings, towers))
    temperature = towers.temperature.item()
    found = zero_shot(image_embeddings(towers, data), text, temperature=temperature)
    log.info("probabilities are those of texts at the run's temperature of %.3g and not calibrated", temperature)
    return _Said(data=data, classes=classes.labels or classes.names, probabilities=found.astype(np.float64))


def _open(options: Predict, encoder: Encoder) -> ImageSet:
    """The images; says so where they are scaled that in training were not: what they show may have another size."""
    settings = run_settings(options.run)
    data = open_data(read_as_trained(options, settings, "size", "channels"))
    if settings.get("size") is None and data.size != encoder.spec.size:
        log.warning(
            "these images have %d px where training images had %d px, so they are scaled; look at whether they show "
            "the same at that size",
            *(data.size, encoder.spec.size),
        )
    return data


def _answers(said: _Said, threshold: float) -> Columns:
    """All columns but the first."""
    given = confidences(said.probabilities, multilabel=said.multilabel) >= threshold
    answer = _of_each_class if said.multilabel else _of_one_class
    each = {f"p:{name}": said.probabilities[:, i].tolist() for i, name in enumerate(said.classes)}
    return {**answer(said.classes, said.probabilities, given), **each}


def _of_one_class(classes: tuple[str, ...], probabilities: Floats, given: Any) -> Columns:
    best = probabilities.argmax(axis=1)
    return {
        "prediction": [classes[i] if said else "" for i, said in zip(best, given, strict=True)],
        "confidence": probabilities.max(axis=1).tolist(),
        "abstained": ["no" if said else "yes" for said in given],
    }


def _of_each_class(classes: tuple[str, ...], probabilities: Floats, given: Any) -> Columns:
    def named(table: Any) -> list[str]:
        return [json.dumps([classes[i] for i in np.flatnonzero(row)], ensure_ascii=False) for row in table]

    sure = np.where(given, np.maximum(probabilities, 1 - probabilities), np.inf).min(axis=1)
    return {
        "prediction": named(given & (probabilities >= 0.5)),
        "confidence": [None if np.isinf(value) else float(value) for value in sure],
        "abstained": ["no" if said else "yes" for said in given.all(axis=1)],
        "unanswered": named(~given),
    }


predict = keyword_call(Predict, run)
