"""From a finished study to its `study.json`, `truth.npz` and `report.html`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kontrast.commands.assemble import build_policy, data_name, write_json
from kontrast.commands.lineage import learned_from
from kontrast.commands.provenance import hardware, provenance, versions
from kontrast.commands.repeat import write_truth
from kontrast.commands.scoring import main_metric
from kontrast.data import ImageSet
from kontrast.data.images import Facts
from kontrast.evaluate.focal import BATCH_SIZE, STEPS
from kontrast.methods import METHODS
from kontrast.study import exhibits, findings, lessons, page, verdict
from kontrast.study.closeup import closeup
from kontrast.study.contents import Closeup, Learned, Page, Samples, without_pictures
from kontrast.study.findings import SCRATCH, Truth, stack
from kontrast.study.plan import Answers, Arm, Budget
from kontrast.train.health import sentence
from kontrast.train.log import Row, read_rows
from kontrast.train.pictures import sheets

if TYPE_CHECKING:
    from kontrast.commands.study import Study, Work

Cells = dict[tuple[str, Budget], list[list[Answers]]]
STATISTICS_FROM = 1000
"""Images whose values are looked at for the page."""


def write_page(work: Work, cells: Cells) -> Path:
    """Write all that a study found; returns the path of `report.html`."""
    made = _page(work, cells)
    made = made if work.options.thumbnails else without_pictures(made)
    out = work.options.out
    told = ("title", "verdict", "recommendation", "outlook", "metric", "facts", "counts", "rows", "differences")
    content = {name: getattr(made, name) for name in (*told, "savings", "health", "notes")}
    content["closeup"] = made.closeup and _in_figures(made.closeup)
    content["learned"] = [_in_numbers(each) for each in made.learned]
    write_json(out / "study.json", {**content, "cost": made.cost, **provenance(work.train)})
    write_truth(out, work.test)
    path = out / "report.html"
    page.write(made, path)
    return path


def _page(work: Work, cells: Cells) -> Page:
    options, main = work.options, main_metric(work.options, work.train)
    assert work.test.labels is not None
    assert work.train.labels is not None
    truth = Truth(test=work.test.labels, test_groups=work.test.groups, validation=work.train.labels[work.validation])
    asked = (cells, work.arms, work.budgets, truth, main)
    rows, found = findings.score_rows(*asked), findings.differences(*asked)
    runs = _runs(options.out)
    fewest = min(row.num_labels for row in rows)
    arm = next(arm for arm in work.arms if arm.key == verdict.chosen(rows, fewest, kind="method").arm)
    return Page(
        title=f"Kontrast study of {data_name(options.data)}",
        verdict=verdict.verdicts(rows, found),
        recommendation=verdict.recommendation(rows, main, len(work.validation)),
        outlook=verdict.outlook(rows, found),
        metric=main,
        facts=_facts(work),
        counts=exhibits.class_counts(work.train, work.test),
        rows=tuple(rows),
        differences=tuple(found),
        savings=tuple(sorted(findings.savings(*asked), key=lambda saving: saving.arm != arm.key)),
        **_exhibits(work, cells, arm, fewest),
        learned=_learned(work, {row.num_labels for row in rows}),
        samples=_samples(work),
        curves=runs,
        health=_health(runs),
        notes=_notes(work),
        skipped=work.train.skipped,
        settings=(options.out / "config.yaml").read_text(encoding="utf-8"),
        versions=versions(),
        cost=_cost(work, runs),
        command=_command(options),
        repeat=_repeat(options),
    )


def _exhibits(work: Work, cells: Cells, arm: Arm, fewest: int) -> dict[str, Any]:
    """The method that the verdict is about, looked at closely, with the fewest labels."""
    subject = work.subject(
        arm, work.options.seed, work.draws(_fewest(work, cells, fewest), work.options.seed)[0].labelled
    )
    title = f"{arm.title.rpartition(', ')[0] or arm.title}, seed {work.options.seed}"
    return {
        "closeup": _closeup(work, cells, arm, fewest),
        "atlas": exhibits.atlas(work.test, subject.test_features, title=title),
        "queries": exhibits.queries(work.train, work.test, subject.train_features, subject.test_features),
        "gallery": exhibits.gallery(work.train, work.policy, name=work.options.policy, size=work.size),
    }


def _fewest(work: Work, cells: Cells, num_labels: int) -> Budget:
    return next(budget for budget in work.budgets if len(cells[SCRATCH, budget][0][0].labelled) == num_labels)


def _closeup(work: Work, cells: Cells, arm: Arm, num_labels: int) -> Closeup:
    budget = _fewest(work, cells, num_labels)
    scratch = next(arm for arm in work.arms if arm.key == SCRATCH)
    ours, theirs = (stack(cells[one.key, budget]) for one in (arm, scratch))
    return closeup(work.test, ours, theirs, titles=(arm.title, scratch.title), num_labels=num_labels)


def _in_figures(found: Closeup) -> dict[str, Any]:
    """A closeup without its pictures."""
    hardest = [{key: value for key, value in vars(hard).items() if key != "picture"} for hard in found.hardest]
    return {**vars(replace(found, hardest=())), "hardest": hardest}


def _learned(work: Work, budgets: set[int]) -> tuple[Learned, ...]:
    """What each arm that learned its policy made of it, with each number of labels that the study compares."""
    found = []
    for key, chosen in work.variants.items():
        runs = lessons.read(work.options.out / "runs" / key, size=work.size, channels=work.train.channels)
        runs = [one for one in runs if one.num_labels is None or one.num_labels in budgets]
        if runs:
            start = build_policy(chosen.policy or work.options.policy, work.size, work.train.channels)
            told = {"key": key, "title": chosen.title, "note": lessons.note(chosen.config)}
            found.append(lessons.learned(runs, start, work.train, out=work.options.out, **told))
    return tuple(found)


def _samples(work: Work) -> tuple[Samples, ...]:
    """What the first run of each arm has made of images itself, if its method does."""
    seed = work.options.seed
    found = {one.title: sheets(work.options.out / "runs" / key / f"seed-{seed}") for key, one in work.variants.items()}
    return tuple(exhibits.samples(title, files, seed=seed) for title, files in found.items() if files)


def _in_numbers(found: Learned) -> dict[str, Any]:
    """What was learned without its pictures, and without the courses, which each run's `metrics.jsonl` has."""
    kept = [{key: value for key, value in vars(each).items() if key != "courses"} for each in found.operations]
    told = {key: value for key, value in vars(found).items() if key not in ("views", "operations")}
    return {**told, "operations": kept}


