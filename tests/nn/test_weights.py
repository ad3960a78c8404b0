import logging
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.encoders import encoder, save_encoder
from kontrast.nn.import_timm import import_timm
from kontrast.nn.weights import load_weights

NAME = "test_resnet"


def network(name=NAME, *, seed=0, **options):
    torch.manual_seed(seed)
    return import_timm().create_model(name, **{"num_classes": 0, "in_chans": 3, **options})


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_state_dict_comes_back_whole(tmp_path, suffix):
    source, net, path = network(), network(seed=1), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    assert not same(source, net)
    load_weights(net, path)
    assert same(source, net)


@pytest.mark.parametrize("prefix", ["module.", "encoder.", "module.encoder.net.", "state_dict.backbone.", "model."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model", "model_state_dict"])
def test_names_that_training_code_puts_in_front_do_not_matter_nor_does_a_classifier(tmp_path, prefix, inside):
    source, net = network(num_classes=7), network(seed=1)
    state = {prefix + k: v for k, v in source.state_dict().items()}
    torch.save(state if inside is None else {"epoch": 3, inside: state}, tmp_path / "weights.pth")
    load_weights(net, tmp_path / "weights.pth")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in net.state_dict().items())


def test_a_classifier_in_the_file_is_no_news_and_other_strays_and_gaps_are_named(tmp_path, caplog):
    state = network(num_classes=7).state_dict()
    torch.save(state, tmp_path / "whole.pth")
    del state["conv1.0.weight"]
    torch.save({**state, "ema.decay": torch.ones(1)}, tmp_path / "odd.pth")
    with caplog.at_level(logging.INFO, "kontrast"):
        load_weights(network(), tmp_path / "whole.pth")
    assert [r.levelname for r in caplog.records] == ["INFO"]
    caplog.clear()
    load_weights(network(), tmp_path / "odd.pth")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "odd.pth, 1 tensors kept at random: conv1.0.weight",
        "odd.pth, 1 tensors not used: ema.decay",
    ]


def test_a_first_convolution_for_three_channels_is_summed_to_one(tmp_path):
    source, net = network().eval(), network(seed=1, in_chans=1).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_weights(net, tmp_path / "weights.pth")
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(net(image), source(image.expand(2, 3, 32, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [4, 6, 7])
def test_a_first_convolution_spreads_to_more_channels_at_the_same_total(tmp_path, channels):
    source, net = network(), network(seed=1, in_chans=channels)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_weights(net, tmp_path / "weights.pth")
    first, old = (dict(n.named_parameters())["conv1.0.weight"] for n in (net, source))
    expected = torch.stack([old[:, c % 3] for c in range(channels)], dim=1) * 3 / channels
    torch.testing.assert_close(first, expected)


def test_pickled_objects_are_refused_and_nothing_of_them_runs(tmp_path):
    planted = tmp_path / "planted"
    torch.save({**network().state_dict(), "hook": Trap(planted)}, tmp_path / "weights.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"hook": Trap(planted)}, protocol=2))
    for name in ("weights.pth", "plain.pt"):
        with pytest.raises(InputError, match="plain tensors only"):
            load_weights(network(), tmp_path / name)
    assert not planted.exists()
    pickle.loads(pickle.dumps(Trap(planted))).close()
    assert planted.exists(), "the trap itself must work"


def test_pickled_objects_in_an_npz_are_refused_and_nothing_of_them_runs(tmp_path):
    planted = tmp_path / "planted"
    np.savez(
        tmp_path / "weights.npz",
        **{"resnet/root_block/standardized_conv2d/kernel": np.array([Trap(planted)], dtype=object)},
    )
    with pytest.raises(InputError, match="in the layout timm reads"):
        load_weights(network("resnetv2_50x1_bit"), tmp_path / "weights.npz")
    assert not planted.exists()


def test_weights_of_another_architecture_are_refused_by_their_first_keys(tmp_path):
    torch.save(network("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(InputError, match=r"vit.pth.*'cls_token'.*'conv1.*name its --encoder"):
        load_weights(network(), tmp_path / "vit.pth")


@pytest.mark.parametrize("content", [[1, 2], {"note": "no tensors"}, torch.ones(3)])
def test_a_pth_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"none of the 0 tensors in odd\.pth"):
        load_weights(network(), tmp_path / "odd.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("left", [0, 300])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, left):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, kernel=np.ones(1000))
    else:
        (save_file if suffix == ".safetensors" else torch.save)(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=path.name):
        load_weights(network("test_vit") if suffix == ".npz" else network(), path)


def test_a_missing_file_and_an_unknown_suffix_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match=r"'none' or 'pretrained'; there is no file .*absent.pth"):
        load_weights(network(), tmp_path / "absent.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(InputError, match=r"got weights.h5, so convert it first"):
        load_weights(network(), tmp_path / "weights.h5")


def test_an_npz_is_refused_for_an_architecture_that_has_no_such_files(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.ones(2))
    with pytest.raises(InputError, match=r"ResNet needs a \.safetensors"):
        load_weights(network(), tmp_path / "weights.npz")


def bit(net: nn.Module):
    """The arrays of a ResNetV2 by their names in the files that came with BiT: convolutions (h, w, in, out)."""

    def kernel(convolution):
        return convolution.weight.detach().permute(2, 3, 1, 0).numpy()

    arrays = {"root_block/standardized_conv2d/kernel": kernel(net.stem.conv)}
    arrays |= {"group_norm/gamma": net.norm.weight, "group_norm/beta": net.norm.bias}
    for i, stage in enumerate(net.stages, start=1):
        for j, block in enumerate(stage.blocks, start=1):
            unit = f"block{i}/unit{j:02d}"
            for letter, number in zip("abc", "123", strict=True):
                convolution, norm = getattr(block, f"conv{number}"), getattr(block, f"norm{number}")
                arrays[f"{unit}/{letter}/standardized_conv2d/kernel"] = kernel(convolution)
                arrays[f"{unit}/{letter}/group_norm/gamma"] = norm.weight
                arrays[f"{unit}/{letter}/group_norm/beta"] = norm.bias
            if block.downsample is not None:
                arrays[f"{unit}/a/proj/standardized_conv2d/kernel"] = kernel(block.downsample.conv)
    return {f"resnet/{k}": v if isinstance(v, np.ndarray) else v.detach().numpy() for k, v in arrays.items()}


def test_an_npz_in_the_layout_of_bit_loads_into_a_resnet_v2_and_with_a_tensor_less_is_refused(tmp_path):
    import_timm()
    from timm.layers import GroupNormAct
    from timm.models.resnetv2 import ResNetV2

    tiny = {"layers": (1, 2, 1, 1), "channels": (16, 16, 32, 32), "stem_chs": 8, "stem_type": "fixed"}
    source, net = (ResNetV2(**tiny, norm_layer=partial(GroupNormAct, num_groups=4), num_classes=0) for _ in range(2))
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    arrays = bit(source)
    np.savez(tmp_path / "bit.npz", **arrays)
    load_weights(net, tmp_path / "bit.npz")
    assert same(source, net)
    del arrays["resnet/block2/unit01/b/group_norm/beta"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(InputError, match=r"less.npz.*block2/unit01/b/group_norm/beta"):
        load_weights(net, tmp_path / "less.npz")


def test_the_folder_of_a_run_stands_for_its_encoder(tmp_path):
    torch.manual_seed(0)
    source = encoder(NAME, channels=1, size=32)
    save_encoder(source, tmp_path)
    net = encoder(NAME, channels=1, size=32).net
    load_weights(net, tmp_path)
    assert same(source.net, net)
