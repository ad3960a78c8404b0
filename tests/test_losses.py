"""Each loss against its definition in plain loops, in float64, and against an independent library.

Losses of similarities are tested as they come, in one product, and in blocks of one, a few and many rows.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from scipy.special import expit, logsumexp
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from kontrast import losses


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def unit(n, d, seed=0):
    return F.normalize(normal(n, d, seed), dim=1)


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


@pytest.fixture(params=[None, 1, 25, 77], ids=lambda most: f"at most {most}" if most else "one product")
def blocks(request, monkeypatch):
    """How many similarities a loss may hold at a time; all of these small problems without a limit of ours."""
    if request.param:
        monkeypatch.setattr(losses, "SIMILARITIES", request.param)


IN_BLOCKS = pytest.mark.usefixtures("blocks")
TEMPERATURES = pytest.mark.parametrize("temperature", [0.1, 0.2, 0.5, 1.0])


@IN_BLOCKS
@TEMPERATURES
def test_info_nce_equals_its_definition_in_plain_loops(temperature):
    query, key, positive = normal(5, 4), 3 * normal(9, 4, seed=1), [8, 0, 3, 3, 1]
    expected = mean(picking(q, key.tolist(), p, temperature) for q, p in zip(query.tolist(), positive, strict=True))
    found = losses.info_nce(query, key, torch.tensor(positive), temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@IN_BLOCKS
def test_info_nce_leaves_the_excluded_key_out_of_each_query():
    query, key, positive, exclude = normal(4, 3), normal(6, 3, seed=1), [0, 1, 2, 5], [5, 0, 4, 1]
    expected = []
    for q, p, e in zip(query.tolist(), positive, exclude, strict=True):
        kept = [row for i, row in enumerate(key.tolist()) if i != e]
        expected.append(picking(q, kept, p - (p > e), 0.3))
    found = losses.info_nce(query, key, torch.tensor(positive), temperature=0.3, exclude=torch.tensor(exclude))
    assert float(found) == pytest.approx(mean(expected), rel=1e-6)


@IN_BLOCKS
@TEMPERATURES
def test_info_nce_equals_pytorch_metric_learning(temperature):
    """Its NTXentLoss over queries and reference embeddings, one positive a query and all other keys negative."""
    query, key, positive = normal(6, 8), normal(6, 8, seed=1), torch.arange(6).roll(2)
    other = NTXentLoss(temperature=temperature, distance=CosineSimilarity())
    expected = other(query.double(), torch.arange(6), ref_emb=key.double(), ref_labels=positive.argsort())
    found = losses.info_nce(query, key, positive, temperature=temperature)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@IN_BLOCKS
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


@IN_BLOCKS
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


@IN_BLOCKS
@TEMPERATURES
def test_queue_info_nce_equals_its_definition_in_plain_loops(temperature):
    query, key, queue = normal(4, 5), normal(4, 5, seed=1), unit(11, 5, seed=2)
    expected = mean(
        picking(q, [k, *queue.tolist()], 0, temperature) for q, k in zip(query.tolist(), key.tolist(), strict=True)
    )
    found = losses.queue_info_nce(query, key, queue, temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@IN_BLOCKS
@TEMPERATURES
def test_queue_info_nce_equals_scikit_learn_and_scipy(temperature):
    query, key, queue = (unit(n, 5, seed=d).double().numpy() for d, n in enumerate((4, 4, 11)))
    own = np.diag(cosine_similarity(query, key))[:, None]
    logits = np.concatenate([own, cosine_similarity(query, queue)], axis=1) / temperature
    expected = (logsumexp(logits, axis=1) - logits[:, 0]).mean()
    found = losses.queue_info_nce(*(torch.from_numpy(t) for t in (query, key, queue)), temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_queue_info_nce_does_not_use_other_keys_of_the_batch():
    query, key, queue = normal(2, 5), normal(2, 5, seed=1), unit(6, 5, seed=2)
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
    "queue_info_nce": lambda a, b: losses.queue_info_nce(a, b, unit(9, a.shape[1], seed=5), temperature=0.01),
    "clip": lambda a, b: losses.clip(a, b, temperature=0.01),
    "cyclic_in_modal": losses.cyclic_in_modal,
    "cyclic_cross_modal": losses.cyclic_cross_modal,
    "negative_cosine": losses.negative_cosine,
    "classification": lambda a, b: losses.classification(100 * a, b.argmax(1)),
}
EVERY = pytest.mark.parametrize("name", OF_VIEWS)


def whole_matrix(query, keys, positive, temperature, left_out=None):
    """Torch's own cross-entropy of all cosines, float64."""
    logits = F.cosine_similarity(query[:, None], keys[None], dim=2) / temperature
    if left_out is not None:
        logits = logits.masked_fill(F.one_hot(left_out, len(keys)).bool(), -math.inf)
    return F.cross_entropy(logits, positive)


