"""What share of its time does a training step spend in the encoder?

Interleaves Kontrast's SimCLR step (read, augment, encode, loss, backward, update) with the least that any such step can
cost: the same encoder forward and backward on ready tensors, and the update. Prints the median rates and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from kontrast import Loader, SimCLR, data, encoder
from kontrast.augment.policies import natural
from kontrast.batch import Batch
from kontrast.train import optim
from kontrast.train.parallel import autocast, choose_device, choose_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()

    device = choose_device()
    dtype = choose_precision("auto", device)
    images = data.open("sample:digits-5k")
    built = encoder(options.encoder, channels=1, size=28, stem="standard")
    method = SimCLR(built, natural(28)).to(device).train()
    optimiser = optim.build("sgd", method.parameter_groups(0.01), 5e-4)
    batches = endless(Loader(images, options.batch_size))
    ready = torch.rand(2, options.batch_size, 1, 28, 28, device=device)

    def update(objective: Callable[[], torch.Tensor]) -> None:
        with autocast(device, dtype):
            loss = objective()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def whole() -> None:
        update(lambda: method(next(batches).to(device)).loss)

    def encoder_only() -> None:
        update(lambda: sum(built(view).float().square().mean() for view in ready))

    rates = interleave({"whole step": whole, "encoder only": encoder_only}, options.rounds, options.steps)
    pairs = {name: options.batch_size * options.steps / statistics.median(seconds) for name, seconds in rates.items()}
    for name, rate in pairs.items():
        print(f"{name:13} {rate:8.0f} pairs/s")
    print(f"share of the encoder-only rate: {pairs['whole step'] / pairs['encoder only']:.2f}  ({dtype}, {device})")


def endless(loader: Loader) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def interleave(work: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each kind of work, A B A B, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, step in work.items():
            started = time.perf_counter()
            for _ in range(steps):
                step()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
