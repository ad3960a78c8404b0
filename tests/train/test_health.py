"""The alarm rings for a collapse, soon, and for nothing else."""

import math

import pytest
import torch
from torch import nn

from kontrast.errors import TrainingStopped
from kontrast.train import Fit, fit
from kontrast.train.health import GRACE, Health, sentence


class Constant(nn.Module):
    """Every image becomes the same point."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.point.expand(len(x), 8)


class Line(nn.Module):
    """All images lie on one line, spread out along it: only the rank betrays it."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None] * 10 * self.direction


@pytest.mark.parametrize("net", [Constant, Line])
@pytest.mark.parametrize("name", ["simclr", "simsiam"])
def test_a_collapsed_encoder_is_reported_within_an_epoch_and_once(name, net, build_method, loader, caplog):
    rows = fit(build_method(name, net()), loader, Fit(epochs=3, lr=1e-6), show=False)
    alarms = [record.message for record in caplog.records if "looks collapsed" in record.message]
    assert len(alarms) == 1
    assert "a lower --lr" in alarms[0]
    assert rows[0]["effective_rank"] < 1.5
    assert sentence(rows[-1]) == "looks collapsed"


@pytest.mark.parametrize("net", [Constant, Line])
def test_with_stop_a_collapsed_run_ends_in_its_first_epoch(net, build_method, loader, tmp_path):
    with pytest.raises(TrainingStopped, match="looks collapsed"):
        fit(build_method("simclr", net()), loader, Fit(epochs=3, on_collapse="stop"), out=tmp_path, show=False)
    assert not (tmp_path / "encoder.safetensors").exists()


@pytest.mark.parametrize("name", ["simclr", "simsiam", "byol", "moco", "supervised", "learned_views", "ebclr"])
def test_a_healthy_run_raises_no_alarm(name, build_method, loader, caplog):
    rows = fit(build_method(name), loader, Fit(epochs=2, on_collapse="stop"), show=False)
    assert "collapsed" not in caplog.text
    assert sentence(rows[-1]) == "healthy, embeddings are spread out"


def test_too_little_spread_is_forgiven_for_four_steps_and_not_for_five(images):
    health = Health(torch.from_numpy(images.pixels[:4]), on_collapse="stop")
    for step, spread in enumerate([0.0] * 4 + [0.5] + [0.0] * 4):
        health.step(step, 1.0, spread, "rest")
    with pytest.raises(TrainingStopped, match=r"same embedding \(spread 0.000"):
        health.step(9, 1.0, 0.0, "rest")


def test_a_network_that_begins_narrow_and_widens_is_not_said_to_have_collapsed(images):
    """As those without norms do; it must widen, though, and stay so."""
    health = Health(torch.from_numpy(images.pixels[:4]), on_collapse="stop", begins_narrow=True)
    for step, spread in enumerate([0.008, 0.009, 0.007, 0.008, 0.006, 0.009, 0.015, 0.3]):
        health.step(step, 1.0, spread, "rest")
    for step in range(4):
        health.step(8 + step, 1.0, 0.007, "rest")
    with pytest.raises(TrainingStopped, match="same embedding"):
        health.step(12, 1.0, 0.007, "rest")


def test_a_network_that_never_widens_is_said_to_have_collapsed_after_a_while_also_in_a_resumed_run(images):
    for first in (0, 5 * GRACE):
        health = Health(torch.from_numpy(images.pixels[:4]), on_collapse="stop", begins_narrow=True)
        for step in range(first, max(first, GRACE) + 4):
            health.step(step, 1.0, 0.008, "rest")
        with pytest.raises(TrainingStopped, match="same embedding"):
            health.step(max(first, GRACE) + 4, 1.0, 0.008, "rest")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_even_a_run_that_only_warns(loss, images):
    health = Health(torch.from_numpy(images.pixels[:4]), on_collapse="warn")
    with pytest.raises(TrainingStopped, match=f"was {loss} at step 7; rest"):
        health.step(7, loss, 1.0, "rest")


def test_a_method_without_need_of_many_directions_is_not_said_to_have_collapsed_onto_a_line(images, build_method):
    health = Health(torch.from_numpy(images.pixels), on_collapse="stop")
    assert health.look(build_method("supervised", Line()))["effective_rank"] < 1.5
    with pytest.raises(TrainingStopped, match=r"representations use 1\.0 directions of 8"):
        health.look(build_method("simclr", Line()))


@pytest.mark.parametrize("producer", ["global", "network"])
def test_looking_leaves_a_learned_policy_as_it_is(producer, images, build_method):
    method = build_method("learned_views", producer=producer).train()
    if producer == "network":
        torch.nn.init.normal_(method.augment.network[-1].weight)
    before = {k: v.clone() for k, v in method.augment.state_dict().items()}
    Health(torch.from_numpy(images.pixels)).look(method)
    assert method.augment.training
    assert all(torch.equal(v, before[k]) for k, v in method.augment.state_dict().items())


def test_looking_changes_neither_weights_nor_draws_nor_the_mode(images, build_method):
    method = build_method("moco").train()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    draws = torch.get_rng_state()
    health = Health(torch.from_numpy(images.pixels))
    first, second = health.look(method), health.look(method)
    assert first == second
    assert torch.equal(torch.get_rng_state(), draws)
    assert method.training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_what_is_looked_at_are_the_named_measures(images, build_method):
    method = build_method("simclr").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        a, b = (method.encoder(method.augment(torch.from_numpy(images.pixels), generator)) for _ in range(2))
    unit, other = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (a, b))
    found = Health(torch.from_numpy(images.pixels)).look(method)
    assert found["alignment"] == pytest.approx(float((unit - other).pow(2).sum(1).mean()), rel=1e-5)
    expected = unit.std(0, unbiased=False).mean() * math.sqrt(8)
    assert found["representation_spread"] == pytest.approx(float(expected), rel=1e-5)
    assert 1 <= found["effective_rank"] <= 8


def test_representations_that_are_not_finite_stop_the_run(images, build_method):
    method = build_method("simclr")
    with torch.no_grad():
        method.encoder.net.conv.weight[0] = math.nan
    with pytest.raises(TrainingStopped, match="representations must be finite numbers"):
        Health(torch.from_numpy(images.pixels)).look(method)
