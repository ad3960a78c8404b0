"""The schedule and the optimisers, against their definitions."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kontrast.train.optim import Cosine, build, schedule, set_rate


@pytest.mark.parametrize(
    ("progress", "warmup", "factor"),
    [(0, 0.1, 0), (0.05, 0.1, 0.5), (0.1, 0.1, 1), (0.55, 0.1, 0.5), (1, 0.1, 0), (0, 0, 1), (0.25, 0, 0.8535533906)],
)
def test_the_rate_rises_along_a_line_and_falls_along_half_a_cosine(progress, warmup, factor):
    assert schedule(progress, warmup) == pytest.approx(factor, abs=1e-9)


@pytest.mark.parametrize(
    ("peak", "steps", "epochs", "last"),
    [(0.015, 46, 400, 0.0076498), (0.06, 97, 200, 0.0518372)],
    ids=["skin lesions", "CIFAR-10"],
)
def test_the_rates_of_lu_et_al_are_those_of_ten_epochs_of_warm_up_and_a_cosine_over_800(peak, steps, epochs, last):
    cosine = Cosine(steps=epochs * steps, horizon=800 * steps, warmup=0.0125)
    rates = [peak * cosine.factor(step) for step in range(cosine.steps)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 10 * steps
    assert max(rates) == pytest.approx(peak)
    assert rates[-1] == pytest.approx(last, abs=5e-8)


def test_the_rate_never_jumps():
    values = [schedule(i / 1000, 0.05) for i in range(1001)]
    assert max(abs(a - b) for a, b in pairwise(values)) < 0.021
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weights_decay_and_norms_and_biases_never_do(kind):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimiser = build(kind, [{"params": list(net.parameters()), "lr": 0.1}], 0.3)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    weights = {id(net[0].weight), id(net[3].weight)}
    assert decay == {id(p): 0.3 if id(p) in weights else 0.0 for p in net.parameters()}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_group_may_bring_its_own_decay_and_its_norms_and_biases_never_have_one(kind):
    nets = [nn.Linear(3, 2) for _ in range(3)]
    own = [{"weight_decay": 0.0}, {"weight_decay": 0.7}, {}]
    groups = [{"params": list(net.parameters()), "lr": 0.1, **how} for net, how in zip(nets, own, strict=True)]
    optimiser = build(kind, groups, 0.3)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert [decay[id(net.weight)] for net in nets] == [0.0, 0.7, 0.3]
    assert [decay[id(net.bias)] for net in nets] == [0.0, 0.0, 0.0]
    before = [net.weight.detach().clone() for net in nets]
    for p in (p for net in nets for p in net.parameters()):
        p.grad = torch.zeros_like(p)
    optimiser.step()
    factor = 0.1 * (1.9 if kind == "sgd" else 1)  # Nesterov's first step is that much longer
    for net, weight, rate in zip(nets, before, (0.0, 0.7, 0.3), strict=True):
        torch.testing.assert_close(net.weight.detach(), weight * (1 - factor * rate))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_a_gradient_signal_only_weights_shrink(kind):
    net = nn.Linear(3, 2)
    nn.init.ones_(net.bias)
    before = net.weight.detach().clone()
    optimiser = build(kind, [{"params": list(net.parameters()), "lr": 0.1}], 0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    assert (net.weight.abs() < before.abs()).all()
    assert torch.equal(net.bias, torch.ones(2))


def test_a_step_of_sgd_is_nesterovs():
    p = nn.Parameter(torch.ones(1, 1))
    optimiser = build("sgd", [{"params": [p], "lr": 0.1}], 0.0)
    value, velocity = 1.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        p.grad = torch.full_like(p, gradient)
        optimiser.step()
        velocity = 0.9 * velocity + gradient
        value -= 0.1 * (gradient + 0.9 * velocity)
    assert p.item() == pytest.approx(value)


def test_a_group_of_constant_rate_keeps_it_while_the_others_follow_the_schedule():
    one, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimiser = build("sgd", [{"params": [one], "lr": 0.4}, {"params": [other], "lr": 0.2, "constant_lr": True}], 0.0)
    for factor in (0.0, 1.0, 0.25):
        set_rate(optimiser, factor)
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.4 * factor, 0.2])


def test_the_peak_rate_survives_the_state_of_the_optimiser():
    def fresh():
        return build("sgd", [{"params": [nn.Parameter(torch.ones(2, 2))], "lr": 0.4}], 0.0)

    first, second = fresh(), fresh()
    set_rate(first, 0.01)
    second.load_state_dict(first.state_dict())
    set_rate(second, 1.0)
    assert second.param_groups[0]["lr"] == 0.4
    assert math.isclose(first.param_groups[0]["lr"], 0.004)
