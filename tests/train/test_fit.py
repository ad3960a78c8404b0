"""Training does what its settings say, and can be stopped and resumed without a trace."""

import math
from dataclasses import dataclass
from typing import ClassVar
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from kontrast.augment import policy_file
from kontrast.augment.operations import constants
from kontrast.augment.policies import POLICIES, RandAugment, digits
from kontrast.data import Loader
from kontrast.errors import InputError, TrainingStopped
from kontrast.methods import EBCLR, METHODS, SimCLR
from kontrast.methods.base import Method, Objective
from kontrast.train import Fit, checkpoint, fit, parallel
from kontrast.train.log import TIMING, read_rows
from kontrast.train.optim import schedule


def reproducible(rows):
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


class Scripted(Method):
    """Loss of the next update is the next number of a script; remembers what its hooks were told."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """None."""

    script: ClassVar[list[float]] = []

    def __init__(self, encoder, augment=None):
        super().__init__(encoder, augment or nn.Identity())
        self.told, self.rates, self.done = [], [], 0

    def forward(self, batch):
        anchor = self.encoder(batch.image).sum() * 0
        loss = anchor + self.script[self.done % len(self.script)]
        self.done += 1
        return Objective(loss, {"spread": torch.ones(())})

    def after_step(self, progress):
        self.told.append(progress)


class Repeat(nn.Identity):
    def forward(self, image, generator=None):
        return image.float() / 255


class Worried(Scripted):
    """Says one sentence in the second epoch and ever after, and another in the fourth alone."""

    def concern(self, rows):
        self.told.append([row["epoch"] for row in rows])
        return {1: None, 4: "the other sentence"}.get(len(rows), "the first sentence")


@pytest.fixture
def scripted(build_encoder, monkeypatch):
    def scripted(*script):
        monkeypatch.setattr(Scripted, "script", list(script))
        return Scripted(build_encoder(), Repeat())

    return scripted


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_in_any_epoch_and_resumed_ends_bit_for_bit_as_an_unbroken_one(
    name, build_method, loader, tmp_path
):
    config = Fit(epochs=4)
    whole = fit(build_method(name), loader, config, out=tmp_path / "whole", evaluate=lambda _: {}, show=False)
    for stop in (1, 4):
        calls = []

        def stopping(_, calls=calls, stop=stop):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return {}

        out = tmp_path / f"stopped{stop}"
        with pytest.raises(KeyboardInterrupt):
            fit(build_method(name), loader, config, out=out, evaluate=stopping, show=False)
        assert len(checkpoint.saved(out / "checkpoint")) == min(stop - 1, 2)
        torch.manual_seed(99)
        torch.rand(7)
        rows = fit(build_method(name), loader, config, out=out, resume=True, evaluate=lambda _: {}, show=False)
        assert reproducible(rows) == reproducible(whole)
        assert reproducible(read_rows(out / "metrics.jsonl")) == reproducible(whole)
        files = [folder / "encoder.safetensors" for folder in (tmp_path / "whole", out)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_rows_written_after_the_checkpoint_to_resume_from_are_written_anew(build_method, loader, tmp_path):
    config = Fit(epochs=3)
    whole = fit(build_method("simclr"), loader, config, out=tmp_path, show=False)
    checkpoint.saved(tmp_path / "checkpoint")[-1].unlink()
    rows = fit(build_method("simclr"), loader, config, out=tmp_path, resume=True, show=False)
    assert reproducible(rows) == reproducible(whole)
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_resuming_a_finished_run_changes_nothing(build_method, loader, tmp_path):
    whole = fit(build_method("simclr"), loader, Fit(epochs=2), out=tmp_path, show=False)
    before = (tmp_path / "encoder.safetensors").read_bytes()
    rows = fit(build_method("simclr"), loader, Fit(epochs=2), out=tmp_path, resume=True, show=False)
    assert rows == whole
    assert (tmp_path / "encoder.safetensors").read_bytes() == before


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_no_more(build_method, loader, tmp_path, caplog):
    whole = fit(build_method("byol"), loader, Fit(epochs=3), out=tmp_path, show=False)
    newest = checkpoint.saved(tmp_path / "checkpoint")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    rows = fit(build_method("byol"), loader, Fit(epochs=3), out=tmp_path, resume=True, show=False)
    assert "epoch_00003.pt is damaged" in caplog.text
    assert reproducible(rows) == reproducible(whole)


def test_the_loss_of_a_row_is_the_mean_over_the_steps_of_its_epoch(scripted, loader):
    rows = fit(scripted(1.0, 2.0, 6.0), loader, Fit(epochs=2, precision="float32"), show=False)
    assert [row["loss"] for row in rows] == pytest.approx([3.0, 3.0])
    assert [row["step"] for row in rows] == [3, 6]


def test_after_step_hears_the_share_of_training_done_once_an_update(scripted, loader):
    method = scripted(1.0)
    fit(method, loader, Fit(epochs=2), show=False)
    assert method.told == pytest.approx([i / 6 for i in range(6)])


def test_the_rate_is_scaled_with_the_batch_and_follows_the_schedule(scripted, loader):
    rows = fit(scripted(1.0), loader, Fit(epochs=2, lr=0.5, warmup=0.25), show=False)
    peak = 0.5 * 8 / 256
    assert [row["lr"] for row in rows] == pytest.approx([peak * schedule(2 / 6, 0.25), peak * schedule(5 / 6, 0.25)])


def test_a_schedule_longer_than_the_run_ends_it_at_a_higher_rate(scripted, loader):
    rows = fit(scripted(1.0), loader, Fit(epochs=2, lr=0.5, warmup=0.25, schedule_epochs=8), show=False)
    peak = 0.5 * 8 / 256
    assert [row["lr"] for row in rows] == pytest.approx([peak * schedule(2 / 24, 0.25), peak * schedule(5 / 24, 0.25)])


def test_a_loss_that_is_no_number_stops_with_its_step_and_leaves_the_last_checkpoint(scripted, loader, tmp_path):
    method = scripted(1.0, 1.0, 1.0, 1.0, math.nan)
    with pytest.raises(TrainingStopped, match=r"was nan at step 4; .*lower --lr"):
        fit(method, loader, Fit(epochs=3), out=tmp_path, show=False)
    state = checkpoint.load(tmp_path / "checkpoint")
    assert state["epoch"] == 1
    assert not (tmp_path / "encoder.safetensors").exists()


def test_a_loss_that_is_no_number_in_the_last_step_of_an_epoch_leaves_no_checkpoint_of_it(scripted, loader, tmp_path):
    method = scripted(1.0, 1.0, 1.0, 1.0, 1.0, math.nan)
    with pytest.raises(TrainingStopped, match="was nan at step 5;"):
        fit(method, loader, Fit(epochs=3), out=tmp_path, show=False)
    assert checkpoint.load(tmp_path / "checkpoint")["epoch"] == 1


def test_without_a_folder_nothing_is_written(build_method, loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = fit(build_method("simclr"), loader, Fit(epochs=1), show=False)
    assert len(rows) == 1
    assert list(tmp_path.iterdir()) == []


def test_scores_are_asked_for_as_often_as_said_and_after_the_last_epoch(build_method, loader):
    modes = []

    def evaluate(encoder):
        modes.append(encoder.training)
        return {"score": 0.5}

    rows = fit(build_method("simclr"), loader, Fit(epochs=5), evaluate=evaluate, evaluate_every=2, show=False)
    assert ["score" in row for row in rows] == [False, True, False, True, True]
    assert modes == [False] * 3


def test_the_same_seed_trains_the_same_and_another_seed_does_not(build_method, loader):
    first, again, other = (
        fit(build_method("simclr"), loader, Fit(epochs=1, seed=seed), show=False)[0]["loss"] for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -0.1},
        {"warmup": 1.0},
        {"schedule_epochs": 2},
        {"keep_every": -1},
        {"device": "cuda:77"},
        {"device": "abacus"},
        {"precision": "fp16", "device": "cpu"},
    ],
    ids=str,
)
def test_settings_that_cannot_train_are_refused_before_anything_is_written(wrong, build_method, loader, tmp_path):
    value = str(next(iter(wrong.values())))
    with pytest.raises(InputError, match=value):
        fit(build_method("simclr"), loader, Fit(**wrong), out=tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_precision_where_other_hardware_would_choose_another(
    build_method, loader, tmp_path, monkeypatch
):
    for epochs, instructions in ((1, "avx512_bf16"), (2, "")):
        monkeypatch.setattr(parallel, "native_bf16", lambda instructions=instructions: instructions)
        fit(build_method("simclr"), loader, Fit(epochs=epochs), out=tmp_path, resume=epochs == 2, show=False)
        assert checkpoint.load(tmp_path / "checkpoint")["precision"] == "bf16"


@pytest.mark.parametrize(
    ("name", "settings", "an_epoch"),
    [
        ("simclr", {}, 2 * 24),
        ("moco", {}, 2 * 24),
        ("byol", {}, 4 * 24),
        ("ebclr", {}, (2 + 2 + 1) * 24),  # two views, two steps of the chain, the sample
        ("ebclr", {"num_samples": 2}, 2 * 24 + 3 * 3 * 2),
        ("ebclr", {"gen_weight": 0.0}, 2 * 24),
        ("supervised", {}, 24),
        ("learned_views", {"mode": "adversarial"}, 2 * 24),
        ("learned_views", {}, 2 * 24 + 3 * 2 * 2),  # no fewer than two labelled images a step, both views of each
        ("learned_views", {"labelled_share": 0.5}, 2 * 24 + 3 * 2 * 4),
        ("learned_views", {"labelled_share": 1.0}, 4 * 24),
    ],
)
def test_passes_are_the_images_that_went_through_encoders_to_learn_and_add_up_over_epochs(
    name, settings, an_epoch, build_method, loader
):
    """Neither scores nor the look at the health of a run are among them."""
    method = build_method(name, **settings)
    seen = torch.zeros(5, 1, 8, 8)
    rows = fit(method, loader, Fit(epochs=3), evaluate=lambda e: {"score": float(e(seen).detach().sum())}, show=False)
    assert [row["passes"] for row in rows] == [an_epoch, 2 * an_epoch, 3 * an_epoch]
    assert all("score" in row for row in rows)


def test_passes_go_on_from_where_a_resumed_run_stopped(build_method, loader, tmp_path):
    calls = []

    def stopping(_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit(build_method("byol"), loader, Fit(epochs=4), out=tmp_path, evaluate=stopping, show=False)
    method = build_method("byol")
    rows = fit(method, loader, Fit(epochs=4), out=tmp_path, resume=True, evaluate=lambda _: {}, show=False)
    assert [row["passes"] for row in rows] == [4 * 24 * epochs for epochs in (1, 2, 3, 4)]
    assert [row["passes"] for row in read_rows(tmp_path / "metrics.jsonl")] == [row["passes"] for row in rows]


@pytest.mark.parametrize("script", [[1.0], [1.0, math.nan]])
def test_nothing_is_counted_any_more_when_training_is_over_or_broken_off(script, scripted, loader):
    method = scripted(*script)
    if len(script) == 1:
        fit(method, loader, Fit(epochs=1), show=False)
    else:
        with pytest.raises(TrainingStopped):
            fit(method, loader, Fit(epochs=1), show=False)
    assert not method.encoder._forward_pre_hooks


def test_a_run_leaves_its_policy_as_a_file_that_gives_the_same_views(build_method, loader, tmp_path):
    method = build_method("simclr")
    fit(method, loader, Fit(epochs=1), out=tmp_path, show=False)
    read = policy_file.read(tmp_path / "policy.yaml", size=8, channels=1)
    assert constants(read) == constants(digits(8))
    image = torch.rand(4, 1, 8, 8)
    views = [policy(image, torch.Generator().manual_seed(3)) for policy in (read, method.augment)]
    assert torch.equal(*views)


@pytest.mark.parametrize("name", ["natural", "histology", "dermoscopy"])
def test_a_run_on_grey_images_leaves_a_policy_that_grey_images_can_use(name, build_method, loader, tmp_path):
    """Although the policy that it was made with knows colours, which it could do nothing to."""
    method = build_method("simclr")
    method.augment = POLICIES[name](8)
    fit(method, loader, Fit(epochs=1), out=tmp_path, show=False)
    read = policy_file.read(tmp_path / "policy.yaml", size=8, channels=1)
    assert read.geometry.area == method.augment.geometry.area
    assert read.intensity.contrast == method.augment.intensity.contrast


def test_the_policy_that_a_run_leaves_is_the_learned_one_as_it_was_at_the_end(build_method, images, tmp_path):
    method = build_method("learned_views", start=0.0, policy_lr=3.0)
    loader = Loader(images, 8, labelled_share=method.labelled_share)
    fit(method, loader, Fit(epochs=2), out=tmp_path, show=False)
    read = policy_file.read(tmp_path / "policy.yaml", size=8, channels=1)
    assert constants(read) == constants(method.augment.freeze())
    begun = constants(digits(8))
    assert all(constants(read)[name] != begun[name] for name in method.augment.names)


def test_a_policy_that_is_no_list_of_strengths_leaves_no_file(build_method, loader, tmp_path):
    method = build_method("simclr")
    method.augment = RandAugment(8)
    fit(method, loader, Fit(epochs=1), out=tmp_path, show=False)
    assert (tmp_path / "encoder.safetensors").exists()
    assert not (tmp_path / "policy.yaml").exists()


def test_what_a_method_says_of_itself_is_passed_on_once_a_sentence(build_encoder, loader, monkeypatch, caplog):
    monkeypatch.setattr(Worried, "script", [1.0])
    method = Worried(build_encoder(), Repeat())
    method.after_step = lambda progress: None
    fit(method, loader, Fit(epochs=5), show=False)
    assert method.told == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5]]
    said = [record.message for record in caplog.records if "sentence" in record.message]
    assert said == ["the first sentence", "the other sentence"]


def test_a_run_that_is_stopped_while_the_method_leaves_its_own_is_not_finished(
    build_method, loader, tmp_path, monkeypatch
):
    method = build_method("simclr")
    monkeypatch.setattr(method, "leave", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(method, loader, Fit(epochs=1), out=tmp_path, show=False)
    assert not (tmp_path / "encoder.safetensors").exists()
    fit(build_method("simclr"), loader, Fit(epochs=1), out=tmp_path, show=False, resume=True)
    assert (tmp_path / "encoder.safetensors").exists()


def test_a_method_is_trained_by_its_own_rule_unless_another_is_asked_for():
    assert Fit().update_rule(SimCLR) == ("sgd", 0.06, 5e-4)
    assert Fit().update_rule(EBCLR) == ("adamw", 0.0004, 0.0)
    assert Fit(optimiser="sgd", lr=0.1, weight_decay=0.01).update_rule(EBCLR) == ("sgd", 0.1, 0.01)
    assert Fit(weight_decay=0.0).update_rule(SimCLR) == ("sgd", 0.06, 0.0)
