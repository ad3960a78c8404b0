"""`kontrast evaluate PROTOCOL RUN`: scores of one encoder at several numbers of labels, with intervals."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from rich.console import Console

from kontrast import distributed
from kontrast.commands.assemble import build_policy, has_read_labels, named, num_shared, write_json
from kontrast.commands.call import keyword_call
from kontrast.commands.energy import score_ood
from kontrast.commands.matching import MATCHING, MatchingOptions, score_matching
from kontrast.commands.provenance import provenance
from kontrast.commands.run import OpenRun, RunOptions, open_run, run_policy
from kontrast.commands.scoring import ScoringOptions, budgets, main_metric, protocol_settings
from kontrast.errors import InputError
from kontrast.evaluate.intervals import estimate
from kontrast.evaluate.metrics import METRICS
from kontrast.evaluate.protocols import PROTOCOLS, Subject
from kontrast.study.plan import draws
from kontrast.train.fit import Fit
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Evaluate(ScoringOptions, MatchingOptions, RunOptions):
    """Score an encoder on test images that pre-training never saw, at several numbers of labels."""

    protocol: str
    """knn, linear, focal (a linear classifier learned by SGD and focal loss) or finetune; energy, for a run of ebclr
    and --ood, which needs no labels; or zeroshot, retrieval or consistency, for a run of clip."""
    ood: str | None = None
    """For energy: images of another kind than the run's, which its energy should tell apart."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""
    seed: int = 0
    """Of the label draws."""


def run(options: Evaluate) -> dict[str, Any]:
    """Score an encoder; writes `RUN/evaluations/PROTOCOL.json` and returns its content."""
    distributed.start()
    name = named(options.protocol, (*PROTOCOLS, "energy", *MATCHING), "protocol")
    if (name == "energy") != (options.ood is not None):
        raise InputError(
            f"energy tells the run's kind of images from others, named by --ood, and no other protocol does; got "
            f"{name} {'without --ood' if options.ood is None else 'with it'}, so change either"
        )
    if options.ood is not None:
        return score_ood(options, options.ood, options.device)
    if name in MATCHING:
        return score_matching(name, options, options, options.device)
    if options.classes or options.merge_texts or options.corrupt:
        raise InputError(
            f"--classes, --merge-texts and --corrupt are for {', '.join(MATCHING)}; {name} reads none, so leave them "
            "out"
        )
    ask = PROTOCOLS[name]
    opened = open_run(options, "evaluation")
    if has_read_labels(opened.settings):
        log.warning("this run has learned from labels already, so fewer labels here are no few-label result")
    subject = _subject(options, opened)
    train, truth, groups = subject.train, subject.test.labels, subject.test.groups
    assert truth is not None, "open_run refuses data without labels"
    labelled = train.labelled
    main = main_metric(options, train)
    console = Console(stderr=True, highlight=False)
    rows = []
    for budget in budgets(options):
        drawn = list(draws(train, labelled, labelled[:0], budget, seed=options.seed, num_draws=options.draws))
        answers = np.stack([ask(subject, one.labelled, [None], one.seed)[0] for one in drawn])[None]
        scores = {name: estimate(truth, answers, name, groups=groups) for name in METRICS}
        rows.append({"labels": len(drawn[0].labelled), "draws": len(drawn), "scores": scores})
        count = f"{len(drawn[0].labelled):,} labels"
        console.print(f"{options.protocol}, {count}: {main} {scores[main]} ({scores[main].scope})")
    found: dict[str, Any] = {"protocol": options.protocol, "settings": vars(options), "rows": rows}
    found |= {"test_images_seen_in_pretraining": opened.num_seen, **provenance(train)}
    found |= {"test_images_sharing_a_group": num_shared(train, opened.test)}
    path = options.run / "evaluations" / f"{options.protocol}.json"
    write_json(path, found)
    log.info("all scores are in %s", path)
    return found


def _subject(options: Evaluate, opened: OpenRun) -> Subject:
    """The run's encoder before its data; training on labels takes as many steps as the run did."""
    settings, train = opened.settings, opened.train
    encoder = opened.encoder.to(choose_device(options.device))
    training = Fit(**{f.name: settings[f.name] for f in fields(Fit) if f.name in settings})
    steps = max(1, len(train) // settings["batch_size"]) * settings["epochs"]
    policy = build_policy(run_policy(options.run, settings), encoder.spec.size, encoder.spec.channels)
    return Subject(encoder, train, opened.test, policy, protocol_settings(options, training, steps=steps))


evaluate = keyword_call(Evaluate, run)