def _repeat(options: Study) -> str:
    """What repeats the study, typed where it was run; data that are a Python object have no name to open them by."""
    if not isinstance(options.data, str | Path):
        return ""
    return shlex.join(["kontrast", "study", "--from", f"{options.out}/"])


def _command(options: Study) -> str:
    """What was typed; after a Python call, what would do the same."""
    if not isinstance(options.data, str | Path):
        return f"kontrast.study(data=..., out=...) from Python, on an object of type {type(options.data).__name__}"
    if Path(sys.argv[0]).name == "kontrast" or sys.argv[0].endswith("kontrast/__main__.py"):
        return shlex.join(["kontrast", *sys.argv[1:]])
    return shlex.join(["kontrast", "study", "--recipe", str(options.out / "config.yaml"), "--out", "study/"])


def _facts(work: Work) -> dict[str, str]:
    train, test = work.train, work.test
    facts = {
        "Training images": f"{len(train):,}, of which {len(work.labelled):,} labelled",
        "Validation part": f"{len(work.validation):,} of the labelled training images",
        "Test images": f"{len(test):,}, {_seen(work)}",
        "Image": f"{train.size} × {train.size} px, {train.channels} channel{'s'[: train.channels - 1]}, "
        f"{train.pixels.dtype.name}; the encoder sees {work.size} × {work.size} px",
        "Values": _values(train),
        "Classes": f"{len(train.classes):,}",
        "Leaks": str(work.leaks),
        "Fingerprint": train.fingerprint,
    }
    if train.facts is not None:
        facts["Files"] = _files(train.facts)
    if train.left_out:
        facts["Left out by rule"] = f"{len(train.left_out):,} files that are no images to learn from"
    if train.groups is not None and test.groups is not None:
        both = len(np.intersect1d(train.groups, test.groups))
        counts = f"{len(np.unique(train.groups)):,} in training, {len(np.unique(test.groups)):,} in test, "
        facts["Groups"] = counts + (f"{both:,} in both, as --ignore-groups asks" if both else "none in both")
    return facts


def _files(found: Facts) -> str:
    """What the files of the training images are, before anything was scaled."""
    heights, widths = found.shape.T
    told = [f"{heights.min()} to {heights.max()} px high, {widths.min()} to {widths.max()} px wide"]
    told.append(f"{', '.join(map(str, np.unique(found.bits)))} significant bits")
    spacing = found.spacing[~np.isnan(found.spacing).any(axis=1)]
    if len(spacing):
        told.append(f"pixels of {spacing.min():.3g} to {spacing.max():.3g} mm where known ({len(spacing):,} images)")
    return "; ".join(told)


