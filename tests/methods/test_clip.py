"""CLIP and CyCLIP: their loss as open_clip and plain loops have it, on one process and on two, at once and in parts."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kontrast.augment import policies
from kontrast.batch import Batch
from kontrast.errors import InputError
from kontrast.methods import CLIP, METHODS
from kontrast.methods.clip import CyCLIP
from kontrast.nn.encoders import Encoder, EncoderSpec, encoder, save_encoder
from kontrast.nn.text import TextSpec, text_tower
from kontrast.nn.towers import load_towers

TEXTS = ("normal heart", "large heart", "normal heart", "rib fracture", "effusion on the left", "no finding", "a", "b")


def batch(n=8, seed=0):
    image = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return Batch(image=image, text=tuple(TEXTS[i % len(TEXTS)] for i in range(n)))


class Net(nn.Module):
    num_features = 12

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 12, 5, stride=3), nn.Linear(12, 12)

    def forward(self, x):
        return self.last(self.conv(x).relu().mean((2, 3)))


def made(network=None, **config):
    """In float64 and without augmentation, so that ways to compute one thing agree to many digits."""
    torch.manual_seed(0)
    text = text_tower(TEXTS, TextSpec(width=16, layers=2, heads=2, context=16, vocabulary=300))
    small = Encoder(Net(), EncoderSpec(name="resnet18", channels=1, size=28))
    image = encoder(network, channels=1, size=28, stem="standard") if network else small
    method = CLIP(image, policies.digits(28), CLIP.Config(**({"width": 24} | config)), text=text).double()
    method.augment = nn.Identity()
    return method


def embeddings(method, given):
    image = method.project_image(method.encoder(given.image))
    return image, method.project_text(method.text(method.text.tokens(given.text)))


def clip_loss_of_open_clip(image, text, logit_scale):
    """open_clip's `ClipLoss` of unit features: the mean of two cross-entropies of scaled products."""
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    labels = torch.arange(len(image))
    logits = logit_scale * image @ text.T
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logit_scale * text @ image.T, labels)) / 2


def gradients(loss, method):
    learning = [p for p in method.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, learning, allow_unused=True)


def test_without_cyclic_weights_loss_and_gradient_are_those_of_open_clips_definition():
    method = made()
    expected = clip_loss_of_open_clip(*embeddings(method, batch()), method.logit_scale.exp())
    found = method(batch()).loss
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, method), gradients(expected, method))


def test_the_loss_is_that_of_open_clip_itself():
    open_clip = pytest.importorskip("open_clip", exc_type=(ImportError, RuntimeError))
    method = made()
    image, text = (F.normalize(each, dim=1) for each in embeddings(method, batch()))
    torch.testing.assert_close(method(batch()).loss, open_clip.loss.ClipLoss()(image, text, method.logit_scale.exp()))


@pytest.mark.parametrize("normalization", ["pairs", "rows"])
@pytest.mark.parametrize("n", [5, 40], ids=["fewer pairs than numbers", "more pairs than numbers"])
def test_with_weights_the_loss_adds_both_cyclic_terms_of_plain_loops(normalization, n):
    method = made(in_modal=0.7, cross_modal=1.9, normalization=normalization, width=8)
    image, text = embeddings(method, batch(n))
    i, t = F.normalize(image, dim=1), F.normalize(text, dim=1)
    sums = [
        sum((i[j] @ i[k] - t[j] @ t[k]) ** 2 for j in range(n) for k in range(n)),
        sum((i[j] @ t[k] - i[k] @ t[j]) ** 2 for j in range(n) for k in range(n)),
    ]
    terms = [total / (n * (n - 1) if normalization == "pairs" else n) for total in sums]
    expected = clip_loss_of_open_clip(image, text, method.logit_scale.exp()) + 0.7 * terms[0] + 1.9 * terms[1]
    loss, metrics = method(batch(n))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, method), gradients(expected, method))
    for name, value in (
        ("in_modal", terms[0]),
        ("cross_modal", terms[1]),
        ("clip", expected - 0.7 * terms[0] - 1.9 * terms[1]),
    ):
        torch.testing.assert_close(metrics[name], value.detach())


