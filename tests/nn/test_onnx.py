"""An ONNX file, run by onnxruntime, answers as torch does; where it does not, that is noticed."""

import copy
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.encoders import encoder
from kontrast.nn.onnx import measure_parity, require_onnx, write_onnx

SHAPE = {"channels": 1, "size": 16}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))
    net(torch.rand(8, 1, 16, 16))
    return net.eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    write_onnx(model, path, **SHAPE, outputs=["answer"], metadata={"classes": '["ü\\n<i>"]'})
    return path


def ask(file, images):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": images})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_batch_of_any_size_is_answered_as_by_torch(count, model, file):
    image = np.random.default_rng(count).random((count, 1, 16, 16), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    assert ask(file, image)[0] == pytest.approx(expected, abs=1e-5)


def test_the_file_is_valid_and_holds_its_metadata_but_no_notes_on_the_code(file):
    written = onnx.load(file)
    onnx.checker.check_model(written, full_check=True)
    assert {prop.key: prop.value for prop in written.metadata_props} == {"classes": '["ü\\n<i>"]'}
    assert [value.name for value in (*written.graph.input, *written.graph.output)] == ["image", "answer"]
    assert b".py" not in file.read_bytes()


def test_the_measured_difference_is_that_of_the_answers(model, file):
    found = measure_parity(model, file, **SHAPE)["answer"]
    assert 0 <= found.difference < 1e-5
    images = [torch.rand(count, 1, 16, 16, generator=draws) for draws in [torch.Generator().manual_seed(0)]
              for count in (1, 5)]  # fmt: skip
    with torch.no_grad():
        answers = [model(image) for image in images]
    apart = [np.abs(ask(file, i.numpy())[0] - a.numpy()).max() for i, a in zip(images, answers, strict=True)]
    assert found.difference == pytest.approx(max(apart), abs=1e-8)
    assert found.scale == pytest.approx(max(answer.abs().max().item() for answer in answers))
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        own = [(exact(i.double()) - a).abs().max().item() for i, a in zip(images, answers, strict=True)]
    assert found.rounding == pytest.approx(max(own), abs=1e-9)


def test_other_weights_and_other_shapes_are_noticed(model, file):
    other = nn.Sequential(*list(model)[:-1], nn.Linear(784, 3))
    assert measure_parity(other, file, **SHAPE)["answer"].difference > 1e-2
    wider = nn.Sequential(*list(model)[:-1], nn.Linear(784, 4))
    assert measure_parity(wider, file, **SHAPE)["answer"].difference == float("inf")
    broken = nn.Sequential(*list(model)[:-1], nn.Linear(784, 3))
    nn.init.constant_(broken[-1].bias, float("nan"))
    assert measure_parity(broken, file, **SHAPE)["answer"].difference == float("inf")


def test_a_network_in_training_mode_is_written_as_it_evaluates(model, tmp_path):
    write_onnx(model.train(), tmp_path / "m.onnx", **SHAPE, outputs=["answer"], metadata={})
    assert not model.training
    assert measure_parity(model, tmp_path / "m.onnx", **SHAPE)["answer"].difference < 1e-5


def test_the_exporter_says_nothing_and_leaves_warnings_and_logs_as_they_were(model, tmp_path, caplog, capfd):
    import logging

    caplog.set_level("INFO")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_onnx(model, tmp_path / "m.onnx", **SHAPE, outputs=["answer"], metadata={})
    shown = capfd.readouterr()
    assert (caught, caplog.text, shown.out, shown.err) == ([], "", "", "")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_way_out(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"{name}: pip install 'kontrast\[onnx\]', or export to .safetensors"):
        require_onnx()


def test_a_network_that_torch_cannot_express_is_refused_with_the_way_out(tmp_path):
    class Unsure(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    with pytest.raises(InputError, match=r"could not write this network as ONNX .* export to \.safetensors"):
        write_onnx(Unsure(), tmp_path / "m.onnx", **SHAPE, outputs=["answer"], metadata={})


def test_a_padding_of_zeros_before_a_maximum_stays_zero_for_onnxruntime(tmp_path, capfd):
    below = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2))
    nn.init.constant_(below[0].bias, -5.0)
    nn.init.constant_(below[0].weight, 1.0)
    write_onnx(below, tmp_path / "m.onnx", **SHAPE, outputs=["answer"], metadata={})
    (found,) = ask(tmp_path / "m.onnx", np.full((1, 1, 16, 16), 0.5, np.float32))
    assert capfd.readouterr().err == ""
    assert found[0, :, 0, :] == pytest.approx(0, abs=1e-30)
    assert found[0, :, 1:, 1:] == pytest.approx(-4.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "stem", "channels"),
    [
        ("resnet18", 32, "small", 1),
        ("resnet10t", 64, "standard", 3),
        ("resnet50", 64, "standard", 3),
        ("resnetv2_50x1_bit", 64, "standard", 3),
        ("efficientnet_b0", 64, "standard", 1),
        ("convnext_atto", 64, "standard", 3),
        ("vit_tiny_patch16_224", 224, "standard", 3),
    ],
)
def test_usual_encoders_answer_as_torch_does_to_a_hundred_thousandth(name, size, stem, channels, tmp_path):
    torch.manual_seed(0)
    built = encoder(name, channels=channels, size=size, stem=stem)
    write_onnx(built, tmp_path / "m.onnx", channels=channels, size=size, outputs=["representation"], metadata={})
    found = measure_parity(built, tmp_path / "m.onnx", channels=channels, size=size)["representation"]
    print(f"{name}: {found.difference:.1e} of {found.scale:.3g}; float32 from float64 {found.rounding:.1e}")
    assert 0 < found.difference <= max(1e-5 * found.scale, 2 * found.rounding)
    assert found.rounding < 1e-4 * found.scale
