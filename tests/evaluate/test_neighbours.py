"""The neighbours found are those of a brute force in float64, whatever the processor rounds on the way."""

import numpy as np
import pytest
import torch

from kontrast.evaluate import neighbours
from kontrast.evaluate.neighbours import nearest

BANK, QUERIES = 5000, 300


def spread(rng, width):
    return rng.normal(size=(BANK + QUERIES, width))


def nearly_parallel(rng, width):
    """Cosines above 0.999: what untrained and collapsed encoders make."""
    return 1 + 0.02 * rng.normal(size=(BANK + QUERIES, width))


def clusters(rng, width):
    """Eight tight clusters: within one, distances are near the rounding of float32."""
    return rng.normal(size=(8, width))[rng.integers(0, 8, BANK + QUERIES)] + 1e-3 * rng.normal(
        size=(BANK + QUERIES, width)
    )


def duplicates(rng, width):
    return rng.normal(size=(40, width))[rng.integers(0, 40, BANK + QUERIES)]


def zeros_among_them(rng, width):
    found = nearly_parallel(rng, width)
    found[rng.random(len(found)) < 0.2] = 0
    return found


def all_equal(rng, width):
    return np.ones((BANK + QUERIES, width))


def one_outlier(rng, width):
    found = nearly_parallel(rng, width)
    found[7] *= -1
    return found


def all_lengths(rng, width):
    return spread(rng, width) * 10.0 ** rng.integers(-9, 12, (BANK + QUERIES, 1))


def cosines_in_float64(bank, queries):
    """All of them, `(m, n)`; 0 with a zero vector."""
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(bank, axis=1)
    return np.divide(queries @ bank.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """So that banks of this size are screened by groups as large ones are."""
    monkeypatch.setattr(neighbours, "GROUP", 16)


SETS = [spread, nearly_parallel, clusters, duplicates, zeros_among_them, all_equal, one_outlier, all_lengths]


@pytest.mark.parametrize("is_screened", [False, True], ids=["float32", "screened"])
@pytest.mark.parametrize("width", [3, 32, 2048])
@pytest.mark.parametrize("made", SETS)
def test_no_other_row_has_a_larger_cosine_than_those_found(made, width, is_screened, monkeypatch):
    monkeypatch.setattr(neighbours, "_screening_pays", lambda bank, k: is_screened)
    features = made(np.random.default_rng(0), width).astype(np.float32)
    bank, queries = features[:BANK], features[BANK:]
    values, rows = (found.numpy() for found in nearest(torch.from_numpy(bank), torch.from_numpy(queries), 7))
    exact = cosines_in_float64(bank.astype(np.float64), queries.astype(np.float64))
    assert all(len(set(row)) == 7 for row in rows)
    np.testing.assert_allclose(values, np.take_along_axis(exact, rows, axis=1), atol=1e-6)
    np.testing.assert_allclose(values, -np.sort(-exact, axis=1)[:, :7], atol=1e-6)


@pytest.mark.parametrize("k", [1, 5])
def test_screening_lets_no_neighbour_pass_that_a_margin_sets_apart(k, monkeypatch):
    """Where cosines differ by more than float32 rounds, the rows themselves are those of the brute force."""
    monkeypatch.setattr(neighbours, "_screening_pays", lambda bank, k: True)
    features = nearly_parallel(np.random.default_rng(1), 64).astype(np.float32)
    bank, queries = features[:BANK], features[BANK:]
    exact = cosines_in_float64(bank.astype(np.float64), queries.astype(np.float64))
    ordered = np.sort(exact, axis=1)
    apart = ordered[:, -k] - ordered[:, -k - 1] > 1e-6
    assert apart.mean() > 0.5
    rows = nearest(torch.from_numpy(bank), torch.from_numpy(queries), k)[1].numpy()
    expected = np.argsort(-exact, axis=1)[:, :k]
    assert all(set(a) == set(b) for a, b in zip(rows[apart], expected[apart], strict=True))


def test_most_queries_on_spread_features_are_not_searched_twice(monkeypatch):
    """Screening is worth its name only if it settles most queries."""
    monkeypatch.setattr(neighbours, "_screening_pays", lambda bank, k: True)
    features = torch.from_numpy(nearly_parallel(np.random.default_rng(2), 64)).float()
    searched = []
    search = neighbours._Search.__call__
    monkeypatch.setattr(neighbours._Search, "__call__", lambda self, q: searched.append(len(q)) or search(self, q))
    nearest(features[:BANK], features[BANK:], 20)
    assert sum(searched) < 0.2 * QUERIES


@pytest.mark.parametrize(("n", "k"), [(1, 1), (31, 31), (33, 2), (1000, 1000)])
def test_small_banks_and_all_of_a_bank_are_found(n, k):
    features = np.random.default_rng(0).normal(size=(n + 9, 5)).astype(np.float32)
    values, rows = nearest(torch.from_numpy(features[:n]), torch.from_numpy(features[n:]), k)
    exact = cosines_in_float64(features[:n].astype(np.float64), features[n:].astype(np.float64))
    assert rows.max() < n
    np.testing.assert_allclose(values, -np.sort(-exact, axis=1)[:, :k], atol=1e-6)


def test_neither_blocks_nor_their_number_change_what_is_found(monkeypatch):
    features = torch.from_numpy(nearly_parallel(np.random.default_rng(3), 16)).float()
    whole = nearest(features[:BANK], features[BANK:], 5)
    monkeypatch.setattr(neighbours, "BLOCK", 3 * BANK)
    parts = nearest(features[:BANK], features[BANK:], 5)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-6, rtol=0)
    empty = nearest(features[:BANK], features[:0], 5)
    assert [found.shape for found in empty] == [(0, 5), (0, 5)]
