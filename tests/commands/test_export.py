"""An export loads in plain timm, strictly, and means the same."""

import csv
import json
import re
import sys
from importlib.metadata import version

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import kontrast as package
from kontrast import data
from kontrast.commands.export import _holds
from kontrast.nn.encoders import encoder, load_encoder, save_encoder
from kontrast.nn.import_timm import import_timm
from kontrast.nn.onnx import Parity


def test_a_stock_encoder_loads_in_plain_timm_strictly_with_the_same_features(run, kontrast, tmp_path):
    out = tmp_path / "new" / "mine.safetensors"
    assert kontrast("export", run, "--out", out) == 0
    about = json.loads(out.with_suffix(".json").read_text())
    net = import_timm().create_model("test_efficientnet", num_classes=0, in_chans=1)
    net.load_state_dict(load_file(out), strict=True)
    image = torch.rand(3, 1, 16, 16)
    mean, std = (torch.tensor(about[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        theirs, ours = net.eval()((image - mean) / std), package.load(run=out)(image)
    assert torch.allclose(theirs, ours, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("test_efficientnet", "standard"),
        ("test_efficientnet", "small"),
        ("test_resnet", "standard"),
        ("test_resnet", "small"),
        ("test_vit", "standard"),
    ],
)
def test_the_lines_beside_an_export_rebuild_it(name, stem, kontrast, tmp_path, monkeypatch):
    torch.manual_seed(1)
    built = encoder(name, channels=1, size=32, stem=stem).eval()
    save_encoder(built, tmp_path / "run")
    assert kontrast("export", tmp_path / "run", "--out", tmp_path / "e.safetensors") == 0
    lines = json.loads((tmp_path / "e.json").read_text())["rebuild"]
    assert json.loads((tmp_path / "e.json").read_text())["stem"] == stem
    monkeypatch.chdir(tmp_path)
    import_timm()
    names = {}
    exec("\n".join(lines), names)
    image = torch.from_numpy(np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32))
    with torch.no_grad():
        assert torch.allclose(names["net"]((image - 0.5) / 0.25), built(image), atol=1e-6)


def test_nothing_is_overwritten_neither_weights_nor_description(run, refused, tmp_path):
    (tmp_path / "a.safetensors").write_text("mine")
    (tmp_path / "b.json").write_text("mine")
    assert "a.safetensors is there already" in refused("export", run, "--out", tmp_path / "a.safetensors")
    (tmp_path / "e.md").write_text("mine")
    (tmp_path / "f.onnx").write_text("mine")
    assert "b.json is there already" in refused("export", run, "--out", tmp_path / "b.safetensors")
    assert "e.md is there already" in refused("export", run, "--out", tmp_path / "e.safetensors")
    assert "e.md is there already" in refused("export", run, "--out", tmp_path / "e.onnx")
    assert "f.onnx is there already" in refused("export", run, "--out", tmp_path / "f.onnx")
    assert "name it with one of these suffixes" in refused("export", run, "--out", tmp_path / "c.pth")
    assert "give a finished run" in refused("export", tmp_path, "--out", tmp_path / "d.safetensors")
    assert "give a finished run" in refused("export", tmp_path, "--out", tmp_path / "d.onnx")
    wrong = refused("export", run, "--format", "onnx", "--out", tmp_path / "d.safetensors")
    assert "--format onnx writes .onnx" in wrong
    with pytest.raises(package.InputError, match="no format 'tflite'"):
        package.export(run=run, out=tmp_path / "d.onnx", format="tflite")
    names = ("a.safetensors", "b.json", "e.md", "f.onnx")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def ask(file, images):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": images})


@pytest.mark.parametrize(("name", "size"), [pytest.param("test_vit", 32, marks=pytest.mark.slow), ("test_resnet", 16)])
def test_an_encoder_as_onnx_takes_images_as_they_are_and_answers_as_torch_does(name, size, caplog, tmp_path):
    caplog.set_level("INFO", logger="kontrast")
    torch.manual_seed(1)
    save_encoder(encoder(name, channels=3, size=size, stem="standard", mean=(0.2, 0.5, 0.6), std=(0.1,)), tmp_path)
    out = package.export(run=tmp_path, out=tmp_path / "new" / "e.onnx")
    image = np.random.default_rng(0).random((4, 3, size, size), dtype=np.float32)
    with torch.no_grad():
        expected = package.load(run=tmp_path)(torch.from_numpy(image)).numpy()
    (found,) = ask(out, image)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 1e-3
    assert "e.onnx answers as torch does: representation differ by at most" in caplog.text
    assert sorted(path.name for path in out.parent.iterdir()) == ["e.md", "e.onnx"]


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    return package.export(run=classifier, out=tmp_path_factory.mktemp("exported") / "c.onnx", format="onnx")


def test_a_classifier_as_onnx_gives_the_probabilities_that_predict_writes(exported, classifier, noisy, tmp_path):
    opened = data.open(noisy)
    found, probabilities = ask(exported, (opened.pixels[opened.rows] / np.float32(255)).astype(np.float32))
    out = package.predict(run=classifier, data=str(noisy), out=tmp_path / "p.csv")
    with out.open(newline="") as file:
        expected = [[float(row["p:dark"]), float(row["p:light"])] for row in csv.DictReader(file)]
    assert probabilities == pytest.approx(np.array(expected), abs=1e-5)
    with torch.no_grad():
        ours = package.load(run=classifier)(torch.from_numpy(np.array(opened.pixels[opened.rows]))).numpy()
    assert np.abs(found - ours).max() <= 1e-5 * np.abs(ours).max()


def test_an_onnx_file_says_what_its_outputs_mean(exported, classifier):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    known = json.loads((classifier / "classifier.json").read_text())
    assert [output.name for output in session.get_outputs()] == ["representation", "probabilities"]
    assert [tuple(put.shape) for put in session.get_inputs()] == [("batch", 1, 16, 16)]
    assert json.loads(about["classes"]) == ["dark", "light"]
    assert json.loads(about["temperature"]) == known["temperature"]
    assert json.loads(about["mean"]) == json.loads((classifier / "encoder.json").read_text())["mean"]
    assert about["kontrast"] == version("kontrast")


def test_the_python_lines_of_the_cards_run_and_agree(exported, classifier, monkeypatch, tmp_path):
    def run_lines(card, folder):
        monkeypatch.chdir(folder)
        names = {}
        exec(re.search(r"```python\n(.*?)```", card.read_text(), re.DOTALL)[1], names)
        return names

    image = np.random.default_rng(0).random((1, 1, 16, 16), dtype=np.float32)
    session = run_lines(exported.with_suffix(".md"), exported.parent)["session"]
    expected = session.run(None, {"image": image})
    import_timm()
    out = package.export(run=classifier, out=tmp_path / "e.safetensors")
    with torch.no_grad():
        alone = run_lines(out.with_suffix(".md"), tmp_path)["representation"](torch.from_numpy(image))
        both = run_lines(classifier / "MODEL_CARD.md", classifier)["probabilities"](torch.from_numpy(image))
    assert alone.numpy() == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
    assert both.numpy() == pytest.approx(expected[1], abs=1e-5)


def test_a_file_that_does_not_answer_as_torch_does_is_not_kept(untrained, refused, tmp_path):
    run = untrained(tmp_path / "run", classes=("a", "b"))
    built = load_encoder(run)
    torch.nn.init.constant_(next(built.net.parameters()), float("nan"))
    save_encoder(built, run)
    said = refused("export", run, "--out", tmp_path / "new" / "c.onnx")
    assert "must answer as torch does, to 1e-05; for this test_resnet the representation differ by inf" in said
    assert "so the file was not kept: export to .safetensors" in said
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "difference", "scale", "rounding", "holds"),
    [
        ("representation", 0.9e-5, 1.0, 0.0, True),
        ("representation", 1.1e-5, 1.0, 0.0, False),
        ("representation", 1.1e-5, 2.0, 0.0, True),
        ("representation", 1e-6, 1e-4, 0.0, False),
        ("representation", 9e-5, 1.0, 5e-5, True),
        ("representation", 11e-5, 1.0, 5e-5, False),
        ("probabilities", 1.1e-5, 5.0, 0.0, False),
        ("probabilities", float("inf"), 1.0, float("inf"), False),
    ],
)
def test_what_may_differ_is_a_hundred_thousandth_of_the_scale_or_two_roundings(
    name, difference, scale, rounding, holds
):
    assert _holds(name, Parity(difference=difference, scale=scale, rounding=rounding)) == holds


