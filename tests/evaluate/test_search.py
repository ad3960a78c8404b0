"""What is found is what plain loops find, and equal images stay in the order of the data."""

import math

import numpy as np
import torch

from kontrast.evaluate.search import different_texts, nearest_images, nearest_texts


def unit(n, d, seed):
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_loops(query, bank):
    """Rows and cosines, sorted by hand."""
    cosines = [sum(a * b for a, b in zip(query.tolist(), row, strict=True)) for row in bank.tolist()]
    return sorted(range(len(cosines)), key=lambda i: (-round(cosines[i], 6), i)), cosines


def test_the_nearest_images_are_those_of_plain_loops_with_their_first_texts(digits):
    data = digits.take(np.arange(50)).with_texts([[f"first {i}", "other"] for i in range(50)])
    query, bank = unit(1, 12, 0)[0], unit(50, 12, 1)
    order, cosines = by_loops(query, bank)
    found = nearest_images(query, bank, data, top=7)
    assert [hit.position for hit in found] == order[:7]
    assert [hit.path for hit in found] == [data.names[i] for i in order[:7]]
    assert [hit.text for hit in found] == [f"first {i}" for i in order[:7]]
    assert [hit.rank for hit in found] == list(range(1, 8))
    assert all(math.isclose(hit.cosine, cosines[hit.position], abs_tol=1e-6) for hit in found)


def test_equally_near_images_stay_in_the_order_of_the_data_whatever_the_last_bits_say(digits):
    query = unit(1, 8, 0)[0]
    bank = torch.cat([unit(1, 8, 5), query[None] * (1 - 1e-7), unit(1, 8, 6), query[None], query[None] * (1 + 1e-7)])
    found = nearest_images(query, bank, digits.take(np.arange(5)), top=3)
    assert [hit.position for hit in found] == [1, 3, 4]
    assert {hit.cosine for hit in found} == {1.0}


def test_a_text_is_found_once_with_the_first_image_that_has_it(digits):
    data = digits.take(np.arange(3)).with_texts([["b", "a"], ["a", "c"], ["b"]])
    texts = different_texts(data)
    assert texts == [("b", 0), ("a", 0), ("c", 1)]
    query, bank = unit(1, 4, 0)[0], unit(3, 4, 1)
    found = nearest_texts(query, bank, texts, data, top=20)
    assert [(hit.text, hit.position) for hit in found] == [texts[row] for row in by_loops(query, bank)[0]]
    assert [hit.path for hit in found] == [data.names[hit.position] for hit in found]


def test_images_without_texts_have_none_and_are_found_all_the_same(digits):
    data = digits.take(np.arange(3))
    assert different_texts(data) == []
    found = nearest_images(unit(1, 4, 0)[0], unit(3, 4, 1), data, top=20)
    assert [hit.text for hit in found] == ["", "", ""]
