"""Files of BiT, written here by independent code in the layout of its table, and read, or refused by name."""

import json
import logging
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.bit import write_bit
from kontrast.nn.encoders import encoder, save_encoder
from kontrast.nn.import_timm import import_timm
from kontrast.nn.weights import load_weights

import_timm()
from timm.layers import BatchNormAct2d, GroupNormAct, StdConv2d, create_conv2d
from timm.models.resnetv2 import ResNetV2

BIT = "resnetv2_50x1_bit"
STEM = "resnet/root_block/standardized_conv2d/kernel"
GROUP, BATCH = partial(GroupNormAct, num_groups=4), BatchNormAct2d


def tiny(*, seed=0, norm=GROUP, **options):
    """A small network of BiT's architecture whose every tensor is random."""
    torch.manual_seed(seed)
    shape = {"layers": (1, 2, 1, 1), "channels": (16, 16, 32, 32), "stem_chs": 8, "stem_type": "fixed"}
    net = ResNetV2(**{**shape, "num_classes": 0, "norm_layer": norm, **options})
    return randomised(net) if norm is not BATCH else net


def randomised(net):
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def small_stem(net):
    net.stem.conv = StdConv2d(3, 8, 3, padding=1)
    net.stem.pool = net.stem.pad = nn.Identity()
    return net


def arrays_of(net: nn.Module):
    """The arrays of a ResNetV2 by their names in the files that came with BiT: convolutions (h, w, in, out)."""

    def kernel(convolution):
        weight = convolution.weight.detach().numpy()
        out, inside, height, width = weight.shape
        found = np.empty((height, width, inside, out), np.float32)
        for y in range(height):
            for x in range(width):
                found[y, x] = weight[:, :, y, x].T
        return found

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
    if hasattr(net.head.fc, "weight"):
        arrays |= {"head/conv2d/kernel": kernel(net.head.fc), "head/conv2d/bias": net.head.fc.bias}
    return {f"resnet/{k}": v if isinstance(v, np.ndarray) else v.detach().numpy() for k, v in arrays.items()}


@pytest.fixture
def file(tmp_path):
    """A file of the tiny network, and what its arrays are."""
    arrays = arrays_of(tiny())
    np.savez(tmp_path / "bit.npz", **arrays)
    return tmp_path / "bit.npz", arrays


@pytest.fixture(scope="module")
def r50x1(tmp_path_factory):
    """BiT's smallest network, with a classifier of 5 classes, and its file."""
    torch.manual_seed(0)
    net = import_timm().create_model(BIT, num_classes=5).eval()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    path = tmp_path_factory.mktemp("bit") / "BiT-M-R50x1.npz"
    np.savez(path, **arrays_of(net))
    return net, path


def refusal(net, path):
    """What is said of a file that must be refused; the network keeps what it had."""
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(net, path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_array_of_a_file_is_taken_or_named_and_features_are_those_of_timm_reading_it(r50x1):
    _, path = r50x1
    ours, theirs = (import_timm().create_model(BIT, num_classes=0).eval() for _ in range(2))
    report = load_weights(ours, path)
    theirs.load_pretrained(str(path))
    assert len(np.load(path).files) == 153
    assert len(report.loaded) == 53 + 98 == len(ours.state_dict())
    assert report.left_out == {f"resnet/head/conv2d/{leaf}": "classifier" for leaf in ("kernel", "bias")}
    assert not report.missing
    assert not report.unexpected
    assert not report.adapted
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-6, atol=1e-6)


def test_weights_of_bit_bring_their_normalisation_and_a_description_beside_the_file_prevails(r50x1, tmp_path):
    _, path = r50x1
    made = encoder(BIT, channels=1, size=64, init=str(path), mean=(0.1,), std=(0.2,))
    assert (made.spec.mean, made.spec.std) == ((0.5,), (0.5,))
    save_encoder(made, tmp_path)
    written = json.loads((tmp_path / "encoder.json").read_text())
    assert (written["mean"], written["std"]) == ([0.5], [0.5])
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(made.eval()(image), made.net(2 * image - 1), rtol=1e-3, atol=1e-3)
    copy = tmp_path / "own.npz"
    copy.symlink_to(path)
    copy.with_suffix(".json").write_text(json.dumps({**written, "mean": [0.25], "std": [0.125]}))
    described = encoder(BIT, channels=1, size=64, init=str(copy)).spec
    assert (described.mean, described.std) == ((0.25,), (0.125,))


