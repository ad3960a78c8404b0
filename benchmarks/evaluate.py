"""How long does an evaluation take, and are its answers those of slower ways?

(a) The few-label protocol: 1 % and 10 % of the labels of 60,000 images, five draws each, and all of them, which is one
draw; with the choice of the penalty. (b) Exact k-NN of 10,000 queries against 60,000, interleaved with scikit-learn's
brute force and lightly's. (c) The linear probe on all labels against 90 epochs of SGD, the usual recipe of linear
evaluation.

Features are those of Fashion-MNIST through a ResNet-18 after one epoch of SimCLR on a third of it. Where the sample
cannot be had, they are drawn from a mixture of Gaussians, and the output says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from timing import installed, interleave, machine, table

from kontrast import Fit, Loader, SimCLR, data, encoder, fit, linear_probe
from kontrast.augment.policies import natural
from kontrast.data import draw, hold_out
from kontrast.errors import InputError
from kontrast.evaluate.knn import knn_predict
from kontrast.evaluate.neighbours import nearest
from kontrast.evaluate.stored import stored_features

K, TEMPERATURE = 20, 0.07


@dataclass(frozen=True, kw_only=True)
class Features:
    title: str
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, two draws, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="abc")
    options = parser.parse_args()
    found = features(6_000 if options.quick else 60_000, 1_000 if options.quick else 10_000)
    print(machine("torch", "scikit-learn", "lightly"))
    print(f"{found.title}: {found.train.shape} labelled, {len(found.test)} test images\n")
    if "a" in options.parts:
        print(few_label_protocol(found, 2 if options.quick else 5), "\n")
    if "b" in options.parts:
        print(knn(found, 1 if options.quick else options.rounds), "\n")
    if "c" in options.parts:
        print(linear(found), "\n")


def features(num_train: int, num_test: int) -> Features:
    try:
        images = data.open("sample:fashion-mnist")
    except InputError as error:
        print(f"SYNTHETIC features, for Fashion-MNIST could not be had ({error})")
        return mixture(num_train, num_test)
    train, test = (
        images.take(part[:count]) for part, count in zip(hold_out(images), (num_train, num_test), strict=True)
    )
    torch.manual_seed(0)
    built = encoder("resnet18", channels=1, size=28, stem="standard")
    third = train.take(np.arange(0, len(train), 3))
    fit(SimCLR(built, natural(28)), Loader(third, 256, seed=0), Fit(epochs=1), show=False)
    assert train.labels is not None
    assert test.labels is not None
    return Features(
        title="Fashion-MNIST, ResNet-18 after one epoch of SimCLR",
        train=stored_features(built, train),
        labels=train.labels,
        test=stored_features(built, test),
        test_labels=test.labels,
    )


def mixture(num_train: int, num_test: int) -> Features:
    """Ten Gaussians of decaying spectrum around a common mean, as features of encoders are."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, 513) ** -0.5
    labels = rng.integers(0, 10, num_train + num_test)
    centres = rng.normal(size=(10, 512)) * spectrum
    drawn = (3 + 0.5 * centres[labels] + rng.normal(size=(len(labels), 512)) * spectrum).astype(np.float32)
    return Features(
        title="SYNTHETIC mixture of ten Gaussians, eigenvalues 1/i",
        train=drawn[:num_train],
        labels=labels[:num_train],
        test=drawn[num_train:],
        test_labels=labels[num_train:],
    )


def few_label_protocol(found: Features, num_draws: int) -> str:
    rows, whole = [], 0.0
    for fraction in (0.01, 0.1, 1.0):
        started, scores, strengths = time.perf_counter(), [], []
        for number in range(1 if fraction == 1 else num_draws):
            chosen = draw(found.labels, fraction=fraction, seed=number)
            probe = linear_probe(found.train[chosen], found.labels[chosen], found.test, num_classes=10, seed=number)
            scores.append(float((probe.probabilities.argmax(1) == found.test_labels).mean()))
            strengths.append(f"{probe.strengths[0]:g}")
        seconds = time.perf_counter() - started
        whole += seconds
        spread = f"{100 * np.mean(scores):.2f} ({100 * min(scores):.2f} to {100 * max(scores):.2f})"
        rows.append([f"{fraction:.0%}", f"{len(chosen):,}", str(len(scores)), f"{seconds:.1f}", spread])
        rows[-1].append(", ".join(strengths))
    rows.append(["together", "", "", f"{whole:.1f}", "", ""])
    return table(["labels", "images", "draws", "seconds", "test accuracy, %", "C chosen"], rows)


