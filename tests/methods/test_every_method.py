"""The contract that every method fulfils; a new one joins by an entry in `CASES`."""

import ast
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from kontrast.augment import policies
from kontrast.batch import Batch
from kontrast.data import Loader
from kontrast.evaluate.features import features
from kontrast.evaluate.knn import knn_predict
from kontrast.methods import METHODS
from kontrast.nn.encoders import Encoder, encoder
from kontrast.nn.text import TextSpec, text_tower
from kontrast.train.fit import Fit, fit
from kontrast.train.optim import OptimiserName, build, schedule, set_rate

ENCODER = "test_resnet"
WORDS = ("no digit", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The text of a label, from -1 on."""


def small_text_tower():
    """A text tower that knows the names of digits, from the seed that is set."""
    return {"text": text_tower(WORDS * 2, TextSpec(width=32, layers=2, heads=2, context=16, vocabulary=300))}


def pictures(n=16, seed=0):
    """Noise with three kinds of labels, one image without any, and as many texts."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (n, 1, 28, 28), generator=generator).to(torch.uint8)
    label = torch.randint(0, 3, (n,), generator=generator)
    label[0] = -1
    return Batch(image=image, label=label, text=tuple(WORDS[number + 1] for number in label))


def captioned(digits):
    """Digits with their names for texts."""
    return digits.with_texts([[WORDS[label + 1]] for label in digits.labels])


@torch.no_grad()
def nearest_digits(encoder, digits, seed):
    """k-NN accuracy on the 1,000 test digits with 200 labelled ones that training has not seen."""
    test, bank = digits.take(np.flatnonzero(digits.parts == "test")), some(digits, seed)[1]
    votes = knn_predict(features(encoder, bank), bank.labels, features(encoder, test), num_classes=10)
    return float((votes.argmax(1) == test.labels).mean())


@torch.no_grad()
def nearest_views(encoder, digits, seed):
    """The same, of test digits that are cropped, turned and slanted: it asks for the invariance that views teach."""
    test, bank = digits.take(np.flatnonzero(digits.parts == "test")), some(digits, seed)[1]
    images = test.batch(np.arange(len(test))).image
    queries = encoder.eval()(policies.digits(28)(images, torch.Generator().manual_seed(0)))
    votes = knn_predict(features(encoder, bank), bank.labels, queries, num_classes=10)
    return float((votes.argmax(1) == test.labels).mean())


def some(digits, seed):
    """1,000 digits to train on and 200 more for the bank."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(digits.parts == "train"))
    return captioned(digits.take(rows[:1000])), digits.take(rows[1000:1200])


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the suite has to know of one method."""

    margin: float
    """How much its sign of learning rises at least; well below the least of ten seeds."""
    sign: Callable[..., float]
    """What rises when the method learns, as a function of encoder, data and seed."""
    lr: float
    """Peak learning rate of the short run, for a batch of 256."""
    passes: float
    """How often each image of a batch goes through an encoder."""
    config: dict[str, Any] = field(default_factory=dict)
    """Settings that suit a run of ninety steps."""
    arguments: Callable[[], dict[str, Any]] = dict
    """Makes those of the constructor, beside encoder, augmentation and settings."""
    optimiser: OptimiserName = "adamw"
    """Of the short run."""
    batch: Callable[..., Batch] = pictures
    norm: str | None = None
    """What becomes of the encoder's norms."""


def ten_classes():
    return {"num_classes": 10}


# Least and mean rise of ten seeds on an x86 processor, measured by
#     pytest tests/methods/test_every_method.py -m slow -k ten_seeds -rP
# from 0.358 before (views: 0.214): byol 0.062 (mean 0.122), learned_views 0.185 (0.315), moco 0.038 (0.086),
# simclr 0.221 (0.323), simsiam 0.071 (0.140), supervised 0.418 (0.526); ebclr from 0.122, without norms: 0.078 (0.199),
# clip 0.329 (0.400), cyclip 0.089 (0.144).
# Each margin is about half of the least or below.
CASES = {
    "byol": Case(
        margin=0.03,
        sign=nearest_views,
        lr=0.8,
        passes=4,
        optimiser="sgd",
        config={"hidden": 256, "width": 64, "momentum": 0.9},
    ),
    "clip": Case(margin=0.16, sign=nearest_digits, lr=0.016, passes=1, arguments=small_text_tower),
    "cyclip": Case(margin=0.04, sign=nearest_digits, lr=0.016, passes=1, arguments=small_text_tower),
    "ebclr": Case(margin=0.035, sign=nearest_digits, lr=0.016, passes=2 + 10 + 1, norm="none"),
    "learned_views": Case(
        margin=0.09,
        sign=nearest_digits,
        lr=0.016,
        passes=2 + 2 * 0.125,
        config={"start": 0.0},
        arguments=ten_classes,
    ),
    "moco": Case(margin=0.015, sign=nearest_views, lr=0.012, passes=2, config={"queue_size": 512, "momentum": 0.98}),
    "simclr": Case(margin=0.12, sign=nearest_digits, lr=0.016, passes=2),
    "simsiam": Case(margin=0.035, sign=nearest_views, lr=0.006, passes=2, config={"width": 256, "bottleneck": 64}),
    "supervised": Case(margin=0.25, sign=nearest_digits, lr=0.016, passes=1, arguments=ten_classes),
}
EVERY = pytest.mark.parametrize("name", sorted(METHODS))


def made(name, *, seed=0, network=ENCODER, **config):
    case, method = CASES[name], METHODS[name]
    torch.manual_seed(seed)
    parts = encoder(network, channels=1, size=28, stem="standard", norm=case.norm), policies.digits(28)
    return method(*parts, method.Config(**(case.config | config)), **case.arguments())


def steps(method, batch, count):
    """A few steps of SGD as the loop takes them; returns the losses."""
    optimiser = build("sgd", method.parameter_groups(0.05), 1e-4)
    found = []
    for i in range(count):
        loss = method(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step(i / count)
        found.append(loss.item())
    return found


def test_every_method_is_in_this_suite():
    assert sorted(CASES) == sorted(METHODS)


@EVERY
def test_the_objective_is_one_finite_number_with_detached_metrics_and_the_spread_among_them(name):
    loss, metrics = made(name)(CASES[name].batch())
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.requires_grad
    assert 0 <= metrics["spread"] <= 1.5
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


@EVERY
def test_fit_counts_as_many_passes_as_encoders_make_of_each_image(name, digits):
    method, seen = made(name), []
    for module in method.modules():
        if isinstance(module, Encoder):
            module.register_forward_pre_hook(lambda part, given: seen.append(len(given[0]) * method.training))
    loader = Loader(captioned(digits.take(np.arange(32))), 16, labelled_share=method.labelled_share)
    (row,) = fit(method, loader, Fit(epochs=1, precision="float32"), show=False)
    assert row["passes"] == sum(seen) == CASES[name].passes * 32


@EVERY
def test_the_gradient_reaches_every_weight_of_the_encoder(name):
    method = made(name)
    method(CASES[name].batch()).loss.backward()
    for key, parameter in method.encoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@EVERY
def test_the_optimiser_trains_exactly_what_learns_and_each_weight_once(name):
    method = made(name)
    method(CASES[name].batch()).loss.backward()
    given = [p for group in method.parameter_groups(0.1) for p in group["params"]]
    assert len(given) == len({id(p) for p in given})
    assert {id(p) for p in given} == {id(p) for p in method.parameters() if p.grad is not None}


@EVERY
def test_the_same_seed_gives_the_same_losses_and_another_does_not(name):
    runs = [steps(made(name, seed=seed), CASES[name].batch(), 3) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert all(a != b for a, b in zip(runs[0], runs[2], strict=True))


@EVERY
def test_the_state_dict_restores_the_objective_exactly(name, tmp_path):
    trained, batch = made(name), CASES[name].batch()
    steps(trained, batch, 4)
    torch.save(trained.state_dict(), tmp_path / "state.pth")
    restored = made(name, seed=9)
    restored.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True), strict=True)
    losses_of = []
    for method in (trained, restored):
        torch.manual_seed(7)
        losses_of.append(steps(method, batch, 3))
    assert losses_of[0] == losses_of[1]


@EVERY
def test_loss_and_gradients_stay_finite_under_bf16_autocast(name):
    method, batch = made(name), CASES[name].batch()
    optimiser = build("sgd", method.parameter_groups(0.05), 1e-4)
    for i in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, metrics = method(batch)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert all(value.isfinite() for value in metrics.values())
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
        optimiser.step()
        method.after_step(i / 3)
    state = [value for value in method.state_dict().values() if isinstance(value, torch.Tensor)]
    assert all(value.isfinite().all() for value in state)


@EVERY
def test_neither_the_encoder_nor_the_batch_given_is_changed_by_an_objective(name):
    method, batch = made(name), CASES[name].batch()
    kept, weights = batch.image.clone(), {k: v.clone() for k, v in method.encoder.named_parameters()}
    method(batch)
    assert torch.equal(batch.image, kept)
    assert all(torch.equal(v, weights[k]) for k, v in method.encoder.named_parameters())


@EVERY
def test_the_settings_survive_yaml_and_cannot_be_changed(name):
    settings = METHODS[name].Config(**CASES[name].config)
    assert METHODS[name].Config(**yaml.safe_load(yaml.safe_dump(asdict(settings)))) == settings
    first = fields(settings)[0].name
    with pytest.raises(AttributeError):
        setattr(settings, first, 1)


@EVERY
def test_every_setting_has_a_default_and_a_sentence_below_it(name):
    config, told = METHODS[name].Config, set()
    for part in config.__mro__[:-1]:  # one setting may be another's with other defaults
        (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(part))).body
        assert ast.get_docstring(tree)
        told |= {
            line.target.id
            for line, below in zip(tree.body, tree.body[1:], strict=False)
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and str(below.value.value).endswith(".")
        }
    assert told == {f.name for f in fields(config)}
    assert replace(config()) == config()


