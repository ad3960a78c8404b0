"""Fixtures for all tests: a cache of their own, and the real digits."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

os.environ["OMP_NUM_THREADS"] = "1"  # tiny models are faster on one thread, here and in the processes that tests start

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kontrast import data
from kontrast.nn.import_timm import import_open_clip

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Tests never read or write the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONTRAST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits():
    """5,000 real digits, 4,000 for training and 1,000 for testing; in the dev requirements, so always there."""
    return data.open("sample:digits-5k")


@pytest.fixture(scope="session")
def open_clip(tmp_path_factory):
    """The package, and to it three models so small that they are built in no time."""
    if find_spec("open_clip") is None:
        pytest.skip("needs open_clip: pip install 'kontrast[clip]'")
    package, folder = import_open_clip(), tmp_path_factory.mktemp("models")
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vit = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2}
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    for name, image, more in (
        ("tiny-vit", vit, {}),
        ("tiny-resnet", resnet, {}),
        ("tiny-both-ways", vit, {"no_causal_mask": True}),
    ):
        known = {"embed_dim": 24, "vision_cfg": image, "text_cfg": text | more}
        (folder / f"{name}.json").write_text(json.dumps(known))
    package.add_model_config(folder)
    return package


class Allocations(TorchDispatchMode):
    """The largest memory that one operation took, in bytes; views take none."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        tensors = [[t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)] for tree in ((args, kwargs), made)]
        given = {t.untyped_storage().data_ptr() for t in tensors[0]}
        new = (t.untyped_storage() for t in tensors[1])
        self.largest = max([self.largest, *(s.nbytes() for s in new if s.data_ptr() not in given)])
        return made


@pytest.fixture
def allocations():
    """Inside `with allocations:`, how large a single tensor becomes."""
    return Allocations()


@pytest.fixture
def processes(tmp_path):
    """Runs Python code in several processes of one gloo group; what each leaves in `result` comes back, by rank.

    The code finds `rank` and `num`, and torch's group is started.
    """

    def run(code, num=2):
        head = (
            "import sys, torch\nfrom torch import distributed as dist\nrank, num = map(int, sys.argv[1:3])\n"
            "dist.init_process_group('gloo', init_method=sys.argv[3], rank=rank, world_size=num)\n"
        )
        tail = "\ntorch.save(result, sys.argv[4])\ndist.destroy_process_group()\n"
        (tmp_path / "code.py").write_text(head + code + tail, encoding="utf-8")
        store = f"file://{tmp_path}/store"
        outs = [tmp_path / f"result{rank}.pth" for rank in range(num)]
        started = [
            subprocess.Popen(
                [sys.executable, tmp_path / "code.py", str(rank), str(num), store, out], stderr=subprocess.PIPE
            )
            for rank, out in enumerate(outs)
        ]
        said = [process.communicate(timeout=300)[1].decode() for process in started]
        assert not any(process.returncode for process in started), "\n".join(said)
        return [torch.load(out, weights_only=True) for out in outs]

    return run
