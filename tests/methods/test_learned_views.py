"""Learned views: one backward pass is as many updates, each of its own player, and the policy learns what it should."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from kontrast import gradient
from kontrast.augment.geometry import Geometry
from kontrast.augment.intensity import Intensity
from kontrast.augment.policies import Policy, digits, natural
from kontrast.batch import Batch
from kontrast.errors import InputError
from kontrast.methods import LearnedViews, SimCLR
from kontrast.methods.base import Method
from kontrast.nn.encoders import Encoder, EncoderSpec
from kontrast.train.optim import build, schedule, set_rate

SIDE = 12
WEIGHTS = {"semi": (1, -1), "adversarial": (0, -1), "supervised": (1, 0), "cooperative": (1, 1)}
"""Of labels and contrast in what the policy minimises, in each mode; the second times `contrast_weight`."""
MODES = pytest.mark.parametrize("mode", sorted(WEIGHTS))
READING = pytest.mark.parametrize("mode", sorted(set(WEIGHTS) - {"adversarial"}))
PRODUCERS = pytest.mark.parametrize("producer", ["global", "network"])


class Net(nn.Module):
    num_features = 10

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 10, 3), nn.BatchNorm2d(10)
        )

    def forward(self, x):
        return self.layers(x).tanh().mean((2, 3))


class Brightness(nn.Module):
    """Of each image its mean, and nothing that could be learned."""

    num_features = 2

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, 1 - mean], dim=1)


class Pixels(nn.Module):
    num_features = SIDE**2

    def forward(self, x):
        return x.flatten(1)


@pytest.fixture
def in_double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def policy():
    """With chances and strengths, of geometry and intensity."""
    return Policy(
        Geometry(SIDE, area=(0.5, 1), rotation=15, flip=0.3),
        Intensity(probability=0.8, brightness=0.3, contrast=0.2, noise=0.03),
    )


def built(net=None):
    return Encoder(net or Net(), EncoderSpec(name="resnet18", channels=1, size=SIDE))


def made(*, net=None, start_at=None, num_classes=3, seed=0, **config):
    torch.manual_seed(seed)
    settings = {"start": 0.0, "width": 8} | config
    if settings.get("mode") == "adversarial":
        num_classes = None
    method = LearnedViews(built(net), start_at or policy(), LearnedViews.Config(**settings), num_classes=num_classes)
    if method.augment.network is not None:
        nn.init.normal_(method.augment.network[-1].weight)
    return method.to(torch.get_default_dtype())


def batch(n=10, seed=0, label=None):
    generator = torch.Generator().manual_seed(seed)
    small = 0.1 + 0.8 * torch.rand(n, 1, 5, 5, generator=generator)
    image = F.interpolate(small, SIDE, mode="bilinear")
    if label is None:
        label = torch.randint(0, 3, (n,), generator=generator)
        label[[1, 4, 6]] = -1
    return Batch(image=image, label=label)


def objective(method, given, seed=3):
    torch.manual_seed(seed)
    return method(given)


def contrast_of(encoder, project, views, temperature=0.2):
    """NT-Xent by its definition, over both views in one call."""
    unit = F.normalize(project(encoder(views)), dim=1)
    logits = (unit @ unit.T / temperature).masked_fill(torch.eye(len(unit), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(unit)).roll(len(unit) // 2))


def labels_of(encoder, classify, views, label):
    """Cross-entropy of the labelled views, by its definition."""
    rows = (label >= 0).nonzero().squeeze(1)
    seen = views[torch.cat([rows, rows + len(label)])]
    return F.cross_entropy(classify(encoder(seen)), label[rows].repeat(2))


def own_of(augment, entropy_weight, width_weight):
    """Minus the mean entropy of the probabilities and minus the mean logarithm of the strengths, one by one."""
    chances, widths = [], []
    for i, name in enumerate(augment.names):
        share = torch.sigmoid(augment.raw[i] + augment.answered[i])
        if name in ("flip", "probability"):
            p = augment.bound[i] * share
            chances.append(-p * p.log() - (1 - p) * (1 - p).log())
        else:
            widths.append(share.log())
    return -entropy_weight * sum(chances) / len(chances) - width_weight * sum(widths) / len(widths)


def gradients(loss, parameters):
    """Of what does not depend on a parameter, zero."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def one_by_one(method, given, mode, config):
    """The gradients of each player's own update, at the same parameters and for the same views."""
    for_labels, for_contrast = WEIGHTS[mode]
    copied = deepcopy(method)
    torch.manual_seed(3)
    views = torch.cat([copied.augment(given.image) for _ in range(2)])

    networks = deepcopy(copied)
    trained = [*networks.encoder.parameters(), *networks.project.parameters()]
    of_contrast = gradients(contrast_of(networks.encoder, networks.project, views.detach()), trained)

    of_labels, labels = [], 0.0
    if for_labels:
        reader = deepcopy(copied)
        fixed = deepcopy(reader.encoder).requires_grad_(False)
        of_labels = gradients(
            labels_of(fixed, reader.classify, views.detach(), given.label), list(reader.classify.parameters())
        )
        labels = labels_of(fixed, deepcopy(reader.classify).requires_grad_(False), views, given.label)

    fixed = deepcopy(copied).requires_grad_(False)
    contrast = contrast_of(fixed.encoder, fixed.project, views)
    own = own_of(copied.augment, config["entropy_weight"], config["width_weight"])
    total = for_labels * labels + for_contrast * config["contrast_weight"] * contrast + own
    return of_contrast, of_labels, gradients(total, list(copied.augment.parameters()))