@EVERY
def test_the_docstring_cites_a_paper_by_venue_and_year(name):
    method = METHODS[name]
    text = f"{inspect.getmodule(method).__doc__} {method.__doc__}"
    year = r"(19|20)\d\d"
    assert re.search(
        rf"(\*[^*]+\*,\s+({year}|(NeurIPS|ICML|CVPR|ICCV|ECCV|ICLR|MILLanD at MICCAI)\s+{year}|arXiv\s+\d{{4}}\.\d+))",
        text,
    )


def risen(name, digits, seed):
    """The sign of learning before a short run, and how much it rose.

    The encoder has GroupNorm and depthwise convolutions, so that it knows little before it has learned: networks with
    BatchNorm of random weights tell 60 % of the digits apart, and ninety steps are not enough for all to rise above.
    """
    case, method = CASES[name], made(name, seed=seed, network="test_efficientnet_gn")
    before = case.sign(method.encoder, digits, seed)
    decay = {"adamw": 0.01, "sgd": 5e-4}[case.optimiser]
    config = Fit(epochs=6, optimiser=case.optimiser, lr=case.lr, weight_decay=decay, precision="float32", seed=seed)
    loader = Loader(some(digits, seed)[0], 64, seed=seed, labelled_share=method.labelled_share)
    fit(method, loader, config, show=False)
    return before, case.sign(method.encoder, digits, seed) - before


