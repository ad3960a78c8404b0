"""How many pairs of views a second does a SimCLR step train, beside its peers and beside the encoder's own limit?

A step is everything from stored images to updated weights: two views of each, encoder, head, loss, backward, update.
All loops have the same encoder, images, batch, augmentation strengths and temperature, and otherwise their own
recommended settings:

- Kontrast as it comes (`precision auto`), and in float32;
- lightly: its SimCLRTransform on PIL images in a DataLoader with as many workers as cores, its head and NTXentLoss;
- solo-learn's way (`torchvision`): torchvision transforms on PIL images, four workers, channels-last, mixed precision;
- kornia: augmentation of whole batches, the images in memory.

The limit is the encoder alone: forward and backward on ready tensors, in as many calls as Kontrast makes, and update.
Each loop has a process of its own; turns are interleaved A B A B; medians. Workers of a loop are stopped while others
have their turn, so that neither a queue filled meanwhile nor their load on the cores enters the figures.

`--quality` asks whether bf16 costs accuracy: SimCLR in both precisions, linear probe on digits, paired difference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from PIL import Image
from timing import Turns, Work, installed, interleave, machine, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from kontrast import Fit, Loader, SimCLR, data, distributed, encoder, features, fit, linear_probe
from kontrast.augment.policies import digits, natural
from kontrast.data import ImageSet
from kontrast.evaluate.intervals import difference, estimate, verdict
from kontrast.nn.import_timm import import_timm
from kontrast.train import optim
from kontrast.train.parallel import autocast, choose_device, choose_precision

TEMPERATURE = 0.2
NAMES = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}
Views = Iterator[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--only", nargs="+", default=[], help="loops: Kontrast lightly torchvision kornia")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--epochs", type=int, default=10, help="of --quality")
    parser.add_argument("--seeds", type=int, default=3, help="of --quality")
    options = parser.parse_args()
    if options.quality:
        quality(options.epochs, options.seeds)
    else:
        speed(options)


def speed(options: argparse.Namespace) -> None:
    auto = choose_precision("auto", choose_device())
    loops = [(name, dtype) for name, dtypes in wanted(options, auto).items() for dtype in dtypes]
    processes = {one: Turns(loop, options, *one) for one in loops}
    try:
        turns = {" ".join((name, NAMES[dtype])): turn for (name, dtype), turn in processes.items()}
        seconds = dict(zip(loops, interleave(turns, options.rounds).values(), strict=True))
    finally:
        for process in processes.values():
            process.end()
    rates = {loop: options.batch_size * options.steps / value for loop, value in seconds.items()}
    peer = rates.get(("lightly", torch.float32), float("nan"))
    rows = []
    for (name, dtype), rate in rates.items():
        limit = rates.get(("encoder alone", dtype), float("nan"))
        rows.append([name, NAMES[dtype], f"{rate:,.1f}", f"{rate / peer:.2f}", f"{rate / limit:.2f}"])
    print(machine("torch", "timm", "lightly", "kornia", "torchvision"))
    print(f"{options.encoder}, {options.size} px, {options.channels} channels, batch {options.batch_size}\n")
    print(table(["loop", "precision", "pairs/s", "× lightly as it comes", "share of the encoder alone"], rows))


def wanted(options: argparse.Namespace, auto: torch.dtype) -> dict[str, list[torch.dtype]]:
    """The loops that are installed and asked for, each with its precisions."""
    both = list(dict.fromkeys((auto, torch.float32)))
    found = {"Kontrast": both, "encoder alone": both}
    if installed("lightly"):
        found |= {"lightly": both, "torchvision": [auto]} | ({"kornia": both} if installed("kornia") else {})
    words = [*options.only, "encoder alone"] if options.only else list(found)
    return {name: dtypes for name, dtypes in found.items() if name in words}


def loop(options: argparse.Namespace, name: str, dtype: torch.dtype) -> Work:
    """A loop in its own process. Only Kontrast's begin as its commands do."""
    if name in ("Kontrast", "encoder alone"):
        distributed.start()
    import_timm()  # makes torchvision importable beside a CPU build of torch
    bench = Bench(options)
    turn = bench.turn({
        "Kontrast": bench.kontrast, "lightly": bench.lightly, "torchvision": bench.torchvision,
        "kornia": bench.kornia, "encoder alone": bench.encoder_alone,
    }[name], dtype)  # fmt: skip
    return lambda _: turn(), None, bench.end


