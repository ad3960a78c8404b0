"""`kontrast study DATA`: does contrastive pre-training help on these data? Many runs, and one page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kontrast import distributed, interrupts
from kontrast.commands.assemble import (
    DataOptions,
    EncoderOptions,
    Parts,
    build_encoder,
    build_method,
    build_policy,
    check_same_data,
    check_test,
    claim_folder,
    data_name,
    named,
    open_data,
    policy_files,
    require_labels,
    split,
    texts_settled,
)
from kontrast.commands.call import keyword_call
from kontrast.commands.pretrain import Pretrain, pretrain_on
from kontrast.commands.pretrained import called
from kontrast.commands.provenance import provenance
from kontrast.commands.repeat import check_repeat, check_settings, compare_repeat
from kontrast.commands.scoring import ScoringOptions, budgets, protocol_settings
from kontrast.commands.study_page import write_page
from kontrast.commands.variants import encoder_options, spelled_out, variant
from kontrast.data import ImageSet
from kontrast.data.audit.leaks import leaks
from kontrast.errors import InputError
from kontrast.evaluate.protocols import PROTOCOLS, ProtocolName, Subject
from kontrast.methods import METHODS
from kontrast.nn.encoders import Encoder, load_encoder
from kontrast.nn.norms import has_batch_norm
from kontrast.study import plan
from kontrast.study.plan import Answers, Arm, Budget, Draw, Positions
from kontrast.train.fit import Fit
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Study(Fit, ScoringOptions, EncoderOptions, DataOptions):
    """Pre-train, compare with what a sceptic would demand, and write report.html. Run again, it goes on."""

    out: Path
    """Folder of the study; run the same command again to go on where it stopped."""
    methods: tuple[str, ...] = ("simclr",)
    """Pre-training methods to compare: byol, ebclr, learned_views, moco, simclr, simsiam. One with settings of its own
    is NAME:KEY=VALUE,KEY=VALUE, such as simclr:temperature=0.1 or simclr:norm=none; policy, init, norm and norm_affine
    can be an arm's own too. Where ebclr takes the encoder's batch norm out, simclr:norm=none joins."""
    protocols: tuple[ProtocolName, ...] = ("linear",)
    """How labels are read from a pre-trained encoder: linear, knn, focal, finetune."""
    configs: dict[str, Any] = field(default_factory=dict)
    """Settings of methods that differ from their defaults, such as {"simclr": SimCLR.Config(temperature=0.1)}."""
    seeds: int = 3
    """Pre-training runs of each method; with 1, intervals are for that one encoder."""
    batch_size: int = 256
    """Images a step of pre-training."""
    evaluate_every: int = 0
    """Epochs between k-NN and linear scores in the training curves, on a validation part; 0 for never."""
    thumbnails: bool = True
    """Whether images appear on the page; without, it can be shown where the images must not be."""
    repeats: Path | None = None
    """Folder of a study whose data and figures this one must have; `--from` sets it, with that study's settings."""


def run(options: Study) -> Path:
    """Run what is missing of a study and write its page; returns the path of `report.html`."""
    distributed.start()
    _check(options)
    used = [METHODS[variant(text, options.configs).method] for text in options.methods]
    options = texts_settled(options, are_used=any(method.reads_texts for method in used))
    if options.repeats is not None:
        _check_new(options.out)
        check_settings(options.repeats, _settings(options))
    data = open_data(options)
    require_labels(data, "a study")
    found = provenance(data) | {"policies": policy_files(_policies(options))}
    if options.repeats is not None:
        check_repeat(options.repeats, found)
    parts = split(data)
    assert parts.test is not None, "data with labels have a test part"
    check_test(parts.test)
    options = replace(options, methods=_spelled_out(options, parts.train))
    work = Work(options, parts)
    work.try_out()
    claim_folder(options.out, _settings(options), resume=True, can_resume=False)
    check_same_data(options.out, found)
    if work.leaks:
        log.warning("%s", work.leaks)
    for chosen in work.variants.values():
        if chosen.reads_labels:
            log.info(
                "%s learns from labels, so it is pre-trained anew for the labels of each cell: %d times; fewer --draws "
                "or --fractions make it fewer",
                chosen.title,
                work.label_sets(),
            )
    cells = {
        (arm.key, budget): [
            [work.answers(arm, seed, drawn) for drawn in work.draws(budget, seed)] for seed in work.seeds
        ]
        for arm in work.arms
        for budget in work.budgets
    }
    written = write_page(work, cells)
    if options.repeats is not None:
        compare_repeat(options.repeats, options.out)
    log.info("the page is %s", written)
    return written


