"""`kontrast finetune classification RUN`: a classifier from an encoder and all labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from safetensors.torch import save_file

from kontrast import distributed
from kontrast.commands.assemble import (
    build_policy,
    claim_folder,
    labelled_positions,
    named,
    write_json,
)
from kontrast.commands.call import keyword_call
from kontrast.commands.provenance import provenance
from kontrast.commands.run import RunOptions, open_run
from kontrast.errors import InputError
from kontrast.evaluate import finetune as tuning
from kontrast.evaluate.intervals import estimate
from kontrast.evaluate.metrics import METRICS
from kontrast.train.fit import Fit

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Finetune(Fit, RunOptions):
    """Train a classifier, encoder and all, on the labelled training images; score it on the test images."""

    task: str
    """classification."""
    out: Path
    """Folder to write: encoder.safetensors, classifier.safetensors, metrics.jsonl, evaluations/test.json."""
    policy: str | None = None
    """Augmentation; by default the run's."""
    epochs: int = 30
    """Passes over the labelled images."""
    batch_size: int = 64
    """Labelled images a step."""


def run(options: Finetune) -> Path:
    """Fine-tune; returns the folder of the new run."""
    distributed.start()
    named(options.task, ("classification",), "task")
    options.check()
    if options.batch_size < 1:
        raise InputError(f"a step needs images; --batch-size is {options.batch_size}, so give 64 or so")
    opened = open_run(options, "fine-tuning")
    settings, encoder, test = opened.settings, opened.encoder, opened.test
    assert test.labels is not None
    labelled = opened.train.take(labelled_positions(opened.train))
    policy = options.policy or settings["policy"]
    own = {f.name: getattr(options, f.name) for f in fields(Fit)}
    own |= {"batch_size": options.batch_size, "policy": policy, "method": options.task, "init": str(options.run)}
    augment = build_policy(policy, encoder.spec.size)
    claim_folder(options.out, {**settings, **own}, resume=False, can_resume=False)
    steps = options.epochs * max(1, len(labelled) // options.batch_size)
    config = tuning.FineTuning(steps=steps, batch_size=options.batch_size, training=options)
    method = tuning.finetune(encoder, labelled, augment, config, seed=options.seed, out=options.out, show=True)
    save_file(method.classify.state_dict(), options.out / "classifier.safetensors")
    answers = tuning.predict(method, test)[None, None]
    scores = {name: estimate(test.labels, answers, name, groups=test.groups) for name in METRICS}
    classes = list(labelled.classes)
    found = {"classes": classes, "labels": len(labelled), "scores": scores}
    found |= {"test_images_seen_in_pretraining": opened.num_seen, **provenance(labelled)}
    write_json(options.out / "evaluations" / "test.json", found)
    console = Console(stderr=True, highlight=False)
    for name, score in scores.items():
        console.print(f"{name} {score} on {len(test):,} test images ({score.scope})")
    log.info("the classifier is in %s", options.out)
    return options.out


finetune = keyword_call(Finetune, run)
