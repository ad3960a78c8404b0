import math

import numpy as np
import pytest
import torch

from kontrast.evaluate import knn
from kontrast.evaluate.knn import knn_predict


def random(seed=0, bank=60, queries=15, width=8, classes=4):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(bank, width)), generator.normal(size=(queries, width))
    return features[0], generator.integers(0, classes, bank), features[1]


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def brute_force(bank, targets, query, k, temperature):
    """One query in plain loops and float64: for each class the weighted mean of its known neighbours."""
    similarity = [cosine(row, query) for row in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    top = max(similarity)
    answer = []
    for c in range(len(targets[0])):
        known = [i for i in nearest if not math.isnan(targets[i][c])]
        votes = [math.exp((similarity[i] - top) / temperature) for i in known]
        answer.append(sum(v * targets[i][c] for v, i in zip(votes, known, strict=True)) / sum(votes))
    return answer


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_votes_equal_a_brute_force_in_float64(k, temperature):
    bank, labels, queries = random()
    expected = [brute_force(bank, np.eye(4)[labels], query, k, temperature) for query in queries]
    found = knn_predict(bank, labels, queries, num_classes=4, k=k, temperature=temperature)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_multi_label_votes_equal_a_brute_force_over_known_neighbours():
    bank, _, queries = random()
    generator = np.random.default_rng(1)
    labels = (generator.random((60, 3)) < 0.4).astype(float)
    labels[generator.random(labels.shape) < 0.3] = np.nan
    expected = [brute_force(bank, labels, query, 12, 0.07) for query in queries]
    found = knn_predict(bank, labels, queries, num_classes=3, k=12)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_class_unknown_to_all_neighbours_has_its_share_of_the_bank_and_else_one_half():
    bank = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 0.9], [0.1, 0.9]])
    labels = np.array([[1, np.nan, np.nan], [0, np.nan, np.nan], [0, 1, np.nan], [0, 0, np.nan], [0, 1, np.nan]])
    found = knn_predict(bank, labels, bank[:1], num_classes=3, k=1)
    np.testing.assert_allclose(found, [[1, 2 / 3, 0.5]], atol=1e-6)


def test_an_opposite_neighbour_counts_at_a_temperature_where_its_vote_alone_underflows():
    bank, labels = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[np.nan, 1.0], [1.0, 0.0]])
    found = knn_predict(bank, labels, bank[:1], num_classes=2, k=2, temperature=0.01)
    np.testing.assert_allclose(found, [[1, 1]], atol=1e-6)


def test_more_neighbours_than_the_bank_has_means_all_of_it():
    bank, labels, queries = random()
    found, expected = (knn_predict(bank, labels, queries, num_classes=4, k=k) for k in (1000, 60))
    np.testing.assert_array_equal(found, expected)


def test_neither_length_nor_blocks_change_a_vote(monkeypatch):
    bank, labels, queries = random()
    expected = knn_predict(bank, labels, queries, num_classes=4)
    monkeypatch.setattr(knn, "BLOCK", 200)
    found = knn_predict(100 * bank, labels, 0.01 * queries, num_classes=4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_zero_vectors_vote_and_are_voted_on_without_nan():
    bank, labels, queries = random()
    bank[0], queries[0] = 0, 0
    found = knn_predict(bank, labels, queries, num_classes=4, k=60)
    np.testing.assert_allclose(found[0], np.bincount(labels, minlength=4) / 60, atol=1e-6)
    assert np.isfinite(found).all()


def test_tensors_and_arrays_give_the_same_array_and_absent_classes_a_column_of_0():
    bank, labels, queries = random()
    found = knn_predict(*(torch.from_numpy(a) for a in (bank, labels, queries)), num_classes=6)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, knn_predict(bank, labels, queries, num_classes=6))
    assert found.shape == (15, 6)
    assert not found[:, 4:].any()
    assert knn_predict(bank, labels, queries[:0], num_classes=6).shape == (0, 6)


def test_bad_input_is_refused_with_the_value_seen():
    bank, labels, queries = random()
    with pytest.raises(ValueError, match=r"got \(60, 8\) and \(15, 7\)"):
        knn_predict(bank, labels, queries[:, :7], num_classes=4)
    with pytest.raises(ValueError, match=r"got \(59,\)"):
        knn_predict(bank, labels[:-1], queries, num_classes=4)
    with pytest.raises(ValueError, match=r"got 0\.\.3"):
        knn_predict(bank, labels, queries, num_classes=3)
    with pytest.raises(ValueError, match="got 0 and"):
        knn_predict(bank, labels, queries, num_classes=4, k=0)
    with pytest.raises(ValueError, match="finite"):
        knn_predict(bank * np.nan, labels, queries, num_classes=4)
