"""The closer look: counts against plain loops, intervals against those of the whole."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from kontrast import data
from kontrast.evaluate import intervals
from kontrast.study.closeup import HARDEST, closeup, label_text

CLASSES = ("cat", "dog", "owl")
TITLES = ("SimCLR, linear probe", "From scratch")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 90)


def examples(labels, classes=CLASSES, **known):
    pixels = [np.full((8, 8), number % 250, dtype=np.uint8) for number in range(len(labels))]
    return replace(data.open(pixels).with_labels(labels, classes), **known)


def predictions(labels, strength, seed, *, seeds=2, draws=3, classes=3):
    """Softmax of noise, with more of it on the truth the stronger the arm."""
    noise = np.random.default_rng(seed).normal(size=(seeds, draws, len(labels), classes))
    noise = noise + strength * np.eye(classes)[labels]
    return np.exp(noise) / np.exp(noise).sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def found():
    return closeup(examples(LABELS), predictions(LABELS, 3, 1), predictions(LABELS, 1, 2), titles=TITLES, num_labels=40)


def test_recall_of_a_class_is_the_mean_over_cells_with_the_interval_of_its_images(found):
    ours = predictions(LABELS, 3, 1)
    table = found.classes
    assert tuple(column.title for column in table.columns) == (
        "SimCLR, linear probe: recall",
        "From scratch: recall",
        "Difference of recalls",
        "SimCLR, linear probe: AUROC against the rest",
    )
    recalls = [recall_score(LABELS, cell.argmax(-1), average=None) for row in ours for cell in row]
    for code, row in enumerate(table.rows):
        assert (row.name, row.num_test) == (CLASSES[code], (code == LABELS).sum())
        own = code == LABELS
        assert row.scores[0].value == pytest.approx(np.mean(recalls, axis=0)[code])
        assert row.scores[0] == intervals.estimate(LABELS[own], ours[:, :, own], "accuracy")
        assert row.scores[2].value == pytest.approx(row.scores[0].value - row.scores[1].value)


def test_the_auroc_of_a_class_is_that_of_scikit_learn(found):
    ours = predictions(LABELS, 3, 1)
    for code, row in enumerate(found.classes.rows):
        expected = np.mean([roc_auc_score(code == LABELS, cell[:, code]) for seed in ours for cell in seed])
        assert row.scores[3].value == pytest.approx(expected)


def test_the_confusion_is_that_of_scikit_learn_pooled_over_cells(found):
    ours = predictions(LABELS, 3, 1)
    pooled = sum(confusion_matrix(LABELS, cell.argmax(-1)) for seed in ours for cell in seed)
    assert found.confusion.shares == pytest.approx(pooled / pooled.sum(1, keepdims=True))
    assert found.confusion.classes == CLASSES


def test_a_class_without_test_images_has_no_scores_and_no_shares():
    labels = LABELS % 2
    found = closeup(examples(labels), predictions(labels, 3, 1), predictions(labels, 1, 2), titles=TITLES, num_labels=4)
    assert found.classes.rows[2].scores == (None, None, None, None)
    assert np.isnan(found.confusion.shares[2]).all()


def test_a_class_with_one_test_image_has_no_interval_of_recall():
    labels = np.array([0] * 10 + [1])
    found = closeup(
        examples(labels, CLASSES[:2]), predictions(labels, 3, 1, classes=2), predictions(labels, 1, 2, classes=2),
        titles=TITLES, num_labels=4,
    )  # fmt: skip
    assert found.classes.rows[1].scores[:3] == (None, None, None)
    assert found.classes.rows[0].scores[0] is not None


def test_reliability_pools_all_cells_of_both_arms(found):
    assert [each.title for each in found.reliability] == list(TITLES)
    assert [sum(each.count) for each in found.reliability] == [6 * 90] * 2
    ours = predictions(LABELS, 3, 1).reshape(-1, 3)
    confidence, right = ours.max(1), ours.argmax(1) == np.tile(LABELS, 6)
    bins = np.ceil(confidence * 15).astype(int)
    gap = sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    assert found.reliability[0].ece == pytest.approx(gap)


def test_probabilities_that_rounding_took_above_one_are_accepted():
    ours = predictions(LABELS, 3, 1)
    ours[0, 0, 0] = (1 + 1e-7, 0, 0)
    closeup(examples(LABELS), ours, ours, titles=TITLES, num_labels=4)


def test_the_hardest_images_are_those_whose_truth_got_least_probability(found):
    mean = predictions(LABELS, 3, 1).mean((0, 1))[np.arange(90), LABELS]
    cells = predictions(LABELS, 3, 1).reshape(6, 90, 3)
    missed = (cells.argmax(-1) != LABELS).any(0)
    expected = [examples(LABELS).names[i] for i in np.argsort(mean)[:HARDEST] if missed[i]]
    assert [hard.name for hard in found.hardest] == expected
    worst = found.hardest[0]
    position = int(np.argmin(mean))
    said = predictions(LABELS, 3, 1)[:, :, position].argmax(-1)
    assert worst.truth == CLASSES[LABELS[position]]
    assert worst.probability == pytest.approx(mean[position])
    assert worst.share_wrong == pytest.approx((said != LABELS[position]).mean())
    assert worst.predicted == CLASSES[np.bincount(said.ravel()).argmax()]


def test_groups_are_resampled_as_a_whole_in_the_table_of_classes():
    groups = np.arange(90) // 10
    found = closeup(
        examples(LABELS, groups=groups), predictions(LABELS, 3, 1), predictions(LABELS, 1, 2), titles=TITLES,
        num_labels=4,
    )  # fmt: skip
    assert None not in {score.num_groups for row in found.classes.rows for score in row.scores}


def test_multi_label_data_have_ranks_and_no_confusion():
    labels = (RNG.random((60, 3)) < 0.4).astype(float)
    labels[3, 1] = np.nan
    ours = np.clip(labels * 0.5 + RNG.random((2, 2, 60, 3)) * 0.5, 0, 1)
    ours = np.nan_to_num(ours, nan=0.5)
    found = closeup(examples(labels), ours, ours[:, :, ::-1], titles=TITLES, num_labels=9)
    assert found.confusion is None
    assert tuple(column.title for column in found.classes.columns) == (
        "SimCLR, linear probe: AUROC",
        "From scratch: AUROC",
    )
    known = ~np.isnan(labels[:, 1])
    expected = np.mean([roc_auc_score(labels[known, 1], cell[known, 1]) for seed in ours for cell in seed])
    assert found.classes.rows[1].scores[0].value == pytest.approx(expected)


def test_an_answer_about_a_label_that_is_not_known_is_not_wrong():
    labels = np.array([[1, np.nan, 0], [0, 1, 0], [1, 0, 1.0]])
    ours = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.9, 0.1, 0.9]])[None, None]
    found = closeup(examples(labels), ours, ours, titles=TITLES, num_labels=9)
    assert [(hard.truth, hard.predicted, hard.share_wrong) for hard in found.hardest] == [("dog", "cat", 1.0)]


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (1, "dog"),
        (-1, "no label"),
        (np.array([1.0, 0.0, 1.0]), "cat, owl"),
        (np.zeros(3), "none of the classes"),
        (np.full(3, np.nan), "no label"),
        (np.array([1.0, np.nan, 0.0]), "cat (1 not known)"),
        (np.array([np.nan, np.nan, 0.0]), "none of the classes (2 not known)"),
    ],
)
def test_a_label_reads_as_words(label, text):
    assert label_text(label, CLASSES) == text
