import json

import pytest
import torch
from torch import nn

from kontrast.augment.policies import natural
from kontrast.batch import Batch
from kontrast.errors import InputError
from kontrast.methods import SimSiam
from kontrast.nn.encoders import encoder, load_encoder, rebuild_lines, save_encoder
from kontrast.nn.norms import ACTIVATIONS, convert_norm, has_batch_norm, kind

BIT = "resnetv2_50x1_bit"
SMALL = "test_efficientnet_gn"


def noise(n=6, side=32, seed=0):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def built(name, *, seed=0, **options):
    torch.manual_seed(seed)
    return encoder(name, channels=1, size=32, stem="standard", **options)


def layers(net, of):
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, of)}


def learned(name):
    """An encoder whose scales and shifts are not those of a fresh one."""
    source = built(name)
    for parameter in source.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 2)
    return source


def test_bit_has_49_norms_and_53_convolutions_after_conversion_as_before():
    net = built(BIT).net
    for norm in (nn.GroupNorm, nn.BatchNorm2d):
        assert len(layers(net, norm)) == 49
        assert len(layers(net, nn.Conv2d)) == 53
        convert_norm(net, "batch")


@pytest.mark.parametrize("name", [BIT, SMALL])
def test_after_reset_every_norm_is_fresh_and_every_convolution_the_same_bit_for_bit(name):
    from timm.layers import BatchNormAct2d

    net = learned(name).net
    before, weights = layers(net, nn.GroupNorm), {k: v.clone() for k, v in net.state_dict().items()}
    convert_norm(net, "batch")
    norms, convolutions = layers(net, BatchNormAct2d), layers(net, nn.Conv2d)
    assert not layers(net, nn.GroupNorm)
    assert list(norms) == list(before)
    assert convolutions
    for key, new in norms.items():
        assert (new.weight == 1).all()
        assert (new.bias == 0).all()
        assert (new.running_mean == 0).all()
        assert (new.running_var == 1).all()
        assert new.act is before[key].act
        assert new.num_features == before[key].num_channels
    for key, convolution in convolutions.items():
        assert torch.equal(convolution.weight, weights[f"{key}.weight"])


@pytest.mark.parametrize(
    ("name", "to", "kind_before"), [(SMALL, "batch", nn.GroupNorm), ("test_byobnet", "group", nn.BatchNorm2d)]
)
def test_keep_takes_scale_and_shift_over(name, to, kind_before):
    net = learned(name).net
    before = layers(net, kind_before)
    convert_norm(net, to, affine="keep")
    for key, old in before.items():
        new = net.get_submodule(key)
        assert type(new) is not type(old)
        assert torch.equal(new.weight, old.weight)
        assert torch.equal(new.bias, old.bias)


def test_recalibrated_statistics_are_the_means_over_batches_of_what_each_layer_gets():
    net = learned(SMALL).net.eval()
    batches = [noise(seed=0), noise(seed=1)]
    convert_norm(net, "batch", affine="recalibrate", images=batches)
    found = {key: (n.running_mean.clone(), n.running_var.clone()) for key, n in layers(net, nn.BatchNorm2d).items()}
    seen = {key: [] for key in found}
    for key, norm in layers(net, nn.BatchNorm2d).items():
        norm.register_forward_pre_hook(lambda _, given, key=key: seen[key].append(given[0].detach().clone()))
        norm.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)
    for key, (mean, variance) in found.items():
        torch.testing.assert_close(mean, torch.stack([x.mean((0, 2, 3)) for x in seen[key]]).mean(0))
        expected = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in seen[key]]).mean(0)
        torch.testing.assert_close(variance, expected, rtol=1e-4, atol=1e-6)


def test_recalibration_leaves_modes_and_momenta_as_they_were_and_needs_images():
    net = learned(SMALL).net.train()
    convert_norm(net, "batch", affine="recalibrate", images=[noise()])
    assert all(layer.training for layer in net.modules())
    assert all(norm.momentum == 0.1 for norm in layers(net, nn.BatchNorm2d).values())
    with pytest.raises(ValueError, match="recalibrate needs some"):
        convert_norm(built(SMALL).net, "batch", affine="recalibrate")