def compare(method, given, mode, config, tolerance):
    expected = one_by_one(method, given, mode, config)
    objective(method, given).loss.backward()
    players = [
        [*method.encoder.parameters(), *method.project.parameters()],
        [] if method.classify is None else list(method.classify.parameters()),
        list(method.augment.parameters()),
    ]
    for parameters, wanted in zip(players, expected, strict=True):
        assert len(parameters) == len(wanted)
        scale = max([float(one.abs().max()) for one in wanted], default=0)
        for parameter, gradient_wanted in zip(parameters, wanted, strict=True):
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, gradient_wanted, rtol=tolerance, atol=tolerance * scale)
    assert all(float(one.abs().max()) > 0 for wanted in expected for one in wanted if len(wanted) < 9)


CONFIG = {"contrast_weight": 0.7, "entropy_weight": 0.05, "width_weight": 0.02}


@MODES
def test_one_backward_gives_each_player_the_gradient_of_its_own_update(mode, in_double):
    """Encoder and projection of the contrast, the classifier of the labels, the policy of its own sum of both."""
    method = made(mode=mode, labelled_share=1.0, **CONFIG)
    assert method.training
    compare(method, batch(), mode, CONFIG, 1e-6)


@MODES
def test_one_backward_does_so_too_where_a_network_says_the_strengths_of_each_image(mode):
    """In float32, in which the drawn points of a view have seven digits and their gradients six or fewer."""
    method = made(mode=mode, producer="network", labelled_share=1.0, **CONFIG)
    compare(method, batch(), mode, CONFIG, 2e-3)


@MODES
def test_without_weights_of_their_own_neither_entropy_nor_widths_matter(mode, in_double):
    config = {"contrast_weight": 1.0, "entropy_weight": 0.0, "width_weight": 0.0}
    compare(made(mode=mode, labelled_share=1.0, **config), batch(), mode, config, 1e-6)


def statistics(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers() if "augment" not in name}


@MODES
def test_batch_statistics_move_as_in_the_contrastive_pass_alone(mode):
    method = made(mode=mode, labelled_share=1.0)
    alone = deepcopy(method)
    objective(method, batch())
    torch.manual_seed(3)
    with torch.no_grad():
        alone.project(alone.encoder(torch.cat([alone.augment(batch().image) for _ in range(2)])))
    expected = statistics(alone)
    assert any(name.endswith("running_mean") and value.any() for name, value in expected.items())
    for name, value in statistics(method).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    assert int(method.encoder.net.layers[1].num_batches_tracked) == 1


def test_a_call_that_detached_the_weights_alone_would_move_the_statistics_twice(monkeypatch):
    """What the test above is there for."""

    def careless(module, value):
        return functional_call(module, {name: p.detach() for name, p in module.named_parameters()}, (value,))

    method, other = (made(labelled_share=1.0) for _ in range(2))
    objective(method, batch())
    monkeypatch.setattr(gradient, "detached_call", careless)
    objective(other, batch())
    norms = [one.encoder.net.layers[1] for one in (method, other)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 2]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)