def nt_xent_of_torch(a, b, temperature):
    rows = torch.arange(2 * len(a))
    views = torch.cat([a, b])
    return whole_matrix(views, views, rows.roll(len(a)), temperature, rows)


def queue_info_nce_of_torch(query, key, queue, temperature):
    each = (
        whole_matrix(q[None], torch.cat([k[None], queue]), torch.tensor([0]), temperature)
        for q, k in zip(query, key, strict=True)
    )
    return mean(each)


def clip_of_torch(image, text, temperature):
    rows = torch.arange(len(image))
    to_text, to_image = whole_matrix(image, text, rows, temperature), whole_matrix(text, image, rows, temperature)
    return (to_text + to_image) / 2


def half(rows):
    """Positives of info_nce: row 2i and row 2i + 1 share key i."""
    return torch.arange(len(rows)) // 2


OF_SIMILARITIES = {
    "info_nce": (
        lambda a, b, t: losses.info_nce(a, b, half(a), temperature=t),
        lambda a, b, t: whole_matrix(a, b, half(a), t),
        [(5, 4), (7, 4)],
    ),
    "info_nce with rows left out": (
        lambda a, b, t: losses.info_nce(a, b, half(a), temperature=t, exclude=half(a) + 1),
        lambda a, b, t: whole_matrix(a, b, half(a), t, half(a) + 1),
        [(5, 4), (7, 4)],
    ),
    "nt_xent": (lambda a, b, t: losses.nt_xent(a, b, temperature=t), nt_xent_of_torch, [(6, 4), (6, 4)]),
    "queue_info_nce": (
        lambda a, b, c, t: losses.queue_info_nce(a, b, F.normalize(c, dim=1), temperature=t),
        queue_info_nce_of_torch,
        [(5, 4), (5, 4), (9, 4)],
    ),
    "clip": (lambda a, b, t: losses.clip(a, b, temperature=t), clip_of_torch, [(7, 4), (7, 4)]),
}
CONTRASTS = pytest.mark.parametrize("name", OF_SIMILARITIES)


def inputs(name, dtype=torch.float64, temperature=0.3):
    embeddings = (normal(n, d, seed=i).to(dtype) for i, (n, d) in enumerate(OF_SIMILARITIES[name][2]))
    return [t.requires_grad_() for t in (*embeddings, torch.tensor(temperature, dtype=dtype))]


@IN_BLOCKS
@CONTRASTS
@pytest.mark.parametrize("twins", [False, True], ids=["all differ", "some are equal"])
def test_value_and_all_gradients_equal_those_of_torch_with_the_whole_matrix_the_temperatures_too(name, twins):
    ours, torchs, _ = OF_SIMILARITIES[name]
    found, exact = inputs(name, torch.float32), inputs(name)
    if twins:
        with torch.no_grad():
            for t in (*found[:-1], *exact[:-1]):
                t[1:4] = t[0]
                t[4] = -t[0]
    loss, expected = ours(*found), torchs(*exact)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    gradients = zip(torch.autograd.grad(loss, found), torch.autograd.grad(expected, exact), strict=True)
    for gradient, wanted in gradients:
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-5, atol=1e-6)


@IN_BLOCKS
@CONTRASTS
def test_numerical_and_analytical_gradients_agree_to_second_order_in_float64(name):
    ours = OF_SIMILARITIES[name][0]
    assert ours(*inputs(name)).dtype == torch.float64
    assert torch.autograd.gradcheck(ours, inputs(name))
    assert torch.autograd.gradgradcheck(ours, inputs(name))