def _check(options: Study) -> None:
    options.check()
    if options.batch_size < 1:
        raise InputError(f"a step needs images; --batch-size is {options.batch_size}, so give 256 or so")
    if options.seeds < 1:
        raise InputError(f"a study trains at least one encoder; --seeds is {options.seeds}, so ask for 1 or more")
    if len({variant(text, options.configs).key for text in options.methods}) < len(options.methods):
        raise InputError(f"a study compares different methods; --methods is {' '.join(options.methods)}")
    for name in options.protocols:
        named(name, PROTOCOLS, "protocol")
    if not options.methods:
        raise InputError(f"a study compares pre-training methods; --methods is empty, choose from {', '.join(METHODS)}")


def _spelled_out(options: Study, train: ImageSet) -> tuple[str, ...]:
    """The methods, each with an encoder that it can have."""
    meant = spelled_out(options.methods, options.configs, options)
    if meant == options.methods:
        return options.methods
    fresh = replace(options, init="none", norm="own")
    if not has_batch_norm(build_encoder(fresh, train, options.size or train.size, seed=options.seed)):
        return options.methods
    log.info("not every method can have the batch norm of %s, so --methods are %s", options.encoder, " ".join(meant))
    return meant


def _policies(options: Study) -> list[str]:
    """Those of the study and of its methods."""
    own = [variant(text, options.configs).policy for text in options.methods]
    return [options.policy, *(name for name in own if name is not None)]


def _check_new(out: Path) -> None:
    """Refuse to repeat into a finished study, whose scores would be read and not found again."""
    if (out / "report.html").is_file():
        raise InputError(
            f"a repeat trains everything anew; {out} is finished already, so name another --out, or put two finished "
            "studies on one page with kontrast compare"
        )