def test_group_norm_has_32_groups_or_the_greatest_number_that_divides_both():
    net = nn.Sequential(*(nn.BatchNorm2d(channels) for channels in (64, 48, 20, 7)))
    convert_norm(net, "group")
    assert [layer.num_groups for layer in net] == [32, 16, 4, 1]


def test_a_layer_of_the_kind_asked_for_stays_the_same_object():
    net = built("test_resnet").net
    before = layers(net, nn.BatchNorm2d)
    convert_norm(net, "batch")
    assert layers(net, nn.BatchNorm2d) == before


def test_kinds_of_norm_are_told_apart():
    assert kind(built(SMALL)) == "group"
    assert kind(built("test_resnet")) == "batch"
    assert kind(nn.Conv2d(1, 1, 1)) is None


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet_ln"])
def test_an_encoder_of_layer_norms_is_refused(name):
    with pytest.raises(InputError, match="has neither, so leave --norm out"):
        encoder(name, channels=1, size=160, norm="batch")


@pytest.mark.parametrize(("name", "to"), [(SMALL, "batch"), ("test_resnet", "group"), ("test_byobnet", "group")])
def test_a_converted_encoder_is_saved_loaded_and_rebuilt_with_timm_alone(name, to, tmp_path, monkeypatch):
    source = built(name, norm=to, affine="recalibrate", images=[noise()]).eval()
    save_encoder(source, tmp_path)
    with torch.no_grad():
        expected = source(noise(seed=3))
        assert torch.equal(load_encoder(tmp_path).eval()(noise(seed=3)), expected)
        monkeypatch.chdir(tmp_path)
        names = {}
        exec("\n".join(rebuild_lines(source, "encoder.safetensors")), names)
        plain = names["net"]((noise(seed=3) - source.mean) / source.std)
    torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-3)  # sums in another order
    assert json.loads((tmp_path / "encoder.json").read_text())["norm"] == to


def test_weights_of_a_converted_run_go_into_the_norms_that_they_belong_to(tmp_path):
    source = built(SMALL, norm="batch", affine="recalibrate", images=[noise()]).eval()
    save_encoder(source, tmp_path)
    again = encoder(SMALL, channels=1, size=32, stem="standard", init=str(tmp_path)).eval()
    assert again.spec.norm == "batch"
    with torch.no_grad():
        assert torch.equal(again(noise(seed=3)), source(noise(seed=3)))


def test_an_encoder_saved_before_norms_were_recorded_has_its_own(tmp_path):
    save_encoder(built(SMALL), tmp_path)
    about = json.loads((tmp_path / "encoder.json").read_text())
    del about["norm"]
    (tmp_path / "encoder.json").write_text(json.dumps(about))
    assert kind(load_encoder(tmp_path)) == "group"


def without_gradient(net):
    """Names of the weights that an objective of SimSiam around a network does not move."""
    method = SimSiam(net, natural(32), SimSiam.Config(width=64, bottleneck=16, layers=2, affine=True)).train()
    method(Batch(image=noise(12))).loss.backward()
    found = {name: parameter.grad for name, parameter in method.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in found.values())
    return [name for name, grad in found.items() if not grad.any()]


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("name", [SMALL, "resnetv2_50x1_bit"])
def test_under_simsiam_every_weight_gets_a_gradient_before_and_after_conversion(name, norm):
    torch.manual_seed(0)
    assert not without_gradient(built(name, norm=norm))


def test_a_last_norm_that_begins_at_zero_would_cut_its_branch_off():
    torch.manual_seed(0)
    net = built("resnetv2_50x1_bit", norm="batch")
    for name, layer in net.named_modules():
        if name.endswith("norm3"):
            torch.nn.init.zeros_(layer.weight)
    dead = without_gradient(net)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in dead} >= {"conv1", "conv2", "conv3"}


FREE = pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", SMALL, "test_byobnet", BIT])
NARROW = {BIT: {"channels": [256, 256, 256, 256], "stem_chs": 32}}


def free(name, norm="none", **more):
    return built(name, norm=norm, options=NARROW.get(name, {}), **more)


