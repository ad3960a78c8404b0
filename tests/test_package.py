"""The package as a whole: names, layers, lint and types."""

import subprocess
import sys
from pathlib import Path

import pytest

import kontrast

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def test_public_names_are_sorted_and_every_one_of_them_loads():
    assert kontrast.__all__ == sorted(kontrast.__all__)
    assert all(callable(getattr(kontrast, name)) for name in kontrast.__all__)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, kontrast; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kontrast.nonsense


@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports"]],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_code_passes(command):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
