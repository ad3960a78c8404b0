import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from kontrast.evaluate import linear
from kontrast.evaluate.linear import STRENGTHS, linear_probe


def clusters(seed=0, items=120, classes=3, width=10, apart=1.0):
    """Labelled features around one centre a class, on scales from 1 to 1000, and as many queries."""
    generator = np.random.default_rng(seed)
    centres = apart * generator.normal(size=(classes, width))
    labels = np.arange(items) % classes
    scales = np.logspace(0, 3, width)
    drawn = [scales * (centres[labels] + generator.normal(size=(items, width))) for _ in range(2)]
    return drawn[0], labels, drawn[1]


def grid_search(features, labels, folds, groups=None):
    """The same probe by scikit-learn alone, each fit from nothing, in float64 and to a fine tolerance."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=10_000))
    grid = {"logisticregression__C": STRENGTHS}
    with threadpool_limits(1):
        return GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=folds).fit(features, labels, groups=groups)


@pytest.mark.parametrize(("classes", "apart"), [(2, 0.3), (3, 0.5), (3, 2.0), (5, 1.0)])
def test_the_probe_equals_scikit_learns_grid_search_on_the_same_folds(classes, apart):
    features, labels, queries = clusters(classes=classes, apart=apart)
    found = linear_probe(features, labels, queries, num_classes=classes, seed=3)
    expected = grid_search(features, labels, StratifiedKFold(5, shuffle=True, random_state=3))
    assert found.strengths == (expected.best_params_["logisticregression__C"],)
    assert found.chosen_by == ("cross-validation",)
    assert found.converged
    np.testing.assert_allclose(found.probabilities, expected.predict_proba(queries), atol=1e-4)


def test_with_groups_the_probe_equals_scikit_learns_grid_search_on_grouped_folds():
    features, labels, queries = clusters()
    groups = np.arange(120) // 6
    found = linear_probe(features, labels, queries, num_classes=3, groups=groups, seed=3)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=3)
    expected = grid_search(features, labels, folds, groups)
    assert found.strengths == (expected.best_params_["logisticregression__C"],)
    np.testing.assert_allclose(found.probabilities, expected.predict_proba(queries), atol=1e-4)


@pytest.mark.parametrize("groups", [None, np.arange(1200) // 6], ids=["alone", "grouped"])
@pytest.mark.parametrize(("classes", "apart"), [(2, 0.3), (3, 0.5), (5, 1.0)])
def test_many_labels_in_float32_equal_a_cold_fit_in_float64_chosen_on_the_first_fold(
    classes, apart, groups, monkeypatch
):
    monkeypatch.setattr(linear, "MANY", 1000)
    features, labels, queries = clusters(items=1200, classes=classes, apart=apart)
    found = linear_probe(features, labels, queries, num_classes=classes, groups=groups, seed=3)
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(5, shuffle=True, random_state=3)
    first = next(splitter.split(features, labels, groups))
    searched = grid_search(features, labels, [first])
    losses = dict(zip(STRENGTHS, -searched.cv_results_["mean_test_score"], strict=True))
    assert losses[found.strengths[0]] < min(losses.values()) + 1e-4, "as good as the best; some differ by less"
    assert found.chosen_by == ("hold-out",)
    assert found.converged
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=found.strengths[0], tol=1e-8, max_iter=10_000))
    off = np.abs(found.probabilities - pipeline.fit(features, labels).predict_proba(queries))
    assert off.mean() < 1e-3
    assert off.max() < 0.05


def test_float32_features_far_from_0_lose_nothing_by_standardising(monkeypatch):
    monkeypatch.setattr(linear, "MANY", 1000)
    features, labels, queries = (table[:, :5] if table.ndim == 2 else table for table in clusters(items=1200))
    far = [(table + 1e4).astype(np.float32) for table in (features, queries)]
    found = linear_probe(far[0], labels, far[1], num_classes=3)
    near = linear_probe(far[0].astype(np.float64) - 1e4, labels, far[1].astype(np.float64) - 1e4, num_classes=3)
    np.testing.assert_allclose(found.probabilities, near.probabilities, atol=2e-3)


def test_groups_choose_a_stronger_penalty_where_patients_are_remembered():
    """Labels belong to patients and features identify patients: only a split inside patients finds them predictable."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 8)
    labels = groups % 2
    features = generator.normal(size=(12, 30))[groups] + 0.1 * generator.normal(size=(96, 30))
    apart, mixed = (linear_probe(features, labels, features, num_classes=2, groups=g) for g in (groups, None))
    assert apart.strengths[0] < mixed.strengths[0]


