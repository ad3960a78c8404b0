"""What do NT-Xent's forward and backward passes take, in memory and time, as the batch grows?

Kontrast's loss, made block by block, against the plain form with the whole matrix of similarities and against those of
lightly, pytorch-metric-learning and MONAI, where they are installed. Each figure comes from fresh processes that run
one loss at one size, contender after contender, round after round; memory is the highest peak above what was there
before, time the median. What cannot fit is not run, and the table says so. The losses must agree, or the script ends.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import machine

WIDTH = 128
TEMPERATURE = 0.1
SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768]
Loss = Callable[[Any, Any], Any]


def kontrast() -> Loss:
    from kontrast import losses

    return lambda a, b: losses.nt_xent(a, b, temperature=TEMPERATURE)


def dense() -> Loss:
    def loss(a: Any, b: Any) -> Any:
        views = F.normalize(torch.cat([a, b]), dim=1)
        logits = (views @ views.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(views), device=a.device).roll(len(a)))

    return loss


def lightly() -> Loss:
    from kontrast.nn.import_timm import import_timm

    import_timm()  # lightly imports torchvision, whose compiled part may not match torch
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def metric_learning() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda a, b: loss(torch.cat([a, b]), torch.arange(len(a), device=a.device).repeat(2))


def monai() -> Loss:
    from monai.losses import ContrastiveLoss

    return ContrastiveLoss(temperature=TEMPERATURE)


@dataclass(frozen=True)
class Contender:
    """A loss, and about how many bytes it takes at least for so many views (2 a pair)."""

    make: Callable[[], Loss]
    needs: Callable[[int], float]


CONTENDERS = {
    "Kontrast": Contender(kontrast, lambda views: 40 * views * WIDTH),
    "whole matrix": Contender(dense, lambda views: 12 * views**2),
    "lightly": Contender(lightly, lambda views: 12 * views**2),
    "pytorch-metric-learning": Contender(metric_learning, lambda views: 16 * views**3),
    "MONAI": Contender(monai, lambda views: 20 * views**2 * WIDTH),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="512 to 2,048 pairs only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--losses", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--measure", nargs=2, metavar=("CONTENDER", "PAIRS"), help="one contender, here and now")
    options = parser.parse_args()
    if options.measure:
        name, pairs = options.measure
        print(json.dumps(measure(CONTENDERS[name].make, int(pairs))))
        return
    print("| pairs | loss | extra memory, MiB | of the whole matrix | seconds | of the whole matrix |")
    print("|---:|---|---:|---:|---:|---:|")
    for pairs in SIZES[:3] if options.quick else options.pairs:
        print("\n".join(rows(pairs, options.losses, options.rounds)), flush=True)
    print(f"\nWidth {WIDTH}, float32, forward and backward.")
    print(machine("torch", "lightly", "pytorch-metric-learning", "monai"))


def rows(pairs: int, names: list[str], rounds: int) -> list[str]:
    """Lines of the table for one size."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    missing: dict[str, str] = {}
    for _ in range(rounds):
        for name in names:
            if name not in missing:
                try:
                    found[name].append(measured_apart(name, pairs))
                except MissingError as reason:
                    missing[name] = str(reason)
    check_agreement({name: runs[0]["loss"] for name, runs in found.items() if name not in missing})
    whole = figures(found["whole matrix"]) if found.get("whole matrix") else None
    return [
        f"| {pairs:,} | {name} | " + (f"{missing[name]} | | | |" if name in missing else cells(figures(runs), whole))
        for name, runs in found.items()
    ]


def figures(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Highest extra memory in MiB, and the median time in seconds."""
    return max(run["memory"] for run in runs) / 2**20, statistics.median(t for run in runs for t in run["seconds"])


def cells(found: tuple[float, float], whole: tuple[float, float] | None) -> str:
    """The four figures of a contender; shares only where the whole matrix could be measured."""
    shares = ["", ""] if whole is None else [f"{100 * found[0] / whole[0]:.1f} %", f"{found[1] / whole[1]:.2f} x"]
    return f"{found[0]:,.0f} | {shares[0]} | {found[1]:.3f} | {shares[1]} |"


def check_agreement(losses: dict[str, float]) -> None:
    if losses and max(losses.values()) - min(losses.values()) > 1e-4 * min(losses.values()):
        raise SystemExit(f"the same loss of the same embeddings differs: {losses}")


class MissingError(Exception):
    """Why a contender has no figures."""


def measured_apart(name: str, pairs: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    needs, free = CONTENDERS[name].needs(2 * pairs), free_memory()
    if needs > 0.75 * free:
        raise MissingError(f"does not fit: over {needs / 2**30:,.0f} GiB of {free / 2**30:.0f} GiB free")
    command = [sys.executable, __file__, "--measure", name, str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        raise MissingError(f"failed: {last[:80]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(make: Callable[[], Loss], pairs: int) -> dict[str, Any]:
    """Bytes above those before, loss, and seconds of each run: three, or as many as begin within ten seconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(pairs, WIDTH, generator=generator).to(device).requires_grad_() for _ in range(2))
    loss = make()
    loss(a[:8], b[:8]).backward()  # libraries that load, and threads that start, at the first call
    before, seconds = peak(), []
    while len(seconds) < 3 and sum(seconds) < 10:
        a.grad = b.grad = None
        started = time.perf_counter()
        value = loss(a, b)
        value.backward()
        found = value.item()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return {"memory": peak() - before, "seconds": seconds, "loss": found}


def peak() -> int:
    """The most bytes that this process has held so far, on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_memory() -> int:
    """Bytes that a new process can take, on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


if __name__ == "__main__":
    main()
