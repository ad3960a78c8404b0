"""Labels saved, on simulated curves whose answer is known."""

from math import inf, log

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from kontrast.evaluate.savings import equivalent_labels

COUNTS = (50, 200, 800)
SEED, DRAW, IMAGE, IMAGE_BY_SEED = 0.15, 0.15, 1.0, 0.4


def predictions(right):
    """Two-class probabilities whose argmax is right, for labels that are all 1, where `right` says so."""
    return np.stack([~right, right], axis=-1).astype(np.float64)


def simulated(generator, means, *, seeds, draws, num_items, of_seeds=SEED):
    """Which images are right in each cell of several arms that share how hard each image is; random-effects probit."""
    image = generator.normal(0, IMAGE, num_items)
    for mean in means:
        score = (
            mean + generator.normal(0, of_seeds, (seeds, 1, 1)) + generator.normal(0, DRAW, (seeds, draws, 1)) + image
        )
        score = score + generator.normal(0, IMAGE_BY_SEED, (seeds, 1, num_items))
        yield predictions(score + generator.normal(size=score.shape) > 0)


def truth(ours, baseline, *, of_seeds=SEED):
    """Where the curve through the expected scores of the baseline, straight on the log axis, meets that of ours."""
    spread = np.sqrt(of_seeds**2 + DRAW**2 + IMAGE**2 + IMAGE_BY_SEED**2 + 1)
    curve, score = norm.cdf(np.array(baseline) / spread), norm.cdf(ours / spread)
    return np.exp(brentq(lambda at: np.interp(at, np.log(COUNTS), curve) - score, log(COUNTS[0]), log(COUNTS[-1])))


def exactly(*shares, num_items=400):
    """Predictions of one cell each, right for exactly those shares of images, the same ones first."""
    return [predictions(np.arange(num_items) < share * num_items)[None, None] for share in shares]


def needed(ours, baseline, **how):
    return equivalent_labels(np.ones(ours.shape[2], dtype=int), ours, baseline, COUNTS, "accuracy", **how)


def test_the_answer_is_where_the_straight_line_on_the_log_axis_meets_our_score():
    ours, *baseline = exactly(0.7, 0.5, 0.6, 0.8)
    assert needed(ours, baseline).value == pytest.approx(400)  # half of the way from 200 to 800, on the log axis
    ours, *baseline = exactly(0.525, 0.5, 0.6, 0.8)
    assert needed(ours, baseline).value == pytest.approx(50 * 4**0.25)


def test_a_score_equal_to_one_on_the_curve_needs_the_labels_of_that_one():
    ours, *baseline = exactly(0.6, 0.5, 0.6, 0.8)
    assert needed(ours, baseline).value == pytest.approx(200)


def test_beyond_the_numbers_of_labels_that_were_tried_nothing_is_claimed():
    ours, *baseline = exactly(0.95, 0.5, 0.6, 0.7)
    far_above = needed(ours, baseline)
    assert (far_above.value, far_above.low, far_above.high) == (inf, 800, inf)
    ours, *baseline = exactly(0.2, 0.5, 0.6, 0.7)
    far_below = needed(ours, baseline)
    assert (far_below.value, far_below.low, far_below.high) == (0, 0, 50)
    ours, *baseline = exactly(0.71, 0.5, 0.6, 0.7)
    hardly_above = needed(ours, baseline)
    assert (hardly_above.value, hardly_above.high) == (inf, inf)
    assert 200 < hardly_above.low < 800


def test_the_interval_holds_the_value_and_narrows_with_more_images():
    wide, narrow = (needed(*_first_and_rest(exactly(0.7, 0.5, 0.6, 0.8, num_items=n))) for n in (300, 3000))
    for found in (wide, narrow):
        assert found.low < found.value < found.high
    assert narrow.high / narrow.low < wide.high / wide.low


def _first_and_rest(arms):
    ours, *baseline = arms
    return ours, baseline


def test_the_interval_covers_the_known_answer_92_to_98_times_in_100():
    assert 0.92 <= _coverage(1.3, seeds=3, draws=3, times=300) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("ours", [0.8, 1.0, 1.4])
@pytest.mark.parametrize(("seeds", "draws"), [(3, 5), (5, 3), (1, 5)])
def test_the_interval_covers_the_known_answer_whatever_the_number_of_seeds(seeds, draws, ours):
    assert 0.92 <= _coverage(ours, seeds=seeds, draws=draws, times=2000) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("ours", [0.8, 1.0, 1.4])
def test_two_seeds_that_hardly_differ_make_an_interval_too_wide_rather_than_too_narrow(ours):
    assert 0.92 <= _coverage(ours, seeds=2, draws=3, times=2000) <= 0.995


def _coverage(ours, *, seeds, draws, times):
    """With one seed, of what is true of that encoder, whose own effect is then part of its expected score: 0 here."""
    baseline, of_seeds = (0.5, 1.0, 1.6), SEED if seeds > 1 else 0.0
    answer, held = truth(ours, baseline, of_seeds=of_seeds), 0
    for number in range(times):
        generator = np.random.default_rng([11, number])
        how = {"seeds": seeds, "draws": draws, "num_items": 200, "of_seeds": of_seeds}
        arms = list(simulated(generator, (ours, *baseline), **how))
        found = needed(arms[0], arms[1:], num_resamples=200)
        held += found.low <= answer <= found.high
    return held / times


def test_a_baseline_with_all_labels_has_one_draw_that_meets_every_draw_of_the_others():
    arms = list(simulated(np.random.default_rng(0), (1.0, 0.5, 1.0, 1.6), seeds=3, draws=4, num_items=300))
    found = needed(arms[0], [*arms[1:3], arms[3][:, :1]])
    assert found.low < found.value < found.high


def test_groups_widen_the_interval():
    arms = list(simulated(np.random.default_rng(1), (1.2, 0.5, 1.0, 1.6), seeds=1, draws=1, num_items=400))
    repeated = [np.repeat(arm, 5, axis=2) for arm in arms]
    labels = np.ones(2000, dtype=int)
    alone = equivalent_labels(labels, repeated[0], repeated[1:], COUNTS, "accuracy")
    grouped = equivalent_labels(labels, repeated[0], repeated[1:], COUNTS, "accuracy", groups=np.arange(2000) // 5)
    assert grouped.high / grouped.low > alone.high / alone.low


def test_a_score_that_the_images_do_not_define_needs_no_number_of_labels():
    ours, *baseline = exactly(0.7, 0.5, 0.6, 0.8)
    found = equivalent_labels(np.ones(400, dtype=int), ours, baseline, COUNTS, "auroc")
    assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize(
    ("counts", "match"), [((50,), "two or more"), ((200, 50, 800), "ascending"), ((50, 50, 800), "ascending")]
)
def test_a_curve_that_is_none_is_refused(counts, match):
    ours, *baseline = exactly(0.7, 0.5, 0.6, 0.8)
    with pytest.raises(ValueError, match=match):
        equivalent_labels(np.ones(400, dtype=int), ours, baseline[: len(counts)], counts, "accuracy")


def test_arms_of_other_seeds_or_draws_are_refused():
    ours, *baseline = exactly(0.7, 0.5, 0.6, 0.8)
    with pytest.raises(ValueError, match="share seeds and draws"):
        needed(np.repeat(ours, 2, axis=0), baseline)
