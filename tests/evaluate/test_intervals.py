import time

import numpy as np
import pytest
from scipy.stats import norm

from kontrast.evaluate.intervals import Estimate, difference, estimate, verdict
from kontrast.evaluate.metrics import METRICS

RESAMPLES = 200


class Model:
    """An image is right if mean + seed + draw + image + image x seed + noise > 0, all normal: random-effects probit."""

    def __init__(self, mean, *, seed=0.2, draw=0.2, image=1.0, patient=0.0, image_by_seed=0.5, of_patient=1):
        self.mean, self.seed, self.draw, self.image, self.image_by_seed = mean, seed, draw, image, image_by_seed
        self.patient, self.of_patient = patient, of_patient

    def truth(self, seed_effect=None):
        """Expected accuracy, in closed form; of one encoder, if its effect is given."""
        own = self.draw**2 + self.image**2 + self.patient**2 + self.image_by_seed**2 + 1
        if seed_effect is not None:
            return norm.cdf((self.mean + seed_effect) / np.sqrt(own))
        return norm.cdf(self.mean / np.sqrt(own + self.seed**2))

    def images(self, generator, num_items):
        """How easy each image is, its patient's part included."""
        patients = generator.normal(0, self.patient, num_items // self.of_patient)
        return generator.normal(0, self.image, num_items) + np.repeat(patients, self.of_patient)

    def right(self, generator, seeds, draws, images):
        """Which images are right in each cell, and the seeds' effects."""
        effects = generator.normal(0, self.seed, (seeds, 1, 1))
        score = self.mean + effects + generator.normal(0, self.draw, (seeds, draws, 1)) + images
        score = score + generator.normal(0, self.image_by_seed, (seeds, 1, len(images)))
        return score + generator.normal(size=score.shape) > 0, effects.ravel()


def predictions(labels, right):
    """Two-class probabilities whose argmax is right where `right` says so."""
    predicted = np.where(right, labels, 1 - labels)
    return np.stack([1 - predicted, predicted], axis=-1).astype(np.float64)


def coverage(contains, times):
    return np.mean([contains(np.random.default_rng([7, number])) for number in range(times)])


def covers(model, seeds, draws, num_items=250, metric="accuracy", shares=(0.5, 0.5), grouped=False):
    def contains(generator):
        labels = generator.choice(2, num_items, p=shares)
        right, effects = model.right(generator, seeds, draws, model.images(generator, num_items))
        groups = np.arange(num_items) // model.of_patient if grouped else None
        found = estimate(labels, predictions(labels, right), metric, groups=groups, num_resamples=RESAMPLES)
        return found.low <= model.truth(effects[0] if seeds == 1 else None) <= found.high

    return contains


@pytest.mark.parametrize(("seeds", "draws"), [(3, 5), (5, 3), (1, 5)])
def test_a_95_percent_interval_covers_the_truth_92_to_98_times_in_100_where_seeds_draws_and_images_vary(seeds, draws):
    assert 0.92 <= coverage(covers(Model(1.2), seeds, draws), 600) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "draws"), [(3, 5), (5, 3), (2, 3), (3, 1), (1, 5)])
@pytest.mark.parametrize(
    "model",
    [
        Model(1.2),
        Model(1.2, seed=0.5, draw=0.1, image_by_seed=0.1),
        Model(1.2, seed=0.05, draw=0.5),
        Model(0.0, seed=0.1, draw=0.1, image=0.3, image_by_seed=1.0),
        Model(3.0, seed=0.2, draw=0.3),
    ],
    ids=["all alike", "seeds", "draws", "interaction", "near one"],
)
def test_a_95_percent_interval_covers_whichever_source_varies_most(model, seeds, draws):
    assert 0.92 <= coverage(covers(model, seeds, draws), 2000) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "draws"), [(3, 5), (5, 3), (2, 3), (3, 1), (1, 5)])
def test_seeds_and_draws_that_do_not_vary_at_all_make_an_interval_too_wide_rather_than_too_narrow(seeds, draws):
    assert 0.94 <= coverage(covers(Model(1.2, seed=0.0, draw=0.0), seeds, draws), 2000) <= 0.99