@FREE
def test_without_norms_nothing_is_normalised_and_every_activation_is_a_leaky_rectifier(name):
    with_them, without = free(name, None), free(name)
    assert kind(with_them) is not None
    assert kind(without) is None
    leaves = [layer for layer in without.modules() if not list(layer.children())]
    assert {layer.negative_slope for layer in leaves if isinstance(layer, nn.LeakyReLU)} == {0.2}
    assert not [
        layer for layer in leaves if type(layer).__name__ in ACTIVATIONS and not isinstance(layer, nn.LeakyReLU)
    ]
    assert all(type(layer) is nn.Conv2d for layer in leaves if isinstance(layer, nn.Conv2d))
    assert all(layer.bias is not None for layer in leaves if isinstance(layer, nn.Conv2d))


@FREE
def test_without_norms_weights_are_drawn_by_the_defaults_of_torch(name):
    """Uniform up to 1 / sqrt(fan in), biases too; timm's own are normal, and larger where maps are many."""
    for layer in layers(free(name), nn.Conv2d).values():
        bound = (layer.weight[0].numel()) ** -0.5
        for found in (layer.weight, layer.bias):
            assert found.abs().max() <= bound + 1e-6
        if layer.weight.numel() > 2000:
            assert layer.weight.abs().max() > 0.9 * bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_without_norms_a_block_is_its_convolutions_and_rectifiers_written_out():
    """Of a network whose norms are alone, and of one with rectifiers fused into its norms."""
    block = built("test_resnet", norm="none").net.layer1[0].eval()
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    leaky = torch.nn.functional.leaky_relu
    names = [name for name, layer in block.named_children() if isinstance(layer, nn.Conv2d)]
    h = x
    for name in names:
        h = getattr(block, name)(h)
        h = h if name == names[-1] else leaky(h, 0.2)
    shortcut = x if block.downsample is None else block.downsample(x)
    torch.testing.assert_close(block(x), leaky(h + shortcut, 0.2))
    first = free(BIT).net.stages[0].blocks[1].eval()
    x = torch.randn(1, 256, 4, 4)
    kept = x.clone()
    h = first.conv1(leaky(x, 0.2))
    h = first.conv3(leaky(first.conv2(leaky(h, 0.2)), 0.2))
    torch.testing.assert_close(first(x), h + x)
    assert torch.equal(x, kept)


@FREE
def test_an_encoder_without_norms_is_saved_loaded_and_rebuilt_with_timm_alone(name, tmp_path, monkeypatch):
    source = free(name).eval()
    save_encoder(source, tmp_path)
    with torch.no_grad():
        expected = source(noise(seed=3))
        assert torch.equal(load_encoder(tmp_path).eval()(noise(seed=3)), expected)
        monkeypatch.chdir(tmp_path)
        names = {}
        exec("\n".join(rebuild_lines(source, "encoder.safetensors")), names)
        plain = names["net"]((noise(seed=3) - source.mean) / source.std)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-6)
    assert json.loads((tmp_path / "encoder.json").read_text())["norm"] == "none"


@FREE
def test_an_encoder_without_norms_goes_on_from_a_run_without_them(name, tmp_path):
    source = free(name).eval()
    save_encoder(source, tmp_path)
    for norm in (None, "none"):
        again = free(name, norm, init=str(tmp_path)).eval()
        assert again.spec.norm == "none"
        with torch.no_grad():
            assert torch.equal(again(noise(seed=3)), source(noise(seed=3)))


def test_weights_that_would_be_lost_with_the_norms_are_refused(tmp_path):
    save_encoder(built("test_resnet"), tmp_path)
    for init in (str(tmp_path), "pretrained"):
        with pytest.raises(
            InputError, match=r"given weights would be lost; --init is .*, so leave it or --norm none out"
        ):
            encoder("test_resnet", channels=1, size=32, init=init, norm="none")


def test_an_encoder_that_has_nothing_to_take_out_or_cannot_do_without_is_refused():
    with pytest.raises(InputError, match="has neither, so leave --norm out"):
        encoder("test_vit", channels=1, size=160, norm="none")
    with pytest.raises(InputError, match="pad as TensorFlow does"):
        encoder("vit_tiny_r_s16_p8_224", channels=1, size=224, norm="none")


def test_without_norms_an_image_is_represented_alike_alone_and_among_others():
    source = built("test_resnet", norm="none").train()
    with torch.no_grad():
        torch.testing.assert_close(source(noise())[:1], source(noise()[:1]))
    assert not has_batch_norm(source)
    assert has_batch_norm(built("test_resnet"))
    assert not has_batch_norm(built(SMALL))