@MODES
@PRODUCERS
@pytest.mark.parametrize("start_at", [policy, lambda: digits(SIDE), lambda: natural(SIDE)])
def test_at_the_start_the_contrast_is_the_loss_of_simclr_with_the_hand_made_policy(mode, producer, start_at):
    torch.manual_seed(0)
    method = LearnedViews(
        built(), start_at(), LearnedViews.Config(start=0.0, mode=mode, producer=producer), num_classes=3
    )
    simclr = SimCLR(built(), start_at(), SimCLR.Config())
    simclr.encoder.load_state_dict(method.encoder.state_dict())
    simclr.project.load_state_dict(method.project.state_dict())
    found, expected = (objective(one, batch()) for one in (method, simclr))
    assert found.metrics["contrast"].item() == pytest.approx(expected.loss.item(), rel=1e-4)
    assert found.metrics["spread"].item() == pytest.approx(expected.metrics["spread"].item(), rel=1e-3)


@MODES
def test_the_loss_is_the_sum_of_its_parts_and_the_objective_what_the_policy_minimises(mode):
    method, given = made(mode=mode, labelled_share=1.0, **CONFIG), batch()
    own = own_of(method.augment, 0.05, 0.02).item()
    loss, metrics = objective(method, given)
    labels = metrics.get("labels", torch.zeros(())).item()
    assert ("labels" in metrics) == (mode != "adversarial")
    assert loss.item() == pytest.approx(metrics["contrast"].item() + labels + own, rel=1e-5)
    for_labels, for_contrast = WEIGHTS[mode]
    expected = for_labels * labels + for_contrast * 0.7 * metrics["contrast"].item() + own
    assert metrics["objective"].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert {f"policy.{name}" for name in method.augment.names} < set(metrics)
    assert metrics["policy.rotation"].item() == pytest.approx(15, rel=1e-5)


def test_adversarial_views_read_no_labels():
    given = batch()
    relabelled = Batch(image=given.image, label=torch.zeros(10, dtype=torch.int64))
    results = []
    for one in (given, relabelled, Batch(image=given.image)):
        method = made(mode="adversarial")
        assert method.classify is None
        assert method.labelled_share == 0
        loss, metrics = objective(method, one)
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in method.parameters()], sorted(metrics)))
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert all(torch.equal(a, b) for a, b in zip(other[1], results[0][1], strict=True))
        assert other[2] == results[0][2]


@MODES
def test_a_mode_says_whether_it_reads_labels_before_it_is_built(mode):
    config = LearnedViews.Config(mode=mode)
    assert LearnedViews.reads_labels(config) == (WEIGHTS[mode][0] == 1)
    assert LearnedViews.reads_labels() == LearnedViews.reads_labels(LearnedViews.Config())
    assert made(mode=mode).labelled_share == (config.labelled_share if mode != "adversarial" else 0)


@READING
@pytest.mark.parametrize(
    "label",
    [torch.full((10,), -1), torch.tensor([2] + [-1] * 9), torch.full((10, 3), torch.nan)],
    ids=["0", "1", "table"],
)
def test_with_fewer_than_two_labelled_images_there_is_no_term_of_labels(mode, label):
    method = made(mode=mode, **CONFIG)
    loss, metrics = objective(method, batch(label=label))
    assert metrics["labels"] == 0
    assert loss.item() == pytest.approx((metrics["contrast"] + own_of(method.augment, 0.05, 0.02)).item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in method.classify.parameters())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert method.augment.raw.grad.any()


@READING
def test_a_batch_that_comes_without_labels_has_a_finite_loss(mode):
    method = made(mode=mode)
    loss, metrics = objective(method, Batch(image=batch().image))
    assert loss.isfinite()
    assert metrics["labels"] == 0


def test_two_labelled_images_are_enough_and_give_the_classifier_a_gradient():
    label = torch.full((10,), -1)
    label[[3, 8]] = torch.tensor([0, 2])
    method = made()
    objective(method, batch(label=label)).loss.backward()
    assert method.classify.weight.grad.any()


def test_no_more_labelled_images_than_their_share_are_read():
    """Three of ten, the first that have a label; the others may be anything."""
    kept = torch.tensor([2, -1, 0, 1, 2, 0, -1, 1, 1, 0])
    results = {}
    for name, changed in {"as is": [], "read": [3], "further on": [4, 5, 7, 8, 9]}.items():
        label = kept.clone()
        label[changed] = (label[changed] + 1) % 3
        results[name] = objective(made(labelled_share=0.3), batch(label=label)).metrics["labels"].item()
    assert results["as is"] == results["further on"]
    assert results["as is"] != results["read"]


