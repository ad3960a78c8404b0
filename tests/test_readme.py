"""What the README shows is run."""

import re
from pathlib import Path

import pytest

from kontrast.cli import VERBS, _parse
from kontrast.nn.encoders import encoder, save_encoder
from kontrast.nn.import_timm import import_timm

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_library_example_runs():
    short = (
        BLOCKS[0]
        .replace("epochs=15", "epochs=1")
        .replace('"sample:digits-5k")', '"sample:digits-5k").take(range(300))')
    )
    assert short.count("range(300)") == short.count("epochs=1)") == 1
    names = {}
    exec(short, names)
    assert names["representations"].shape == (300, 512)


def test_a_stock_encoder_loads_in_plain_timm_by_the_lines_shown(tmp_path, monkeypatch):
    import_timm()
    save_encoder(encoder("resnet18", channels=1, size=28, stem="standard"), tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(BLOCKS[1], names)
    assert names["about"]["name"] == "resnet18"


def test_every_command_shown_exists():
    shown = set(re.findall(r"`kontrast ((?:data )?[a-z]+)", README)) - {"data"}
    assert shown >= set(VERBS) - {"data list", "data get"}
    assert shown <= set(VERBS)


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_understood(recipe, tmp_path):
    shown = re.search(rf"kontrast (.+) --recipe recipes/{recipe.name} .*--out", recipe.read_text() + README)
    _, options = _parse([*shown[1].split(), "--recipe", str(recipe), "--out", str(tmp_path)])
    assert options.data
