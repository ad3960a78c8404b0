"""The focal probe learns a classifier, and leaves the encoder alone."""

import numpy as np
import pytest
import torch

from kontrast import losses
from kontrast.augment.policies import digits
from kontrast.batch import Batch
from kontrast.data.images import ImageSet
from kontrast.evaluate.finetune import predict
from kontrast.evaluate.focal import FocalProbe, focal_probe
from kontrast.nn.encoders import encoder
from kontrast.train import Fit


def images(count=40, *, seed=0):
    rng = np.random.default_rng(seed)
    known = np.arange(count) % 2
    return ImageSet(
        name="shades",
        pixels=(rng.integers(0, 100, (count, 1, 16, 16)) + 150 * known[:, None, None, None]).astype(np.uint8),
        rows=np.arange(count),
        names=tuple(map(str, range(count))),
        labels=known,
        classes=("dark", "bright"),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint="",
    )


@pytest.fixture
def built():
    torch.manual_seed(0)
    return encoder("test_efficientnet", channels=1, size=16, stem="standard")


def test_it_reads_classes_from_a_frozen_encoder(built):
    before = {k: v.clone() for k, v in built.state_dict().items()}
    probe = focal_probe(built, images(), digits(16), Fit(precision="float32"))
    test = images(seed=1)
    assert (predict(probe, test).argmax(1) == test.labels).mean() > 0.95
    assert all(torch.equal(v, before[k]) for k, v in built.state_dict().items())


def test_the_same_seed_gives_the_same_probe(built):
    found = [focal_probe(built, images(), digits(16), Fit(precision="float32"), seed=seed) for seed in (1, 1, 2)]
    weights = [probe.classify[-1].weight for probe in found]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_its_loss_is_the_focal_loss_of_what_the_encoder_predicts(built):
    torch.manual_seed(3)
    probe = FocalProbe(built, digits(16), num_classes=2)
    probe.augment = torch.nn.Identity()
    batch = Batch(image=torch.rand(6, 1, 16, 16), label=torch.tensor([0, 1, 1, 0, 1, -1]))
    expected = losses.focal(probe.classify(built.eval()(batch.image)), batch.label, gamma=2.0)
    found = probe.train()(batch).loss
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad is None for p in probe.encoder.parameters())
    assert all(p.grad.abs().sum() > 0 for p in probe.classify.parameters())
