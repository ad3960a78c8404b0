import logging
import pickle

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
        "odd.pth, tensors missing and kept as they were: conv1.0.weight",
        "odd.pth, tensors unexpected and not used: ema.decay",
    ]


def test_the_report_accounts_for_every_tensor_of_the_file_and_of_the_network(tmp_path, caplog):
    state = network(num_classes=7).state_dict()
    gone = [k for k in state if k.startswith("layer2.") and not k.startswith("layer2.0.conv1")]
    kept = {f"module.{k}": v for k, v in state.items() if k not in gone}
    kept["module.layer2.0.conv1.weight"] = torch.ones(3, 3)
    torch.save({**kept, "ema.decay": torch.ones(1)}, tmp_path / "odd.pth")
    net = network(seed=1, in_chans=1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with caplog.at_level(logging.INFO, "kontrast"):
        report = load_weights(net, tmp_path / "odd.pth")
    own = list(net.state_dict())
    assert report.missing == tuple(k for k in own if k in gone or k == "layer2.0.conv1.weight")
    assert report.loaded == tuple(k for k in own if k not in report.missing)
    assert report.left_out == {
        "layer2.0.conv1.weight": "another shape", "fc.weight": "classifier", "fc.bias": "classifier",
    }  # fmt: skip
    assert report.unexpected == ("ema.decay",)
    assert report.adapted == {"conv1.0.weight": f"{tuple(state['conv1.0.weight'].shape)} to "
                              f"{tuple(before['conv1.0.weight'].shape)}"}  # fmt: skip
    assert report.statistics is None
    assert all(torch.equal(before[k], net.state_dict()[k]) for k in report.missing)
    named = len(report.loaded) + len(report.left_out) + len(report.unexpected)
    assert named == len(kept) + 1
    said = [r.getMessage() for r in caplog.records]
    assert said[0] == (
        f"odd.pth: {len(report.loaded)} tensors loaded, 1 of them adapted in shape; {len(report.missing)} missing, "
        "3 left out, 1 unexpected"
    )
    missing = next(line for line in said if "missing and kept" in line)
    assert missing.endswith(f"{report.missing[7]} and {len(report.missing) - 8} more")
    assert report.missing[8] not in missing.replace(report.missing[7], "").split(": ")[1].split(", ")
    assert "odd.pth, tensors left out (another shape): layer2.0.conv1.weight" in said


@pytest.mark.parametrize("to", ["batch", "group"])
def test_scale_and_shift_of_one_norm_never_go_into_another(tmp_path, to):
    pair = {"group": network("test_resnet", seed=1, norm_layer="groupnorm1"), "batch": network(seed=2)}
    net, source = pair.pop(to), pair.popitem()[1]
    for parameter in source.parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, 5.0)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    report = load_weights(net, tmp_path / "weights.pth")
    ours = dict(net.named_parameters())
    assert all(torch.equal(ours[k], v) for k, v in source.named_parameters() if v.ndim == 4)
    assert not any((v == 5).any() for v in ours.values())
    assert {*report.left_out} == {k for k, v in ours.items() if v.ndim == 1}
    assert {*report.left_out.values()} == {"of another norm"}


def test_a_first_convolution_for_three_channels_is_summed_to_one(tmp_path):
    source, net = network().eval(), network(seed=1, in_chans=1).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_weights(net, tmp_path / "weights.pth")
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(net(image), source(image.expand(2, 3, 32, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 6, 7])
def test_a_first_convolution_spreads_to_other_channels_at_the_same_total(tmp_path, channels):
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


def test_the_folder_of_a_run_stands_for_its_encoder(tmp_path):
    torch.manual_seed(0)
    source = encoder(NAME, channels=1, size=32)
    save_encoder(source, tmp_path)
    net = encoder(NAME, channels=1, size=32).net
    load_weights(net, tmp_path)
    assert same(source.net, net)
