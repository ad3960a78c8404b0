"""Each loss against its definition in plain loops, in float64, and against an independent library."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from scipy.special import expit, logsumexp
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from kontrast import losses


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def picking(query, keys, positive, temperature):
    """-log of the softmax share of one key, as equations write it."""
    weights = [math.exp(cosine(query, key) / temperature) for key in keys]
    return -math.log(weights[positive] / sum(weights))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


TEMPERATURES = pytest.mark.parametrize("temperature", [0.1, 0.2, 0.5, 1.0])


@TEMPERATURES
def test_info_nce_equals_its_definition_in_plain_loops(temperature):
    query, key, positive = normal(5, 4), 3 * normal(9, 4, seed=1), [8, 0, 3, 3, 1]
    expected = mean(picking(q, key.tolist(), p, temperature) for q, p in zip(query.tolist(), positive, strict=True))
    found = losses.info_nce(query, key, torch.tensor(positive), temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_info_nce_leaves_the_excluded_key_out_of_each_query():
    query, key, positive, exclude = normal(4, 3), normal(6, 3, seed=1), [0, 1, 2, 5], [5, 0, 4, 1]
    expected = []
    for q, p, e in zip(query.tolist(), positive, exclude, strict=True):
        kept = [row for i, row in enumerate(key.tolist()) if i != e]
        expected.append(picking(q, kept, p - (p > e), 0.3))
    found = losses.info_nce(query, key, torch.tensor(positive), temperature=0.3, exclude=torch.tensor(exclude))
    assert float(found) == pytest.approx(mean(expected), rel=1e-6)


@TEMPERATURES
def test_info_nce_equals_pytorch_metric_learning(temperature):
    """Its NTXentLoss over queries and reference embeddings, one positive a query and all other keys negative."""
    query, key, positive = normal(6, 8), normal(6, 8, seed=1), torch.arange(6).roll(2)
    other = NTXentLoss(temperature=temperature, distance=CosineSimilarity())
    expected = other(query.double(), torch.arange(6), ref_emb=key.double(), ref_labels=positive.argsort())
    found = losses.info_nce(query, key, positive, temperature=temperature)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@TEMPERATURES
def test_nt_xent_equals_its_definition_in_plain_loops(temperature):
    a, b = normal(5, 4), 0.2 * normal(5, 4, seed=1)
    views = [*a.tolist(), *b.tolist()]
    expected = []
    for i, view in enumerate(views):
        others = [v for j, v in enumerate(views) if j != i]
        partner = (i + 5) % 10
        expected.append(picking(view, others, partner - (partner > i), temperature))
    assert float(losses.nt_xent(a, b, temperature=temperature)) == pytest.approx(mean(expected), rel=1e-6)


@TEMPERATURES
def test_nt_xent_equals_pytorch_metric_learning(temperature):
    a, b = normal(16, 8), normal(16, 8, seed=1)
    other = NTXentLoss(temperature=temperature, distance=CosineSimilarity())
    expected = other(torch.cat([a, b]).double(), torch.arange(16).repeat(2))
    assert float(losses.nt_xent(a, b, temperature=temperature)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("n", [2, 7, 64])
def test_nt_xent_of_embeddings_that_say_nothing_is_the_log_of_2n_minus_1(n):
    same = normal(1, 6).expand(n, 6)
    assert float(losses.nt_xent(same, same, temperature=0.1)) == pytest.approx(math.log(2 * n - 1), rel=1e-6)


def test_nt_xent_does_not_depend_on_which_view_comes_first_nor_on_lengths():
    a, b = normal(5, 4), normal(5, 4, seed=1)
    found = float(losses.nt_xent(a, b, temperature=0.2))
    assert float(losses.nt_xent(b, 50 * a, temperature=0.2)) == pytest.approx(found, rel=1e-6)


@TEMPERATURES
def test_queue_info_nce_equals_its_definition_in_plain_loops(temperature):
    query, key, queue = normal(4, 5), normal(4, 5, seed=1), normal(11, 5, seed=2)
    expected = mean(
        picking(q, [k, *queue.tolist()], 0, temperature) for q, k in zip(query.tolist(), key.tolist(), strict=True)
    )
    found = losses.queue_info_nce(query, key, queue, temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@TEMPERATURES
def test_queue_info_nce_equals_scikit_learn_and_scipy(temperature):
    query, key, queue = (normal(n, 5, seed=n).double().numpy() for n in (4, 5, 11))
    key = key[:4]
    own = np.diag(cosine_similarity(query, key))[:, None]
    logits = np.concatenate([own, cosine_similarity(query, queue)], axis=1) / temperature
    expected = (logsumexp(logits, axis=1) - logits[:, 0]).mean()
    found = losses.queue_info_nce(*(torch.from_numpy(t) for t in (query, key, queue)), temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_queue_info_nce_does_not_use_other_keys_of_the_batch():
    query, key, queue = normal(2, 5), normal(2, 5, seed=1), normal(6, 5, seed=2)
    together = float(losses.queue_info_nce(query, key, queue, temperature=0.2))
    apart = [float(losses.queue_info_nce(query[i : i + 1], key[i : i + 1], queue, temperature=0.2)) for i in range(2)]
    assert together == pytest.approx(mean(apart), rel=1e-6)


def test_negative_cosine_equals_its_definition_in_plain_loops():
    a, b = normal(6, 5), 7 * normal(6, 5, seed=1)
    expected = -mean(cosine(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True))
    assert float(losses.negative_cosine(a, b)) == pytest.approx(expected, abs=1e-6)


def test_negative_cosine_equals_torch_and_scikit_learn():
    a, b = normal(6, 5), normal(6, 5, seed=1)
    found = float(losses.negative_cosine(a, b))
    assert found == pytest.approx(-np.diag(cosine_similarity(a.double(), b.double())).mean(), abs=1e-6)
    # Torch's loss of a pair that belongs together is 1 - cosine.
    together = torch.nn.CosineEmbeddingLoss()(a.double(), b.double(), torch.ones(6, dtype=torch.float64))
    assert found == pytest.approx(float(together) - 1, abs=1e-6)


def test_no_gradient_of_negative_cosine_reaches_the_target():
    prediction, source = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    losses.negative_cosine(prediction, 2 * source).backward()
    assert source.grad is None
    assert prediction.grad.abs().min() > 0


def test_classification_equals_scikit_learn_over_the_images_with_a_label():
    logits, label = normal(8, 4).double(), torch.tensor([0, -1, 3, 3, -1, 1, 2, 0])
    known = label >= 0
    probability = logits.softmax(1)[known].numpy()
    expected = log_loss(label[known].numpy(), probability, labels=[0, 1, 2, 3])
    assert float(losses.classification(logits, label)) == pytest.approx(expected, rel=1e-6)


def test_classification_equals_its_definition_in_plain_loops():
    logits, label = normal(5, 3).tolist(), [2, -1, 0, 1, -1]
    expected = mean(
        -math.log(math.exp(row[c]) / sum(map(math.exp, row))) for row, c in zip(logits, label, strict=True) if c >= 0
    )
    found = losses.classification(torch.tensor(logits), torch.tensor(label))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_multi_label_classification_equals_scikit_learn_over_the_known_labels():
    logits = normal(7, 3)
    label = torch.tensor(np.random.default_rng(0).choice([0.0, 1.0, np.nan], (7, 3)))
    known = ~label.isnan()
    assert 0 < int(known.sum()) < 21
    expected = log_loss(label[known].numpy(), expit(logits.double()[known].numpy()), labels=[0, 1])
    assert float(losses.classification(logits, label)) == pytest.approx(expected, rel=1e-6)


def test_multi_label_classification_equals_its_definition_in_plain_loops():
    logits, label = normal(4, 2).tolist(), [[0, 1], [math.nan, 1], [1, math.nan], [0, 0]]
    each = []
    for row, marks in zip(logits, label, strict=True):
        for x, y in zip(row, marks, strict=True):
            if not math.isnan(y):
                p = 1 / (1 + math.exp(-x))
                each.append(-math.log(p if y else 1 - p))
    found = losses.classification(torch.tensor(logits), torch.tensor(label))
    assert float(found) == pytest.approx(mean(each), rel=1e-6)


@pytest.mark.parametrize("label", [torch.full((4,), -1), torch.full((4, 3), math.nan)], ids=["single", "multi"])
def test_without_any_label_the_loss_and_its_gradient_are_0(label):
    logits = normal(4, 3).requires_grad_()
    loss = losses.classification(logits, label)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_an_unknown_label_gives_its_logit_no_gradient():
    logits = normal(2, 2).requires_grad_()
    losses.classification(logits, torch.tensor([[1, math.nan], [math.nan, 0]])).backward()
    assert (logits.grad != 0).tolist() == [[True, False], [False, True]]


OF_VIEWS = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, temperature=0.01),
    "info_nce": lambda a, b: losses.info_nce(a, b, torch.arange(len(a)), temperature=0.01),
    "queue_info_nce": lambda a, b: losses.queue_info_nce(a, b, normal(9, a.shape[1], seed=5), temperature=0.01),
    "negative_cosine": losses.negative_cosine,
    "classification": lambda a, b: losses.classification(100 * a, b.argmax(1)),
}
EVERY = pytest.mark.parametrize("name", OF_VIEWS)


@EVERY
def test_loss_and_gradient_are_finite_under_bf16_autocast_at_temperature_one_hundredth(name):
    x, weight = normal(8, 6), normal(6, 6, seed=3).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OF_VIEWS[name](x @ weight, x @ weight + 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().max() > 0


@EVERY
def test_autocast_does_not_change_a_loss_of_the_same_embeddings(name):
    a, b = normal(8, 6), normal(8, 6, seed=1)
    expected = OF_VIEWS[name](a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = OF_VIEWS[name](a, b)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@EVERY
def test_the_numerical_gradient_agrees(name):
    """Central differences of the loss along a random direction, since losses work in float32."""
    if name == "classification":
        call, a, b = losses.classification, normal(5, 4), torch.tensor([0, 1, -1, 3, 2])
    else:
        call, a, b = (lambda a, b: 0.01 * OF_VIEWS[name](a, b)), normal(5, 4), normal(5, 4, seed=1)
    a.requires_grad_()
    direction, step = normal(5, 4, seed=2), 3e-3
    (analytic,) = torch.autograd.grad(call(a, b), a)
    with torch.no_grad():
        numerical = (call(a + step * direction, b) - call(a - step * direction, b)) / (2 * step)
    assert float((analytic * direction).sum()) == pytest.approx(float(numerical), rel=2e-2, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: losses.nt_xent(a, b, temperature=0.1),
        lambda a, b: losses.queue_info_nce(a, b, a, temperature=0.1),
        losses.negative_cosine,
    ],
    ids=["nt_xent", "queue_info_nce", "negative_cosine"],
)
@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4,), (4,))])
def test_views_of_unlike_shape_are_refused_with_both_shapes(call, shapes):
    a, b = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="one shape") as error:
        call(a, b)
    assert f"{shapes[0]} and {shapes[1]}" in str(error.value)


def test_keys_and_queues_of_another_width_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(9, 2\)"):
        losses.info_nce(torch.ones(4, 3), torch.ones(9, 2), torch.zeros(4, dtype=torch.int64), temperature=1)
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(9, 2\)"):
        losses.queue_info_nce(torch.ones(4, 3), torch.ones(4, 3), torch.ones(9, 2), temperature=1)


@pytest.mark.parametrize("positive", [[0, 1, 2, 9], [0, -1, 2, 3], [0, 1, 2]])
def test_a_positive_that_names_no_key_is_refused(positive):
    with pytest.raises(ValueError, match="one of the 9 keys for each of the 4 queries"):
        losses.info_nce(torch.ones(4, 3), torch.ones(9, 3), torch.tensor(positive), temperature=1)
