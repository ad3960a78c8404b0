"""Every protocol answers every query, from the labels it was given and no others."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from kontrast.augment.policies import digits
from kontrast.data.images import ImageSet
from kontrast.evaluate.features import features
from kontrast.evaluate.finetune import FineTuning
from kontrast.evaluate.protocols import PROTOCOLS, Settings, Subject
from kontrast.nn.encoders import encoder
from kontrast.train import Fit


def images(count, seed, labels=None):
    known = np.arange(count) % 3
    rng = np.random.default_rng(seed)
    pixels = (rng.integers(0, 60, (count, 1, 16, 16)) + 90 * known[:, None, None, None]).astype(np.uint8)
    return ImageSet(
        name="shades",
        pixels=pixels,
        rows=np.arange(count),
        names=tuple(map(str, range(count))),
        labels=known if labels is None else labels,
        classes=("dark", "grey", "bright"),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint="",
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return encoder("test_efficientnet", channels=1, size=16, stem="standard")


@pytest.fixture
def subject(built):
    def subject(labels=None):
        tuning = FineTuning(steps=4, batch_size=6, training=Fit(precision="float32"))
        settings = Settings(k=5, knn_temperature=0.1, finetuning=tuning)
        return Subject(built, images(30, 0, labels), images(12, 1), digits(16), settings)

    return subject


LABELLED = np.array([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_query_gets_its_own_probabilities_in_the_order_asked(name, subject):
    asked = np.array([20, 7, 9])
    both = PROTOCOLS[name](subject(), LABELLED, [None, asked], 0)
    assert [part.shape for part in both] == [(12, 3), (3, 3)]
    assert all(np.allclose(part.sum(1), 1, atol=1e-5) for part in both)
    turned = PROTOCOLS[name](subject(), LABELLED, [asked[::-1], None], 0)
    assert np.allclose(turned[0], both[1][::-1], atol=1e-5)
    assert np.allclose(turned[1], both[0], atol=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_outside_the_draw_and_of_the_test_images_change_no_answer(name, subject):
    corrupted = (np.arange(30) + 1) % 3
    corrupted[LABELLED] = LABELLED % 3
    [honest], [blind] = (PROTOCOLS[name](subject(labels), LABELLED, [None], 3) for labels in (None, corrupted))
    assert np.array_equal(honest, blind)


def test_knn_is_the_weighted_vote_of_the_nearest_labelled_images(subject, built):
    [found] = PROTOCOLS["knn"](subject(), LABELLED, [None], 0)
    bank, asked = (features(built, data).astype(np.float64) for data in (images(30, 0).take(LABELLED), images(12, 1)))
    bank, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, asked))
    near = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank)
    for row, cosine_distances, neighbours in zip(found, *near.kneighbors(asked), strict=True):
        votes = np.zeros(3)
        for distance, neighbour in zip(cosine_distances, neighbours, strict=True):
            votes[neighbour % 3] += np.exp((1 - distance) / 0.1)
        assert row == pytest.approx(votes / votes.sum(), abs=1e-4)


def test_features_are_computed_once_for_all_protocols_and_draws(subject, built):
    calls = []
    handle = built.net.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    one = subject()
    for name in ("knn", "linear"):
        for start in (0, 3):
            PROTOCOLS[name](one, LABELLED + start, [None, np.array([9])], 0)
    handle.remove()
    assert sorted(calls) == [12, 30]