def _seen(work: Work) -> str:
    """Whether any weights have learned from the test images, as far as that is known."""
    init = work.options.init
    if init == "none":
        return "never seen in pre-training"
    if not learned_from(init):
        return f"never seen in this study's pre-training; what the weights given ({init}) were trained on is not known"
    return (
        f"never seen in this study's pre-training; the run given ({init}) learned from "
        f"{', '.join(learned_from(init))}, which may hold some of them"
    )


def _values(train: ImageSet) -> str:
    chosen = np.linspace(0, len(train) - 1, min(len(train), STATISTICS_FROM)).round().astype(np.int64)
    pixels = train.pixels[train.rows[chosen]]
    mean, std = train.mean_std()
    spread = ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True))
    return (
        f"{pixels.min():g} to {pixels.max():g} in {len(chosen):,} training images; mean ± deviation of each channel on "
        f"the scale 0..1: {spread}"
    )


def _notes(work: Work) -> tuple[str, ...]:
    options = work.options
    tuning = work.settings.finetuning
    notes = [
        f"Every training runs to its last epoch: {options.epochs} epochs of pre-training, {tuning.steps} steps on "
        "labels. No epoch and no setting was chosen by a test score.",
        f"From scratch has the same encoder as the methods, {_update_rules(work)}, the augmentation "
        f"{options.policy}{'' if _is_one(work) else ' where methods have or learn their own'}, and the same labels.",
        "Curves of accuracy along the training use all labels of the training part; they inform and decide nothing.",
        "A label budget that leaves the validation part out is drawn outside it; one that does not is judged there by "
        "a second model trained without it.",
    ]
    if "focal" in options.protocols:
        notes.append(
            f"A focal-loss probe takes {STEPS} steps of at most {BATCH_SIZE} labelled images on a frozen encoder."
        )
    if any({"init", "norm", "norm_affine"} & {*one.shared} for one in work.variants.values()):
        notes.append(
            f"Arms whose name says so have weights or norms of their own; the others have --init {options.init} and "
            f"--norm {options.norm}. From scratch has that norm too; weights without a contrastive stage have theirs."
        )
    if options.seeds == 1:
        notes.insert(0, "One pre-training seed: all intervals are for this one encoder.")
    return tuple(notes)


def _update_rules(work: Work) -> str:
    """Whether from scratch is trained as the methods are; each has its own rule where none was asked for."""
    scratch = work.options.update_rule(METHODS["supervised"])
    others = {
        one.title: rule
        for one in work.variants.values()
        if (rule := work.options.update_rule(METHODS[one.method])) != scratch
    }
    if not others:
        return "optimiser and learning rate"
    told = "; ".join(f"{title} by {name}, {lr:g}, {decay:g}" for title, (name, lr, decay) in others.items())
    name, lr, decay = scratch
    return f"the optimiser {name}, learning rate {lr:g} and weight decay {decay:g} ({told})"


def _is_one(work: Work) -> bool:
    """Whether all methods are trained under the study's own policy."""
    return all(one.policy is None and one.method != "learned_views" for one in work.variants.values())


def _runs(out: Path) -> dict[str, list[Row]]:
    found = sorted((out / "runs").glob("*/*/metrics.jsonl"))
    return {f"{file.parent.parent.name} {file.parent.name}": read_rows(file) for file in found}


def _cost(work: Work, runs: dict[str, list[Row]]) -> dict[str, str]:
    """Hardware, and what each kind of training took."""
    cost = {"Hardware": hardware()}
    for method in work.variants:
        own = [rows for name, rows in runs.items() if name.split(" ")[0] == method]
        passes, seconds = sum(rows[-1]["passes"] for rows in own), sum(row["seconds"] for rows in own for row in rows)
        cost[f"Pre-training, {method}"] = f"{_runs_of(own)}, {passes:,.0f} encoder passes, {_duration(seconds)}"
    tuning = work.settings.finetuning
    cost["Each training from scratch or fine-tuning"] = (
        f"{tuning.steps:,} steps of at most {tuning.batch_size} labelled images: at most "
        f"{tuning.steps * tuning.batch_size:,} encoder passes"
    )
    cost["An encoder pass"] = (
        "one image going forward through an encoder, a teacher's included; backward is not counted"
    )
    return cost


def _runs_of(runs: Sequence[Any]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _health(runs: dict[str, list[Row]]) -> tuple[str, ...]:
    sentences = []
    for name, rows in runs.items():
        last = rows[-1]
        sentences.append(
            f"{name}: {sentence(last)} (spread {last['spread']:.2f}, effective rank {last['effective_rank']:.0f})."
        )
    return tuple(sentences)
