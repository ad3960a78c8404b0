"""EBCLR: the loss is that of the equations, sampling moves images alone, and nothing is lost between two runs."""

import io
import math
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kontrast import losses
from kontrast.augment.policies import digits, natural
from kontrast.batch import Batch
from kontrast.data import Loader
from kontrast.errors import InputError, TrainingStopped
from kontrast.evaluate.features import features
from kontrast.evaluate.linear import linear_probe
from kontrast.methods import EBCLR
from kontrast.nn.encoders import Encoder, EncoderSpec, encoder
from kontrast.nn.energy import load_energy
from kontrast.train.fit import Fit, fit

SIDE = 12


class Net(nn.Module):
    """Without norms."""

    num_features = 10

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(6, 10, 3), nn.LeakyReLU(0.2)
        )

    def forward(self, x):
        return self.layers(x).mean((2, 3))


def made(*, net=None, size=SIDE, seed=0, **config):
    torch.manual_seed(seed)
    built = Encoder(net or Net(), EncoderSpec(name="resnet18", channels=1, size=size))
    return EBCLR(built, digits(size), EBCLR.Config(**{"width": 8, "langevin_steps": 3} | config))


def batch(n=6, seed=0, side=SIDE):
    return Batch(image=torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed)))


def begun(method, n=12):
    method.begin([batch(n, seed=9)], n)
    return method


def embedded(method, x):
    """Raw embeddings of images on the chain's scale."""
    return method.project(method.encoder((x + 1) / 2))


