"""Runs whose two towers are a model of open_clip."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kontrast.cli import main
from kontrast.commands.pretrain import pretrain
from kontrast.errors import InputError
from kontrast.methods import CLIP, CyCLIP
from kontrast.nn.towers import load_towers

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, open_clip):
    """40 pictures of 24 px with a text file beside each."""
    folder = tmp_path_factory.mktemp("captioned")
    for number in range(40):
        name, colour = list(COLOURS.items())[number % 4]
        noise = np.random.default_rng(number).integers(-20, 20, (24, 24, 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a {name} square, number {number}")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, open_clip):
    """A file of a model of open_clip, and the model."""
    torch.manual_seed(3)
    model, file = open_clip.create_model("tiny-vit").eval(), tmp_path_factory.mktemp("weights") / "weights.pt"
    with torch.no_grad():
        model.logit_scale.fill_(np.log(100.0))
    torch.save(model.state_dict(), file)
    return file, model


def trained(folder, out, method="clip", **how):
    usual = {"towers": "open_clip:tiny-vit", "epochs": 1, "batch_size": 16, "policy": "captioned", "device": "cpu"}
    return pretrain(**{"method": method, "data": str(folder), "out": out, **usual, **how})


def test_a_run_with_frozen_towers_of_a_file_embeds_as_open_clip_does_and_is_used_from_its_folder_alone(
    captioned, weights, tmp_path, open_clip
):
    file, model = weights
    run = trained(captioned, tmp_path / "run", init=str(file), config=CLIP.Config(freeze="both"), size=None)
    towers, texts = load_towers(run), ["a red square", "number 12"]
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    shown = torch.stack(
        [open_clip.image_transform(32, is_train=False)(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in image]
    )
    with torch.no_grad():
        expected = model.encode_image(shown, normalize=True)
        torch.testing.assert_close(towers.encode_image(image), expected)
        expected = model.encode_text(open_clip.SimpleTokenizer()(texts), normalize=True)
        torch.testing.assert_close(towers.encode_text(texts), expected)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    told = {key: settings[key] for key in ("encoder", "towers", "width", "temperature", "size")}
    known = {"encoder": "open_clip:tiny-vit", "towers": "open_clip:tiny-vit", "width": 0, "size": None}
    assert told == {**known, "temperature": 0.01}
    assert main(["evaluate", "retrieval", str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "evaluations" / "retrieval.json").read_text())
    assert main(["embed", str(run), "--data", str(captioned), "--out", str(tmp_path / "e.npz"), "--device", "cpu"]) == 0
    assert np.load(tmp_path / "e.npz")["embedding"].shape == (40, 24)


def test_a_fresh_model_learns_and_its_recipe_repeats_it(captioned, tmp_path):
    told = ["--data", str(captioned), "--epochs", "1", "--batch-size", "16", "--device", "cpu", "--lr", "0.003"]
    towers = ["--towers", "open_clip:tiny-vit", "--policy", "captioned", "--precision", "float32"]
    assert main(["pretrain", "cyclip", *told, *towers, "--out", str(tmp_path / "a")]) == 0
    assert main(["pretrain", "cyclip", "--recipe", str(tmp_path / "a/config.yaml"), "--out", str(tmp_path / "b")]) == 0
    first, second = (load_towers(tmp_path / run).state_dict() for run in "ab")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert first["temperature"] != pytest.approx(0.07, abs=1e-6)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"towers": "ViT-B-32"}, "--towers is own or open_clip:NAME"),
        ({"encoder": "resnet50"}, "--encoder asks for another part; it is resnet50"),
        ({"text_tower": "sample:minilm"}, "--text-tower asks for another part"),
        ({"norm": "group"}, "--norm asks for another part"),
        ({"config": CLIP.Config(width=64)}, "24 wide; --width is 64, so leave it out"),
        ({"method": "simclr"}, "simclr reads no texts; .* use --encoder open_clip:tiny-vit"),
        ({"init": "pretrained"}, r"one of its tags \(none\); pretrained is neither"),
        ({"channels": 1, "size": 20}, "a multiple of 16 px; got 20"),
    ],
)
def test_what_contradicts_the_towers_is_refused_before_a_folder_is_made(captioned, tmp_path, how, said):
    with pytest.raises(InputError, match=said):
        trained(captioned, tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()


def test_a_temperature_of_ones_own_wins_over_that_of_the_weights(captioned, weights, tmp_path):
    config = CyCLIP.Config(temperature=0.2)
    run = trained(captioned, tmp_path / "run", "cyclip", init=str(weights[0]), config=config, channels=1)
    assert yaml.safe_load((run / "config.yaml").read_text())["temperature"] == 0.2
    assert load_towers(run).encoder.spec.channels == 1