@IN_BLOCKS
@CONTRASTS
def test_only_what_asks_for_a_gradient_gets_one_and_it_is_the_same(name):
    ours = OF_SIMILARITIES[name][0]
    everything = torch.autograd.grad(ours(*inputs(name)), (leaves := inputs(name)), allow_unused=True)
    assert everything == (None,) * len(leaves)
    leaves = inputs(name)
    wanted = torch.autograd.grad(ours(*leaves), leaves)
    for i, gradient in enumerate(wanted):
        alone = [t if j == i else t.detach() for j, t in enumerate(leaves)]
        torch.testing.assert_close(torch.autograd.grad(ours(*alone), alone[i])[0], gradient)


def test_above_the_limit_nt_xent_has_the_value_and_gradients_of_torch_with_the_whole_matrix():
    a, b, temperature = normal(1100, 16), normal(1100, 16) + normal(1100, 16, seed=1), torch.tensor(0.05)
    assert losses.SIMILARITIES < 2200**2
    found, exact = (
        [t.to(dtype).requires_grad_() for t in (a, b, temperature)] for dtype in (torch.float32, torch.float64)
    )
    loss = losses.nt_xent(*found[:2], temperature=found[2])
    views = F.normalize(torch.cat(exact[:2]), dim=1)
    logits = (views @ views.T / exact[2]).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(2200).roll(1100))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, wanted in zip(torch.autograd.grad(loss, found), torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-8)


@IN_BLOCKS
def test_the_loss_of_embeddings_that_fit_well_keeps_its_digits():
    """A loss of 1e-6 is the difference of two numbers near 20, whose float32 steps are 2e-6."""
    a = normal(12, 64)
    b = a + 0.1 * normal(12, 64, seed=1)
    expected = float(nt_xent_of_torch(a.double(), b.double(), 0.05))
    assert 1e-8 < expected < 1e-4
    assert float(losses.nt_xent(a, b, temperature=0.05)) == pytest.approx(expected, rel=1e-4)


@IN_BLOCKS
def test_a_single_pair_has_nothing_to_be_told_from_so_its_loss_and_gradient_are_0():
    for loss in (losses.nt_xent, losses.clip):
        a, b = normal(1, 5).requires_grad_(), normal(1, 5, seed=1).requires_grad_()
        found = loss(a, b, temperature=0.1)
        found.backward()
        assert found == 0
        assert not a.grad.any()
        assert not b.grad.any()


