"""How long until Kontrast begins: its import, its help, and the first training step on images that are in the cache?

Each figure is the median over fresh Python processes, A B A B; the bare interpreter and torch's own import stand beside
them, since no program that trains is faster than those.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial

from timing import interleave, machine, table

FIRST_STEP = """
from kontrast import Fit, Loader, SimCLR, data, encoder, fit
from kontrast.augment.policies import digits
images = data.open("sample:digits-5k")
method = SimCLR(encoder("resnet10t", channels=1, size=28, stem="standard"), digits(28))
fit(method, Loader(images.take(range(32)), 32), Fit(epochs=1), show=False)
"""
STARTS = {
    "python": ["-c", "pass"],
    "import kontrast": ["-c", "import kontrast"],
    "kontrast --help": ["-m", "kontrast", "--help"],
    "import torch": ["-c", "import torch"],
    "import torch, timm": ["-c", "from kontrast.nn.import_timm import import_timm; import_timm()"],
    "kontrast pretrain simclr --help": ["-m", "kontrast", "pretrain", "simclr", "--help"],
    "first step of SimCLR, resnet10t, 32 digits": ["-c", FIRST_STEP],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    seconds = interleave({name: partial(run, words) for name, words in STARTS.items()}, options.rounds)
    print(machine("torch", "timm", "tyro"))
    print(table(["from a cold process", "seconds"], [[name, f"{value:.2f}"] for name, value in seconds.items()]))


def run(words: list[str]) -> None:
    """One process, its output thrown away."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