class Work:
    """The study's arms and draws, and the encoders they need; what is on disk already is not made again."""

    def __init__(self, options: Study, parts: Parts) -> None:
        assert parts.test is not None, "data with labels have a test part"
        self.options, self.train, self.test = options, parts.train, parts.test
        self.size = options.size or parts.train.size
        self.leaks = leaks(parts.train, parts.test)
        self.labelled = parts.train.labelled
        self.validation = plan.validation_positions(parts.train, self.labelled)
        self.seeds = range(options.seed, options.seed + options.seeds)
        self.variants = {one.key: one for one in (variant(text, options.configs) for text in options.methods)}
        titles = {key: one.title for key, one in self.variants.items()}
        given = None if options.init == "none" else called(options.encoder, options.init)
        self.arms = plan.arms(titles, options.protocols, given)
        self.budgets = budgets(options)
        self.policy = build_policy(options.policy, self.size, parts.train.channels)
        steps = max(1, len(self.train) // options.batch_size) * options.epochs
        self.settings = protocol_settings(options, _training(options), steps=steps)
        self.subjects: dict[Path | str, Subject] = {}
        self.console = Console(stderr=True)
        self._refuse_equal_budgets()

    def _refuse_equal_budgets(self) -> None:
        """Draw once, so that a budget that cannot be drawn, or is there twice, is refused before anything trains."""
        counts = [len(self.draws(budget, self.options.seed)[0].labelled) for budget in self.budgets]
        if len(set(counts)) < len(counts):
            raise InputError(f"each budget is another number of labels; here they are {counts}, so leave one out")

    def draws(self, budget: Budget, seed: int) -> list[Draw]:
        """The draws of one seed, the same for every arm."""
        return list(
            plan.draws(self.train, self.labelled, self.validation, budget, seed=seed, num_draws=self.options.draws)
        )

    def try_out(self) -> None:
        """Build the encoder and every method once, so that what cannot be built is refused before anything trains."""
        for one in self.variants.values():
            chosen = encoder_options(self.options, one)
            built = build_encoder(chosen, self.train, self.size, seed=self.options.seed)
            policy = build_policy(one.policy or self.options.policy, self.size, self.train.channels)
            build_method(one.method, one.config, built, policy, self.train)

    def label_sets(self) -> int:
        """How many sets of labels an arm reads: every draw, and its rest where it meets the validation part."""
        drawn = (one for budget in self.budgets for seed in self.seeds for one in self.draws(budget, seed))
        return sum(1 + bool(np.isin(self.validation, one.labelled).any()) for one in drawn)

    def answers(self, arm: Arm, seed: int, drawn: Draw) -> Answers:
        """What an arm predicts from a draw: read where it is on disk, else made and written."""
        interrupts.check()
        path = plan.cell_path(self.options.out, arm, seed, drawn)
        if not path.is_file():
            plan.write_answers(path, self._predict(arm, seed, drawn))
            self.console.print(
                f"{arm.title}, seed {seed}, {len(drawn.labelled)} labels, draw {drawn.number + 1}", highlight=False
            )
        return plan.read_answers(path)

    def _predict(self, arm: Arm, seed: int, drawn: Draw) -> Answers:
        """Predictions of the test images from all labels of the draw, of the validation part from those outside it."""
        outside = np.setdiff1d(drawn.labelled, self.validation)
        if not len(self.validation):
            [test] = self._ask(arm, seed, drawn, drawn.labelled, [None])
            validation = test[:0]
        elif len(outside) == len(drawn.labelled):
            test, validation = self._ask(arm, seed, drawn, drawn.labelled, [None, self.validation])
        else:
            [test] = self._ask(arm, seed, drawn, drawn.labelled, [None])
            [validation] = self._ask(arm, seed, drawn, outside, [self.validation])
        return Answers(test=test.astype(np.float32), validation=validation.astype(np.float32), labelled=drawn.labelled)

    def _ask(
        self, arm: Arm, seed: int, drawn: Draw, seen: Positions, queries: list[Positions | None]
    ) -> list[np.ndarray[Any, Any]]:
        return list(PROTOCOLS[arm.protocol](self.subject(arm, seed, seen), seen, queries, drawn.seed))

    def subject(self, arm: Arm, seed: int, seen: Positions) -> Subject:
        """The arm's encoder before the data; only the last one is held in memory."""
        key = f"{arm.start} {seed}" if arm.method is None else self._run(arm.method, seed, seen)
        if key not in self.subjects:
            encoder = self._encoder(arm, seed, seen)
            self.subjects = {key: Subject(encoder, self.train, self.test, self.policy, self.settings)}
        return self.subjects[key]

    def _encoder(self, arm: Arm, seed: int, seen: Positions) -> Encoder:
        if arm.method is None:
            # Before any training, given weights know nothing without their own norms, and random ones with converted
            # norms need statistics of the data to give finite numbers.
            changed = {"norm": "own"} if arm.start == "given" else {"init": "none", "norm_affine": "recalibrate"}
            chosen = replace(self.options, **changed)  # type: ignore[arg-type]
            return build_encoder(chosen, self.train, self.size, seed=seed).to(choose_device(self.options.device))
        run = self._run(arm.method, seed, seen)
        if not (run / "encoder.safetensors").is_file():
            self._pretrain(arm.method, seed, seen, run)
        return load_encoder(run).to(choose_device(self.options.device))

    def _run(self, key: str, seed: int, seen: Positions) -> Path:
        """Folder of a pre-training run; one whose method reads labels is made anew for exactly the labels seen."""
        folder = self.options.out / "runs" / key
        if not self.variants[key].reads_labels:
            return folder / f"seed-{seed}"
        return (
            folder / f"seed-{seed}-labels-{len(seen)}-{np.random.SeedSequence(seen.tolist()).generate_state(1)[0]:08x}"
        )

    def _pretrain(self, key: str, seed: int, seen: Positions, run: Path) -> None:
        train, chosen = self.train, self.variants[key]
        if chosen.reads_labels:
            assert train.labels is not None
            hidden = np.full_like(train.labels, np.nan if train.is_multilabel else -1)
            hidden[seen] = train.labels[seen]
            train = train.with_labels(hidden, train.classes)
        own = {f.name: getattr(self.options, f.name) for f in fields(Pretrain) if hasattr(self.options, f.name)}
        own |= {"method": chosen.method, "config": chosen.config, "out": run, "seed": seed}
        own |= chosen.shared
        title = f"{chosen.title}, seed {seed}"
        pretrain_on(train, Pretrain(**own, resume=run.is_dir()), title=title, monitored=self.train)


def _training(options: Study) -> Fit:
    return Fit(**{f.name: getattr(options, f.name) for f in fields(Fit)})


def _settings(options: Study) -> dict[str, Any]:
    flat = {key: value for key, value in vars(options).items() if key not in ("out", "configs", "repeats")}
    flat["data"] = data_name(options.data)
    names = dict.fromkeys(text.partition(":")[0] for text in options.methods)
    configs = {name: vars(options.configs.get(name) or METHODS[name].Config()) for name in names}
    return {**flat, "configs": configs}


study = keyword_call(Study, run)