@CONTRASTS
def test_a_backward_pass_in_blocks_works_in_float32_even_under_bf16_autocast(name, monkeypatch):
    monkeypatch.setattr(losses, "SIMILARITIES", 20)
    ours, leaves = OF_SIMILARITIES[name][0], inputs(name, torch.float32)
    wanted = torch.autograd.grad(ours(*leaves), leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(ours(*leaves), leaves)
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


@CONTRASTS
def test_no_operation_forth_or_back_makes_the_matrix_of_similarities(name, monkeypatch, allocations):
    """A block has four times the limit, at 4 bytes each; the matrix has 3,240,000 bytes or, of both views, more."""
    monkeypatch.setattr(losses, "SIMILARITIES", 5000)
    ours, _, shapes = OF_SIMILARITIES[name]
    leaves = [normal(900, 4, seed=i).requires_grad_() for i in range(len(shapes))]
    with allocations:
        ours(*leaves, 0.2).backward()
    assert 900 * 4 * 4 <= allocations.largest <= 4 * 5000 * 4
    assert all(leaf.grad.any() for leaf in leaves)


def test_the_memory_test_sees_the_matrix_that_torch_makes(allocations):
    with allocations:
        nt_xent_of_torch(normal(50, 4), normal(50, 4, seed=1), 0.2)
    assert allocations.largest >= 100 * 100 * 4


@IN_BLOCKS
def test_a_queue_without_gradient_is_neither_copied_nor_given_a_gradient(allocations):
    query, key, queue = normal(3, 4).requires_grad_(), normal(3, 4, seed=1), unit(500, 4, seed=2)
    with allocations:
        losses.queue_info_nce(query, key, queue, temperature=0.2).backward()
    assert query.grad.any()
    assert 500 * 4 <= allocations.largest < queue.nbytes


ROOT = math.sqrt(0.5)
IMAGES, TEXTS = torch.tensor([[1.0, 0], [0, 1], [-1, 0]]), torch.tensor([[1.0, 0], [ROOT, ROOT], [0, 1]])


def cyclic_sums(image, text):
    """Sums of squares of both cyclic terms over all pairs, in plain loops."""
    rows = range(len(image))
    pairs = [(j, k) for j in rows for k in rows]
    in_modal = sum((cosine(image[j], image[k]) - cosine(text[j], text[k])) ** 2 for j, k in pairs)
    cross_modal = sum((cosine(image[j], text[k]) - cosine(image[k], text[j])) ** 2 for j, k in pairs)
    return in_modal, cross_modal


CYCLIC = {"in_modal": losses.cyclic_in_modal, "cross_modal": losses.cyclic_cross_modal}
TERMS = pytest.mark.parametrize("term", CYCLIC)
NORMALIZATIONS = pytest.mark.parametrize("normalization", ["pairs", "rows"])


@IN_BLOCKS
def test_clip_and_the_cyclic_terms_of_three_pairs_are_those_computed_by_hand():
    image, text = 3 * IMAGES, 0.5 * TEXTS
    assert float(losses.clip(image, text, temperature=1)) == pytest.approx(0.863007, abs=1e-6)
    for normalization, in_modal, cross_modal in (("rows", 1.333333, 2.942809), ("pairs", 0.666667, 1.471405)):
        found = [float(term(image, text, normalization=normalization)) for term in CYCLIC.values()]
        assert found == pytest.approx([in_modal, cross_modal], abs=1e-6)


@IN_BLOCKS
@TEMPERATURES
def test_clip_equals_its_definition_in_plain_loops(temperature):
    image, text = normal(6, 4).tolist(), (2 * normal(6, 4, seed=1)).tolist()
    to_text = mean(picking(row, text, i, temperature) for i, row in enumerate(image))
    to_image = mean(picking(row, image, i, temperature) for i, row in enumerate(text))
    found = losses.clip(torch.tensor(image), torch.tensor(text), temperature=temperature)
    assert float(found) == pytest.approx((to_text + to_image) / 2, rel=1e-6)


@pytest.mark.parametrize("width", [3, 40], ids=["more pairs than numbers", "fewer pairs than numbers"])
@NORMALIZATIONS
def test_cyclic_terms_equal_their_definition_in_plain_loops(width, normalization):
    image, text = normal(9, width), 5 * normal(9, width, seed=1)
    divisor = 9 * 8 if normalization == "pairs" else 9
    expected = [total / divisor for total in cyclic_sums(image.tolist(), text.tolist())]
    found = [float(term(image, text, normalization=normalization)) for term in CYCLIC.values()]
    assert found == pytest.approx(expected, rel=1e-5)


@TERMS
@pytest.mark.parametrize("width", [3, 12], ids=["more pairs than numbers", "fewer pairs than numbers"])
def test_numerical_and_analytical_gradients_of_cyclic_terms_agree_to_second_order(term, width):
    pair = [normal(7, width, seed=i).double().requires_grad_() for i in range(2)]
    assert torch.autograd.gradcheck(CYCLIC[term], pair)
    assert torch.autograd.gradgradcheck(CYCLIC[term], pair)


@IN_BLOCKS
@pytest.mark.parametrize("number", [1, 2, 4])
def test_blocks_of_rows_against_all_columns_average_to_the_clip_loss_of_the_whole(number):
    image, text, temperature = leaves = inputs("clip")
    image, text = (torch.cat([t, t[:1] + 0.1]) for t in (image, text))
    rows = list(zip(image.chunk(number), text.chunk(number), strict=True))
    loss = mean(
        losses.clip(i, t, temperature=temperature, columns=(image, text), offset=8 // number * k)
        for k, (i, t) in enumerate(rows)
    )
    expected = clip_of_torch(image, text, temperature)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, leaves, retain_graph=True) for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


@TERMS
@NORMALIZATIONS
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("width", [3, 40], ids=["more pairs than numbers", "fewer pairs than numbers"])
def test_blocks_of_rows_against_all_columns_average_to_the_cyclic_terms_of_the_whole(
    term, normalization, number, width
):
    image, text = (normal(8, width, seed=i).double().requires_grad_() for i in range(2))
    loss = mean(
        CYCLIC[term](i, t, columns=(image, text), normalization=normalization)
        for i, t in zip(image.chunk(number), text.chunk(number), strict=True)
    )
    a, b = F.normalize(image, dim=1), F.normalize(text, dim=1)
    across = a @ b.T
    difference = {"in_modal": a @ a.T - b @ b.T, "cross_modal": across - across.T}[term]
    expected = difference.square().sum() / (8 * 7 if normalization == "pairs" else 8)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, (image, text), retain_graph=True) for v in (loss, expected)))


