"""How many views a second does one core make?

SimCLR's augmentation (crop, flip, colour, grey; blur from 64 px on) of the same uint8 images, by Kontrast, kornia,
torchvision on PIL images (what lightly and solo-learn do), torchvision on tensors and MONAI: those that are installed.
Each has a process of its own with one thread; turns of a third of a second are interleaved A B A B; medians.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timing import Turns, Work, installed, interleave, machine, table
from torch import Tensor

from kontrast import distributed
from kontrast.augment.policies import natural
from kontrast.nn.import_timm import import_timm

BATCH = {32: 512, 96: 128, 224: 32}
Step = tuple[Callable[[], Any], int]
"""What makes views, and how many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(BATCH))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    names = [name for name, (package, _) in LIBRARIES.items() if installed(package)]
    libraries = {name: Turns(library, name, options.sizes) for name in names}
    rows = []
    try:
        for size, channels in itertools.product(options.sizes, (1, 3)):
            turns = {name: partial(turn, (size, channels)) for name, turn in libraries.items()}
            seconds = interleave(turns, options.rounds)
            rates = {name: libraries[name].note[size, channels] / value for name, value in seconds.items()}
            for name, rate in rates.items():
                views = f"{size} px, {channels} channel{'s' if channels > 1 else ''}"
                rows.append([views, name, f"{rate:,.0f}", f"{rates['Kontrast'] / rate:.1f}"])
    finally:
        for turn in libraries.values():
            turn.end()
    print(machine("torch", "torchvision", "kornia", "monai"))
    print(table(["views", "library", "views/s per core", "Kontrast is × faster"], rows))


def library(name: str, sizes: list[int]) -> Work:
    """One library in its own process, at every size. Only Kontrast begins as its commands do."""
    if name == "Kontrast":
        distributed.start()
    torch.set_num_threads(1)
    import_timm()  # makes torchvision importable beside a CPU build of torch
    turns, counts = {}, {}
    for size, channels in itertools.product(sizes, (1, 3)):
        # Every view is made from an image of 8/7 of its side, as Kontrast stores them.
        stored = torch.randint(0, 256, (BATCH[size], channels, size * 8 // 7, size * 8 // 7), dtype=torch.uint8)
        turns[size, channels], counts[size, channels] = lasting(*LIBRARIES[name][1](stored, size))
    return lambda which: turns[which](), counts, lambda: None


def lasting(step: Callable[[], Any], count: int) -> Step:
    """So many batches a turn that it lasts a third of a second or more: the first one finds cold caches."""
    step()
    started = time.perf_counter()
    step()
    repeats = math.ceil(0.3 / (time.perf_counter() - started))

    def turn() -> None:
        for _ in range(repeats):
            step()

    return turn, repeats * count


def kontrast(stored: Tensor, size: int) -> Step:
    policy = natural(size)
    return lambda: policy(stored), len(stored)


def kornia(stored: Tensor, size: int) -> Step:
    import kornia.augmentation as k

    colour = k.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=0.8) if stored.shape[1] == 3 else None
    steps = [
        k.RandomResizedCrop((size, size), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
        k.RandomHorizontalFlip(),
        *(
            [colour, k.RandomGrayscale(p=0.2)]
            if colour
            else [k.RandomBrightness((0.6, 1.4), p=0.8), k.RandomContrast((0.6, 1.4), p=0.8)]
        ),
        *([k.RandomGaussianBlur(taps(size), sigmas(size), p=0.5)] if size >= 64 else []),
    ]
    augment = torch.nn.Sequential(*steps)
    return lambda: augment(stored.float() / 255), len(stored)


def torchvision_steps(channels: int, size: int) -> list[Any]:
    from torchvision.transforms import v2

    hue = (0.4, 0.1) if channels == 3 else (0, 0)
    return [
        v2.RandomResizedCrop(size, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, *hue)], p=0.8),
        *([v2.RandomGrayscale(p=0.2)] if channels == 3 else []),
        *([v2.RandomApply([v2.GaussianBlur(taps(size)[0], sigmas(size))], p=0.5)] if size >= 64 else []),
    ]


def torchvision_pil(stored: Tensor, size: int) -> Step:
    from torchvision.transforms import v2
    from torchvision.transforms.functional import to_pil_image

    images = [to_pil_image(image) for image in stored]
    augment = v2.Compose(
        [*torchvision_steps(stored.shape[1], size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    return lambda: torch.stack([augment(image) for image in images]), len(stored)


def torchvision_tensors(stored: Tensor, size: int) -> Step:
    from torchvision.transforms import v2

    augment = v2.Compose([*torchvision_steps(stored.shape[1], size), v2.ToDtype(torch.float32, scale=True)])
    return lambda: torch.stack([augment(image) for image in stored]), len(stored)


def monai(stored: Tensor, size: int) -> Step:
    """MONAI has no crop of random area and aspect and no hue: its nearest steps, of which it does less."""
    from monai import transforms as m

    augment = m.Compose(
        [
            m.RandAffine(prob=1, scale_range=(0.4, 0.4), translate_range=size / 4, spatial_size=(size, size)),
            m.RandFlip(prob=0.5, spatial_axis=1),
            m.RandScaleIntensity(0.4, prob=0.8),
            m.RandAdjustContrast(prob=0.8),
            *([m.RandGaussianSmooth(sigma_x=sigmas(size), sigma_y=sigmas(size), prob=0.5)] if size >= 64 else []),
        ]
    )
    images = stored.float() / 255
    return lambda: torch.stack([augment(image) for image in images]), len(stored)


def sigmas(size: int) -> tuple[float, float]:
    return 0.1 * size / 224, 2 * size / 224


def taps(size: int) -> tuple[int, int]:
    """Kernel of the blur, of the same reach as Kontrast's."""
    side = 2 * int(2.5 * sigmas(size)[1] + 1) + 1
    return side, side


LIBRARIES = {
    "Kontrast": ("kontrast", kontrast),
    "kornia": ("kornia", kornia),
    "PIL / torchvision": ("torchvision", torchvision_pil),
    "torchvision v2 on tensors": ("torchvision", torchvision_tensors),
    "MONAI": ("monai", monai),
}


if __name__ == "__main__":
    main()
