import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from kontrast.evaluate.metrics import METRICS


def single_label(classes, seed=0, items=200):
    """Labels and coarse probabilities, so that many tie; the weights of a bootstrap."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, items)
    scores = generator.integers(1, 6, (items, classes)) + 2.0 * (labels[:, None] == np.arange(classes))
    return labels, scores / scores.sum(1, keepdims=True), generator.exponential(size=(items, 3))


def multi_label(seed=0, items=200, classes=4):
    generator = np.random.default_rng(seed)
    labels = (generator.random((items, classes)) < 0.3).astype(float)
    probabilities = np.round(0.7 * generator.random((items, classes)) + 0.3 * labels, 1)
    labels[generator.random(labels.shape) < 0.2] = np.nan
    return labels, probabilities, generator.exponential(size=(items, 3))


def reference(name, labels, probabilities, weights=None):
    """Scikit-learn's answer for one-label data."""
    predicted = probabilities.argmax(1)
    if name == "accuracy":
        return accuracy_score(labels, predicted, sample_weight=weights)
    if name == "balanced_accuracy":
        return balanced_accuracy_score(labels, predicted, sample_weight=weights)
    if name == "macro_f1":
        return f1_score(labels, predicted, average="macro", sample_weight=weights)
    if probabilities.shape[1] == 2:
        return roc_auc_score(labels, probabilities[:, 1], sample_weight=weights)
    present = [c for c in range(probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
    return np.mean([roc_auc_score(labels == c, probabilities[:, c], sample_weight=weights) for c in present])


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", METRICS)
def test_a_score_equals_scikit_learns_where_probabilities_tie(name, classes):
    labels, probabilities, _ = single_label(classes)
    assert METRICS[name](labels, probabilities) == pytest.approx(reference(name, labels, probabilities), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", METRICS)
def test_every_column_of_weights_scores_as_scikit_learn_does_with_sample_weight(name, classes):
    labels, probabilities, weights = single_label(classes)
    expected = [reference(name, labels, probabilities, column) for column in weights.T]
    assert METRICS[name].weighted(labels, probabilities, weights) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_many_classes_equals_scikit_learns_one_against_the_rest():
    labels, probabilities, _ = single_label(6)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert METRICS["auroc"](labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_counts_classes_that_are_labelled_or_predicted_and_no_others():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    assert METRICS["macro_f1"](labels, np.eye(5)[predicted]) == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )


def test_classes_without_a_label_do_not_lower_balanced_accuracy_or_auroc():
    labels, probabilities, _ = single_label(3)
    wider = np.concatenate([probabilities, np.zeros((200, 2))], axis=1)
    for name in ("balanced_accuracy", "auroc"):
        assert METRICS[name](labels, wider) == pytest.approx(METRICS[name](labels, probabilities), abs=1e-12)


def column_reference(name, labels, probabilities, weights):
    """Scikit-learn's answer for each multi-label column on its known cells; accuracy pools the cells."""
    known = [~np.isnan(column) for column in labels.T]
    columns = [(labels[k, c], probabilities[k, c], weights[k]) for c, k in enumerate(known)]
    if name == "accuracy":
        right = sum((((p >= 0.5) == y) * w).sum() for y, p, w in columns)
        return right / sum(w.sum() for _, _, w in columns)
    score = {
        "balanced_accuracy": lambda y, p, w: balanced_accuracy_score(y, p >= 0.5, sample_weight=w),
        "macro_f1": lambda y, p, w: f1_score(y, p >= 0.5, sample_weight=w),
        "auroc": lambda y, p, w: roc_auc_score(y, p, sample_weight=w),
    }[name]
    return np.mean([score(*column) for column in columns])


@pytest.mark.parametrize("name", METRICS)
def test_multi_label_scores_equal_scikit_learns_on_the_known_cells_of_each_column(name):
    labels, probabilities, weights = multi_label()
    expected = [column_reference(name, labels, probabilities, column) for column in weights.T]
    assert METRICS[name].weighted(labels, probabilities, weights) == pytest.approx(expected, abs=1e-12)
    plain = column_reference(name, labels, probabilities, np.ones(200))
    assert METRICS[name](labels, probabilities) == pytest.approx(plain, abs=1e-12)


def test_a_multi_label_class_with_one_outcome_is_left_out_of_auroc_and_balanced_accuracy():
    labels, probabilities, _ = multi_label()
    wider = np.concatenate([labels, np.zeros((200, 1)), np.full((200, 1), np.nan)], axis=1)
    answers = np.concatenate([probabilities, probabilities[:, :2]], axis=1)
    for name in ("auroc", "balanced_accuracy"):
        assert METRICS[name](wider, answers) == pytest.approx(METRICS[name](labels, probabilities), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_answer_scores_1_and_a_wrong_one_0(name):
    labels = np.arange(20) % 2
    assert METRICS[name](labels, np.eye(2)[labels]) == 1
    assert METRICS[name](labels, np.eye(2)[1 - labels]) == 0


def test_a_score_without_data_to_define_it_is_nan_and_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(METRICS["auroc"](np.zeros(5, dtype=int), np.full((5, 3), 1 / 3)))
        unknown, answers = np.full((5, 2), np.nan), np.full((5, 2), 0.5)
        assert all(np.isnan(metric(unknown, answers)) for metric in METRICS.values())


def test_bad_input_is_refused_with_the_value_seen():
    accuracy, probabilities = METRICS["accuracy"], np.full((4, 2), 0.5)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4, 2\)"):
        accuracy(np.zeros(3, dtype=int), probabilities)
    with pytest.raises(ValueError, match=r"got 0\.\.2"):
        accuracy(np.array([0, 1, 2, 0]), probabilities)
    with pytest.raises(ValueError, match="integers; got float64"):
        accuracy(np.zeros(4), probabilities)
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        accuracy(np.full((4, 2), 0.3), probabilities)
    with pytest.raises(ValueError, match="finite"):
        accuracy(np.zeros(4, dtype=int), np.full((4, 2), np.nan))