@TERMS
@pytest.mark.parametrize("n", [32, 128, 512])
def test_a_cyclic_term_of_random_vectors_is_2_over_d_for_pairs_and_grows_with_the_batch_for_rows(term, n):
    d, draws = 64, range(max(2, 2048 // n))
    both = [(normal(n, d, seed=2 * i), normal(n, d, seed=2 * i + 1)) for i in draws]
    pairs = mean(float(CYCLIC[term](a, b)) for a, b in both)
    rows = mean(float(CYCLIC[term](a, b, normalization="rows")) for a, b in both)
    assert pairs == pytest.approx(2 / d, rel=0.05)
    assert rows == pytest.approx(2 * (n - 1) / d, rel=0.05)
    assert rows == pytest.approx((n - 1) * pairs, rel=1e-5)


@TERMS
@pytest.mark.parametrize("n", [1, 6, 50])
def test_cyclic_terms_vanish_where_images_equal_their_texts_and_for_a_single_pair(term, n):
    same = normal(n, 8)
    other = normal(n, 8, seed=1) if n == 1 else 3 * same
    for normalization in ("pairs", "rows"):
        a = same.clone().requires_grad_()
        found = CYCLIC[term](a, other, normalization=normalization)
        found.backward()
        assert found.item() == pytest.approx(0, abs=1e-10)
        torch.testing.assert_close(a.grad, torch.zeros_like(a), rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [3, 40])
def test_swapping_images_and_texts_changes_neither_clip_nor_a_cyclic_term(width):
    image, text = normal(9, width), normal(9, width, seed=1)
    for loss in (losses.cyclic_in_modal, losses.cyclic_cross_modal, lambda a, b: losses.clip(a, b, temperature=0.1)):
        assert float(loss(text, image)) == pytest.approx(float(loss(image, text)), rel=1e-5)


def test_where_images_nearly_equal_their_texts_a_cyclic_term_keeps_its_digits():
    """Sums of Gram matrices of I and of T would be equal to all digits but the last."""
    image = normal(300, 8)
    text = image + 1e-3 * normal(300, 8, seed=1)
    a, b = (F.normalize(t.double(), dim=1) for t in (image, text))
    expected = [(a @ a.T - b @ b.T).square().sum(), (a @ b.T - b @ a.T).square().sum()]
    found = [float(term(image, text, normalization="rows")) for term in CYCLIC.values()]
    assert found == pytest.approx([float(e) / 300 for e in expected], rel=1e-2)


def test_pairs_and_columns_that_do_not_belong_together_are_refused_with_what_was_seen():
    a, b = torch.ones(4, 3), torch.ones(9, 3)
    for call in (lambda *x, **y: losses.clip(*x, temperature=1, **y), *CYCLIC.values()):
        with pytest.raises(ValueError, match=r"\(4, 3\) and \(9, 3\)"):
            call(a, b)
        with pytest.raises(ValueError, match=r"\(9, 3\) and \(4, 3\)"):
            call(a, a, columns=(b, a))
        with pytest.raises(ValueError, match=r"\(4, 3\) and \(9, 2\)"):
            call(a, a, columns=(b[:, :2], b[:, :2]))
    for offset in (-1, 6):
        with pytest.raises(ValueError, match=f"4 rows from offset {offset} on, and 9 columns"):
            losses.clip(a, a, temperature=1, columns=(b, b), offset=offset)


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


def test_a_key_to_exclude_must_be_there():
    rows = torch.arange(4)
    with pytest.raises(ValueError, match="exclude names one of the 6 keys"):
        losses.info_nce(normal(4, 3), normal(6, 3), rows, temperature=0.3, exclude=rows - 1)


def focal_by_hand(logits, label, gamma):
    """Plain loops over images, or over the cells of multi-label data."""
    terms = []
    for row, known in zip(logits.tolist(), label.tolist(), strict=True):
        if isinstance(known, list):
            for value, cell in zip(row, known, strict=True):
                if not math.isnan(cell):
                    p = 1 / (1 + math.exp(-value))
                    terms.append(p if cell else 1 - p)
        elif known >= 0:
            terms.append(math.exp(row[known]) / sum(map(math.exp, row)))
    return sum(-((1 - p) ** gamma) * math.log(p) for p in terms) / len(terms)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize(
    "label", [torch.tensor([0, 2, -1, 1]), torch.tensor([[1, 0, math.nan], [0, 0, 1], [math.nan, 1, 1], [0, 1, 0]])]
)
def test_focal_equals_its_definition_in_plain_loops(label, gamma):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    for detached in (False, True):
        found = losses.focal(logits, label, gamma=gamma, detach_weight=detached)
        assert float(found) == pytest.approx(focal_by_hand(logits, label, gamma), rel=1e-5)


@pytest.mark.parametrize("label", [torch.tensor([0, 2, -1]), torch.tensor([[1, 0, math.nan], [0, 0, 1], [1, 1, 1]])])
def test_focal_with_gamma_zero_is_cross_entropy(label):
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(losses.focal(logits, label, gamma=0.0), losses.classification(logits, label))


def test_a_detached_weight_changes_the_gradient_and_not_the_value():
    gradients = []
    for detached in (False, True):
        logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
        losses.focal(logits, torch.tensor([0, 1, 2, 0, 1]), detach_weight=detached).backward()
        gradients.append(logits.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 0.01


def test_focal_has_its_gradient_also_where_a_class_is_certain():
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0], [0.3, 0.1]], requires_grad=True)
    for gamma in (0.5, 2.0):
        logits.grad = None
        losses.focal(logits, torch.tensor([0, 0, 1]), gamma=gamma).backward()
        assert logits.grad.isfinite().all()
    wide = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = lambda x: losses.focal(x, torch.tensor([0, 1, 2, -1]))  # noqa: E731
    assert torch.autograd.gradcheck(lambda x: loss(x), wide, eps=1e-4, atol=1e-3, rtol=1e-2)