@EVERY
def test_a_short_run_shows_the_sign_of_learning(name, digits):
    assert risen(name, digits, 0)[1] > CASES[name].margin


@pytest.mark.slow
@EVERY
def test_ten_seeds_never_miss_the_margin(name, digits):
    before, rises = zip(*(risen(name, digits, seed) for seed in range(10)), strict=True)
    print(f"{name}: before {np.mean(before):.3f}, least rise {min(rises):.3f}, {np.round(rises, 3).tolist()}")
    assert min(rises) > CASES[name].margin


def test_the_predictor_of_simsiam_alone_keeps_its_rate_while_the_schedule_falls():
    method = made("simsiam")
    groups = method.parameter_groups(0.5)
    constant = {id(p) for group in groups if group.get("constant_lr") for p in group["params"]}
    assert constant == {id(p) for p in method.predict.parameters()}
    optimiser = build("sgd", groups, 1e-4)
    for progress in (0.3, 0.9, 1.0):
        set_rate(optimiser, schedule(progress, 0.05))
        for group in optimiser.param_groups:
            kept = id(group["params"][0]) in constant
            expected = 0.5 if kept else 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2
            assert group["lr"] == pytest.approx(expected)
            assert all((id(p) in constant) == kept for p in group["params"])


def test_at_the_end_of_the_schedule_only_the_predictor_of_simsiam_still_moves():
    method = made("simsiam")
    optimiser = build("sgd", method.parameter_groups(0.5), 1e-4)
    set_rate(optimiser, schedule(1.0, 0.05))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    method(pictures()).loss.backward()
    optimiser.step()
    moved = {name.split(".")[0] for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"predict"}


class Calls:
    """How many images each call of an encoder had."""

    def __init__(self, method):
        self.sizes = []
        method.encoder.register_forward_pre_hook(lambda _, arguments: self.sizes.append(len(arguments[0])))