@PRODUCERS
@pytest.mark.parametrize(
    ("progress", "learns"), [(0.0, False), (0.19, False), (0.2, True), (0.59, True), (0.6, False), (1.0, False)]
)
def test_the_policy_learns_from_its_start_until_it_is_frozen_and_the_others_all_the_time(progress, learns, producer):
    method = made(start=0.2, freeze=0.6, producer=producer, labelled_share=1.0)
    optimiser = build("sgd", method.parameter_groups(0.1), 1e-2)
    method.after_step(progress)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    objective(method, batch()).loss.backward()
    optimiser.step()
    moved = {name.split(".")[0] for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"encoder", "project", "classify"} | ({"augment"} if learns else set())
    assert all((p.grad is not None) == learns for p in method.augment.parameters())


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_once_frozen_not_even_the_momentum_of_what_was_learned_moves_the_policy(kind):
    method = made(freeze=0.5, labelled_share=1.0)
    optimiser = build(kind, method.parameter_groups(0.01), 1e-2)
    held = []
    for step in range(8):
        optimiser.zero_grad(set_to_none=True)
        objective(method, batch(), seed=step).loss.backward()
        optimiser.step()
        method.after_step(step / 8)
        held.append(method.augment.raw.detach().clone())
    assert len({tuple(raw.tolist()) for raw in held[:5]}) == 5
    assert all(torch.equal(raw, held[4]) for raw in held[5:])


def test_the_loss_of_a_resting_policy_is_that_of_the_same_views():
    """Only its own terms, which nothing learns from then, are left out."""
    parts = []
    for progress in (0.0, 0.5):
        method = made(start=0.3, freeze=0.9, **CONFIG)
        method.after_step(progress)
        parts.append(objective(method, batch()))
    assert parts[0].metrics["contrast"] == parts[1].metrics["contrast"]
    assert parts[0].metrics["labels"] == parts[1].metrics["labels"]
    own = own_of(made(**CONFIG).augment, 0.05, 0.02).item()
    assert parts[1].loss.item() - parts[0].loss.item() == pytest.approx(own, rel=1e-3)


def test_how_far_the_training_is_survives_the_state(tmp_path):
    method = made(start=0.2, freeze=0.6)
    method.after_step(0.7)
    torch.save(method.state_dict(), tmp_path / "state.pth")
    restored = made(start=0.2, freeze=0.6, seed=4)
    assert restored.progress == 0
    restored.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True), strict=True)
    assert restored.progress == 0.7
    objective(restored, batch()).loss.backward()
    assert restored.augment.raw.grad is None


@PRODUCERS
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_policy_has_its_own_constant_rate_and_never_decays(kind, producer):
    method = made(policy_lr=0.07, producer=producer)
    optimiser = build(kind, method.parameter_groups(0.5), 0.3)
    own = {id(p) for p in method.augment.parameters()}
    assert len(own) == (1 if producer == "global" else 4)
    seen = []
    for progress in (0.01, 0.3, 1.0):
        set_rate(optimiser, schedule(progress, 0.05))
        for group in optimiser.param_groups:
            mine = {id(p) in own for p in group["params"]}
            assert len(mine) == 1
            if mine == {True}:
                globally = method.augment.raw in set(group["params"])
                assert group["lr"] == pytest.approx(0.07 if globally else 0.0021)
                assert group["weight_decay"] == 0
            else:
                assert group["lr"] == pytest.approx(0.5 * schedule(progress, 0.05))
            seen += [id(p) for p in group["params"]]
    assert sorted(seen) == sorted([id(p) for p in method.parameters()] * 3)