def squared_distance(a, b):
    """Of unit vectors, element by element."""
    lengths = [math.sqrt(sum(x * x for x in v)) for v in (a, b)]
    return sum((x / lengths[0] - y / lengths[1]) ** 2 for x, y in zip(a, b, strict=True))


def score(embedding, keys, temperature):
    return math.log(sum(math.exp(-squared_distance(embedding, key) / temperature) for key in keys))


@IN_BLOCKS
@TEMPERATURES
def test_nt_xent_l2_equals_its_definition_in_plain_loops_and_each_view_has_2n_minus_2_negatives(temperature):
    n = 4
    a, b = normal(n, 5), 2 * normal(n, 5, seed=1)
    views, terms = torch.cat([a, b]).tolist(), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        negatives = [j for j in range(2 * n) if j not in (i, partner)]
        assert len(negatives) == 2 * n - 2
        weights = {j: math.exp(-squared_distance(views[i], views[j]) / temperature) for j in [partner, *negatives]}
        terms.append(-math.log(weights[partner] / sum(weights.values())))
    found = losses.nt_xent_l2(a.double(), b.double(), temperature=temperature)
    assert found.item() == pytest.approx(mean(terms), rel=1e-6)


@TEMPERATURES
def test_nt_xent_l2_is_pytorch_metric_learnings_nt_xent_at_half_the_temperature(temperature):
    a, b = normal(8, 5).double(), normal(8, 5, seed=1).double()
    other = NTXentLoss(temperature=temperature / 2)
    expected = other(torch.cat([a, b]), torch.arange(8).repeat(2))
    assert losses.nt_xent_l2(a, b, temperature=temperature).item() == pytest.approx(expected.item(), rel=1e-6)


@IN_BLOCKS
@TEMPERATURES
def test_the_marginal_score_equals_its_definition_in_plain_loops(temperature):
    embedding, key = normal(5, 4), 3 * normal(7, 4, seed=1)
    found = losses.marginal_score(embedding, key, temperature=temperature)
    expected = [score(e, key.tolist(), temperature) for e in embedding.tolist()]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert ((found <= math.log(7)) & (found >= math.log(7) - 4 / temperature)).all()


def corners():
    """Embeddings of the two views and of samples of two images, not all of length 1."""
    view = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return 3 * view, -view, view


