"""Retrieval against its definition in plain loops, with several captions an image, ties and equal texts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kontrast.evaluate import retrieval as module
from kontrast.evaluate.retrieval import Ranks, retrieval, retrieval_ranks

CAPTIONS = [0, 1, 1, 2, 2, 2, 2, 2]
"""Images with 1, 2 and 5 captions."""


def vectors(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def by_definition(image, text, image_of, texts):
    """Ranks in plain loops; equal `texts` share their images."""
    images, captions = (F.normalize(each.double(), dim=1) for each in (image, text))
    cosine = [[float(i @ t) for t in captions] for i in images]
    own = [{texts[t] for t, owner in enumerate(image_of) if owner == i} for i in range(len(image))]
    to_text = []
    for i in range(len(image)):
        best = max(cosine[i][t] for t in range(len(text)) if texts[t] in own[i])
        to_text.append(1 + sum(cosine[i][t] >= best - 1e-13 for t in range(len(text)) if texts[t] not in own[i]))
    to_image = []
    for t in range(len(text)):
        best = max(cosine[i][t] for i in range(len(image)) if texts[t] in own[i])
        to_image.append(1 + sum(cosine[i][t] >= best - 1e-13 for i in range(len(image)) if texts[t] not in own[i]))
    return to_text, to_image


def as_lists(ranks):
    return ranks.image_to_text.tolist(), ranks.text_to_image.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("merge", [False, True])
def test_ranks_equal_their_definition_with_several_captions_ties_and_equal_texts(seed, merge):
    rng = np.random.default_rng(seed)
    image_of = rng.permutation(np.concatenate([np.arange(12), rng.integers(0, 12, 20)]))
    texts = [f"text {number}" for number in rng.integers(0, 15, len(image_of))]
    wording = {name: vectors(1, seed=number) for number, name in enumerate(sorted(set(texts)))}
    image, text = vectors(12, seed=seed), torch.cat([wording[name] for name in texts])
    image[3] = 2 * image[5]
    found = retrieval_ranks(image, text, image_of, texts=texts, merge_identical_text=merge)
    names = texts if merge else list(range(len(texts)))
    assert as_lists(found) == by_definition(image, text, image_of, names)


def test_images_with_one_two_and_five_captions_are_ranked_as_by_hand():
    image = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    at = torch.deg2rad(torch.tensor([10.0, 80, 170, 175, 200, 5, 100, 260]))
    text = torch.stack([at.cos(), at.sin()], dim=1)
    found = retrieval_ranks(image, text, CAPTIONS)
    # From image 0 text 5 (5 degrees) is nearer than its own (10); image 1 has text 1 as near as text 6: a tie.
    assert found.image_to_text.tolist() == [2, 2, 1]
    assert found.text_to_image.tolist() == [1, 1, 2, 1, 1, 3, 2, 1]


def test_a_model_that_maps_everything_to_one_point_finds_nothing():
    for merge in (False, True):
        found = retrieval_ranks(
            torch.ones(3, 7), torch.ones(8, 7), CAPTIONS, texts=list("abcdefgh"), merge_identical_text=merge
        )
        assert found.image_to_text.tolist() == [8, 7, 4]
        assert found.text_to_image.tolist() == [3] * 8
    many = retrieval_ranks(torch.full((300, 129), 0.3), torch.full((300, 129), 0.7), np.arange(300))
    assert set(many.image_to_text) == set(many.text_to_image) == {300}


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_the_block_size_does_not_change_a_rank(block, monkeypatch):
    image, text, image_of = vectors(20), vectors(50, seed=1).repeat(2, 1), np.arange(100) % 20
    expected = as_lists(retrieval_ranks(image, text, image_of))
    monkeypatch.setattr(module, "BLOCK", block)
    assert as_lists(retrieval_ranks(image, text, image_of)) == expected


def test_merging_makes_equal_texts_answers_to_each_other_and_else_they_count_against():
    image, text = torch.eye(3), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    texts = ["normal", "normal", "fracture"]
    apart = retrieval_ranks(image, text, [0, 1, 2], texts=texts)
    merged = retrieval_ranks(image, text, [0, 1, 2], texts=texts, merge_identical_text=True)
    assert as_lists(apart) == ([2, 3, 1], [1, 3, 1])
    assert as_lists(merged) == ([1, 2, 1], [1, 1, 1])


def test_recall_median_and_mean_are_those_of_the_ranks_with_intervals_around_recall():
    ranks = Ranks(image_to_text=np.array([1, 4, 6, 30]), text_to_image=np.array([1, 1, 2, 3, 4, 11]))
    found = retrieval(ranks, [0, 0, 0, 1, 2, 3])
    first, second = found["image_to_text"], found["text_to_image"]
    assert {k: one.value for k, one in first.recall.items()} == {1: 0.25, 5: 0.5, 10: 0.75}
    assert {k: one.value for k, one in second.recall.items()} == pytest.approx({1: 1 / 3, 5: 5 / 6, 10: 5 / 6})
    assert (first.median_rank, first.mean_rank, first.num_queries, first.num_candidates) == (5, 10.25, 4, 6)
    assert (second.median_rank, second.mean_rank, second.num_queries, second.num_candidates) == (2.5, 22 / 6, 6, 4)
    assert all(one.low < one.value < one.high for one in first.recall.values())
    assert second.recall[1].num_groups == 4
    grouped = retrieval(ranks, [0, 0, 0, 1, 2, 3], groups=[7, 7, 8, 9])
    assert grouped["text_to_image"].recall[1].num_groups == grouped["image_to_text"].recall[1].num_groups == 3


@pytest.mark.parametrize(
    ("image", "text", "image_of", "said"),
    [
        (vectors(3), vectors(3, d=5), [0, 1, 2], r"got \(3, 4\) and \(3, 5\)"),
        (vectors(3), vectors(3), [0, 1, 1], "naming 2 images"),
        (vectors(3), vectors(3), [0, 1, 3], "each text belongs to one of the 3 images"),
        (vectors(3), vectors(3), [0, 1], "got 2 rows for 3 texts"),
        (vectors(3) / 0, vectors(3), [0, 1, 2], "NaN or infinity"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_was_seen(image, text, image_of, said):
    with pytest.raises(ValueError, match=said):
        retrieval_ranks(image, text, image_of)


def test_merging_without_texts_is_refused():
    with pytest.raises(ValueError, match="compares the 3 texts; got none"):
        retrieval_ranks(vectors(3), vectors(3), [0, 1, 2], merge_identical_text=True)
