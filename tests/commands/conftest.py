"""Images and settings so small that a command takes about a second."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from kontrast.cli import main
from kontrast.nn.classifier import ClassifierSpec, save_classifier
from kontrast.nn.encoders import encoder, save_encoder

TINY = ["--encoder", "test_efficientnet", "--stem", "standard", "--precision", "float32"]
TRAINING = [*TINY, "--epochs", "2", "--batch-size", "16"]
CLASSIFIER = ["--policy", "ct", "--epochs", "6", "--batch-size", "16", "--lr", "0.3", "--precision", "float32"]
SCORING = ["--seeds", "1", "--draws", "2", "--per-class", "2", "--finetune-steps", "2"]


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """A second thread only costs with networks of this size; processes that are started use one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


def picture(number, kind, *, side=16, channels=1):
    rng = np.random.default_rng([number, kind])
    pixels = rng.integers(0, 90, (side, side, channels))
    pixels[:, : side // 2] += 120 * kind
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).squeeze())


@pytest.fixture(scope="session")
def draw_folder():
    def draw_folder(root, *, count=24, kinds=("dark", "light"), **how):
        for kind, name in enumerate(kinds):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                picture(number, kind, **how).save(root / name / f"{number:02d}.png")
        return root

    return draw_folder


@pytest.fixture(scope="session")
def images(tmp_path_factory, draw_folder):
    """48 grey images of 16 px in two classes."""
    return draw_folder(tmp_path_factory.mktemp("images") / "set")


@pytest.fixture(scope="session")
def run(tmp_path_factory, images):
    """A finished run of SimCLR on them."""
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(["pretrain", "simclr", str(images), *TRAINING, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def noisy(tmp_path_factory):
    """160 grey images of 16 px in two classes that cannot always be told apart."""
    root, rng = tmp_path_factory.mktemp("noisy") / "set", np.random.default_rng(5)
    for kind, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for number in range(80):
            pixels = rng.normal(100 + 25 * kind, 30) + rng.normal(0, 20, (16, 16))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def classifier(tmp_path_factory, noisy):
    """A run on them and the classifier made from it, which errs now and then and has a temperature."""
    root = tmp_path_factory.mktemp("classifiers")
    assert main(["pretrain", "simclr", str(noisy), *TRAINING, "--out", str(root / "run")]) == 0
    words = ["finetune", "classification", root / "run", *CLASSIFIER, "--out", root / "classifier"]
    assert main([str(word) for word in words]) == 0
    return root / "classifier"


@pytest.fixture(scope="session")
def untrained():
    """A folder like that of `finetune classification`, of any classes, made without training."""

    def untrained(folder, *, classes, multilabel=False, temperature=1.5, name="test_resnet", size=16):
        torch.manual_seed(3)
        built = encoder(name, channels=1, size=size, stem="standard")
        save_encoder(built, folder)
        head = torch.nn.Linear(built.width, len(classes))
        torch.nn.init.normal_(head.weight, std=0.3)
        spec = ClassifierSpec(classes=classes, multilabel=multilabel, temperature=temperature, calibration="By hand.")
        save_classifier(head, spec, folder)
        (folder / "config.yaml").write_text("method: classification\ndata: somewhere\nsize: null\nchannels: null\n")
        return folder

    return untrained


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, draw_folder):
    """A table of 60 grey images of 16 px with texts; the last twelve are copies of the first."""
    folder = draw_folder(tmp_path_factory.mktemp("pairs"), count=24)
    (folder / "copies").mkdir()
    for number in range(12):
        shutil.copy(folder / f"dark/{number:02d}.png", folder / f"copies/{number:02d}.png")
    rows = [(f"dark/{n:02d}.png", f"a dark field, view {n % 8}") for n in range(24)]
    rows += [(f"light/{n:02d}.png", f"a light half, view {n % 8}") for n in range(24)]
    rows += [(f"copies/{n:02d}.png", "one of the copies") for n in range(12)]
    text = "\n".join(f'{name},"{said}"' for name, said in [("path", "text"), *rows])
    (folder / "pairs.csv").write_text(text + "\n", encoding="utf-8")
    return folder / "pairs.csv"


@pytest.fixture(scope="session")
def clip_run(tmp_path_factory, pairs):
    """A finished run of CLIP on them, whose texts have 14 tokens at most."""
    pytest.importorskip("tokenizers")
    out = tmp_path_factory.mktemp("runs") / "clip"
    words = ["pretrain", "clip", str(pairs), "--encoder", "test_resnet", "--stem", "standard", "--precision", "float32"]
    words += [
        "--policy",
        "captioned",
        "--epochs",
        "6",
        "--batch-size",
        "16",
        "--text-width",
        "32",
        "--text-layers",
        "1",
    ]
    assert main([*words, "--context", "14", "--width", "16", "--out", str(out)]) == 0
    return out


@pytest.fixture
def kontrast():
    """The command line, in this process."""
    return lambda *words: main([str(word) for word in words])


@pytest.fixture
def refused(capsys):
    """The one sentence with which the command line refuses."""

    def refused(*words, code=2):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert len(lines) == 1, shown.err
        assert lines[0].startswith("kontrast: ")
        assert shown.out == ""
        return lines[0]

    return refused


def _listen_to_ctrl_c():
    """A shell that runs the tests in the background makes them, and their children, deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def interrupted(tmp_path):
    """Start a real process, send it a signal once something is there, and return its exit code and what it said."""

    def interrupted(words, *, when, send):
        log = tmp_path / "said.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "kontrast", *map(str, words)],
                stderr=file,
                stdout=file,
                env={**os.environ},
                preexec_fn=_listen_to_ctrl_c,
            )
        try:
            until = time.monotonic() + 120
            while not when() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            assert process.poll() is None, log.read_text()
            process.send_signal(send)
            return process.wait(60), log.read_text()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    return interrupted


@pytest.fixture(scope="session")
def training():
    return TRAINING


@pytest.fixture(scope="session")
def scoring():
    return SCORING