def test_without_onnxruntime_nothing_is_written_and_the_extra_is_named(run, refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'kontrast[onnx]'" in refused("export", run, "--out", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_bit_network_is_exported_in_the_layout_of_its_files_and_comes_back(kontrast, tmp_path, monkeypatch):
    torch.manual_seed(1)
    narrow = {"channels": [128, 128, 128, 256], "stem_chs": 32}
    built = encoder("resnetv2_50x1_bit", channels=1, size=32, stem="small", mean=(0.3,), std=(0.2,), options=narrow)
    save_encoder(built, tmp_path / "run")
    assert kontrast("export", tmp_path / "run", "--out", tmp_path / "b.npz") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "b.md", "b.npz", "run"]
    monkeypatch.chdir(tmp_path)
    card = (tmp_path / "b.md").read_text()
    lines, scope = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1), {}
    exec(lines, scope)
    again = encoder(
        "resnetv2_50x1_bit", channels=1, size=32, stem="small", init=str(tmp_path / "b.npz"), options=narrow
    )
    assert again.spec == built.spec
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = built.eval()(image)
        torch.testing.assert_close(again.eval()(image), expected, rtol=0, atol=0)
        torch.testing.assert_close(scope["representation"](image), expected, rtol=1e-4, atol=1e-4)


def test_what_has_no_group_norm_is_not_written_as_bit(run, refused, tmp_path):
    assert "resnetv2_50x1_bit" in refused("export", run, "--out", tmp_path / "b.npz")
    assert not list(tmp_path.glob("b.*"))


def test_bits_layout_has_no_place_for_other_channels_than_one_and_three(refused, tmp_path):
    narrow = {"channels": [128, 128, 128, 256], "stem_chs": 32}
    save_encoder(encoder("resnetv2_50x1_bit", channels=2, size=32, options=narrow), tmp_path / "run")
    assert "this encoder reads 2, so save it as .safetensors" in refused(
        "export", tmp_path / "run", "--out", tmp_path / "b.npz"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
