"""A network and images so small that an epoch takes milliseconds."""

import numpy as np
import pytest
import torch
from torch import nn

from kontrast.augment.policies import digits
from kontrast.data import Loader
from kontrast.data.images import ImageSet
from kontrast.methods import METHODS
from kontrast.nn.encoders import Encoder, EncoderSpec
from kontrast.nn.norms import remove_norm
from kontrast.nn.text import TextSpec, text_tower

SIDE = 8
SMALL = {
    "byol": {"width": 16, "hidden": 16},
    "clip": {"width": 8},
    "cyclip": {"width": 8},
    "ebclr": {"width": 8, "langevin_steps": 2},
    "moco": {"queue_size": 32},
    "simsiam": {"width": 16, "bottleneck": 8},
}


class Net(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """A second thread only costs with networks of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def build_encoder():
    def build_encoder(net=None, seed=0):
        torch.manual_seed(seed)
        spec = EncoderSpec(name="resnet18", channels=1, size=SIDE)
        return Encoder(Net() if net is None else net, spec)

    return build_encoder


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, SIDE, SIDE), dtype=np.uint8)
    pixels[12:, :, :4] = 255
    return ImageSet(
        name="noise",
        pixels=pixels,
        rows=np.arange(24),
        names=tuple(f"{i}.png" for i in range(24)),
        labels=np.repeat([0, 1], 12),
        classes=("a", "b"),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint="",
        texts=(("dark",),) * 12 + (("light",),) * 12,
    )


@pytest.fixture
def loader(images):
    return Loader(images, 8)


@pytest.fixture
def build_method(build_encoder):
    def build_method(name, net=None, **settings):
        kind = METHODS[name]
        config = kind.Config(**SMALL.get(name, {}) | settings)
        parts = {"num_classes": 2} if kind.reads_labels(config) else {}
        if METHODS[name].reads_texts:
            torch.manual_seed(0)
            parts = {"text": text_tower(["dark", "light"] * 2, TextSpec(width=8, layers=1, heads=2, vocabulary=260))}
        encoder = build_encoder(net)
        if name == "ebclr" and net is None:
            remove_norm(encoder)
        return kind(encoder, digits(SIDE), config, **parts)

    return build_method
