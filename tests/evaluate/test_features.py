"""Features are what the encoder makes of each image alone, and asking for them leaves no trace."""

import numpy as np
import pytest
import torch

from kontrast.data.images import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.features import features
from kontrast.nn.encoders import encoder


def images(count=11, *, channels=1, side=16, dtype=np.uint8):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    pixels = (np.random.default_rng(0).random((count, channels, side, side)) * top).astype(dtype)
    return ImageSet(
        name="noise",
        pixels=pixels,
        rows=np.arange(count),
        names=tuple(map(str, range(count))),
        labels=None,
        classes=(),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint="",
    )


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return encoder("test_efficientnet", channels=1, size=16, stem="standard", mean=(0.4,), std=(0.3,))


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_features_do_not_depend_on_the_batch_size(built, batch_size):
    whole = features(built, images(), batch_size=11)
    assert np.allclose(features(built, images(), batch_size=batch_size), whole, atol=1e-5)


def test_features_are_those_of_the_network_on_normalised_pixels_one_by_one(built):
    data = images(3)
    found = features(built, data)
    assert found.dtype == np.float32
    assert found.shape == (3, built.width)
    net = built.net.eval()
    with torch.no_grad():
        for row, pixels in zip(found, data.pixels, strict=True):
            x = (torch.from_numpy(pixels).float()[None] / 255 - 0.4) / 0.3
            assert np.allclose(row, net(x).numpy()[0], atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.uint16, 2e-2), (np.float32, 2e-2)])
def test_the_depth_of_the_pixels_does_not_matter(built, dtype, tolerance):
    assert np.allclose(features(built, images(dtype=dtype)), features(built, images()), atol=tolerance)


def test_images_of_another_side_are_resized_to_the_encoders(built):
    large = images(2, side=40)
    seen = []
    handle = built.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    found = features(built, large)
    handle.remove()
    assert seen == [(16, 16)]
    small = torch.nn.functional.interpolate(
        torch.from_numpy(large.pixels).float() / 255, (16, 16), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        assert np.allclose(found, built.eval()(small).numpy(), atol=1e-5)


def test_another_number_of_channels_is_refused_with_the_flag_that_helps(built):
    with pytest.raises(InputError, match=r"noise has 3 and the encoder 1, so use --channels 1"):
        features(built, images(channels=3))


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_afterwards_in_the_mode_it_was_in_and_unchanged(built, training):
    built.train(training)
    before = {k: v.clone() for k, v in built.state_dict().items()}
    draws = torch.get_rng_state()
    features(built, images())
    assert built.training is training
    assert all(module.training is training for module in built.modules())
    assert all(torch.equal(v, before[k]) for k, v in built.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