@pytest.mark.parametrize(
    ("name", "network", "sizes"),
    [
        ("simclr", "test_resnet", [12]),
        ("simclr", "test_efficientnet_gn", [12]),
        ("byol", "test_resnet", [6, 6]),
        ("byol", "test_efficientnet_gn", [12]),
        ("simsiam", "test_resnet", [6, 6]),
        ("simsiam", "test_efficientnet_gn", [12]),
    ],
)
def test_both_views_pass_the_encoder_in_one_call_unless_batch_norm_would_mix_what_the_authors_keep_apart(
    name, network, sizes
):
    method = made(name, network=network)
    calls = Calls(method)
    method(pictures(6))
    assert calls.sizes == sizes


def test_simclr_is_the_cross_entropy_of_partners_with_batch_statistics_over_both_views():
    method, batch = made("simclr"), pictures(6)
    torch.manual_seed(2)
    loss = method(batch).loss
    torch.manual_seed(2)
    unit = F.normalize(method.project(method.encoder(torch.cat(method.views(batch.image)))), dim=1)
    logits = (unit @ unit.T / 0.2).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(logits, torch.arange(12).roll(6))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet_gn"])
def test_simsiam_is_the_mean_of_minus_the_cosine_in_both_directions(network):
    method, batch = made("simsiam", network=network), pictures(6)
    torch.manual_seed(2)
    loss = method(batch).loss.item()
    torch.manual_seed(2)
    a, b = (method.project(method.encoder(view)).detach() for view in method.views(batch.image))
    expected = 0.0
    for source, target in ((a, b), (b, a)):
        unit, other = F.normalize(method.predict(source), dim=1), F.normalize(target, dim=1)
        expected -= (unit * other).sum(1).mean().item() / 2
    assert loss == pytest.approx(expected, abs=1e-5)


def keys_of(method, batch, seed):
    """The keys that the teacher makes of a batch, by hand."""
    torch.manual_seed(seed)
    with torch.no_grad():
        _, other = method.views(batch.image)
        return F.normalize(method.teacher_project(method.teacher_encoder(other)), dim=1)


def test_the_queue_of_moco_is_first_in_first_out():
    """Ten places, batches of four: the third overwrites the two oldest keys, and they alone."""
    method = made("moco", queue_size=10)
    expected = method.queue.clone()
    for i in range(5):
        batch = pictures(4, seed=i)
        new = keys_of(method, batch, seed=i)
        torch.manual_seed(i)
        method(batch)
        method.after_step(0)
        for j in range(4):
            expected[(4 * i + j) % 10] = new[j]
        torch.testing.assert_close(method.queue, expected, rtol=0, atol=1e-5)
    assert method.filled == 20


def test_a_batch_larger_than_the_queue_of_moco_fills_it_with_its_last_keys():
    method, batch = made("moco", queue_size=6), pictures(10)
    new = keys_of(method, batch, seed=0)
    torch.manual_seed(0)
    method(batch)
    method.after_step(0)
    torch.testing.assert_close(method.queue, new[-6:], rtol=0, atol=1e-5)


def test_keys_join_the_queue_of_moco_after_the_step_and_only_in_training():
    """Algorithm 1: loss, gradient, update, momentum update, and last the queue. The keys of several losses all join."""
    method, batches = made("moco", queue_size=8), [pictures(3, seed=i) for i in range(2)]
    before = method.queue.clone()
    new = [keys_of(method, batch, seed=i) for i, batch in enumerate(batches)]
    for i, batch in enumerate(batches):
        torch.manual_seed(i)
        method(batch)
        assert torch.equal(method.queue, before)
    method.after_step(0)
    torch.testing.assert_close(method.queue, torch.cat([*new, before[6:]]), rtol=0, atol=1e-5)
    held = method.queue.clone()
    method.eval()(batches[0])
    method.after_step(0)
    assert torch.equal(method.queue, held)


def test_moco_has_the_gradient_of_a_cross_entropy_over_own_key_and_queue_without_a_copy_of_the_queue(allocations):
    """Also the second step's, when the first step's keys are in the queue."""
    method, batch = made("moco", queue_size=50_000), pictures(4)
    torch.manual_seed(0)
    method(batch).loss.backward()
    method.after_step(0)
    key = keys_of(method, batch, seed=1)
    torch.manual_seed(1)
    query = F.normalize(method.project(method.encoder(method.views(batch.image)[0])), dim=1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ method.queue.T], dim=1) / 0.2
    wanted = torch.autograd.grad(
        F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)), list(method.project[0].parameters())
    )
    method.zero_grad()
    torch.manual_seed(1)
    with allocations:
        method(batch).loss.backward()
    for parameter, expected in zip(method.project[0].parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)
    assert allocations.largest < method.queue.nbytes


