"""BiT-HyperRule says what its authors' code says."""

import pytest

from kontrast.evaluate.hyper_rule import LR, HyperRule


@pytest.mark.parametrize(
    ("num_images", "steps", "warmup", "decays", "mixup"),
    [
        (10, 500, 100, (200, 300, 400), 0.0),
        (19_999, 500, 100, (200, 300, 400), 0.0),
        (20_000, 10_000, 500, (3_000, 6_000, 9_000), 0.1),
        (499_999, 10_000, 500, (3_000, 6_000, 9_000), 0.1),
        (500_000, 20_000, 500, (6_000, 12_000, 18_000), 0.1),
    ],
)
def test_steps_warm_up_decay_and_mixup_go_by_the_number_of_images(num_images, steps, warmup, decays, mixup):
    rule = HyperRule.of(num_images, 224)
    assert (rule.steps, rule.warmup, rule.decays, rule.mixup) == (steps, warmup, decays, mixup)


@pytest.mark.parametrize(("side", "resize", "crop"), [(28, 160, 128), (95, 160, 128), (96, 512, 480), (600, 512, 480)])
def test_sizes_go_by_the_size_of_the_images(side, resize, crop):
    rule = HyperRule.of(6009, side)
    assert (rule.resize, rule.crop) == (resize, crop)
    assert rule.area == pytest.approx(crop**2 / resize**2)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0), (99, 0.00297), (100, 0.003), (200, 0.003), (201, 0.0003), (301, 3e-5), (401, 3e-6), (499, 3e-6)],
)
def test_the_rate_rises_along_a_line_and_falls_to_a_tenth_strictly_after_each_decay(step, rate):
    assert LR * HyperRule.of(6009, 224).factor(step) == pytest.approx(rate, rel=1e-9)