def test_one_encoder_and_one_draw_are_covered_over_images():
    def contains(generator):
        labels, right = np.zeros(200, dtype=int), generator.random((1, 1, 200)) < 0.9
        found = estimate(labels, predictions(labels, right), "accuracy", num_resamples=RESAMPLES)
        return found.low <= 0.9 <= found.high

    assert 0.92 <= coverage(contains, 600) <= 0.98


def test_balanced_accuracy_is_covered_where_one_class_is_rare():
    assert 0.92 <= coverage(covers(Model(1.2), 3, 3, metric="balanced_accuracy", shares=(0.85, 0.15)), 600) <= 0.98


def test_auroc_is_covered_where_seeds_draws_and_images_vary():
    """Scores are a signal of normal strength plus noise of image and cell, so the AUROC is a normal probability."""
    truth = norm.cdf(1.5 / np.sqrt(2 * (1 + 1) + 0.3**2 + 0.2**2))

    def contains(generator):
        labels = generator.choice(2, 250, p=(0.7, 0.3))
        strength = 1.5 + generator.normal(0, 0.3, (3, 1, 1)) + generator.normal(0, 0.2, (3, 3, 1))
        score = strength * labels + generator.normal(size=250) + generator.normal(size=(3, 3, 250))
        positive = norm.cdf(score)
        found = estimate(labels, np.stack([1 - positive, positive], -1), "auroc", num_resamples=RESAMPLES)
        return found.low <= truth <= found.high

    assert 0.92 <= coverage(contains, 600) <= 0.98


def paired(ours, theirs, seeds, draws, num_items=250):
    """Whether the interval of a difference holds the truth: arms share images and nothing else."""

    def contains(generator):
        labels, images = generator.integers(0, 2, num_items), ours.images(generator, num_items)
        (a, of_ours), (b, of_theirs) = (model.right(generator, seeds, draws, images) for model in (ours, theirs))
        found = difference(labels, predictions(labels, a), predictions(labels, b), "accuracy", num_resamples=RESAMPLES)
        one = (of_ours[0], of_theirs[0]) if seeds == 1 else (None, None)
        return found.low <= ours.truth(one[0]) - theirs.truth(one[1]) <= found.high

    return contains


@pytest.mark.parametrize(("seeds", "draws"), [(3, 5), (5, 3), (1, 5)])
def test_the_interval_of_a_difference_covers_it(seeds, draws):
    assert 0.92 <= coverage(paired(Model(1.4), Model(1.0), seeds, draws), 600) <= 0.98


def test_two_arms_that_differ_by_chance_are_declared_different_2_to_8_times_in_100():
    model = Model(2.5, image=2.0, image_by_seed=0.2)
    assert 0.92 <= coverage(paired(model, model, 3, 3), 600) <= 0.98


def test_resampling_patients_covers_what_resampling_their_images_does_not():
    model = Model(1.0, seed=0.1, draw=0.1, image=0.3, patient=1.2, of_patient=6, image_by_seed=0.3)
    assert 0.92 <= coverage(covers(model, 3, 3, num_items=300, grouped=True), 600) <= 0.98
    assert coverage(covers(model, 3, 3, num_items=300), 300) < 0.85


def test_the_variance_of_images_equals_the_textbook_one():
    """Accuracy of one cell: the standard error of a mean."""
    generator = np.random.default_rng(0)
    labels, right = np.zeros(4000, dtype=int), generator.random((1, 1, 4000)) < 0.7
    found = estimate(labels, predictions(labels, right), "accuracy", num_resamples=2000)
    exact = 1.96 * right.std(ddof=1) / np.sqrt(4000)
    assert (found.high - found.low) / 2 == pytest.approx(exact, rel=0.04)


