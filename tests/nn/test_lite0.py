"""EfficientNet-Lite0 under the names of its file, against a plain forward from those names alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kontrast.data.samples import files
from kontrast.errors import InputError
from kontrast.nn.encoders import encoder
from kontrast.nn.weights import load_weights

LITE0 = "tf_efficientnet_lite0"
# Repeats, kernel, stride of the first, expansion, channels in, channels out: Tan & Le 2019, table 1, with a stem of 32
# channels and 1,280 features.
STAGES = [
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
]  # fmt: skip


def blocks():
    """For each of the 16 blocks: kernel, stride, expansion, channels in, channels out."""
    for repeats, kernel, stride, expansion, inside, out in STAGES:
        for j in range(repeats):
            yield kernel, stride if j == 0 else 1, expansion, inside if j == 0 else out, out


def shapes():
    """Every tensor of the file."""
    found = {}

    def norm(name, width):
        found.update({f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")})
        found[f"{name}.num_batches_tracked"] = ()

    found["_conv_stem.weight"] = (32, 3, 3, 3)
    norm("_bn0", 32)
    for i, (kernel, _, expansion, inside, out) in enumerate(blocks()):
        wide = inside * expansion
        if expansion > 1:
            found[f"_blocks.{i}._expand_conv.weight"] = (wide, inside, 1, 1)
            norm(f"_blocks.{i}._bn0", wide)
        found[f"_blocks.{i}._depthwise_conv.weight"] = (wide, 1, kernel, kernel)
        norm(f"_blocks.{i}._bn1", wide)
        found[f"_blocks.{i}._project_conv.weight"] = (out, wide, 1, 1)
        norm(f"_blocks.{i}._bn2", out)
    found["_conv_head.weight"] = (1280, 320, 1, 1)
    norm("_bn1", 1280)
    return {**found, "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def made(seed=0):
    """A file's content with random values that keep activations in bounds."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes().items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            values *= (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif name.endswith(("running_var", "weight")):
            values = 0.7 + 0.3 * torch.rand(shape, generator=generator)
        state[name] = torch.tensor(7) if shape == () else values
    return state


def features(state, image):
    """What the file's network makes of uint8 images, `(n, 3, h, w)`: `(n, 1280)`; TensorFlow's padding and scaling."""
    x = (image.double() - 127) / 128
    state = {k: v.double() for k, v in state.items()}

    def convolve(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        pads = []
        for side, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x, name):
        weight, bias, mean, variance = (
            state[f"{name}.{leaf}"].view(1, -1, 1, 1) for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (variance + 1e-3) ** 0.5 * weight + bias

    x = norm(convolve(x, "_conv_stem", stride=2), "_bn0").clamp(0, 6)
    for i, (_, stride, expansion, inside, out) in enumerate(blocks()):
        name, before = f"_blocks.{i}", x
        if expansion > 1:
            x = norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        x = norm(convolve(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1").clamp(0, 6)
        x = norm(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
        if stride == 1 and inside == out:
            x = x + before
    return norm(convolve(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))


def pictures(size, count=2):
    """Images with structure: waves of several lengths, and noise."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin((3 + 5 * i) * x + (7 - 2 * c) * y) for i in range(count) for c in range(3)]
    noise = np.random.default_rng(0).normal(size=(count * 3, size, size))
    values = 127 + 80 * np.stack(waves) + 20 * noise
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8)).view(count, 3, size, size)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    torch.save(made(), path)
    return path


@pytest.mark.parametrize("size", [64, 75, 96])
def test_features_are_those_of_the_network_of_the_file(file, size):
    built = encoder(LITE0, size=size, stem="standard", init=str(file), mean=(0.1,), std=(0.2,)).eval().double()
    with torch.no_grad():
        expected = features(torch.load(file, weights_only=True), pictures(size))
        torch.testing.assert_close(built(pictures(size)), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1
    assert built.spec.mean == pytest.approx((127 / 255,))
    assert built.spec.std == pytest.approx((128 / 255,))


def test_every_tensor_of_the_file_is_taken_but_the_classifier(file):
    net = encoder(LITE0).net
    report = load_weights(net, file)
    assert report.left_out == {"classifier.weight": "classifier", "classifier.bias": "classifier"}
    assert len(report.loaded) == len(shapes()) - 2 == len(net.state_dict()) == 294
    assert not report.missing
    assert not report.unexpected


def test_grey_images_look_to_one_channel_as_they_do_to_three(file):
    grey = pictures(64)[:, :1]
    one, three = (encoder(LITE0, channels=c, size=64, init=str(file)).eval().double() for c in (1, 3))
    with torch.no_grad():
        torch.testing.assert_close(one(grey), three(grey.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "test_resnet"])
def test_a_near_architecture_that_would_take_the_weights_and_compute_otherwise_is_refused(file, name):
    with pytest.raises(InputError, match=f"belong to tf_efficientnet_lite0 .* got {name}, so name theirs"):
        load_weights(encoder(name, size=64).net, file)


def test_weights_of_an_efficientnet_that_squeezes_are_not_taken_for_lite(file, tmp_path):
    state = torch.load(file, weights_only=True) | {"_blocks.0._se_reduce.weight": torch.ones(8, 32, 1, 1)}
    torch.save(state, tmp_path / "b0.pth")
    with pytest.raises(InputError, match=r"none of the 297 tensors in b0\.pth fits"):
        load_weights(encoder(LITE0, size=64).net, tmp_path / "b0.pth")


@pytest.mark.network
def test_the_sample_is_a_file_of_this_layout_and_its_features_are_its_own(tmp_path):
    (path,) = files("efficientnet-lite0").values()
    state = torch.load(path, weights_only=True)
    assert {k: tuple(v.shape) for k, v in state.items()} == shapes()
    built = encoder(LITE0, init=str(path)).eval()
    with torch.no_grad():
        expected = features(state, pictures(224))
        torch.testing.assert_close(built(pictures(224)).double(), expected, rtol=1e-5, atol=1e-5)
