"""Fine-tuning learns from the labelled images it is given, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kontrast.augment.policies import digits
from kontrast.data.images import ImageSet
from kontrast.evaluate import finetune as module
from kontrast.evaluate.finetune import FineTuning, finetune, predict, training
from kontrast.evaluate.hyper_rule import HyperRule
from kontrast.nn.encoders import encoder
from kontrast.train import Fit


def images(count=40, *, labels=None, seed=0, classes=("dark", "bright")):
    rng = np.random.default_rng(seed)
    known = np.arange(count) % 2
    pixels = (rng.integers(0, 100, (count, 1, 16, 16)) + 150 * known[:, None, None, None]).astype(np.uint8)
    return ImageSet(
        name="shades",
        pixels=pixels,
        rows=np.arange(count),
        names=tuple(map(str, range(count))),
        labels=known if labels is None else labels,
        classes=classes,
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


@pytest.fixture
def built():
    torch.manual_seed(0)
    return encoder("test_efficientnet", channels=1, size=16, stem="standard")


def config(steps=40, **fit):
    return FineTuning(steps=steps, batch_size=20, training=Fit(**{"lr": 0.5, "precision": "float32", **fit}))


def test_classes_that_can_be_told_apart_are_learned_from_a_fresh_encoder(built):
    method = finetune(built, images(), digits(16), config())
    test = images(seed=1)
    assert (predict(method, test).argmax(1) == test.labels).mean() > 0.95


def test_the_encoder_to_start_from_stays_as_it_is(built):
    before = {k: v.clone() for k, v in built.state_dict().items()}
    method = finetune(built, images(), digits(16), config(2))
    assert all(torch.equal(v, before[k]) for k, v in built.state_dict().items())
    assert not torch.equal(next(method.encoder.parameters()), next(built.parameters()))
    assert not method.training


def test_the_same_seed_gives_the_same_classifier_whatever_was_drawn_before(built):
    first = predict(finetune(built, images(), digits(16), config(3), seed=5), images())
    torch.rand(13)
    again = predict(finetune(built, images(), digits(16), config(3), seed=5), images())
    other = predict(finetune(built, images(), digits(16), config(3), seed=6), images())
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("steps", "updates"), [(1, 2), (2, 2), (3, 4), (10, 10)])
def test_steps_are_rounded_up_to_whole_epochs(built, steps, updates, tmp_path):
    finetune(built, images(), digits(16), config(steps, epochs=777, seed=777), out=tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == updates // 2
    assert f'"step": {updates}' in lines[-1]


def test_probabilities_are_the_softmax_of_the_classifier_on_images_as_they_are(built):
    method = finetune(built, images(), digits(16), config(2))
    with torch.no_grad():
        logits = method.predict(torch.from_numpy(images().pixels))
    found = predict(method, images())
    assert found.dtype == np.float64
    assert np.allclose(found.sum(1), 1)
    assert np.allclose(found, logits.double().softmax(1).numpy(), atol=1e-5)


def test_multi_label_images_get_one_probability_a_class_and_unknown_cells_teach_nothing(built):
    labels = np.stack([np.arange(40) % 2, np.full(40, np.nan), np.ones(40)], axis=1)
    data = images(labels=labels, classes=("bright", "unknown", "always"))
    found = predict(finetune(built, data, digits(16), config()), data)
    assert found.shape == (40, 3)
    assert (found > 0).all()
    assert (found < 1).all()
    assert ((found[:, 0] > 0.5) == labels[:, 0]).mean() > 0.95
    assert found[:, 2].min() > 0.5


def ruled(num_images, batch_size, **changed):
    """Settings under BiT's rule, which takes fewer steps here."""
    rule = replace(HyperRule.of(num_images, 16), steps=7, warmup=2, decays=(3, 4, 5), **changed)
    return FineTuning(batch_size=batch_size, training=Fit(precision="float32", optimiser="adamw", lr=9.0), rule=rule)


@pytest.mark.parametrize(("num_images", "batch_size", "batches"), [(40, 12, 3), (40, 512, 1), (5, 12, 1)])
def test_the_rule_takes_its_steps_of_full_batches_at_its_rates(built, monkeypatch, num_images, batch_size, batches):
    seen, rates, before = [], [], []
    rule = ruled(num_images, batch_size)

    def spy(method, loader, config, **told):
        seen.append((len(loader), config, told["schedule"]))
        before.append(sum(float(p.detach().abs().sum()) for p in method.classify.parameters()))
        forward = method.forward
        method.forward = lambda batch: (rates.append(len(batch)), forward(batch))[1]
        return module_fit(method, loader, config, **told)

    module_fit = module.fit
    monkeypatch.setattr(module, "fit", spy)
    finetune(built, images(num_images), digits(16), rule)
    (found, how, schedule) = seen[0]
    assert found == batches
    assert schedule is rule.rule
    assert rates == [batch_size] * 7
    assert before == [0.0]
    assert (how.optimiser, how.weight_decay) == ("sgd", 0)
    assert how.lr * 512 / 256 == pytest.approx(0.003)
    assert how.epochs == -(-7 // batches)
    assert training(rule, num_images, 0) == how


def test_the_alpha_of_the_rule_is_that_of_mixup(built):
    for alpha in (0.0, 0.1):
        method = finetune(built, images(), digits(16), ruled(40, 12, mixup=alpha))
        assert method.mixup == alpha


def test_few_images_fill_epochs_of_several_batches_so_that_little_is_written(built):
    rule = FineTuning(batch_size=512, rule=HyperRule.of(38, 16))
    filled = module._enough(images(38), rule.rule, 512)
    assert len(filled) >= 512 * 500 / 30
    assert np.ptp(np.unique(filled.rows, return_counts=True)[1]) == 0
    assert training(rule, len(filled), 0).epochs == 30
