"""What docs/medical.md shows is there, and runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from kontrast.cli import _parse
from kontrast.data.adapters import ADAPTERS
from kontrast.data.reading import WINDOWS

nibabel = pytest.importorskip("nibabel")
PAGE = (Path(__file__).parent.parent / "docs" / "medical.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0].strip() for line in re.findall(r"^kontrast .*$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    assert _parse(shlex.split(command)[1:])


def test_every_window_and_every_known_data_set_is_named():
    for window in WINDOWS:
        assert f"`{window}`" in PAGE
    named = set(re.findall(r"^\| `([a-z0-9-]+):FOLDER`", PAGE, re.MULTILINE))
    assert named == set(ADAPTERS)


def test_every_flag_is_one_of_the_commands_shown():
    for flag in set(re.findall(r"`(--[a-z0-9-]+)", PAGE)) - {"--no-thumbnails"}:
        assert flag.removeprefix("--").replace("-", "_") in vars(_parse(["data", "check", "images"])[1])


def test_the_way_back_to_a_volume_runs_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).integers(1, 900, (6, 7, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), "brain.nii.gz")
    shown = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    maps = values[:, :, ::-1].transpose(1, 2, 0).astype(np.float32)
    exec(shown, {"maps": maps})
    written = nibabel.load("maps.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), values)
    np.testing.assert_array_equal(written.affine, np.diag([1.0, 2.0, 3.0, 1.0]))