def test_weights_of_0_leave_clip_bit_for_bit_and_the_terms_are_still_reported():
    plain = made()
    loss, metrics = plain(batch())
    assert torch.equal(loss.detach(), metrics["clip"])
    assert metrics["in_modal"] > 0
    assert metrics["cross_modal"] > 0
    weighed = made(in_modal=1e-300, cross_modal=1e-300)
    other = weighed(batch()).loss
    assert torch.equal(loss, other)
    for a, b in zip(gradients(loss, plain), gradients(other, weighed), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_cyclic_terms_give_the_temperature_no_gradient():
    slopes = [gradients(method(batch()).loss, method)[0] for method in (made(), made(in_modal=9.0, cross_modal=9.0))]
    named = [name for name, p in made().named_parameters() if p.requires_grad]
    assert named[0] == "logit_scale"
    torch.testing.assert_close(*slopes)
    assert slopes[0] != 0


def test_cyclip_is_a_setting_whose_weights_for_pairs_are_the_released_ones_for_rows_at_128():
    defaults = CyCLIP.Config()
    assert defaults.in_modal == defaults.cross_modal == 0.25 * 127
    pairs = made(in_modal=defaults.in_modal, cross_modal=defaults.cross_modal)(batch(128)).loss
    rows = made(in_modal=0.25, cross_modal=0.25, normalization="rows")(batch(128)).loss
    torch.testing.assert_close(pairs, rows)
    assert METHODS["clip"] is CLIP


@pytest.mark.parametrize(
    ("normalization", "said"), [("pairs", "7 of pairs is 1 of rows"), ("rows", "49 of pairs is 7 of rows")]
)
def test_a_run_says_its_weights_in_both_normalizations(normalization, said, caplog):
    with caplog.at_level(logging.INFO, "kontrast"):
        made(in_modal=7.0, normalization=normalization).begin([batch(8)], 8)
    assert f"in_modal: {said}, at 8 a batch" in caplog.text
    caplog.clear()
    made().begin([batch(8)], 8)
    assert "of pairs is" not in caplog.text


def test_a_single_pair_has_a_finite_loss():
    for duplicates in ("ignore", "mask", "multi_positive"):
        method = made(in_modal=1.0, cross_modal=1.0, duplicates=duplicates)
        loss, metrics = method(batch(1))
        assert loss.item() == pytest.approx(0, abs=1e-9)
        assert all(value.isfinite() for value in metrics.values())
        assert all(g is None or g.isfinite().all() for g in gradients(loss, method))


@pytest.mark.parametrize(("pushed", "kept"), [(9.0, 0.01), (-3.0, 1.0), (2.0, math.exp(-2))])
def test_after_a_step_the_temperature_is_in_its_range(pushed, kept):
    method = made()
    with torch.no_grad():
        method.logit_scale.fill_(pushed)
    method.after_step(0.5)
    assert method.temperature.item() == pytest.approx(kept)
    assert method(batch()).metrics["temperature"].item() == pytest.approx(kept)


def test_the_temperature_learns_and_is_never_decayed():
    method = made(temperature=0.2)
    assert method.temperature.item() == pytest.approx(0.2)
    assert method.logit_scale.ndim == 0
    method(batch()).loss.backward()
    assert method.logit_scale.grad != 0


@pytest.mark.parametrize("freeze", ["none", "image", "text", "both"])
def test_a_frozen_tower_keeps_weights_and_statistics_and_all_else_learns(freeze):
    method = made(network="test_resnet", freeze=freeze).train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    groups = method.parameter_groups(0.1)
    optimiser = torch.optim.SGD([p for group in groups for p in group["params"]], lr=0.1)
    method(batch()).loss.backward()
    optimiser.step()
    moved = {n.split(".")[0] for n, v in method.state_dict().items() if not torch.equal(v, before[n])}
    frozen = {"none": set(), "image": {"encoder"}, "text": {"text"}, "both": {"encoder", "text"}}[freeze]
    assert moved == {"encoder", "text", "project_image", "project_text", "logit_scale"} - frozen


@pytest.mark.parametrize("duplicates", ["ignore", "mask", "multi_positive"])
@pytest.mark.parametrize("micro_batch", [8, 5])
def test_four_parts_of_8_have_the_loss_and_gradient_of_one_batch_of_32(micro_batch, duplicates):
    settings = {"in_modal": 2.0, "cross_modal": 3.0, "duplicates": duplicates}
    whole, parts = made(**settings), made(**settings, micro_batch=micro_batch)
    found = [(loss, gradients(loss, method)) for method in (whole, parts) for loss in [method(batch(32)).loss]]
    torch.testing.assert_close(*found)


def test_with_parts_only_one_part_passes_a_tower_at_a_time_and_twice_in_all():
    method, seen = made(micro_batch=8), []
    method.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    loss = method(batch(32)).loss
    assert seen == [8] * 4
    loss.backward()
    assert seen == [8] * 8


def test_accuracy_is_the_share_of_images_whose_text_beats_every_other_text_but_its_equals():
    method, given = made(), batch()
    image, text = (F.normalize(each, dim=1) for each in embeddings(method, given))
    cosine = (image @ text.T).tolist()
    right = [all(cosine[j][k] < cosine[j][j] for k in range(8) if given.text[k] != given.text[j]) for j in range(8)]
    metrics = method(given).metrics
    assert 0 < sum(right) < 8
    assert metrics["batch_accuracy"].item() == pytest.approx(sum(right) / 8)
    assert metrics["log_batch"].item() == pytest.approx(math.log(8))


def test_a_model_that_tells_nothing_apart_has_accuracy_0_and_a_loss_of_log_n():
    method = made()
    for part in (method.project_image, method.project_text):
        nn.init.zeros_(part.weight)
    loss, metrics = method(batch())
    assert loss.item() == pytest.approx(math.log(8))
    assert metrics["batch_accuracy"] == 0


def test_texts_are_equal_where_their_tokens_are_and_texts_past_the_context_are_counted():
    """Letter case and spaces do not tell texts apart, and neither does what the context cuts."""
    given = batch(4)
    texts = ("Normal  heart", "normal heart", "large heart " + "x" * 30, "LARGE heart " + "x" * 40)
    same = Batch(image=given.image, text=texts)
    method = made(duplicates="mask", in_modal=1.0)
    image, text = embeddings(method, same)
    i, t = F.normalize(image, dim=1), F.normalize(text, dim=1)
    logits = i @ t.T / method.temperature
    negative = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    among = (negative | torch.eye(4, dtype=torch.bool)).logical_not()
    both = [F.cross_entropy(each.masked_fill(among, -torch.inf), torch.arange(4)) for each in (logits, logits.T)]
    in_modal = (i @ i.T - t @ t.T).square()[negative].mean()
    loss, metrics = method(same)
    torch.testing.assert_close(loss, sum(both) / 2 + in_modal)
    assert metrics["texts_cut"] == 0.5


TWO = """
sys.path.insert(0, {folder!r})
from test_clip import SETTINGS, batch, made
result = []
for sizes, settings in SETTINGS:
    method, given = made(**settings), batch(8)
    first, last = sum(sizes[:rank]), sum(sizes[: rank + 1])
    own = type(given)(image=given.image[first:last], text=given.text[first:last])
    loss, metrics = method(own)
    loss.backward()
    for p in method.parameters():
        dist.all_reduce(p.grad)
        p.grad /= num
    dist.all_reduce(loss.detach_())
    result.append((loss / num, [p.grad for p in method.parameters()], metrics['log_batch'], metrics['batch_accuracy']))
"""
CYCLIC = {"in_modal": 2.0, "cross_modal": 3.0}
SETTINGS = [
    ((4, 4), {}),
    ((5, 3), CYCLIC),
    ((3, 5), CYCLIC | {"normalization": "rows", "duplicates": "mask", "width": 4}),
    ((4, 4), CYCLIC | {"duplicates": "multi_positive", "micro_batch": 2}),
]


def test_two_processes_with_different_pairs_have_the_loss_and_gradient_of_one_with_all(processes, request):
    """Blocks of equal and of unequal numbers of pairs; gradients are averaged over processes, as DDP does."""
    first, second = processes(TWO.format(folder=str(request.path.parent)))
    for (sizes, settings), one, other in zip(SETTINGS, first, second, strict=True):
        method = made(**settings)
        loss, metrics = method(batch(8))
        expected = gradients(loss, method)
        torch.testing.assert_close((one[0], one[1]), (other[0], other[1]))
        torch.testing.assert_close(one[0], loss.detach())
        torch.testing.assert_close(one[1], list(expected))
        assert one[2] == other[2] == metrics["log_batch"]
        accuracy = sum(n / 8 * found for n, found in zip(sizes, (one[3], other[3]), strict=True))
        torch.testing.assert_close(accuracy, metrics["batch_accuracy"])


def test_a_run_leaves_towers_that_embed_as_the_method_did(tmp_path):
    method = made(network="test_resnet").float().eval()
    save_encoder(method.encoder, tmp_path)
    method.leave(tmp_path, [])
    towers = load_towers(tmp_path)
    assert not towers.training
    given = batch()
    with torch.no_grad():
        image, text = (F.normalize(each, dim=1) for each in embeddings(method, given))
        torch.testing.assert_close(towers.encode_image(given.image), image)
        torch.testing.assert_close(towers.encode_text(given.text), text)
    assert towers.temperature.item() == pytest.approx(method.temperature.item())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_modal": -1.0}, "in_modal must be 0 or more, and finite; got -1"),
        ({"cross_modal": math.inf}, "cross_modal must be 0 or more, and finite; got inf"),
        ({"temperature": 0.001}, r"temperature must be in 0.01..1; got 0.001"),
        ({"width": -1}, "width must be 0 or more"),
        ({"micro_batch": -1}, "micro_batch must be 0 or more"),
        ({"normalization": "mean"}, "normalization is one of pairs, rows; got 'mean'"),
        ({"duplicates": "drop"}, "duplicates is one of ignore, mask, multi_positive"),
        ({"freeze": "all"}, "freeze is one of none, image, text, both"),
        ({"width": 0}, r"the image tower has \d+ and the text tower 16, so give --width"),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused_with_the_value_seen(settings, said):
    with pytest.raises(InputError, match=said):
        made(**settings)


def test_images_without_texts_are_refused():
    with pytest.raises(InputError, match="these images have none, so name a table with a column `text`"):
        made()(Batch(image=batch().image))
