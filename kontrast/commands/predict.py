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

Paths are written so that no spreadsheet takes one for a formula (see `files`). Names of classes are the user's own and
stay as they are, so that predictions can be compared with labels; in the header they follow "p:".
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kontrast import distributed
from kontrast.commands.assemble import DataOptions, open_data
from kontrast.commands.call import keyword_call
from kontrast.commands.files import TABLES, Columns, check_out, path_cell, write_table
from kontrast.commands.run import read_as_trained, run_settings
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.calibration import calibrated, confidences
from kontrast.evaluate.features import apply
from kontrast.evaluate.metrics import Floats
from kontrast.nn.classifier import Classifier, load_classifier
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Predict(DataOptions):
    """Write predictions with calibrated probabilities: .csv or .parquet, one row an image."""

    run: Path
    """Folder of `kontrast finetune classification`."""
    out: Path
    """File to write; its suffix names the format."""
    abstain_below: float = 0.0
    """Give no answer where the confidence is lower; evaluations/test.json says what that cost on test images."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""


def run(options: Predict) -> Path:
    """Predict the classes of images; returns the path of the file."""
    distributed.start()
    check_out(options.out, TABLES, "predictions")
    if not 0 <= options.abstain_below <= 1:
        raise InputError(f"a confidence lies in 0..1; --abstain-below is {options.abstain_below}, so give 0.8 or so")
    classifier = load_classifier(options.run).to(choose_device(options.device))
    data = open_data(read_as_trained(options, run_settings(options.run), "size", "channels"))
    _warn_of_scale(options, classifier, data)
    model = nn.Sequential(classifier.encoder, classifier.head)
    spec = classifier.spec
    logits = apply(model, classifier.encoder, data)
    found = calibrated(logits, temperature=spec.temperature, multilabel=spec.multilabel)
    columns = {"path": [path_cell(name) for name in data.names], **_answers(classifier, found, options.abstain_below)}
    write_table(options.out, columns)
    silent = columns["abstained"].count("yes")
    log.info("predictions for %d images are in %s; %d of them abstain", len(data), options.out, silent)
    return options.out


def _warn_of_scale(options: Predict, classifier: Classifier, data: ImageSet) -> None:
    """Say so where images are scaled that in training were not: what they show may then have another size."""
    trained = classifier.encoder.spec.size
    if run_settings(options.run).get("size") is None and data.size != trained:
        log.warning(
            "these images have %d px where training images had %d px, so they are scaled; look at whether they show "
            "the same at that size",
            data.size,
            trained,
        )


def _answers(classifier: Classifier, probabilities: Floats, threshold: float) -> Columns:
    """All columns but the first."""
    classes, multilabel = classifier.spec.classes, classifier.spec.multilabel
    given = confidences(probabilities, multilabel=multilabel) >= threshold
    answer = _of_each_class if multilabel else _of_one_class
    each = {f"p:{name}": probabilities[:, i].tolist() for i, name in enumerate(classes)}
    return {**answer(classes, probabilities, given), **each}


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
