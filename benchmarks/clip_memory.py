"""What do CLIP and both cyclic terms take, in memory and time, as the batch grows?

Kontrast's losses, blockwise and by Gram matrices, against the dense form that holds the matrices of all cosines. Each
figure comes from a fresh process; memory is the peak above what was there before, the embeddings. What cannot fit is
not run. The losses must agree, or the script ends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from loss_memory import free_memory, peak
from timing import machine

WIDTH, TEMPERATURE, WEIGHT = 512, 0.07, 31.75
LIMIT = 0.5
"""GiB beyond the embeddings that 8,192 pairs may take."""


def kontrast(image: Any, text: Any) -> Any:
    from kontrast import losses

    cyclic = losses.cyclic_in_modal(image, text) + losses.cyclic_cross_modal(image, text)
    return losses.clip(image, text, temperature=TEMPERATURE) + WEIGHT * cyclic


def dense(image: Any, text: Any) -> Any:
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    labels, across, num = torch.arange(len(image), device=image.device), image @ text.T, len(image)
    clip = (F.cross_entropy(across / TEMPERATURE, labels) + F.cross_entropy(across.T / TEMPERATURE, labels)) / 2
    cyclic = (image @ image.T - text @ text.T).square().sum() + (across - across.T).square().sum()
    return clip + WEIGHT * cyclic / (num * (num - 1))


LOSSES = {"Kontrast": kontrast, "dense": dense}
NEEDS = {"Kontrast": lambda n: 40 * n * WIDTH, "dense": lambda n: 40 * n**2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--measure", nargs=2, metavar=("LOSS", "PAIRS"), help="one loss, here and now")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]))))
        return
    print("| pairs | loss | memory beyond the embeddings, MiB | seconds |\n|---:|---|---:|---:|")
    for pairs in options.pairs:
        found = {name: measured_apart(name, pairs) for name in LOSSES}
        values = [one["loss"] for one in found.values() if one]
        if max(values) - min(values) > 1e-4 * min(values):
            raise SystemExit(f"the same loss of the same embeddings differs: {values}")
        for name, one in found.items():
            cells = f"{one['memory'] / 2**20:,.0f} | {one['seconds']:.2f}" if one else "does not fit | "
            print(f"| {pairs:,} | {name} | {cells} |", flush=True)
        if pairs == 8192 and found["Kontrast"]["memory"] > LIMIT * 2**30:
            raise SystemExit(f"8,192 pairs may take {LIMIT} GiB beyond the embeddings, and take more")
    print(f"\nWidth {WIDTH}, float32, forward and backward, both cyclic terms.")
    print(machine("torch"))


def measured_apart(name: str, pairs: int) -> dict[str, Any]:
    """`measure` in a process of its own; nothing where it does not fit."""
    if NEEDS[name](pairs) > 0.75 * free_memory():
        return {}
    command = [sys.executable, __file__, "--measure", name, str(pairs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, pairs: int) -> dict[str, Any]:
    """Bytes above those before, the loss, and the seconds of one run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(pairs, WIDTH, generator=generator).to(device).requires_grad_() for _ in range(2))
    LOSSES[name](image[:8], text[:8]).backward()
    image.grad, text.grad = torch.zeros_like(image), torch.zeros_like(text)  # as the embeddings', no part of the loss
    before, started = peak(), time.perf_counter()
    loss = LOSSES[name](image, text)
    loss.backward()
    found = loss.item()
    return {"memory": peak() - before, "seconds": time.perf_counter() - started, "loss": found}


if __name__ == "__main__":
    main()