def knn(found: Features, rounds: int) -> str:
    bank, queries = (torch.from_numpy(part) for part in (found.train, found.test))
    unit_bank, unit_queries = (F.normalize(part, dim=1) for part in (bank, queries))
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(unit_bank.numpy())
    work: dict[str, Callable[[], Any]] = {
        "nearest": lambda: nearest(bank, queries, K),
        "scikit-learn, NearestNeighbors brute": lambda: brute.kneighbors(unit_queries.numpy()),
        "knn_predict": lambda: vote(found),
    }
    same = {"nearest": "", "scikit-learn, NearestNeighbors brute": agreement(brute, unit_queries, bank, queries)}
    if installed("lightly"):
        theirs = lightly_knn_predict()
        labels = torch.from_numpy(found.labels)

        def lightly() -> np.ndarray:
            blocks = torch.split(unit_queries, 256)
            return torch.cat([theirs(block, unit_bank.T, labels, 10, K, TEMPERATURE)[:, 0] for block in blocks]).numpy()

        work["lightly, knn_predict"] = lightly
        same["lightly, knn_predict"] = f"same class for {np.mean(lightly() == vote(found)):.2%}"
    else:
        print("lightly is not installed, so it is left out")
    seconds = interleave(work, rounds)
    rows = [[name, f"{value:.2f}", same.get(name, "")] for name, value in seconds.items()]
    return table([f"k-NN, k = {K}", "seconds, median", "agreement with ours"], rows)


def vote(found: Features) -> np.ndarray:
    votes = knn_predict(found.train, found.labels, found.test, num_classes=10, k=K, temperature=TEMPERATURE)
    return votes.argmax(1)


def agreement(brute: NearestNeighbors, unit: torch.Tensor, bank: torch.Tensor, queries: torch.Tensor) -> str:
    ours, rows = nearest(bank, queries, K)
    distances, theirs = brute.kneighbors(unit.numpy())
    same = np.mean([set(a) == set(b) for a, b in zip(rows.tolist(), theirs.tolist(), strict=True)])
    off = np.abs(1 - distances**2 / 2 - ours.numpy()).max()
    return f"same neighbours for {same:.2%}, cosines differ by at most {off:.0e}"


def lightly_knn_predict() -> Callable[..., torch.Tensor]:
    """Its file alone: the package around it imports a trainer that k-NN does not need."""
    package = importlib.util.find_spec("lightly")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "utils" / "benchmarking" / "knn.py"
    spec = importlib.util.spec_from_file_location("lightly_knn", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.knn_predict  # type: ignore[no-any-return]


def linear(found: Features) -> str:
    def ours() -> np.ndarray:
        return linear_probe(found.train, found.labels, found.test, num_classes=10).probabilities

    rows = []
    for name, probe in (("linear_probe", ours), ("SGD, 90 epochs", lambda: sgd_probe(found))):
        started = time.perf_counter()
        accuracy = (probe().argmax(1) == found.test_labels).mean()
        rows.append([name, f"{time.perf_counter() - started:.1f}", f"{100 * accuracy:.2f}"])
    return table(["linear probe on all labels", "seconds", "test accuracy, %"], rows)


def sgd_probe(found: Features, epochs: int = 90, batch: int = 256) -> np.ndarray:
    """Momentum 0.9, learning rate 0.1 on a cosine, no weight decay, batches of 256."""
    torch.manual_seed(0)
    x, y, asked = (torch.from_numpy(part) for part in (found.train, found.labels, found.test))
    layer = torch.nn.Linear(x.shape[1], 10)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(x) // batch))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), batch):
            optimiser.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return layer(asked).numpy()


if __name__ == "__main__":
    main()