def test_an_encoder_with_a_small_stem_takes_all_of_bit_but_the_stem(r50x1, caplog):
    source, path = r50x1
    with caplog.at_level(logging.WARNING, "kontrast"):
        made = encoder(BIT, size=32, init=str(path))
    assert made.spec.stem == "small"
    assert made.net.stem.conv.weight.shape[-1] == 3
    others = {k: v for k, v in made.net.state_dict().items() if k != "stem.conv.weight"}
    assert len(others) == 150
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in others.items())
    assert f"left out (a stem of 7 × 7 px, and the network's has 3 × 3): {STEM}" in caplog.text


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_stem_for_colour_is_summed_to_one_channel_and_spread_to_others(file, channels):
    path, arrays = file
    net = tiny(seed=1, in_chans=channels)
    report = load_weights(net, path)
    kernel = arrays[STEM].transpose(3, 2, 0, 1)
    expected = (
        kernel.sum(1, keepdims=True)
        if channels == 1
        else kernel[:, [0, 1, 2, 0, 1][:channels]] * np.float32(3 / channels)
    )
    np.testing.assert_allclose(net.stem.conv.weight.detach().numpy(), expected, rtol=1e-6)
    assert report.adapted == {"stem.conv.weight": f"(8, 3, 7, 7) to (8, {channels}, 7, 7)"}


def test_scale_and_shift_of_group_norm_are_named_and_left_out_where_the_network_has_batch_norm(file, caplog):
    path, arrays = file
    net = tiny(seed=1, norm=BATCH)
    with caplog.at_level(logging.WARNING, "kontrast"):
        report = load_weights(net, path)
    group_norms = {name for name in arrays if "/group_norm/" in name}
    assert {*report.left_out} == group_norms
    assert {*report.left_out.values()} == {"group norm's, and the network has BatchNormAct2d"}
    assert len(report.loaded) + len(report.left_out) == len(arrays)
    for layer in net.modules():
        if isinstance(layer, BATCH):
            values = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            assert [v.detach().unique().tolist() for v in values] == [[1], [0], [0], [1]]
    convolutions = {k: v for k, v in tiny().state_dict().items() if v.ndim == 4}
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in convolutions.items())
    assert f"and {len(group_norms) - 8} more" in caplog.text


def test_where_some_norms_are_batch_norms_only_the_others_are_filled(file):
    path, arrays = file
    net = tiny(seed=1)
    net.norm = BATCH(32)
    report = load_weights(net, path)
    assert {*report.left_out} == {"resnet/group_norm/gamma", "resnet/group_norm/beta"}
    assert net.norm.weight.unique().tolist() == [1]
    found = net.stages[0].blocks[0].norm1.weight.detach().numpy()
    assert np.array_equal(found, arrays["resnet/block1/unit01/a/group_norm/gamma"])


