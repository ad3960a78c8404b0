"""The map, the neighbours and the gallery show what they say."""

import sys
import types
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from kontrast import data
from kontrast.augment import policies
from kontrast.study.exhibits import (
    COMPARED_IMAGES,
    COMPARED_VIEWS,
    IMAGES,
    MOST_POINTS,
    NEIGHBOURS,
    QUERIES,
    VIEWS,
    atlas,
    class_counts,
    compared,
    gallery,
    queries,
    samples,
    stratified,
)
from kontrast.train.pictures import sheets, write_sheet

CLASSES = ("cat", "dog", "owl")


def image_set(labels, *, offset=0):
    pixels = [np.full((8, 8), (offset + number) % 250, dtype=np.uint8) for number in range(len(labels))]
    found = data.open(pixels).with_labels(np.asarray(labels), CLASSES)
    return replace(found, names=tuple(f"{offset + number}" for number in range(len(labels))))


def features(labels, *, width=16, seed=0, noise=0.1):
    """Each class around a direction of its own."""
    rng = np.random.default_rng(seed)
    return (np.eye(width)[np.asarray(labels)] + noise * rng.normal(size=(len(labels), width))).astype(np.float32)


def test_an_atlas_holds_at_most_a_thousand_images_and_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [2000, 1000, 20])
    found = atlas(image_set(labels), features(labels), title="SimCLR")
    assert len(found.codes) == len(found.names) == len(found.projections[0].x) == MOST_POINTS
    assert np.bincount(found.codes) == pytest.approx([1000 * 2000 / 3020, 1000 * 1000 / 3020, 1000 * 20 / 3020], abs=1)
    assert "1,000 of 3,020 test images" in found.note


def test_fewer_images_are_all_there_and_said_so():
    labels = np.arange(60) % 3
    found = atlas(image_set(labels), features(labels), title="SimCLR")
    assert found.names == image_set(labels).names
    assert found.note.startswith("All 60 test images.")


def test_the_subset_of_a_large_set_is_always_the_same_and_without_repeats():
    found = stratified(image_set(np.arange(2500) % 3), 1000)
    assert len(np.unique(found)) == 1000
    assert np.array_equal(found, stratified(image_set(np.arange(2500) % 3), 1000))


def test_pca_is_the_projection_of_scikit_learn_up_to_sign_and_scale():
    from sklearn.decomposition import PCA

    labels = np.arange(90) % 3
    places = features(labels, noise=0.4)
    found = atlas(image_set(labels), places, title="SimCLR").projections[0]
    unit = places / np.linalg.norm(places, axis=1, keepdims=True)
    expected = PCA(2).fit(unit.astype(float))
    for own, theirs in zip((found.x, found.y), expected.transform(unit.astype(float)).T, strict=True):
        assert abs(np.corrcoef(own, theirs)[0, 1]) == pytest.approx(1, abs=1e-6)
        assert min(own) == 0
        assert max(own) == 1
    assert f"keeps {100 * expected.explained_variance_ratio_.sum():.0f} %" in found.note


def test_purity_is_the_share_of_near_images_of_the_same_class():
    labels = np.arange(90) % 3
    pure = atlas(image_set(labels), features(labels, noise=0.01), title="SimCLR").note
    assert "Of the 10 nearest of each, 100 % share its class; of any, 33 %." in pure
    mixed = atlas(image_set(labels), features(np.zeros(90, int), noise=1.0), title="SimCLR").note
    assert "100 %" not in mixed


@pytest.mark.parametrize("labels", [np.zeros(30, int), (np.arange(90).reshape(30, 3) % 2).astype(float)])
def test_one_class_or_several_at_once_have_a_map_without_purity(labels):
    found = atlas(image_set(labels), features(np.zeros(30, int)), title="SimCLR")
    assert found.note == "All 30 test images."
    assert set(found.codes) == ({0} if labels.ndim == 1 else {-1})


def test_equal_representations_do_not_break_the_map():
    found = atlas(image_set(np.arange(30) % 3), np.ones((30, 16), np.float32), title="SimCLR").projections[0]
    assert np.isfinite([*found.x, *found.y]).all()


def test_umap_joins_where_it_is_installed(monkeypatch):
    class Reducer:
        def __init__(self, **options):
            assert options["random_state"] == 0

        def fit_transform(self, features):
            return features[:, :2] * 7

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Reducer, __spec__=object()))
    labels = np.arange(30) % 3
    found = atlas(image_set(labels), features(labels), title="SimCLR")
    assert [each.title for each in found.projections] == ["PCA", "UMAP"]
    assert max(found.projections[1].x) == 1