def test_the_variance_of_auroc_equals_that_of_delong():
    """The components of DeLong et al. (1988), in plain loops."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, 100])
    score = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    wins = np.array([[(p > n) + 0.5 * (p == n) for n in score[labels == 0]] for p in score[labels == 1]])
    exact = np.sqrt(wins.mean(1).var(ddof=1) / 100 + wins.mean(0).var(ddof=1) / 200)
    found = estimate(labels, np.stack([1 - score, score], -1)[None, None], "auroc")
    assert found.value == pytest.approx(wins.mean())
    assert (found.high - found.low) / 2 / 1.97 == pytest.approx(exact, rel=0.1)


def test_the_value_is_the_mean_of_the_cells_and_lies_inside():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 3, 80), generator.dirichlet(np.ones(3), (2, 4, 80))
    for name, metric in METRICS.items():
        cells = [metric(labels, probabilities[s, d]) for s in range(2) for d in range(4)]
        found = estimate(labels, probabilities, name)
        assert found.value == pytest.approx(np.mean(cells))
        assert 0 <= found.low < found.value < found.high <= 1


def test_what_differs_in_every_cell_alike_is_known_better_by_pairing():
    generator = np.random.default_rng(0)
    labels, model = generator.integers(0, 2, 400), Model(1.2)
    right, _ = model.right(generator, 3, 3, model.images(generator, 400))
    worse = right & (generator.random(right.shape) > 0.02)
    ours, theirs = predictions(labels, right), predictions(labels, worse)
    gain, alone = difference(labels, ours, theirs, "accuracy"), estimate(labels, ours, "accuracy")
    assert gain.high - gain.low < (alone.high - alone.low) / 4
    assert gain.value == pytest.approx(right.mean() - worse.mean())
    assert verdict(gain) == "helps"


def test_swapping_the_arms_mirrors_the_difference():
    generator = np.random.default_rng(0)
    labels, (a, b) = generator.integers(0, 3, 60), generator.dirichlet(np.ones(3), (2, 2, 2, 60))
    there, back = difference(labels, a, b, "macro_f1"), difference(labels, b, a, "macro_f1")
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize(("seeds", "draws"), [(1, 1), (1, 3), (3, 2)])
def test_equal_arms_differ_by_0_with_a_narrow_interval_around_it(seeds, draws):
    labels = np.arange(100) % 2
    same = predictions(labels, np.ones((seeds, draws, 100), dtype=bool))
    found = difference(labels, same, same, "accuracy")
    assert found.value == 0
    assert -0.05 < found.low < 0 < found.high < 0.05
    assert verdict(found) == "no difference shown"


def test_all_100_images_right_means_at_least_about_96_percent_and_never_above_100():
    labels = np.arange(100) % 2
    found = estimate(labels, predictions(labels, np.ones((1, 1, 100), dtype=bool)), "accuracy")
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(100 / (100 + 1.98**2), abs=0.003), "Wilson's interval"


def test_all_of_10_positives_right_says_less_than_all_of_500_images():
    labels = np.repeat([0, 1], [490, 10])
    right = predictions(labels, np.ones((1, 1, 500), dtype=bool))
    low = {name: estimate(labels, right, name).low for name in METRICS}
    assert low["accuracy"] > 0.99
    assert max(low["balanced_accuracy"], low["macro_f1"], low["auroc"]) < 0.93


def test_four_images_that_only_one_arm_gets_right_are_no_evidence():
    labels = np.zeros(200, dtype=int)
    theirs = np.ones((1, 1, 200), dtype=bool)
    theirs[..., :4] = False
    found = difference(labels, predictions(labels, theirs | True), predictions(labels, theirs), "accuracy")
    assert verdict(found) == "no difference shown", "McNemar's exact test gives p = 0.125 for 4 against 0"


def test_the_same_seed_gives_the_same_interval_and_one_of_90_percent_is_narrower():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 2, 50), generator.dirichlet([1, 1], (2, 2, 50))
    first, again = (estimate(labels, probabilities, "auroc", seed=3) for _ in range(2))
    narrow = estimate(labels, probabilities, "auroc", seed=3, confidence=0.9)
    assert first == again
    assert first.low < narrow.low < narrow.high < first.high


def test_a_score_that_the_data_do_not_define_is_nan_and_proves_nothing():
    labels, probabilities = np.zeros(20, dtype=int), np.full((2, 2, 20, 2), 0.5)
    found = estimate(labels, probabilities, "auroc")
    assert np.isnan([found.value, found.low, found.high]).all()
    assert str(found) == "undefined"
    gap = difference(labels, probabilities, probabilities, "auroc")
    assert np.isnan([gap.value, gap.low, gap.high]).all()
    assert verdict(gap) == "no difference shown"


def test_multi_label_scores_have_intervals_with_unknown_cells():
    generator = np.random.default_rng(0)
    labels = (generator.random((150, 3)) < 0.3).astype(float)
    probabilities = np.clip(0.5 * labels + generator.random((2, 2, 150, 3)) * 0.6, 0, 1)
    labels[generator.random(labels.shape) < 0.2] = np.nan
    for name in METRICS:
        found = estimate(labels, probabilities, name, num_resamples=100)
        assert 0 < found.low < found.value < found.high < 1


@pytest.mark.parametrize(
    ("seeds", "draws", "groups", "scope"),
    [
        (2, 2, None, "over seeds, draws and test images"),
        (2, 1, None, "over seeds and test images"),
        (1, 2, None, "for this one encoder: over draws and test images"),
        (1, 1, None, "for this one encoder and draw: over test images"),
        (2, 2, np.arange(20) // 4, "over seeds, draws and test groups"),
    ],
)
def test_an_estimate_says_what_it_generalises_over(seeds, draws, groups, scope):
    labels = np.arange(20) % 2
    found = estimate(labels, np.full((seeds, draws, 20, 2), 0.5), "accuracy", groups=groups)
    assert found.scope == scope
    assert (found.num_seeds, found.num_draws, found.num_items) == (seeds, draws, 20)
    assert found.num_groups == (None if groups is None else 5)


def an_estimate(value, low, high):
    return Estimate(value=value, low=low, high=high, num_seeds=1, num_draws=1, num_items=9, of_runs=0.0, scope="")


def test_an_estimate_reads_as_percent_without_a_negative_zero():
    assert str(an_estimate(0.8134, 0.799, 0.826)) == "81.3 % [79.9, 82.6]"
    assert str(an_estimate(-0.00001, -0.012, 0.012)) == "0.0 % [-1.2, 1.2]"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.05, "helps"),
        (-0.05, -0.01, "hurts"),
        (-0.01, 0.05, "no difference shown"),
        (0.0, 0.05, "no difference shown"),
        (-0.05, 0.0, "no difference shown"),
    ],
)
def test_pre_training_helps_or_hurts_only_where_the_interval_leaves_out_0(low, high, word):
    assert verdict(an_estimate((low + high) / 2, low, high)) == word


def test_bad_input_is_refused_with_the_value_seen():
    labels, probabilities = np.arange(20) % 2, np.full((1, 1, 20, 2), 0.5)
    with pytest.raises(ValueError, match="accuracy, balanced_accuracy, macro_f1, auroc; got 'f1'"):
        estimate(labels, probabilities, "f1")
    with pytest.raises(ValueError, match=r"got \(1, 20, 2\)"):
        estimate(labels, probabilities[0], "accuracy")
    with pytest.raises(ValueError, match="one group for each of the 20 images"):
        estimate(labels, probabilities, "accuracy", groups=np.arange(19))
    with pytest.raises(ValueError, match="at least 2 test images, or groups"):
        estimate(labels, probabilities, "accuracy", groups=np.zeros(20))
    with pytest.raises(ValueError, match="cell by cell"):
        difference(labels, probabilities, probabilities.repeat(2, axis=0), "accuracy")
    with pytest.raises(ValueError, match=r"got -1\.\.1"):
        estimate(np.where(labels == 0, -1, 1), probabilities, "accuracy")


@pytest.mark.slow
def test_10_000_images_in_15_cells_take_seconds():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 10, 10_000), generator.dirichlet(np.ones(10), (3, 5, 10_000))
    for name, limit in {"accuracy": 2, "balanced_accuracy": 5, "macro_f1": 5, "auroc": 10}.items():
        start = time.process_time()
        estimate(labels, probabilities, name)
        assert time.process_time() - start < limit
