import subprocess
import sys

import pytest

from kontrast.errors import InputError
from kontrast.nn.import_timm import import_open_clip


def python(code, *, path=None):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=path,
    )


@pytest.fixture(scope="module")
def fresh():
    """What a fresh Python prints that imports timm our way, twice, and runs a network."""
    return python(
        "import torch\n"
        "from kontrast.nn.import_timm import import_timm\n"
        "timm = import_timm()\n"
        "assert timm is import_timm()\n"
        "import timm as plain\n"
        "assert plain is timm\n"
        "net = timm.create_model('test_resnet', num_classes=0)\n"
        "print(timm.__name__, tuple(net(torch.zeros(2, 3, 32, 32)).shape))\n"
    )


def test_a_fresh_process_gets_a_timm_whose_networks_run_beside_whatever_torchvision_is_installed(fresh):
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout == "timm (2, 96)\n"


def test_it_imports_without_a_warning(fresh):
    assert fresh.stderr == ""


def test_another_defect_of_torchvision_is_not_hidden(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('the disk is on fire')\n")
    done = python("from kontrast.nn.import_timm import import_timm; import_timm()", path=tmp_path)
    assert done.returncode == 1
    assert "RuntimeError: the disk is on fire" in done.stderr


def test_operators_that_the_extension_lacks_are_declared_so_that_the_second_import_succeeds(tmp_path):
    """A torchvision as it is where its extension did not load: it registers a fake for an operator nobody defined."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import _meta_registrations\n")
    (package / "_meta_registrations.py").write_text(
        "import torch\n"
        '@torch.library.register_fake("torchvision::nms")\n'
        "def nms(): pass\n"
        '@torch.library.register_fake("torchvision::roi_align")\n'
        "def roi_align(): pass\n"
    )
    broken = python("import torchvision", path=tmp_path)
    assert "operator torchvision::nms does not exist" in broken.stderr
    mended = python(
        "import sys, types\n"
        "sys.modules['timm'] = types.ModuleType('timm')\n"
        "from kontrast.nn.import_timm import import_timm\n"
        "import_timm()\n"
        "import torch, torchvision\n"
        "print(torchvision._meta_registrations.nms.__name__, torch.ops.torchvision.roi_align.default._schema)\n",
        path=tmp_path,
    )
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout == "nms torchvision::roi_align() -> ()\n"


def test_where_open_clip_is_missing_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"pip install 'kontrast\[clip\]'"):
        import_open_clip()