def test_neighbours_are_the_nearest_by_cosine_of_all_other_images_on_both_sides():
    train, test = image_set(np.arange(60) % 3), image_set(np.arange(30) % 3, offset=100)
    of_train, of_test = features(np.arange(60) % 3, noise=0.5), features(np.arange(30) % 3, noise=0.5, seed=1)
    names = [*train.names, *test.names]
    bank = np.concatenate([of_train, of_test]).astype(float)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    found = queries(train, test, of_train, of_test)
    assert len(found) == QUERIES
    assert {query.label for query in found[:3]} == set(CLASSES)
    for query in found:
        at = names.index(query.name)
        similarity = [(-float(bank[at] @ other), i) for i, other in enumerate(bank) if i != at]
        nearest = [i for _, i in sorted(similarity)[:NEIGHBOURS]]
        assert [neighbour.name for neighbour in query.neighbours] == [names[i] for i in nearest]
        assert [n.part for n in query.neighbours] == ["train" if i < 60 else "test" for i in nearest]
        assert [n.similarity for n in query.neighbours] == pytest.approx(
            [bank[at] @ bank[i] for i in nearest], abs=1e-5
        )


def test_a_neighbour_without_a_label_says_so():
    train = image_set(np.full(20, -1))
    test = image_set(np.arange(3), offset=100)
    found = queries(train, test, features(np.zeros(20, int)), features(np.zeros(3, int)))
    assert {n.label for query in found for n in query.neighbours if n.part == "train"} == {None}


def test_the_gallery_shows_images_and_then_views_of_the_size_that_the_encoder_sees():
    train = image_set(np.arange(20) % 3)
    found = gallery(train, policies.natural(16), name="natural", size=16)
    assert len(found.rows) == len(found.names) == IMAGES
    assert all(len(row) == 1 + VIEWS for row in found.rows)
    assert {(row[0].width, row[1].width) for row in found.rows} == {(8, 16)}
    first = np.asarray(Image.open(BytesIO(found.rows[0][0].data)))
    assert (first == train.pixels[train.rows[0], 0, 0, 0]).all()
    assert found == gallery(train, policies.natural(16), name="natural", size=16)


def test_views_under_two_policies_come_from_the_same_draws():
    train = image_set(np.arange(20) % 3)
    train = replace(train, pixels=np.random.default_rng(0).integers(0, 256, train.pixels.shape, dtype=np.uint8))
    before, after = policies.digits(16), policies.digits(16)
    after.geometry.rotation = 90.0
    found = compared(train, before, after)
    assert len(found) == COMPARED_IMAGES
    assert all(len(one.before) == len(one.after) == COMPARED_VIEWS for one in found)
    assert all(one.before != one.after for one in found)
    assert all(one.before == one.after for one in compared(train, before, policies.digits(16)))
    assert [one.original for one in found] == [one.original for one in compared(train, after, before)]


def test_views_of_sixteen_bits_are_as_bright_as_their_original():
    ramp = np.linspace(900, 1100, 16 * 16).reshape(16, 16).astype(np.uint16)
    train = data.open([ramp, ramp]).with_labels(np.array([0, 1]), CLASSES[:2])
    found = gallery(train, policies.ct(16), name="ct", size=16)
    for row in found.rows:
        pictures = [np.asarray(Image.open(BytesIO(one.data))) for one in row]
        assert max(int(one.max()) for one in pictures[1:]) > 128
        assert pictures[0].max() == 255


def test_counts_are_those_of_the_labels_on_each_side():
    train, test = image_set([0, 0, 1, -1, -1]), image_set([1, 2])
    assert [(c.name, c.labelled, c.test) for c in class_counts(train, test)] == [
        ("cat", 2, 0), ("dog", 1, 1), ("owl", 0, 1),
    ]  # fmt: skip
    several = image_set(np.array([[1.0, 0, 1], [1, np.nan, 0]]))
    assert [count.labelled for count in class_counts(several, test)] == [2, 0, 1]


def test_pictures_of_samples_are_those_of_the_first_and_last_epoch_and_some_between(tmp_path):
    for epoch in range(1, 21):
        write_sheet(tmp_path, epoch, torch.full((2, 1, 4, 4), epoch / 255))
    files = sheets(tmp_path)
    found = samples("EBCLR", files, seed=3)
    assert [epoch for epoch, _ in found.sheets] == [1, 7, 14, 20]
    for epoch, shown in found.sheets:
        assert shown.data == files[epoch].read_bytes()
        assert (shown.width, shown.height) == (9, 4)
    assert found.note.startswith("Seed 3")
    assert [epoch for epoch, _ in samples("EBCLR", {5: files[5]}, seed=0).sheets] == [5]
