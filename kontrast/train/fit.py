"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kontrast import interrupts
from kontrast.augment import policy_file
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.data import Loader
from kontrast.errors import InputError
from kontrast.methods.base import Method
from kontrast.nn.encoders import Encoder, save_encoder
from kontrast.train import checkpoint
from kontrast.train.health import Health, OnCollapse
from kontrast.train.log import MetricLog, ProgressLine, Row
from kontrast.train.optim import Cosine, OptimiserName, Schedule, build, set_rate
from kontrast.train.parallel import (
    PRECISIONS,
    Compile,
    Precision,
    autocast,
    choose_device,
    choose_precision,
    compiled,
    eager,
)
from kontrast.train.pictures import write_sheet

log = logging.getLogger("kontrast")

Evaluate = Callable[[Encoder], dict[str, float]]


class UpdateRule(NamedTuple):
    """How weights are changed."""

    optimiser: OptimiserName
    lr: float
    """For a batch of 256."""
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How long and how to train."""

    epochs: int = 100
    """Passes over the training images."""
    optimiser: OptimiserName | None = None
    """SGD with Nesterov's momentum 0.9, or AdamW; by default sgd, and adamw for `clip`, `cyclip` and `ebclr`."""
    lr: float | None = None
    """Peak learning rate for a batch of 256; scaled with the batch (Goyal et al., 2017). By default 0.06, 0.001
    for `clip` and `cyclip`, and 0.0004 for `ebclr`."""
    weight_decay: float | None = None
    """Decay of weights; usual values are 5e-4 for sgd and 0.05 for adamw. Norms and biases are never decayed. By
    default 5e-4, 0.1 for `clip` and `cyclip`, and 0 for `ebclr`."""
    warmup: float = 0.05
    """Share of the schedule in which the rate rises from zero, before it falls along a cosine."""
    schedule_epochs: int | None = None
    """Epochs in which the rate would reach zero again, so that it ends higher; by default those of --epochs."""
    precision: Precision = "auto"
    """`auto` is bf16 where the processor or GPU has it, fp16 on older GPUs, else float32."""
    compile: Compile = "auto"
    """Whether torch compiles the encoder; `auto` does so on a GPU in runs of 10,000 steps or more."""
    device: str = "auto"
    """`auto` is the first GPU if there is one; or `cpu`, `cuda:1`."""
    seed: int = 0
    """Of the augmentation's draws."""
    on_collapse: OnCollapse = "warn"
    """What to do when embeddings collapse: say so, or say so and stop."""
    keep_every: int = 0
    """Epochs between snapshots of the encoder that are kept; 0 for none."""

    def update_rule(self, method: type[Method]) -> UpdateRule:
        """What is asked for, or else the method's own."""
        return UpdateRule(
            method.optimiser if self.optimiser is None else self.optimiser,
            method.lr if self.lr is None else self.lr,
            method.weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def check(self) -> None:
        """Refuse what cannot train; commands ask before they take a folder.

        Raises:
            InputError: A value is out of its range, there is no such device, or it cannot train in that precision.
        """
        choose_precision(self.precision, choose_device(self.device))
        rules = {
            "epochs must be 1 or more": self.epochs >= 1,
            "lr must be above 0 and finite": self.lr is None or 0 < self.lr < math.inf,
            "weight_decay must be 0 or more, and finite": self.weight_decay is None
            or 0 <= self.weight_decay < math.inf,
            "warmup is a share of the schedule, at least 0 and below 1": 0 <= self.warmup < 1,
            "schedule_epochs must be no fewer than epochs": self.schedule_epochs is None
            or self.schedule_epochs >= self.epochs,
            "keep_every must be 0 or more": self.keep_every >= 0,
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.partition(" ")[0]
                raise InputError(f"{rule}; got {getattr(self, name)}, so leave it out or change it")


def fit(
    method: Method,
    loader: Loader,
    config: Fit | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1,
    title: str = "training",
    show: bool = True,
    schedule: Schedule | None = None,
) -> list[Row]:
    """Train a method, in place.

    Args:
        method: What to train; moved to the device.
        loader: Batches.
        config: How long and how.
        out: Folder of the run: `metrics.jsonl`, `checkpoint/`, snapshots, pictures of samples, the finished
            encoder, `policy.yaml`, the augmentation as it was at the end, and what else the method leaves. None writes
            nothing.
        resume: Go on from the newest checkpoint in `out`; on the CPU the metrics are those of an unbroken run.
        evaluate: Called with the encoder in evaluation mode; its scores join the metrics.
        evaluate_every: Epochs between those calls; the last epoch is always among them.
        title: Shown before the progress line.
        show: Whether to show progress at all.
        schedule: Steps and rates instead of the epochs, the warm-up and the cosine of `config`.

    Returns:
        One row of metrics an epoch.

    Raises:
        TrainingStopped: The loss is not a number, or the embeddings collapsed and `on_collapse` is `stop`; found out
            one step later, and always before a checkpoint is written.
    """
    config = config or Fit()
    config.check()
    run = _Run(method, loader, config, out, evaluate, evaluate_every, schedule)
    done = run.restore() if resume else 0
    if not done:
        method.begin(loader.epoch(0, run.device), len(loader) * min(loader.batch_size, len(loader.data)))
    run.log = MetricLog(out, keep_until=done)
    run.before = run.log.rows[-1] if run.log.rows else {}
    epochs = run.epochs
    with (
        ProgressLine(title, run.schedule.steps, done=done * len(loader), shown=show) as line,
        compiled(method, run.config.compile, run.device, run.schedule.steps),
        run.passes,
    ):
        for epoch in range(done, epochs):
            row = run.epoch(epoch, line)
            run.log.add(row)
            run.health.hear(method.concern(run.log.rows))
            line.epoch(row, epochs)
            run.save(epoch + 1)
    run.log.close()
    method.eval()
    if out is not None:
        policy = method.augment.freeze()
        if type(policy) is Policy:  # one of operations with constants; what samples them in a way of its own is none
            policy_file.write(policy, out / "policy.yaml", channels=method.encoder.spec.channels)
        method.leave(out, loader.epoch(0, run.device))
        save_encoder(method.encoder, out)  # last, since a run that has it is finished
    return run.log.rows


class _Run:
    """The parts of one training run, and what it takes to stop and go on."""

    log: MetricLog

    def __init__(
        self,
        method: Method,
        loader: Loader,
        config: Fit,
        out: Path | None,
        evaluate: Evaluate | None,
        evaluate_every: int,
        schedule: Schedule | None,
    ) -> None:
        every = config.epochs * len(loader)
        horizon = (config.schedule_epochs or config.epochs) * len(loader)
        self.schedule = schedule or Cosine(steps=every, horizon=horizon, warmup=config.warmup)
        self.epochs = -(-self.schedule.steps // len(loader))
        self.method, self.loader, self.config, self.out = method, loader, config, out
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.device = choose_device(config.device)
        self.dtype = choose_precision(config.precision, self.device)
        method.to(self.device)
        torch.manual_seed(config.seed)
        rule = config.update_rule(type(method))
        rate = rule.lr * min(loader.batch_size, len(loader.data)) / 256
        self.optimiser = build(rule.optimiser, method.parameter_groups(rate), rule.weight_decay)
        self.scaler = self.new_scaler()
        self.passes = _Passes(method)
        self.before: dict[str, float] = {}
        sample = torch.linspace(0, len(loader.data) - 1, min(len(loader.data), 256)).long()
        self.health = Health(
            loader.data.batch(sample.numpy()).image.to(self.device),
            on_collapse=config.on_collapse,
            begins_narrow=method.begins_narrow,
        )

    def new_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss in fp16, and does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def epoch(self, epoch: int, line: ProgressLine) -> Row:
        """Train one epoch; returns its row of metrics."""
        started, waited, images = time.perf_counter(), 0.0, 0
        first = epoch * len(self.loader)
        steps = min(len(self.loader), self.schedule.steps - first)
        totals: dict[str, float] = {}
        self.passes.counted = 0
        before: _Metrics | None = None
        self.method.train()
        batches = islice(self.loader.epoch(epoch, self.device), steps)
        for step, (batch, wait) in enumerate(_timed(batches), start=first):
            metrics = _Metrics(step, self.step(batch, step))
            if before:  # one step late, so that a GPU has its next step already while we look at this one
                self.watch(before, totals)
            before = metrics
            waited, images = waited + wait, images + len(batch)
            line.step()
        assert before is not None, "a loader has at least one batch"
        self.watch(before, totals)
        means = {name: total / steps for name, total in totals.items()}
        passes = self.passes.counted + (self.log.rows[-1]["passes"] if self.log.rows else 0)
        done = {"epoch": epoch + 1, "step": first + steps, "passes": passes}
        row = {**done, **means, "lr": self.optimiser.param_groups[0]["lr"]}
        seconds = time.perf_counter() - started
        timing = {"seconds": seconds, "images_per_second": images / seconds, "data_wait": waited / seconds}
        return {**row, **self.look(epoch + 1), **timing}

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One update; returns the loss and the method's metrics, still on the device."""
        set_rate(self.optimiser, self.schedule.factor(step))
        with autocast(self.device, self.dtype):
            loss, metrics = self.method(batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.method.after_step(step / self.schedule.steps)
        return {"loss": loss, **metrics}

    def watch(self, metrics: _Metrics, totals: dict[str, float]) -> None:
        """Look at a step's metrics and add them to the epoch's."""
        values = metrics.read()
        self.health.step(metrics.step, values["loss"], values["spread"], self.method.remedy(self.before))
        self.before = values
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value

    def look(self, epoch: int) -> dict[str, float]:
        """Health about twenty times a run, scores as often as asked, both at the end, and a picture with either."""
        last = epoch == self.epochs
        found: dict[str, float] = {}
        if last or epoch % max(1, self.epochs // 20) == 0:
            with eager(), autocast(self.device, self.dtype):
                found |= self.health.look(self.method)
        if self.evaluate and (last or epoch % self.evaluate_every == 0):
            self.method.eval()
            with eager():
                found |= self.evaluate(self.method.encoder)
        if found and self.out is not None and (made := self.method.made()) is not None:
            write_sheet(self.out, epoch, made)
        return found

    def save(self, epoch: int) -> None:
        """Write the checkpoint, and a snapshot of the encoder where one is due."""
        if self.out is None:
            return
        state: dict[str, Any] = {
            "epoch": epoch,
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": PRECISIONS[self.dtype],
            "scaler": self.scaler.state_dict(),
            "draws": torch.get_rng_state(),
            "device_draws": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        checkpoint.save(self.out / "checkpoint", epoch, state)
        if self.config.keep_every and epoch % self.config.keep_every == 0:
            save_encoder(self.method.encoder, self.out / "encoders", stem=f"epoch_{epoch:05d}")

    def restore(self) -> int:
        """Go back to the newest checkpoint; returns the epochs done, 0 where there is none.

        A run keeps the precision it began in, also where other hardware would have chosen another.
        """
        state = checkpoint.load(self.out / "checkpoint") if self.out else None
        if state is None:
            return 0
        self.dtype = choose_precision(state["precision"], self.device)
        self.scaler = self.new_scaler()
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["draws"])
        if state["device_draws"]:
            torch.cuda.set_rng_state_all(state["device_draws"])
        return int(state["epoch"])


def _timed(batches: Iterable[Batch]) -> Iterable[tuple[Batch, float]]:
    """Each batch with the seconds it was waited for."""
    started = time.perf_counter()
    for batch in batches:
        interrupts.check()
        yield batch, time.perf_counter() - started
        started = time.perf_counter()


class _Passes:
    """Inside, counts the images that go forward through any encoder of a method, a teacher's included.

    It is the cost that methods can be compared by on any machine.
    """

    def __init__(self, method: Method) -> None:
        self.encoders = [part for part in method.modules() if isinstance(part, Encoder)]
        self.counted = 0

    def __enter__(self) -> _Passes:
        self.hooks = [one.register_forward_pre_hook(self._count) for one in self.encoders]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _count(self, _: Any, arguments: tuple[Tensor]) -> None:
        self.counted += len(arguments[0])


class _Metrics:
    """The scalars of a step on their way from the device, in one copy that nobody waits for until they are read."""

    def __init__(self, step: int, values: dict[str, Tensor]) -> None:
        self.step, self.names = step, tuple(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self.values = stacked.to("cpu", non_blocking=True)
        self.copied = torch.cuda.current_stream(stacked.device).record_event() if stacked.is_cuda else None

    def read(self) -> dict[str, float]:
        """The scalars by name, as soon as they have arrived."""
        if self.copied:
            self.copied.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))
