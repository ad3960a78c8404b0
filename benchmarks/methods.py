"""What does it cost that the augmentation learns, or that the encoder is an energy model? Training steps over SimCLR's.

A step is everything from stored images to updated weights. All have the same images, batch, precision, policy to begin
with and encoder, but for its norms; steps are interleaved A B A B, medians. `resting` is learned views before the
policy begins to learn and after it is frozen, which is 45 % of a run by default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import interleave, machine, table

from kontrast import Batch, encoder
from kontrast.augment.policies import POLICIES
from kontrast.methods import EBCLR, LearnedViews, Method, SimCLR
from kontrast.train import optim
from kontrast.train.parallel import autocast, choose_device, choose_precision

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--stem", choices=("auto", "small", "standard"), default="auto")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="natural")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    config = LearnedViews.Config
    methods = {
        "SimCLR": SimCLR(*parts(options)),
        "learned views, global": learned(options, config(start=0.0)),
        "learned views, network": learned(options, config(start=0.0, producer="network")),
        "learned views, adversarial": learned(options, config(start=0.0, mode="adversarial")),
        "learned views, resting": learned(options, config(start=0.5)),
        "SimCLR, no norms": SimCLR(*parts(options, norm="none")),
        "EBCLR": energetic(options),
        "EBCLR, 3 Langevin steps": energetic(options, langevin_steps=3),
        "EBCLR, a quarter of the samples": energetic(options, num_samples=options.batch_size // 4),
    }
    seconds = interleave({name: step(method, options) for name, method in methods.items()}, options.rounds)
    rows = [[name, f"{1000 * value:,.0f}", f"{value / seconds['SimCLR']:.2f}"] for name, value in seconds.items()]
    print(machine("torch", "timm"))
    print(
        f"{options.encoder}, stem {options.stem}, {options.size} px, {options.channels} channels, policy "
        f"{options.policy}, batch {options.batch_size}, an eighth of it labelled\n"
    )
    print(table(["method", "ms a step", "× SimCLR"], rows))


def parts(options: argparse.Namespace, norm: str | None = None):
    torch.manual_seed(0)
    built = encoder(options.encoder, channels=options.channels, size=options.size, stem=options.stem, norm=norm)
    return built, POLICIES[options.policy](options.size)


def learned(options: argparse.Namespace, config: LearnedViews.Config) -> LearnedViews:
    return LearnedViews(*parts(options), config, num_classes=CLASSES)


def energetic(options: argparse.Namespace, **config: int) -> EBCLR:
    return EBCLR(*parts(options, norm="none"), EBCLR.Config(**config))


def step(method: Method, options: argparse.Namespace) -> Callable[[], None]:
    """One update on the same batch, an eighth of it labelled."""
    device = choose_device()
    dtype = choose_precision("auto", device)
    method.to(device).train()
    optimiser = optim.build("adamw", method.parameter_groups(1e-3), 0.05)
    shape = (options.batch_size, options.channels, options.size, options.size)
    label = torch.full((options.batch_size,), -1)
    label[: options.batch_size // 8] = torch.arange(options.batch_size // 8) % CLASSES
    batch = Batch(image=torch.randint(0, 256, shape, dtype=torch.uint8), label=label).to(device)

    def update() -> None:
        with autocast(device, dtype):
            loss = method(batch).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return update


if __name__ == "__main__":
    main()