def test_a_stem_for_grey_does_not_go_into_a_network_for_colour(tmp_path):
    np.savez(tmp_path / "bit.npz", **arrays_of(tiny(in_chans=1)))
    load_weights(tiny(seed=1, in_chans=1), tmp_path / "bit.npz")
    assert f"{STEM} of this encoder is (7, 7, 3, 8), floating point; in bit.npz it is (7, 7, 1, 8)" in refusal(
        tiny(), tmp_path / "bit.npz"
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_stem_of_the_other_kind_is_left_out_and_named(tmp_path, reverse):
    sources = [tiny(), small_stem(tiny(seed=1))]
    source, net = reversed(sources) if reverse else sources
    np.savez(tmp_path / "bit.npz", **arrays_of(source))
    stem = net.stem.conv.weight.clone()
    report = load_weights(net, tmp_path / "bit.npz")
    assert [*report.left_out] == [STEM]
    assert report.missing == ("stem.conv.weight",)
    assert torch.equal(net.stem.conv.weight, stem)
    assert torch.equal(net.norm.weight, source.norm.weight)


BETA, KERNEL = "resnet/block2/unit01/b/group_norm/beta", "resnet/block2/unit02/c/standardized_conv2d/kernel"
FAULTS = {
    "a convolution less": (KERNEL, lambda arrays: arrays.pop(KERNEL)),
    "a shift less": (BETA, lambda arrays: arrays.pop(BETA)),
    "a stem less": (STEM, lambda arrays: arrays.pop(STEM)),
    "one more": ("resnet/ema", lambda arrays: arrays.update({"resnet/ema": np.ones(1, np.float32)})),
    "a unit more": ("unit03", lambda arrays: arrays.update({KERNEL.replace("unit02", "unit03"): arrays[KERNEL]})),
    "no prefix": ("group_norm/gamma", lambda arrays: arrays.update({"group_norm/gamma": np.ones(32, np.float32)})),
    "not transposed": (KERNEL, lambda arrays: arrays.update({KERNEL: arrays[KERNEL].transpose(3, 2, 0, 1)})),
    "a longer shift": (BETA, lambda arrays: arrays.update({BETA: np.ones(5, np.float32)})),
    "a shift with axes": (BETA, lambda arrays: arrays.update({BETA: arrays[BETA].reshape(1, -1)})),
    "a wider stem": (STEM, lambda arrays: arrays.update({STEM: np.ones((7, 7, 3, 9), np.float32)})),
    "a larger stem": (STEM, lambda arrays: arrays.update({STEM: np.ones((9, 9, 3, 8), np.float32)})),
    "whole numbers": (BETA, lambda arrays: arrays.update({BETA: np.ones(4, np.int64)})),
    "text": (BETA, lambda arrays: arrays.update({BETA: np.array(["a"] * 4)})),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("net", [tiny, lambda: small_stem(tiny())], ids=["own stem", "small stem"])
def test_an_array_missing_unexpected_or_of_another_shape_is_refused_by_its_name(file, fault, net):
    path, arrays = file
    name, spoil = FAULTS[fault]
    spoil(arrays)
    np.savez(path, **arrays)
    assert name in refusal(net(), path)


def test_half_and_double_precision_are_read(file):
    path, arrays = file
    np.savez(path, **{k: v.astype(np.float64 if v.ndim == 4 else ">f2") for k, v in arrays.items()})
    net = tiny(seed=1)
    load_weights(net, path)
    assert torch.equal(net.stem.conv.weight, tiny().stem.conv.weight)
    torch.testing.assert_close(net.norm.weight, tiny().norm.weight, rtol=1e-3, atol=1e-3)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", [STEM, BETA, "resnet/head/conv2d/kernel", "stray"])
def test_pickled_objects_are_refused_in_one_sentence_and_nothing_of_them_runs(file, tmp_path, name):
    path, arrays = file
    np.savez(path, **{**arrays, name: np.array([Trap(tmp_path / "planted")], dtype=object)})
    said = refusal(tiny(), path)
    assert f"{name}.npy of bit.npz holds Python objects, which are not read" in said
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_anywhere_is_refused(file, compressed):
    path, arrays = file
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        assert "is not a whole .npz file" in refusal(tiny(), path)


def test_damaged_bytes_are_refused_or_harmless_and_never_a_crash(file):
    path, _ = file
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    net = tiny()
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(len(whole), size=3):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load_weights(net, path)
        except InputError:
            refused += 1
    assert refused > 250


def entry(header: str, version=b"\x01\x00", length=None):
    """A `.npy` file's beginning that declares what it likes."""
    text = header.encode()
    size = (len(text) if length is None else length).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }"
FLOOD = 64 << 20
BOMBS = {
    "a huge shape": entry(HUGE),
    "a huge shape of zeros": entry(HUGE) + bytes(FLOOD),
    "a shape that is there": entry(f"{{'descr': '|f4', 'fortran_order': False, 'shape': ({FLOOD // 4},), }}")
    + bytes(FLOOD),
    "a huge header": entry(" " * FLOOD, b"\x02\x00"),
    "a header said to be huge": entry(" ", b"\x02\x00", length=2**32 - 1) + bytes(FLOOD),
    "deep brackets": entry("(" * 3000),
    "a negative shape": entry("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }"),
}  # fmt: skip


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2], ids=["deflate", "bzip2"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_unpacks_to_far_more_is_refused_before_it_takes_memory(file, bomb, method):
    path, arrays = file
    del arrays[KERNEL]
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr(f"{KERNEL}.npy", BOMBS[bomb])
    net = tiny()
    tracemalloc.start()
    refusal(net, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_classifier_is_left_out_unread_whatever_it_declares(file):
    path, _ = file
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 32, {FLOOD // 128}), }}"
        archive.writestr("resnet/head/conv2d/kernel.npy", entry(shape) + bytes(FLOOD))
    tracemalloc.start()
    report = load_weights(tiny(seed=1), path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [*report.left_out] == ["resnet/head/conv2d/kernel"]
    assert peak < 8 << 20


@pytest.mark.parametrize("change", [lambda content: content + b"more", lambda content: content[:-4]])
def test_an_array_longer_or_shorter_than_its_header_says_is_refused(file, change):
    path, arrays = file
    with zipfile.ZipFile(path) as archive:
        content = archive.read(f"{KERNEL}.npy")
    del arrays[KERNEL]
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KERNEL}.npy", change(content))
    assert f"{KERNEL}.npy has not the length that its header says" in refusal(tiny(), path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_and_a_file_that_is_no_array_are_refused(file, tmp_path):
    path, _ = file
    with zipfile.ZipFile(path, "a") as archive, zipfile.ZipFile(tmp_path / "notes.npz", "w") as notes:
        archive.writestr(f"{KERNEL}.npy", archive.read(f"{KERNEL}.npy"))
        notes.writestr("notes.txt", "no array")
    assert f"holds {KERNEL} twice" in refusal(tiny(), path)
    assert "notes.npz is not a whole .npz file" in refusal(tiny(), tmp_path / "notes.npz")


@pytest.mark.parametrize(
    "options",
    [
        {"conv_layer": create_conv2d},
        {"stem_type": "deep"},
        {"preact": False},
        {"basic": True, "bottle_ratio": 1.0},
        {"layers": (2, 2, 1, 1), "avg_down": True, "preact": False},
    ],
    ids=["plain convolutions", "deep stem", "post-activation", "basic blocks", "average pooling"],
)
def test_a_resnet_v2_of_another_build_is_refused_with_the_way_out(file, options):
    net = tiny(**options)
    for use in (load_weights, write_bit):
        with pytest.raises(InputError, match=r"built otherwise, so use one of the resnetv2_\*_bit"):
            use(net, file[0])


@pytest.mark.parametrize(("classes", "stem"), [(0, "own"), (6, "own"), (0, "small")])
def test_a_network_comes_back_exactly_and_the_file_is_the_one_that_independent_code_writes(tmp_path, classes, stem):
    source, net = (tiny(seed=seed, num_classes=classes) for seed in (0, 1))
    if stem == "small":
        source, net = small_stem(source), small_stem(net)
    path = tmp_path / "ours.npz"
    write_bit(source, path)
    expected = arrays_of(source)
    with np.load(path, allow_pickle=False) as written:
        assert {*written.files} == {*expected}
        assert all(np.array_equal(written[name], array) for name, array in expected.items())
        assert {written[name].dtype for name in written.files} == {np.dtype("<f4")}
    report = load_weights(net, path)
    state = source.state_dict()
    assert all(torch.equal(net.state_dict()[k], state[k]) for k in report.loaded)
    assert {*report.missing} == {k for k in state if k.startswith("head.")}
    theirs = tiny(seed=2, num_classes=classes)
    if stem == "small":
        theirs = small_stem(theirs)
    theirs.load_pretrained(str(path))
    assert all(torch.equal(theirs.state_dict()[k], state[k]) for k in state)


def test_a_network_with_batch_norm_is_not_written(tmp_path):
    with pytest.raises(InputError, match=r"belong to BatchNormAct2d, so save it as \.safetensors"):
        write_bit(tiny(norm=BATCH), tmp_path / "ours.npz")
    with pytest.raises(InputError, match=r"ResNetV2; got ResNet, so use resnetv2_50x1_bit"):
        write_bit(import_timm().create_model("test_resnet"), tmp_path / "ours.npz")
    assert not list(tmp_path.iterdir())