def table(n=10):
    """Labels of three classes at once: some known, some not, and images of which nothing is known."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 2, (n, 3), generator=generator).float()
    label[torch.rand(n, 3, generator=generator) < 0.3] = torch.nan
    label[[1, 4]] = torch.nan
    label[0] = torch.tensor([1.0, torch.nan, 0.0])
    return label


def test_of_multi_label_data_each_known_label_is_one_binary_cross_entropy():
    method, label = made(labelled_share=1.0), table()
    copied = deepcopy(method)
    loss, metrics = objective(method, batch(label=label))
    loss.backward()
    torch.manual_seed(3)
    views = torch.cat([copied.augment(batch().image) for _ in range(2)]).detach()
    rows = [i for i in range(10) if not label[i].isnan().all()]
    assert len(rows) < 9
    logits = copied.classify(copied.encoder(views[rows + [10 + i for i in rows]]))
    total, count = torch.zeros(()), 0
    for answer, truth in zip(logits, torch.cat([label[rows]] * 2), strict=True):
        for one, known in zip(answer, truth.tolist(), strict=True):
            if not math.isnan(known):
                total, count = total - F.logsigmoid(one if known == 1 else -one), count + 1
    assert metrics["labels"].item() == pytest.approx((total / count).item(), rel=1e-4)
    (expected,) = torch.autograd.grad(total / count, [copied.classify.weight])
    torch.testing.assert_close(method.classify.weight.grad, expected, rtol=1e-3, atol=1e-5)
    assert method.augment.raw.grad.isfinite().all()


def trained(method, given, steps=25, *, lr=0.3):
    """The policy alone, for a few steps of fresh draws."""
    optimiser = torch.optim.SGD(method.augment.parameters(), lr=lr)
    for step in range(steps):
        optimiser.zero_grad()
        objective(method, given, seed=step).loss.backward()
        optimiser.step()
    return method.augment.mean_widths().item()


@pytest.mark.parametrize(("mode", "rises"), [("adversarial", True), ("semi", True), ("cooperative", False)])
def test_noise_that_makes_the_contrast_harder_grows_or_shrinks_by_the_sign_of_the_mode(mode, rises):
    """With no label known, the contrast alone decides."""
    start_at = Policy(Geometry(SIDE), Intensity(noise=0.05))
    method = made(net=Pixels(), start_at=start_at, mode=mode, contrast_weight=1.0, entropy_weight=0.0)
    ended = trained(method, batch(label=torch.full((10,), -1)), lr=3.0)
    assert (ended > 0.051) == rises
    assert (ended < 0.049) == (not rises)


@pytest.mark.parametrize("mode", ["supervised", "cooperative", "semi"])
def test_an_operation_that_hurts_the_label_shrinks(mode):
    """Dark and bright images, told apart by their brightness, which the policy changes."""
    start_at = Policy(Geometry(SIDE), Intensity(brightness=0.4))
    method = made(
        net=Brightness(), start_at=start_at, mode=mode, contrast_weight=0.0, num_classes=2, labelled_share=1.0
    )
    with torch.no_grad():
        method.classify.weight.copy_(torch.tensor([[-30.0, 0.0], [30.0, 0.0]]))
        method.classify.bias.copy_(torch.tensor([0.0, 0.0]))
    image = torch.cat([torch.full((8, 1, SIDE, SIDE), 0.42), torch.full((8, 1, SIDE, SIDE), 0.58)])
    given = Batch(image=image, label=torch.arange(16) // 8)
    assert trained(method, given) < 0.38


def test_an_operation_that_no_label_and_no_contrast_asks_for_stays_as_it_is():
    method = made(mode="supervised", entropy_weight=0.0)
    before = method.augment.raw.detach().clone()
    objective(method, Batch(image=batch().image)).loss.backward()
    assert not method.augment.raw.grad.any()
    assert torch.equal(method.augment.raw, before)


@pytest.mark.parametrize("chance", [0.1, 0.45, 0.55, 0.9])
def test_the_weight_of_the_entropy_draws_every_chance_to_one_half(chance):
    start_at = Policy(Geometry(SIDE), Intensity(probability=chance, brightness=0.3, inversion=chance))
    method = made(start_at=start_at, mode="supervised", entropy_weight=1.0)
    before = method.augment.mean_widths().detach().clone()
    objective(method, Batch(image=batch().image)).loss.backward()
    torch.optim.SGD(method.augment.parameters(), lr=0.1).step()
    after = method.augment.mean_widths().detach()
    for number, name in enumerate(method.augment.names):
        if name == "brightness":
            assert after[number] == before[number]
        else:
            assert abs(after[number] - 0.5) < abs(before[number] - 0.5)


def test_the_weight_of_the_widths_makes_every_strength_grow_and_no_chance():
    method = made(mode="supervised", entropy_weight=0.0, width_weight=1.0)
    before = method.augment.mean_widths().detach().clone()
    objective(method, Batch(image=batch().image)).loss.backward()
    torch.optim.SGD(method.augment.parameters(), lr=0.1).step()
    after = method.augment.mean_widths().detach()
    for number, name in enumerate(method.augment.names):
        if name in ("flip", "probability"):
            assert after[number] == before[number]
        else:
            assert after[number] > before[number], name


@pytest.mark.parametrize("far", [-100.0, 100.0])
@MODES
def test_where_all_strengths_have_come_to_an_end_the_loss_and_its_gradients_are_finite(mode, far):
    method = made(mode=mode, width_weight=0.1, labelled_share=1.0)
    method.augment.raw.data.fill_(far)
    loss = objective(method, batch()).loss
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_a_chance_that_is_nearly_always_has_a_finite_entropy_however_it_learns():
    start_at = Policy(Geometry(SIDE, flip=0.995), Intensity(blur=0.999, sigma=(0.5, 1.0)))
    method = made(start_at=start_at)
    method.augment.raw.data.fill_(100)
    loss = objective(method, batch()).loss
    assert loss.isfinite()
    loss.backward()
    assert method.augment.raw.grad.isfinite().all()


def put(method, *, chances, strengths):
    """Every probability and strength so far on its way to its bound."""
    share = torch.where(method.augment.is_chance, chances, strengths)
    method.augment.raw.data.copy_(torch.logit(share))


def rows(*labels):
    return [{"loss": 1.0, "labels": value} for value in labels]


def test_a_policy_that_does_something_is_no_concern():
    method = made()
    for seen in ([], rows(1.0), rows(0.5, 2.0), rows(2.0, 0.5)):
        assert method.concern(seen) is None
    put(method, chances=0.001, strengths=0.3)
    assert method.concern(rows(1.0, 1.0)) is None
    put(method, chances=0.3, strengths=0.001)
    assert method.concern(rows(1.0, 1.0)) is None


def test_a_policy_that_has_come_to_nothing_is_said_to_hardly_change_an_image():
    method = made()
    put(method, chances=0.005, strengths=0.005)
    found = method.concern(rows(1.0, 0.5))
    assert "hardly changes an image" in found
    assert all(name in found for name in method.augment.names)
    assert "--contrast-weight" in found
    assert "--width-weight" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("labels", "speaks"),
    [
        ((0.5, 1.0), True),
        ((1.0, 0.4, 0.6), True),
        ((1.0, 0.5), False),
        ((0.5,), False),
        ((), False),
        ((0.5, 0.51), False),
    ],
)
def test_a_policy_at_all_its_bounds_is_of_concern_only_when_labels_have_become_harder_to_read(labels, speaks):
    method = made()
    put(method, chances=0.5, strengths=0.995)
    found = method.concern(rows(*labels))
    assert (found is not None) == speaks
    if speaks:
        assert "at its bound while labels have become harder" in found
        assert "a lower --contrast-weight or --policy-lr" in found


def test_without_labels_a_policy_at_its_bounds_is_what_was_asked_for():
    method = made(mode="adversarial")
    put(method, chances=0.5, strengths=0.995)
    assert method.concern([{"loss": 3.0}, {"loss": 4.0}]) is None


def test_a_method_of_constants_is_never_concerned():
    assert SimCLR(built(), digits(SIDE)).concern(rows(0.1, 9.0)) is None
    assert Method.concern is SimCLR.concern


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"contrast_weight": -0.1},
        {"entropy_weight": -1.0},
        {"width_weight": -1.0},
        {"policy_lr": 0.0},
        {"start": -0.1},
        {"start": 0.7, "freeze": 0.6},
        {"start": 0.6, "freeze": 0.6},
        {"freeze": 1.1},
        {"labelled_share": 0.0},
        {"labelled_share": 1.1},
        {"mode": "hard"},
        {"producer": "table"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_by_name_and_value(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError) as caught:
        made(**wrong)
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("num_classes", [None, 0])
@READING
def test_a_mode_that_reads_labels_asks_for_classes(mode, num_classes):
    with pytest.raises(InputError, match=rf"{mode}.*num_classes|num_classes.*{mode}"):
        made(mode=mode, num_classes=num_classes)


def test_a_policy_without_operations_is_refused():
    with pytest.raises(InputError, match="has none at all"):
        made(start_at=Policy(Geometry(SIDE), Intensity()))


def test_the_widest_settings_that_make_sense_are_taken():
    method = made(start=0.0, freeze=1.0, labelled_share=1.0, contrast_weight=0.0, entropy_weight=0.0)
    assert objective(method, batch()).loss.isfinite()