def test_the_loss_is_nt_xent_plus_the_weighted_divergence_of_the_embeddings_it_is_said_to_be_of():
    """With the same draws: two views, the chain by hand on second views as keys, the sample embedded anew."""
    method, given = begun(made(gen_weight=0.3, norm_weight=0.05, renewal=0.0)), batch()
    copied = deepcopy(method)
    torch.manual_seed(4)
    found = method(given)
    torch.manual_seed(4)
    first, second = copied.augment(given.image), copied.augment(given.image)
    a, b = (copied.project(copied.encoder(view)) for view in (first, second))
    slot = torch.randperm(12)[:6]
    torch.rand(6)
    x, keys = copied.buffer.images[slot], F.normalize(b.detach(), dim=1)
    for _ in range(3):
        x = x.detach().requires_grad_()
        distance = torch.cdist(F.normalize(embedded(copied, x), dim=1), keys).square()
        (slope,) = torch.autograd.grad((-distance / 0.1).logsumexp(1).sum(), x)
        x = x.detach() + 0.05 * slope.clamp(-1, 1) + 0.01 * torch.randn(x.shape)
    c = embedded(copied, x)
    s = [
        (-torch.cdist(F.normalize(e, dim=1), F.normalize(b, dim=1)).square() / 0.1).logsumexp(1).mean() for e in (a, c)
    ]
    penalty = a.square().sum(1).mean() + c.square().sum(1).mean()
    views = F.normalize(torch.cat([a, b]), dim=1)
    logits = (-torch.cdist(views, views).square() / 0.1).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    contrast = F.cross_entropy(logits, torch.arange(12).roll(6))
    expected = contrast + 0.3 * (s[1] - s[0] + 0.05 * penalty)
    torch.testing.assert_close(found.loss, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.metrics["score_gap"], (s[0] - s[1]).detach(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(method.buffer.images[slot], x, rtol=1e-4, atol=1e-4)
    parameters = [list(m.parameters()) for m in (method, copied)]
    for one, other in zip(
        torch.autograd.grad(found.loss, parameters[0]), torch.autograd.grad(expected, parameters[1]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_without_a_generative_weight_loss_and_gradients_are_those_of_nt_xent_and_nothing_is_sampled():
    method, given, passed = made(gen_weight=0.0), batch(), []
    method.begin([given], 6)
    method.encoder.register_forward_pre_hook(lambda _, images: passed.append(len(images[0])))
    torch.manual_seed(1)
    loss, metrics = method(given)
    found = torch.autograd.grad(loss, list(method.parameters()))
    assert passed == [12]
    assert len(method.buffer) == 0
    assert set(metrics) == {"spread", "disc", "embedding_norm"}
    torch.manual_seed(1)
    a, b = (method.project(method.encoder(method.augment(given.image))) for _ in range(2))
    alone = losses.nt_xent(a, b, temperature=0.05)
    torch.testing.assert_close(loss, alone)
    for one, other in zip(found, torch.autograd.grad(alone, list(method.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_noise_falls_along_a_line_with_age_and_what_a_buffer_begins_with_counts_as_old():
    method = begun(made())
    found = method.noise(torch.arange(5)).tolist()
    assert found == pytest.approx([0.05, 0.11 / 3, 0.07 / 3, 0.01, 0.01])
    assert method.noise(method.buffer.ages).tolist() == pytest.approx([0.01] * 12)


def test_sampling_gives_no_parameter_and_no_key_a_gradient_and_what_it_returns_is_detached():
    method = begun(made())
    drawn, learning = method._draw(batch().image), []
    method.encoder.register_forward_pre_hook(
        lambda net, _: learning.append(any(p.requires_grad for p in net.parameters()))
    )
    key = torch.randn(6, 8, requires_grad=True)
    found = method.sample(drawn, key)
    assert learning == [False] * 3
    assert not found.requires_grad
    assert key.grad is None
    assert all(p.grad is None and p.requires_grad for p in method.parameters())


def test_a_chain_raises_the_score_on_average():
    method = begun(made(noise_min=0.0, noise_max=0.0, step_size=0.005, langevin_steps=20))
    given = batch()
    key = method.project(method.encoder(method.augment(given.image))).detach()
    drawn = method._draw(given.image)
    before, after = (
        losses.marginal_score(embedded(method, x), key, temperature=0.1).mean()
        for x in (drawn.image, method.sample(drawn, key))
    )
    assert after > before + 1e-3


def test_the_loss_teaches_second_views_through_both_terms():
    """As positives and negatives, and as keys: the gradient differs when keys are held fixed."""
    a, b, c = (torch.randn(4, 8, requires_grad=True) for _ in range(3))
    told = {"temperature": 0.1, "norm_weight": 0.0}
    (through_keys,) = torch.autograd.grad(losses.ebclr_generative(a, c, b, **told), b)
    (through_pairs,) = torch.autograd.grad(losses.nt_xent_l2(a, b, temperature=0.1), b)
    assert through_keys.any()
    assert through_pairs.any()
    method, given = begun(made(gen_weight=1.0)), batch()
    held = {}
    original = losses.ebclr_generative

    def holding(data, sample, key, **weights):
        held["key"] = key
        return original(data, sample, key, **weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "ebclr_generative", holding)
        method(given)
    assert held["key"].requires_grad


def test_a_step_writes_back_what_it_drew_and_nothing_else_and_evaluation_writes_nothing():
    method, given = begun(made(renewal=0.5)), batch()
    images, ages = method.buffer.images.clone(), method.buffer.ages.clone()
    method.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        metrics = method(given).metrics
    assert "score_gap" in metrics
    assert torch.equal(method.buffer.images, images)
    assert torch.equal(method.buffer.ages, ages)
    assert method.previous is None
    method.train()
    torch.manual_seed(0)
    method(given)
    changed = [i for i in range(12) if not torch.equal(method.buffer.images[i], images[i])]
    assert len(changed) == 6
    assert {int(method.buffer.ages[i]) for i in changed} == {1, 6}
    assert all(method.buffer.ages[i] == 5 for i in range(12) if i not in changed)


def test_evaluation_before_any_training_writes_nothing_either():
    method = made().eval()
    assert method(batch()).loss.isfinite()
    assert len(method.buffer) == 0


def test_new_chains_begin_at_views_of_the_step_before():
    """So that none is the twin of a key; in the first step there is none before."""
    method = begun(made(renewal=1.0, noise_max=0.0, noise_min=0.0, step_size=1e-9))
    method.augment = nn.Identity()
    steps = [batch(6, seed=seed) for seed in range(3)]
    seen = []
    for given in steps:
        seen.append((2 * (method.previous if method.previous is not None else given.image) - 1).clone())
        drawn = method._draw(given.image)
        torch.testing.assert_close(drawn.image, seen[-1])
        method(given)
    assert torch.equal(seen[1], 2 * steps[0].image - 1)
    assert torch.equal(seen[2], 2 * steps[1].image - 1)


def test_the_number_of_samples_is_its_own_where_it_is_given():
    method, sizes = begun(made(num_samples=2)), []
    method.encoder.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    method(batch())
    assert sizes == [12, 2, 2, 2, 2]


def test_a_buffer_holds_no_more_than_asked_for_or_than_there_are_training_images(digits):
    small, large = made(buffer_size=10), made()
    for method in (small, large):
        method.begin(Loader(digits.take(np.arange(40)), 8).epoch(0), 40)
    assert (len(small.buffer), len(large.buffer)) == (10, 40)
    assert large.buffer.images.min() >= -1 - 1e-5
    assert large.buffer.images.max() <= 1 + 1e-5


def test_half_precision_halves_what_is_stored_and_the_chain_goes_on_in_full():
    methods = [begun(made(buffer_dtype=dtype)) for dtype in ("float32", "float16")]
    assert methods[0].buffer.images.nbytes == 2 * methods[1].buffer.images.nbytes
    loss = methods[1](batch()).loss
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_float16_autocast_leaves_the_chain_in_float32_and_finite():
    method = begun(made())
    with torch.autocast("cpu", dtype=torch.float16):
        loss, metrics = method(batch())
    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    assert method.buffer.images.isfinite().all()


@pytest.mark.parametrize("side", [28, 224])
def test_grey_images_of_28_and_of_224_pixels_work(side):
    torch.manual_seed(0)
    built = encoder("test_resnet", channels=1, size=side, stem="standard", norm="none")
    method = EBCLR(built, digits(side), EBCLR.Config(langevin_steps=2))
    loss, metrics = method(batch(3, side=side))
    loss.backward()
    assert loss.isfinite()
    assert metrics["score_gap"].isfinite()
    assert method.buffer.images.shape == (3, 1, side, side)


def test_colour_images_work():
    torch.manual_seed(0)
    built = encoder("test_resnet", channels=3, size=32, stem="standard", norm="none")
    assert EBCLR(built, natural(32), EBCLR.Config(langevin_steps=2))(
        Batch(image=torch.rand(4, 3, 32, 32))
    ).loss.isfinite()


def test_an_encoder_with_batch_norm_is_refused_unless_it_is_allowed():
    built = encoder("test_resnet", channels=1, size=28, stem="standard")
    with pytest.raises(InputError, match=r"test_resnet has it, so add --norm none, .* or --allow-batch-norm"):
        EBCLR(built, digits(28))
    method = EBCLR(built, digits(28), EBCLR.Config(allow_batch_norm=True, langevin_steps=1))
    assert method(batch(4, side=28)).loss.isfinite()
    EBCLR(encoder("test_efficientnet_gn", channels=1, size=28, stem="standard"), digits(28))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0}, {"width": 0}, {"gen_weight": -0.1}, {"norm_weight": -1.0}, {"norm_reduction": "max"},
        {"langevin_steps": 0}, {"step_size": 0.0}, {"clamp": 0.0}, {"noise_min": -0.1}, {"noise_max": 0.001},
        {"age_max": 0}, {"renewal": 1.1}, {"num_samples": -1}, {"buffer_size": 0}, {"buffer_dtype": "int8"},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_its_range_is_refused_with_its_name_and_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{name} .*got '?{value}'?, so"):
        made(**wrong)


def test_equal_images_of_a_batch_get_views_of_their_own_and_so_do_new_chains():
    method = begun(made(renewal=1.0))
    one = torch.rand(1, 1, SIDE, SIDE).expand(6, 1, SIDE, SIDE)
    drawn = method._draw(one).image
    views = method.augment(one)
    for found in (views, drawn):
        assert all(not torch.equal(found[i], found[j]) for i in range(6) for j in range(i))


def trained(method, batches, optimiser):
    found = []
    for given in batches:
        loss, metrics = method(given)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append({"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}})
    return found


def adam(method):
    return torch.optim.Adam(method.parameters(), 1e-3)


def test_saved_and_continued_it_goes_on_bit_for_bit_with_buffer_ages_and_proposals():
    batches = [batch(seed=seed) for seed in range(6)]
    whole, first, restored = begun(made(renewal=0.5)), begun(made(renewal=0.5)), made(seed=7, renewal=0.5)
    torch.manual_seed(3)
    expected = trained(whole, batches, adam(whole))
    optimiser = adam(first)
    torch.manual_seed(3)
    found, file = trained(first, batches[:3], optimiser), io.BytesIO()
    parts = {"method": first.state_dict(), "optimiser": optimiser.state_dict(), "draws": torch.get_rng_state()}
    torch.save(parts, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    restored.load_state_dict(state["method"], strict=True)
    optimiser = adam(restored)
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["draws"])
    assert found + trained(restored, batches[3:], optimiser) == expected
    assert torch.equal(restored.buffer.images, whole.buffer.images)
    assert torch.equal(restored.buffer.ages, whole.buffer.ages)


class Poisoned(EBCLR):
    """Whose embeddings are no numbers from the third step on."""

    def forward(self, batch):
        found = super().forward(batch)
        self.count = getattr(self, "count", 0) + 1
        return found._replace(loss=found.loss * (math.nan if self.count > 2 else 1.0))


def test_a_loss_that_is_no_number_is_told_with_its_step_and_the_gap_before(digits):
    torch.manual_seed(0)
    built = encoder("test_resnet", channels=1, size=28, stem="standard", norm="none")
    method = Poisoned(built, made(size=28).augment, EBCLR.Config(langevin_steps=1))
    loader = Loader(digits.take(np.arange(32)), 8)
    with pytest.raises(TrainingStopped, match=r"was nan at step 2; .* were -?\d[\d.e-]* apart \(score_gap\)"):
        fit(method, loader, Fit(epochs=1, precision="float32"), show=False)


def rows(*gaps):
    return [{"score_gap": gap} for gap in gaps]


def test_a_growing_gap_is_a_concern_to_either_side_and_a_small_or_shrinking_one_is_none():
    method = made()
    for sign, words in ((1, "below .* a larger --step-size"), (-1, "above .* a smaller --step-size")):
        assert re.search(words, method.concern(rows(*(sign * gap for gap in (0.5, 1.0, 3.0)))))
        assert method.concern(rows(sign * 3.0)) is None
        assert method.concern(rows(*(sign * gap for gap in (-2.5, -2.0, 3.0)))) is None
        assert method.concern(rows(*(sign * gap for gap in (0.5, 1.0, 1.5)))) is None
        assert method.concern(rows(*(sign * gap for gap in (1.0, 5.0, 3.0)))) is None


def test_samples_that_are_all_one_image_are_a_concern_at_any_renewal_and_under_noise():
    for renewal in (0.0, 0.2, 0.6):
        method = begun(made(renewal=renewal), 80)
        method(batch(16))
        assert method.concern(rows(0.1)) is None
        method.buffer.images[:] = method.buffer.images[0]
        method(batch(16))
        assert "nearly the same image" in method.concern(rows(0.1))
    assert made(gen_weight=0.0).concern([{"loss": 1.0}]) is None


def test_a_buffer_of_few_chains_is_not_said_to_hold_one_image():
    method = begun(made(buffer_size=1, num_samples=1))
    method(batch())
    assert method.concern(rows(0.1)) is None


def test_what_it_has_made_are_the_oldest_samples_in_0_to_1():
    method = begun(made())
    assert made().made() is None
    method.buffer.ages = torch.arange(12)
    method.buffer.images[11] = 3.0
    found = method.made()
    assert found.shape == (12, 1, SIDE, SIDE)
    assert (found[0] == 1).all()
    torch.testing.assert_close(found[1], (method.buffer.images[10] + 1) / 2)


def test_a_run_leaves_the_head_and_embeddings_of_training_views_by_which_it_scores(digits, tmp_path):
    torch.manual_seed(0)
    built = encoder("test_resnet", channels=1, size=28, stem="standard", norm="none")
    method = EBCLR(built, made(size=28).augment, EBCLR.Config(langevin_steps=1, width=16))
    loader = Loader(digits.take(np.arange(40)), 8)
    fit(method, loader, Fit(epochs=1, precision="float32"), out=tmp_path, show=False)
    energy = load_energy(tmp_path)
    assert energy.key.shape == (40, 16)
    torch.testing.assert_close(energy.key.norm(dim=1), torch.ones(40))
    images = digits.batch(np.arange(50, 60)).image
    with torch.no_grad():
        found = energy(method.encoder(images))
        raw = F.normalize(method.project(method.encoder(images)), dim=1)
    expected = -(-torch.cdist(raw, energy.key).square() / 0.1).logsumexp(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_short_training_with_batches_of_16_teaches_more_than_a_random_encoder_knows(digits):
    """Three seeds; with and without the generative term, and what each cost."""
    train = digits.take(np.flatnonzero(digits.parts == "train")[::4])
    test = digits.take(np.flatnonzero(digits.parts == "test"))
    mean, std = train.mean_std()

    def accuracy(method):
        known, asked = (features(method.encoder, part) for part in (train, test))
        probe = linear_probe(known, train.labels, asked, num_classes=10)
        return float((probe.probabilities.argmax(1) == test.labels).mean())

    found = {}
    for weight in (0.0, 0.1):
        for seed in range(3):
            torch.manual_seed(seed)
            built = encoder("test_resnet", channels=1, size=28, stem="standard", norm="none", mean=mean, std=std)
            method = EBCLR(built, made(size=28).augment, EBCLR.Config(gen_weight=weight))
            before = accuracy(method)
            config = Fit(epochs=6, optimiser="adamw", lr=0.016, weight_decay=0.0, precision="float32", seed=seed)
            rows = fit(method, Loader(train, 16, seed=seed), config, show=False)
            found.setdefault(weight, []).append((before, accuracy(method), rows))
    for weight, runs in found.items():
        befores, afters = np.array([[before, after] for before, after, _ in runs]).T
        passes, seconds = runs[0][2][-1]["passes"], sum(r["seconds"] for r in runs[0][2])
        print(
            f"gen_weight {weight}: {befores.mean():.3f} before, {afters.mean():.3f} ± {afters.std(ddof=1):.3f} after "
            f"6 epochs, {passes:,.0f} passes, {seconds:.0f} s"
        )
        assert (afters > befores + 0.05).all()