class Bench:
    """The images and settings that all loops share; builds each loop's step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = choose_device()
        self.images = resized(options.size * 8 // 7, options.channels, count=max(256, 2 * options.batch_size))
        self.pixels = self.images.batch(np.arange(len(self.images))).image
        self.pictures = [Image.fromarray(one.squeeze(0) if len(one) == 1 else one.transpose(1, 2, 0))
                         for one in self.images.pixels]  # fmt: skip
        self.stopped: list[int] = []

    def turn(self, build: Callable[[torch.dtype], Callable[[], None]], dtype: torch.dtype) -> Callable[[], None]:
        """A turn of some steps, between which the loop's own workers stand still."""
        before = {child.pid for child in multiprocessing.active_children()}
        step = build(dtype)
        workers = [child.pid for child in multiprocessing.active_children() if child.pid not in before]
        send(workers, signal.SIGSTOP)
        self.stopped += workers

        def turn() -> None:
            send(workers, signal.SIGCONT)
            for _ in range(self.options.steps):
                step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            send(workers, signal.SIGSTOP)

        return turn

    def end(self) -> None:
        """Let the workers go on, so that they can end."""
        send(self.stopped, signal.SIGCONT)

    def kontrast(self, dtype: torch.dtype) -> Callable[[], None]:
        method = self.method()
        optimiser = optim.build("sgd", method.parameter_groups(0.01), 5e-4)
        loader = Loader(self.images, self.options.batch_size)
        batches = endless(lambda number: loader.epoch(number, self.device))
        return lambda: self.update(lambda: method(next(batches)).loss, optimiser, dtype)

    def encoder_alone(self, dtype: torch.dtype) -> Callable[[], None]:
        built = self.encoder().to(self.device).train()
        optimiser = optim.build("sgd", [{"params": list(built.parameters()), "lr": 0.01}], 5e-4)
        side, channels = self.options.size, self.options.channels
        ready = [torch.rand(count, channels, side, side, device=self.device) for count in self.calls()]
        return lambda: self.update(lambda: sum(built(x).float().square().mean() for x in ready), optimiser, dtype)

    def lightly(self, dtype: torch.dtype) -> Callable[[], None]:
        from lightly.transforms.simclr_transform import SimCLRTransform

        size, channels = self.options.size, self.options.channels
        transform = SimCLRTransform(
            input_size=size, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.5 if size >= 64 else 0.0,
            sigmas=(0.1 * size / 224, 2 * size / 224), normalize={"mean": [0.5] * channels, "std": [0.25] * channels},
        )  # fmt: skip
        views = self.loaded(transform, workers=distributed.allowed_cores())
        return self.peer(views, dtype, memory_format=torch.contiguous_format)

    def torchvision(self, dtype: torch.dtype) -> Callable[[], None]:
        return self.peer(self.loaded(Twice(self.options), workers=4), dtype, memory_format=torch.channels_last)

    def kornia(self, dtype: torch.dtype) -> Callable[[], None]:
        from kornia import augmentation as kornia

        size, channels = self.options.size, self.options.channels
        sigma = (0.1 * size / 224, 2 * size / 224)
        augment = nn.Sequential(
            kornia.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
            kornia.RandomHorizontalFlip(),
            # Its colour jitter and its grey take colour images only.
            kornia.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
            if channels == 3
            else kornia.RandomBrightness((0.6, 1.4), p=0.8),
            kornia.RandomGrayscale(p=0.2) if channels == 3 else kornia.RandomContrast((0.6, 1.4), p=0.8),
            kornia.RandomGaussianBlur((size // 20 * 2 + 1,) * 2, sigma) if size >= 64 else nn.Identity(),
            kornia.Normalize([0.5] * channels, [0.25] * channels),
        )
        images = self.pixels.to(self.device)

        def views() -> Views:
            while True:
                chosen = torch.randperm(len(images), device=self.device)[: self.options.batch_size]
                batch = images[chosen].float() / 255
                yield augment(batch), augment(batch)

        return self.peer(views(), dtype, memory_format=torch.contiguous_format)

    def peer(self, views: Views, dtype: torch.dtype, *, memory_format: torch.memory_format) -> Callable[[], None]:
        """The loop that lightly documents: each view through encoder and head, its loss, plain SGD."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        built = self.encoder()
        network = nn.Sequential(built.net, SimCLRProjectionHead(built.width, built.width, 128))
        network = network.to(self.device, memory_format=memory_format).train()
        optimiser, criterion = torch.optim.SGD(network.parameters(), lr=0.06), NTXentLoss(TEMPERATURE)

        def objective() -> Tensor:
            a, b = (view.to(self.device, non_blocking=True, memory_format=memory_format) for view in next(views))
            return criterion(network(a), network(b))

        return lambda: self.update(objective, optimiser, dtype)

    def update(self, objective: Callable[[], Tensor], optimiser: torch.optim.Optimizer, dtype: torch.dtype) -> None:
        with autocast(self.device, dtype):
            loss = objective()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def encoder(self):
        return encoder(self.options.encoder, channels=self.options.channels, size=self.options.size)

    def method(self) -> SimCLR:
        built = SimCLR(self.encoder(), natural(self.options.size), SimCLR.Config(temperature=TEMPERATURE))
        return built.to(self.device).train()

    def calls(self) -> list[int]:
        """Images in each call of the encoder that a step of Kontrast makes."""
        method, counts = self.method(), []
        method.encoder.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
        with torch.no_grad():
            method(next(Loader(self.images, self.options.batch_size).epoch(0, self.device)))
        return counts

    def loaded(self, transform: Callable, *, workers: int) -> Views:
        """Pairs of views from an endless DataLoader, whose workers are at work when this returns."""
        dataset = Pictures(self.pictures, transform)
        loader = DataLoader(
            dataset,
            batch_size=self.options.batch_size,
            sampler=RandomSampler(dataset, replacement=True, num_samples=10**9),
            num_workers=workers,
            multiprocessing_context="fork",  # DataLoader's own default on Linux, which this process is no heir to
            pin_memory=self.device.type == "cuda",
            drop_last=True,
        )
        return iter(loader)


class Pictures(Dataset):
    """PIL images under a transform that makes two views of each."""

    def __init__(self, pictures: list[Image.Image], transform: Callable) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.pictures[at])


class Twice:
    """SimCLR's transform as solo-learn composes it of torchvision's."""

    def __init__(self, options: argparse.Namespace) -> None:
        from torchvision import transforms

        size, channels = options.size, options.channels
        blur = transforms.GaussianBlur(size // 20 * 2 + 1, (0.1 * size / 224, 2 * size / 224))
        self.once = transforms.Compose([
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([blur], p=0.5 if size >= 64 else 0.0),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * channels, [0.25] * channels),
        ])  # fmt: skip

    def __call__(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        return self.once(picture), self.once(picture)


def resized(side: int, channels: int, *, count: int) -> ImageSet:
    """Real digits at another size, as they would lie decoded in the cache."""
    small = data.open("sample:digits-5k").pixels[:: max(1, 5000 // count), 0][:count]
    large = np.stack([np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small])
    pixels = np.repeat(large[:, None], channels, axis=1)
    return data.open([(torch.from_numpy(one), 0) for one in pixels])


def endless(epoch: Callable[[int], Iterable]) -> Iterator:
    number = 0
    while True:
        yield from epoch(number)
        number += 1


def send(processes: list[int], number: int) -> None:
    for process in processes:
        os.kill(process, number)


def quality(epochs: int, seeds: int) -> None:
    """Linear-probe accuracy of SimCLR trained in float32 and in bf16, and the paired difference."""
    images = data.open("sample:digits-5k")
    train, test = (images.take(np.flatnonzero(images.parts == part)) for part in ("train", "test"))
    labelled = train.take(np.arange(0, len(train), 10))
    answers = {}
    for precision in ("float32", "bf16"):
        answers[precision] = [
            [probed(pretrained(train, epochs, seed, precision), labelled, test)] for seed in range(seeds)
        ]
    rows = []
    for precision, predictions in answers.items():
        found = estimate(test.labels, np.array(predictions), "accuracy")
        rows.append([precision, f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}"])
    found = difference(test.labels, np.array(answers["bf16"]), np.array(answers["float32"]), "accuracy")
    rows.append(["bf16 - float32", f"{found.value:+.1%}", f"{found.low:+.1%} to {found.high:+.1%}"])
    print(machine("torch", "timm", "scikit-learn"))
    print(f"SimCLR, resnet10t, {epochs} epochs, {seeds} seeds, linear probe on {len(labelled)} labels\n")
    print(table(["precision", "accuracy", "95 % interval"], rows))
    if verdict(found) == "hurts":
        raise SystemExit("bf16 costs accuracy")


def pretrained(train: ImageSet, epochs: int, seed: int, precision: str) -> nn.Module:
    torch.manual_seed(seed)
    method = SimCLR(encoder("resnet10t", channels=1, size=28, stem="standard"), digits(28))
    fit(method, Loader(train, 256, seed=seed), Fit(epochs=epochs, precision=precision, seed=seed), show=False)
    return method.encoder


def probed(built: nn.Module, labelled: ImageSet, test: ImageSet) -> np.ndarray:
    known, asked = features(built, labelled), features(built, test)
    return linear_probe(known, labelled.labels, asked, num_classes=len(test.classes)).probabilities


if __name__ == "__main__":
    main()
