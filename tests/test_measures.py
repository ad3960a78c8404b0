import math

import pytest
import torch
import torch.nn.functional as F

from kontrast import measures


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e-4, 1e4])
def test_embeddings_at_one_point_have_spread_0_rank_1_and_uniformity_0(value):
    point = torch.full((20, 8), value)
    assert float(measures.spread(point)) == pytest.approx(0, abs=1e-5)
    assert float(measures.effective_rank(point)) == 1
    assert float(measures.uniformity(point)) == pytest.approx(0, abs=1e-5)


def test_a_direction_without_variation_in_length_alone_is_collapsed_for_the_spread():
    lengths = torch.linspace(1, 100, 20)[:, None]
    assert float(measures.spread(lengths * normal(1, 8))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("d", [4, 64, 512])
def test_the_spread_of_a_uniform_sphere_is_1(d):
    assert float(measures.spread(normal(4000, d))) == pytest.approx(1, abs=0.01)


def test_the_spread_equals_its_definition_in_plain_loops():
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in normal(7, 3).tolist()]
    deviations = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / 7
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / 7))
    expected = sum(deviations) / 3 * math.sqrt(3)
    assert float(measures.spread(normal(7, 3))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [2, 8, 33])
def test_orthonormal_embeddings_have_one_rank_less_than_they_are_since_centring_takes_one(n):
    basis = torch.linalg.qr(normal(64, n).double()).Q.T
    assert float(measures.effective_rank(5 * basis)) == pytest.approx(n - 1, rel=1e-5)


def test_the_rank_counts_two_equal_directions_as_two_and_a_faint_one_as_little():
    square = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert float(measures.effective_rank(square)) == pytest.approx(2, rel=1e-6)
    faint = torch.cat([square, torch.tensor([[0, 0, 1e-3], [0, 0, -1e-3]])])
    assert 2 < float(measures.effective_rank(faint)) < 2.02


def test_the_rank_is_the_exponential_of_the_entropy_of_the_singular_values():
    scales = [4.0, 2.0, 1.0]
    embedding = torch.cat([torch.diag(torch.tensor(scales)), -torch.diag(torch.tensor(scales))])
    shares = [s / sum(scales) for s in scales]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert float(measures.effective_rank(embedding)) == pytest.approx(expected, rel=1e-6)


def test_the_rank_does_not_change_with_the_length_or_the_place_of_all_embeddings():
    embedding = normal(50, 6)
    expected = float(measures.effective_rank(embedding))
    assert float(measures.effective_rank(1e-3 * embedding + 7)) == pytest.approx(expected, rel=1e-3)


def test_equal_views_are_aligned_at_0_antipodes_at_4_and_right_angles_at_2():
    a, b = torch.eye(6)[:3], torch.eye(6)[3:]
    found = [float(measures.alignment(a, other)) for other in (9 * a, -0.1 * a, b)]
    assert found == pytest.approx([0, 4, 2], abs=1e-6)


def test_the_uniformity_equals_a_brute_force_over_pairs():
    embedding = normal(12, 5)
    unit = F.normalize(embedding.double(), dim=1).tolist()
    potentials = []
    for i in range(12):
        for j in range(i + 1, 12):
            squared = sum((x - y) ** 2 for x, y in zip(unit[i], unit[j], strict=True))
            potentials.append(math.exp(-2 * squared))
    expected = math.log(sum(potentials) / len(potentials))
    assert float(measures.uniformity(embedding)) == pytest.approx(expected, abs=1e-5)


def test_antipodes_reach_the_least_uniformity_of_minus_8():
    assert float(measures.uniformity(torch.tensor([[2.0, 0], [-1, 0]]))) == pytest.approx(-8, abs=1e-5)


def test_measures_of_bf16_embeddings_are_those_of_the_same_values_in_float32():
    embedding = normal(40, 8).bfloat16()
    for measure in (measures.spread, measures.effective_rank, measures.uniformity):
        assert float(measure(embedding)) == pytest.approx(float(measure(embedding.float())), rel=1e-6)


def test_cross_uniformity_and_the_two_measures_of_labels_equal_their_definition_in_plain_loops(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(9, 4, generator=generator), 3 * torch.randn(9, 4, generator=generator)
    a, b = (torch.nn.functional.normalize(each, dim=1) for each in (image, text))
    pairs = [math.exp(-2 * float((a[j] - b[k]).square().sum())) for j in range(9) for k in range(j)]
    for block in (1, 20, 2**24):
        monkeypatch.setattr(measures, "_BLOCK", block)
        assert float(measures.cross_uniformity(image, text)) == pytest.approx(
            math.log(sum(pairs) / len(pairs)), rel=1e-5
        )
    classes, label = text[:3], torch.tensor([0, 1, 2, 2, 2, 1, 0, 0, 2])
    aligned = [float(a[j] @ b[label[j]]) for j in range(9)]
    assert float(measures.label_alignment(image, classes, label)) == pytest.approx(sum(aligned) / 9, rel=1e-5)
    others = [math.exp(-float(a[j] @ b[label[k]])) for j in range(9) for k in range(9) if j != k]
    assert float(measures.label_uniformity(image, classes, label)) == pytest.approx(
        math.log(sum(others) / 72), rel=1e-5
    )
