"""The tutorial is run, command by command, as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from kontrast.cli import VERBS, main

TUTORIAL = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL) for line in block.splitlines()]
LEAVES = [
    "views.png", "study/report.html", "study-repeated/report.html", "compare.html", "runs/encoder/encoder.safetensors",
    "runs/encoder/evaluations/linear.json", "runs/classifier/MODEL_CARD.md", "predictions.csv", "encoder.safetensors",
    "classifier.onnx",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        codes = {command: main(shlex.split(command)[1:]) for command in COMMANDS}
    return folder, codes


def test_every_command_of_the_tutorial_succeeds(done):
    assert {command: code for command, code in done[1].items() if code} == {}


def test_the_tutorial_leaves_what_it_speaks_of(done):
    assert [file for file in LEAVES if not (done[0] / file).is_file()] == []


def test_the_tutorial_shows_every_command():
    shown = {next(verb for verb in VERBS if command.startswith(f"kontrast {verb} ")) for command in COMMANDS[1:]}
    assert shown | {"data list"} >= set(VERBS) - {"embed", "search"}  # digits have no texts to search by
