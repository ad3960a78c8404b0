import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kontrast.errors import InputError
from kontrast.nn.encoders import SMALL_BELOW, Encoder, EncoderSpec, encoder, load_encoder, save_encoder
from kontrast.nn.import_timm import import_timm

timm = import_timm()


def noise(n, channels, size):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def built(name="test_resnet", *, seed=0, **options):
    """An encoder in evaluation mode whose running statistics are not the initial ones."""
    torch.manual_seed(seed)
    made = encoder(name, **{"channels": 1, "size": 28, **options})
    with torch.no_grad():
        made.train()(noise(4, made.spec.channels, made.spec.size))
    return made.eval()


@torch.no_grad()
def agree(made, net, image):
    """Both give the same features; in float64, since float32 depends on the order in which a processor adds."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (made.spec.mean, made.spec.std))
    found, expected = made.double()(image), net.eval().double()((image.double() - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_number_of_channels_become_representations_of_one_width(channels):
    made = built(channels=channels)
    assert made(noise(2, channels, 28)).shape == (2, made.width) == (2, 96)


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_stored_integers_and_floats_of_the_same_image_have_one_representation(dtype, top):
    made = built()
    stored = torch.randint(0, top + 1, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = made((stored.double() / top).float())
    torch.testing.assert_close(made(stored), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made(stored.double() / top), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "stem"),
    [
        ("test_resnet", SMALL_BELOW - 1, "small"),
        ("test_resnet", SMALL_BELOW, "standard"),
        ("test_efficientnet", 28, "small"),
        ("test_vit", 32, "standard"),
        ("test_byobnet", 28, "standard"),
    ],
)
def test_auto_takes_the_small_stem_below_64_pixels_where_the_architecture_has_one(name, size, stem):
    assert encoder(name, size=size).spec.stem == stem


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("resnet18", lambda net: net.layer1),
        ("resnet10t", lambda net: net.layer1),
        ("resnetv2_18", lambda net: net.stages[0]),
        ("resnetv2_18d", lambda net: net.stages[0]),
        ("resnetv2_50x1_bit", lambda net: net.stages[0]),
        ("test_efficientnet", lambda net: net.blocks[0]),
    ],
)
def test_the_small_stem_hands_on_the_image_at_full_resolution(name, taken):
    sides = {}
    for stem in ("standard", "small"):
        made = encoder(name, channels=1, size=32, stem=stem).eval()
        taken(made.net).register_forward_pre_hook(lambda _, x, stem=stem: sides.update({stem: x[0].shape[-1]}))
        made(noise(1, 1, 32))
    assert sides["small"] == 32
    assert sides["standard"] <= 16


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(InputError, match=r"'resnet81' is none, near names: .*resnet18"):
        encoder("resnet81")


def test_a_small_stem_is_refused_for_a_transformer_with_the_way_out():
    with pytest.raises(InputError, match=r"resnet, resnetv2, efficientnet; test_vit is none .* --stem standard"):
        encoder("test_vit", size=32, stem="small")


def test_a_size_that_a_transformer_cannot_cut_into_patches_is_refused_with_sizes_that_it_can():
    with pytest.raises(InputError, match=r"test_vit .* 16 .* 28"):
        encoder("test_vit", size=28)


def test_the_same_seed_builds_the_same_encoder_and_another_does_not():
    a, b, c = (built(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_no_residual_branch_of_a_fresh_resnet_is_switched_off():
    last = [p for name, p in encoder("resnet18", size=28).named_parameters() if name.endswith("bn2.weight")]
    assert len(last) == 8
    assert all(bool((p == 1).all()) for p in last)


def test_mean_and_deviation_are_applied_before_the_network():
    made = built(channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    image = noise(2, 3, 28)
    by_hand = torch.stack([(image[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7)))], 1)
    torch.testing.assert_close(made(image), made.net(by_hand), rtol=1e-5, atol=1e-6)
    other = Encoder(made.net, replace(made.spec, mean=(0.0,), std=(1.0,)))
    torch.testing.assert_close(other(image), made.net(image), rtol=1e-5, atol=1e-6)
    assert (other.spec.mean, other.spec.std, other.spec.name) == ((0.0,), (1.0,), "test_resnet")


@pytest.mark.parametrize(
    ("name", "channels", "size"), [("resnet18", 1, 64), ("test_resnet", 3, 64), ("test_vit", 3, 160)]
)
def test_an_exported_stock_encoder_loads_in_plain_timm_and_gives_the_same_features(tmp_path, name, channels, size):
    made = built(name, channels=channels, size=size, mean=(0.3,), std=(0.2,))
    save_encoder(made, tmp_path)
    net = timm.create_model(name, num_classes=0, in_chans=channels)
    net.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=True)
    agree(made, net, noise(3, channels, size))


@pytest.mark.parametrize(
    ("name", "size", "stem"),
    [
        ("resnet18", 28, "small"),
        ("resnet10t", 28, "small"),
        ("resnetv2_18", 28, "small"),
        ("resnetv2_18d", 28, "small"),
        ("resnetv2_50x1_bit", 28, "small"),
        ("test_efficientnet", 28, "small"),
        ("test_vit", 64, "standard"),
        ("resnet10t", 64, "standard"),
    ],
)
def test_the_lines_in_encoder_json_rebuild_the_encoder_with_timm_alone(tmp_path, monkeypatch, name, size, stem):
    made = built(name, size=size)
    save_encoder(made, tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text())
    assert (description["stem"], description["width"]) == (stem, made.width)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec("\n".join(description["rebuild"]), scope)
    assert not any("kontrast" in line for line in description["rebuild"])
    agree(made, scope["net"], noise(3, 1, size))


def test_what_an_architecture_is_told_besides_is_part_of_the_encoder(tmp_path, monkeypatch):
    narrow = {"channels": [128, 128, 128, 256], "stem_chs": 32}
    made = built("resnetv2_50x1_bit", options=narrow)
    assert made.width == 256
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in built("resnetv2_50x1_bit").parameters())
    save_encoder(made, tmp_path)
    found = load_encoder(tmp_path).eval()
    assert found.spec == made.spec
    agree(made, found.net, noise(2, 1, 28))
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec("\n".join(json.loads((tmp_path / "encoder.json").read_text())["rebuild"]), scope)
    agree(made, scope["net"], noise(2, 1, 28))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chanels": [8]}, "does not take chanels="),
        ({"checkpoint_path": "weights.pth"}, "checkpoint_path is set by other flags"),
        ({"pretrained_cfg_overlay": "weights.pth"}, "is set by other flags"),
        ({"in_chans": 3}, "in_chans is set by other flags"),
        ({"features_only": True}, "features_only is set by other flags"),
        ({"channels": {"a": 1}}, "a name, =, and a number"),
        ({"channels": [[1]]}, "a name, =, and a number"),
        ({"global_pool": ""}, "an image becomes .* and not a row of numbers"),
        ({"drop_rate": "x"}, "does not take drop_rate=x"),
    ],
)
def test_options_that_an_architecture_does_not_take_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        encoder("test_resnet", options=options)


def test_a_description_cannot_make_timm_read_another_file(tmp_path):
    save_encoder(built(), tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**description, "options": {"checkpoint_path": "evil.pth"}}))
    with pytest.raises(InputError, match="checkpoint_path"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("options", [[1], 5, "abc", None])
def test_options_in_a_description_are_an_object(tmp_path, options):
    save_encoder(built(), tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**description, "options": options}))
    with pytest.raises(InputError, match=r"encoder\.json is not a whole JSON file \(its options are no object\)"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("size", "stem", "sides"), [(224, "standard", [112, 56, 28, 14, 7]), (32, "small", [32, 32, 16, 8, 4])]
)
def test_the_maps_of_bit_shrink_as_its_authors_have_it_and_less_with_the_small_stem(size, stem, sides):
    made, seen = built("resnetv2_50x1_bit", channels=3, size=size, stem=stem), []
    for part in (made.net.stem.conv, *made.net.stages):
        part.register_forward_hook(lambda *given: seen.append(given[2].shape[2:]))
    with torch.no_grad():
        made(noise(1, 3, size))
    assert seen == [(side, side) for side in sides]


@pytest.mark.parametrize(("norm", "layout"), [(None, torch.channels_last), ("group", torch.contiguous_format)])
def test_images_lie_in_memory_as_suits_the_norm(norm, layout):
    made = built(channels=3, norm=norm)
    seen = []
    made.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made(noise(2, 3, 28))
    assert seen[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 28), ("test_vit", 64), ("test_efficientnet", 28)])
def test_a_saved_encoder_comes_back_the_same(tmp_path, name, size):
    made = built(name, size=size, mean=(0.25,), std=(0.125,))
    save_encoder(made, tmp_path)
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        found = load_encoder(path).eval()
        assert found.spec == made.spec
        assert torch.equal(found(noise(2, 1, size)), made(noise(2, 1, size)))


def test_a_saved_encoder_leaves_no_partial_file_and_may_have_another_name(tmp_path):
    save_encoder(built(), tmp_path / "new" / "folder", stem="epoch_00003")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["epoch_00003.json", "epoch_00003.safetensors"]
    assert load_encoder(tmp_path / "new" / "folder" / "epoch_00003.safetensors").width == 96


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_damaged_weights_are_refused_by_name(tmp_path, left):
    save_encoder(built(), tmp_path)
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"encoder\.safetensors"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("key", sorted({*EncoderSpec.__dataclass_fields__} - {"norm", "options"}))
def test_a_description_that_lacks_a_key_is_refused_with_the_key(tmp_path, key):
    save_encoder(built(), tmp_path)
    path = tmp_path / "encoder.json"
    description = json.loads(path.read_text())
    del description[key]
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=f"'{key}' is missing"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3"])
def test_a_description_that_is_none_is_refused_by_name(tmp_path, text):
    save_encoder(built(), tmp_path)
    (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(InputError, match=r"encoder\.json"):
        load_encoder(tmp_path)


def test_weights_of_another_stem_than_described_are_refused(tmp_path):
    save_encoder(built("resnet10t", stem="standard"), tmp_path / "a")
    save_encoder(built("resnet18"), tmp_path / "b")
    (tmp_path / "a" / "encoder.safetensors").replace(tmp_path / "b" / "encoder.safetensors")
    with pytest.raises(InputError, match=r"does not hold the weights that its \.json describes"):
        load_encoder(tmp_path / "b")


@pytest.mark.parametrize("missing", ["encoder.safetensors", "encoder.json"])
def test_half_an_encoder_is_refused(tmp_path, missing):
    save_encoder(built(), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=r"with its \.json beside it"):
        load_encoder(tmp_path)


def test_an_encoder_begins_with_the_weights_and_the_normalisation_of_a_run(tmp_path):
    made = built(mean=(0.25,), std=(0.125,))
    save_encoder(made, tmp_path)
    for init in (tmp_path, tmp_path / "encoder.safetensors"):
        found = encoder("test_resnet", channels=1, size=28, init=str(init)).eval()
        assert (found.spec.mean, found.spec.std) == ((0.25,), (0.125,))
        assert torch.equal(found(noise(2, 1, 28)), made(noise(2, 1, 28)))


def test_an_encoder_of_colour_begins_one_of_grey_that_sees_the_same_in_grey_images(tmp_path):
    made = built(channels=3, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    save_encoder(made, tmp_path)
    found = encoder("test_resnet", channels=1, size=28, init=str(tmp_path)).eval()
    assert np.allclose(found.spec.mean, 0.4)
    grey = noise(2, 1, 28)
    torch.testing.assert_close(found(grey), made(grey.expand(2, 3, 28, 28)), rtol=1e-4, atol=1e-5)


def test_weights_without_a_description_keep_the_normalisation_given(tmp_path):
    made = built()
    torch.save(made.net.state_dict(), tmp_path / "weights.pth")
    found = encoder("test_resnet", channels=1, size=28, init=str(tmp_path / "weights.pth"), mean=(0.1,), std=(0.3,))
    assert found.spec == replace(made.spec, mean=(0.1,), std=(0.3,))
    assert torch.equal(found.net.eval()(noise(2, 1, 28)), made.net(noise(2, 1, 28)))
