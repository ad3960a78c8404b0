"""An export loads in plain timm, strictly, and means the same."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import kontrast as package
from kontrast.nn.encoders import encoder, save_encoder
from kontrast.nn.import_timm import import_timm


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
    assert "b.json is there already" in refused("export", run, "--out", tmp_path / "b.safetensors")
    assert "name it with that suffix" in refused("export", run, "--out", tmp_path / "c.pth")
    assert "give a finished run" in refused("export", tmp_path, "--out", tmp_path / "d.safetensors")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.safetensors": "mine", "b.json": "mine"}