@pytest.mark.parametrize(("each", "chosen_by"), [(1, "default"), (2, "cross-validation"), (3, "cross-validation")])
def test_one_label_a_class_leaves_the_strength_at_1_and_says_so(each, chosen_by):
    features, labels, queries = clusters(items=4 * each, classes=4)
    found = linear_probe(features, labels, queries, num_classes=4)
    assert found.chosen_by == (chosen_by,)
    if chosen_by == "default":
        assert found.strengths == (1.0,)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(features, labels)
        np.testing.assert_allclose(found.probabilities, pipeline.predict_proba(queries), atol=1e-4)


def test_a_class_of_one_patient_leaves_the_strength_at_1():
    features, labels, queries = clusters(items=30)
    found = linear_probe(features, labels, queries, num_classes=3, groups=np.where(labels == 2, 99, np.arange(30)))
    assert found.chosen_by == ("default",)


def test_queries_change_no_prediction_but_their_own():
    features, labels, queries = clusters()
    alone = linear_probe(features, labels, queries[:5], num_classes=3)
    among = linear_probe(features, labels, np.concatenate([queries[:5], 1e6 + queries]), num_classes=3)
    np.testing.assert_allclose(alone.probabilities, among.probabilities[:5], rtol=1e-12)


def test_classes_without_labels_have_a_column_of_0():
    features, labels, queries = clusters()
    found = linear_probe(features, 2 * labels, queries, num_classes=7).probabilities
    np.testing.assert_allclose(found.sum(1), 1)
    assert not found[:, [1, 3, 5, 6]].any()
    np.testing.assert_allclose(
        found[:, [0, 2, 4]], linear_probe(features, labels, queries, num_classes=3).probabilities
    )


def test_one_class_only_is_predicted_without_a_fit():
    features, labels, queries = clusters()
    found = linear_probe(features, np.ones_like(labels), queries, num_classes=3)
    np.testing.assert_array_equal(found.probabilities, np.eye(3)[np.ones_like(labels)])
    assert found.chosen_by == ("share",)
    assert np.isnan(found.strengths[0])


def test_each_multi_label_column_equals_a_probe_of_its_known_rows():
    features, labels, queries = clusters()
    columns = (labels[:, None] == np.arange(3)).astype(float)
    columns[np.random.default_rng(0).random(columns.shape) < 0.3] = np.nan
    columns = np.concatenate([columns, np.zeros((120, 1)), np.full((120, 1), np.nan)], axis=1)
    found = linear_probe(features, columns, queries, num_classes=5)
    for c in range(3):
        known = ~np.isnan(columns[:, c])
        expected = grid_search(features[known], columns[known, c], StratifiedKFold(5, shuffle=True, random_state=0))
        assert found.strengths[c] == expected.best_params_["logisticregression__C"]
        np.testing.assert_allclose(found.probabilities[:, c], expected.predict_proba(queries)[:, 1], atol=1e-4)
    assert found.chosen_by == ("cross-validation",) * 3 + ("share",) * 2
    assert not found.probabilities[:, 3].any(), "every known label is 0"
    assert (found.probabilities[:, 4] == 0.5).all(), "no label is known"


def test_a_fit_cut_short_is_recorded_and_raises_no_warning(monkeypatch):
    features, labels, queries = clusters()
    monkeypatch.setattr(linear, "MAX_STEPS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not linear_probe(features, labels, queries, num_classes=3).converged


def test_constant_features_and_no_queries_are_no_trouble():
    features, labels, queries = clusters()
    features[:, 0] = 7
    assert linear_probe(features, labels, queries[:0], num_classes=3).probabilities.shape == (0, 3)


def test_bad_input_is_refused_with_the_value_seen():
    features, labels, queries = clusters()
    with pytest.raises(ValueError, match=r"got \(120, 10\) and \(120, 9\)"):
        linear_probe(features, labels, queries[:, 1:], num_classes=3)
    with pytest.raises(ValueError, match=r"got \(119,\)"):
        linear_probe(features, labels[1:], queries, num_classes=3)
    with pytest.raises(ValueError, match=r"got 0\.\.2"):
        linear_probe(features, labels, queries, num_classes=2)
    with pytest.raises(ValueError, match="one group for each of the 120 rows"):
        linear_probe(features, labels, queries, num_classes=3, groups=np.arange(3))
    with pytest.raises(ValueError, match="finite"):
        linear_probe(features * np.nan, labels, queries, num_classes=3)
    with pytest.raises(ValueError, match="above 0"):
        linear_probe(features, labels, queries, num_classes=3, strengths=(0.0, 1.0))
