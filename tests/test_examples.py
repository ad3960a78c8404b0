"""The examples run as they stand, each in an empty folder, and leave what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
LEAVES = {
    "classifier": ["predictions.csv", "classifier.onnx", "runs/classifier/MODEL_CARD.md"],
    "few_labels": [],
    "folder_to_page": ["study/report.html", "study/study.json"],
    "own_method": [],
    "patients": ["run/encoder.safetensors", "run/evaluations/linear.json"],
}
"""Files that a run of each leaves behind."""


def test_every_example_is_run_here():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(LEAVES)


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_an_example_runs_and_leaves_what_it_promises(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert [file for file in LEAVES[name] if not (tmp_path / file).is_file()] == []