@pytest.mark.parametrize("name", ["byol", "moco"])
def test_a_teacher_begins_as_the_student_gets_no_gradient_and_is_not_trained(name):
    method = made(name)
    pairs = [(method.teacher_encoder, method.encoder), (method.teacher_project, method.project)]
    for teacher, student in pairs:
        assert all(torch.equal(v, student.state_dict()[k]) for k, v in teacher.state_dict().items())
    method(pictures()).loss.backward()
    given = {id(p) for group in method.parameter_groups(0.1) for p in group["params"]}
    for teacher, _ in pairs:
        assert all(p.grad is None and not p.requires_grad and id(p) not in given for p in teacher.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["byol", "moco"])
def test_a_teacher_moves_by_the_momentum_formula(name, progress):
    """That of BYOL rises along a cosine from 0.9 to 1; that of MoCo stays."""
    method = made(name, momentum=0.9)
    momentum = 0.9 if name == "moco" else {0.0: 0.9, 0.5: 0.95, 1.0: 1.0}[progress]
    pairs = [(method.teacher_encoder, method.encoder), (method.teacher_project, method.project)]
    with torch.no_grad():
        for parameter in [*method.encoder.parameters(), *method.project.parameters()]:
            parameter.add_(torch.randn_like(parameter))
    old = [[p.detach().clone() for p in teacher.parameters()] for teacher, _ in pairs]
    method.after_step(progress)
    for before, (teacher, student) in zip(old, pairs, strict=True):
        for o, t, s in zip(before, teacher.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(t.detach(), momentum * o + (1 - momentum) * s.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet_gn"])
def test_byol_is_the_squared_distance_of_unit_vectors_in_both_directions(network):
    method, batch = made("byol", network=network), pictures(6)
    torch.manual_seed(2)
    loss = method(batch).loss
    torch.manual_seed(2)
    views = method.views(batch.image)
    expected = 0.0
    for view, other in (views, views[::-1]):
        prediction = F.normalize(method.predict(method.project(method.encoder(view))), dim=1)
        target = F.normalize(method.teacher_project(method.teacher_encoder(other)), dim=1)
        expected += (prediction - target).square().sum(1).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_supervised_learning_takes_no_notice_of_images_without_a_label():
    method = made("supervised").eval()
    method.augment = torch.nn.Identity()
    batch = pictures(6)
    image = batch.image.clone()
    image[0] = 255 - image[0]
    other = Batch(image=image, label=batch.label)
    assert batch.label[0] == -1
    assert method(other).loss.item() == pytest.approx(method(batch).loss.item(), rel=1e-5)


def test_mixup_mixes_the_batch_with_itself_and_its_loss_in_the_same_shares():
    method, plain = made("supervised", mixup=0.4), made("supervised")
    plain.load_state_dict(method.state_dict())
    seen = []
    for each in (method, plain):
        each.train()
        each.encoder.eval()
        each.augment = torch.nn.Identity()
    method.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    label = torch.arange(12) % 3
    torch.manual_seed(5)
    found = method(Batch(image=image, label=label)).loss
    torch.manual_seed(5)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    order = torch.randperm(12)
    assert 0.01 < share < 0.99
    torch.testing.assert_close(seen[0], share * image + (1 - share) * image[order])
    logits = plain.classify(plain.encoder(seen[0]))
    log_p = logits.log_softmax(1)
    each = [-(share * log_p[i, label[i]] + (1 - share) * log_p[i, label[order[i]]]) for i in range(12)]
    torch.testing.assert_close(found, torch.stack(each).mean())
    method.eval()
    seen.clear()
    torch.testing.assert_close(
        method(Batch(image=image, label=label)).loss, plain(Batch(image=image, label=label)).loss
    )
    torch.testing.assert_close(seen[0], image)


def test_the_heads_of_simsiam_in_the_code_of_lu_et_al_have_a_projector_of_two_layers_with_a_scale():
    torch.manual_seed(0)
    parts = encoder("resnetv2_50x1_bit", channels=3, size=32, stem="small", norm="batch"), policies.natural(32)
    method = METHODS["simsiam"](*parts, METHODS["simsiam"].Config(layers=2, affine=True))
    # Theirs has 8,400,896 + 2,100,736; ours leaves out the biases in front of a norm, which take no part.
    assert sum(p.numel() for p in method.project.parameters()) == 8_400_896 - 2 * 2048
    assert sum(p.numel() for p in method.predict.parameters()) == 2_100_736 - 512
    assert sum(p.numel() for p in method.encoder.parameters()) == 23_500_352 - 64 * 3 * (49 - 9)