def test_the_generative_term_and_its_penalty_are_those_computed_by_hand():
    """Temperature 1: log(1 + e^-2) for data, log(e^-4 + e^-2) for samples, squared lengths 9 and 1."""
    data, sample, key = corners()
    s = losses.marginal_score(data, key, temperature=1)
    assert s.tolist() == pytest.approx([0.126928, 0.126928], abs=1e-6)
    assert losses.marginal_score(sample, key, temperature=1).tolist() == pytest.approx([-1.873072] * 2, abs=1e-6)
    contrast = losses.nt_xent_l2(data, key, temperature=1)
    assert contrast.item() == pytest.approx(0.239545, abs=1e-6)
    bare = losses.ebclr_generative(data, sample, key, temperature=1, norm_weight=0)
    assert bare.item() == pytest.approx(-2, abs=1e-6)
    found = losses.ebclr_generative(data, sample, key, temperature=1, norm_weight=0.001, norm_reduction="sum")
    assert found.item() == pytest.approx(-1.98, abs=1e-6)
    assert (contrast + 0.1 * found).item() == pytest.approx(0.041545, abs=1e-6)


def test_the_generative_term_equals_its_definition_in_plain_loops():
    data, sample, key = 2 * normal(5, 4), normal(3, 4, seed=1), normal(6, 4, seed=2)
    gap = mean(score(e, key.tolist(), 0.3) for e in sample.tolist()) - mean(
        score(e, key.tolist(), 0.3) for e in data.tolist()
    )
    lengths = [[sum(x * x for x in row) for row in part.tolist()] for part in (data, sample)]
    for reduction, penalty in (("sum", sum(map(sum, lengths))), ("mean", sum(map(mean, lengths)))):
        found = losses.ebclr_generative(data, sample, key, temperature=0.3, norm_weight=0.02, norm_reduction=reduction)
        assert found.item() == pytest.approx(gap + 0.02 * penalty, rel=1e-5)


def test_a_sum_with_a_weight_and_a_mean_with_n_times_that_have_one_value_and_one_gradient():
    parts = [normal(6, 4, seed=seed).double().requires_grad_() for seed in range(3)]
    found = []
    for reduction, weight in (("sum", 0.03), ("mean", 6 * 0.03)):
        loss = losses.ebclr_generative(*parts, temperature=0.5, norm_weight=weight, norm_reduction=reduction)
        found.append((loss, *torch.autograd.grad(loss, parts)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_mean_penalty_does_not_grow_with_the_batch_and_the_sum_doubles():
    data, sample, key = (normal(6, 4, seed=seed).double() for seed in range(3))

    def penalty(reduction, times):
        parts = [data.repeat(times, 1), sample.repeat(times, 1), key]
        with_it, without = (
            losses.ebclr_generative(*parts, temperature=0.5, norm_weight=weight, norm_reduction=reduction)
            for weight in (1.0, 0.0)
        )
        return (with_it - without).item()

    assert penalty("mean", 2) == pytest.approx(penalty("mean", 1))
    assert penalty("sum", 2) == pytest.approx(2 * penalty("sum", 1))


def test_keys_learn_from_the_generative_term_and_autograd_agrees_with_differences():
    parts = [normal(3, 4, seed=seed).double().requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(lambda *p: losses.ebclr_generative(*p, temperature=0.5, norm_weight=0.1), parts)
    (to_key,) = torch.autograd.grad(losses.ebclr_generative(*parts, temperature=0.5, norm_weight=0.1), parts[2])
    assert to_key.any()


def test_embeddings_and_keys_of_different_widths_have_no_score():
    with pytest.raises(ValueError, match="one width"):
        losses.marginal_score(normal(2, 3), normal(2, 4), temperature=1)


@pytest.mark.parametrize("num", [1, 2, 5, 64])
def test_clip_equals_open_clips_loss_in_value_and_in_the_gradient_of_images_texts_and_temperature(open_clip, num):
    torch.manual_seed(num)
    parts = [torch.randn(num, 16, dtype=torch.float64).requires_grad_() for _ in range(2)]
    parts.append(torch.tensor(2.3, dtype=torch.float64).requires_grad_())
    image, text, logit_scale = parts
    ours = losses.clip(image, text, temperature=(-logit_scale).exp())
    theirs = open_clip.loss.ClipLoss()(F.normalize(image, dim=1), F.normalize(text, dim=1), logit_scale.exp())
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(torch.autograd.grad(ours, parts), torch.autograd.grad(theirs, parts), strict=True):
        torch.testing.assert_close(found, expected)
