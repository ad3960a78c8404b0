"""Do the cyclic terms help? CLIP and CyCLIP with the same towers, data, augmentation, seeds and budget, side by side.

Trains what is missing, several seeds of each arm, each by the `kontrast pretrain` command that it prints; then scores
all arms on concepts that none has seen: zero-shot, retrieval, consistency, a linear probe, corrupted images. Shares
have 95 % intervals over seeds and concepts, differences are paired. A finished run is not trained again.

    python benchmarks/cyclip.py FOLDER --question terms --seeds 5
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from timing import table

from kontrast import cli, losses, measures
from kontrast.commands.assemble import DataOptions, open_data, split
from kontrast.commands.run import own_data, run_settings
from kontrast.data import ImageSet
from kontrast.evaluate.consistency import consistency
from kontrast.evaluate.corruptions import CORRUPTIONS, Corruption
from kontrast.evaluate.embeddings import image_embeddings, text_embeddings
from kontrast.evaluate.features import features
from kontrast.evaluate.intervals import Estimate, difference, estimate
from kontrast.evaluate.linear import linear_probe
from kontrast.evaluate.retrieval import retrieval_ranks
from kontrast.evaluate.shares import as_probabilities
from kontrast.evaluate.zeroshot import cosines, in_top
from kontrast.nn.towers import Towers, load_towers

RECIPE = "recipes/cyclip_emoji.yaml"
GOOGLE, TWITTER = "sample:emoji/google", "sample:emoji/twitter"
BRIEF = ["clip", "--epochs", "20"]
QUESTIONS: dict[str, dict[str, list[str]]] = {
    "terms": {"clip": ["clip"], "cyclip": ["cyclip"], "shuffled": ["clip", "--shuffle-texts"]},
    "shift": {
        "clip-google": ["clip", "--data", GOOGLE],
        "cyclip-google": ["cyclip", "--data", GOOGLE],
    },
    "weights": {
        "none": BRIEF,
        "both-1": [*BRIEF, "--in-modal", "1", "--cross-modal", "1"],
        "both-8": [*BRIEF, "--in-modal", "8", "--cross-modal", "8"],
        "both-32": [*BRIEF, "--in-modal", "31.75", "--cross-modal", "31.75"],
        "both-127": [*BRIEF, "--in-modal", "127", "--cross-modal", "127"],
        "in-32": [*BRIEF, "--in-modal", "31.75"],
        "cross-32": [*BRIEF, "--cross-modal", "31.75"],
    },
    "batches": {
        f"{form}-{size}": [*BRIEF, *terms, "--batch-size", str(size)]
        for form, terms in (
            ("none", []),
            ("pairs", ["--in-modal", "31.75", "--cross-modal", "31.75"]),
            ("rows", ["--in-modal", "0.25", "--cross-modal", "0.25", "--normalization", "rows"]),
        )
        for size in (32, 128, 512)
    },
}
"""Arms by name, and what each adds to the recipe; others are compared with the first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--question", choices=QUESTIONS, default="terms")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", default=RECIPE)
    options = parser.parse_args()
    arms = QUESTIONS[options.question]
    for seed in range(options.seeds):
        for arm, words in arms.items():
            train(options.folder / arm / f"seed-{seed}", words, seed, options.recipe)
    found = {arm: [scores(options.folder / arm / f"seed-{seed}") for seed in range(options.seeds)] for arm in arms}
    first, *others = arms
    print(table(["measure", *arms, *(f"{arm} - {first}" for arm in others)], rows(found)))


def train(run: Path, words: list[str], seed: int, recipe: str) -> None:
    if (run / "encoder.safetensors").is_file():
        return
    command = ["pretrain", *words, "--recipe", recipe, "--seed", str(seed), "--out", str(run), "--resume"]
    print("kontrast", shlex.join(command), flush=True)
    if code := cli.main(command):
        raise SystemExit(code)


def rows(found: Mapping[str, list[dict[str, np.ndarray]]]) -> list[list[str]]:
    first, *others = found
    names = [name for name in found[first][0] if not name.endswith(" groups")]
    return [
        [name, *(said(name, found[arm]) for arm in found), *(said(name, found[arm], found[first]) for arm in others)]
        for name in names
    ]


def said(name: str, ours: list[dict[str, np.ndarray]], theirs: list[dict[str, np.ndarray]] | None = None) -> str:
    """A share with its interval, or a scalar's mean and range over seeds; or the difference to another arm's."""
    values = np.stack([one[name] for one in ours])
    if values.ndim == 1:
        values = values if theirs is None else values - np.stack([one[name] for one in theirs])
        return f"{values.mean():.3f} ({values.min():.3f}..{values.max():.3f})"
    groups, labels = ours[0][f"{name} groups"], np.ones(values.shape[1], dtype=np.int64)
    if theirs is None:
        return str(estimate(labels, cells(values), "accuracy", groups=groups))
    return points(
        difference(labels, cells(values), cells(np.stack([one[name] for one in theirs])), "accuracy", groups=groups)
    )


def cells(hits: np.ndarray) -> np.ndarray:
    """`(seeds, n)` bool in the layout of `intervals`."""
    return np.stack([as_probabilities(row) for row in hits])[:, None]


def points(found: Estimate) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def scores(run: Path) -> dict[str, np.ndarray]:
    """Who was right about which query, by measure; and scalars. Kept beside the run."""
    file = run / "benchmark.npz"
    if not file.is_file():
        towers, parts = load_towers(run), split(open_data(own_data(run_settings(run))))
        assert parts.test is not None
        known = asked(towers, parts.train, parts.test) | shape(towers, parts.test)
        for name in CORRUPTIONS:
            known |= names_of(towers, parts.test, f"{name}: ", change=Corruption(name))
        if parts.train.name == GOOGLE:
            known |= other_style(towers, run, parts.train)
        np.savez_compressed(file, **known)
    with np.load(file) as found:
        return dict(found)


def names_of(towers: Towers, images: ImageSet, prefix: str = "", change: Corruption | None = None) -> dict:
    """Zero-shot among the names of all concepts that the images show."""
    names, label = np.unique([known[0] for known in images.texts], return_inverse=True)
    score = cosines(image_embeddings(towers, images, change=change), text_embeddings(towers, names.tolist()))
    found = {}
    for k in (1, 5):
        name = f"{prefix}zero-shot of {len(names):,} names, top {k}"
        found |= {name: in_top(score, torch.from_numpy(label), k), f"{name} groups": images.groups}
    return found


def asked(towers: Towers, train: ImageSet, test: ImageSet) -> dict:
    """Zero-shot by names and categories, consistency, retrieval, linear probe."""
    image = image_embeddings(towers, test)
    category = cosines(image, text_embeddings(towers, list(test.classes)))
    bank = image_embeddings(towers, train)
    found = {"zero-shot of 10 categories, top 1": in_top(category, torch.from_numpy(test.labels), 1)}
    for k in (1, 10):
        agrees = consistency(image, category.argmax(1).numpy(), bank, train.labels, k=k)
        found[f"consistency of categories, {k} nearest"] = agrees
    probe = linear_probe(
        features(towers.encoder, train),
        train.labels,
        features(towers.encoder, test),
        num_classes=len(train.classes),
        groups=train.groups,
    )
    found["linear probe of categories"] = probe.probabilities.argmax(1) == test.labels
    found |= {f"{name} groups": test.groups for name in found}
    return names_of(towers, test) | found | found_again(towers, image, test)


def found_again(towers: Towers, image: torch.Tensor, test: ImageSet) -> dict:
    """Retrieval in both directions; images of equal texts stand for each other."""
    texts = [text for known in test.texts for text in known]
    image_of = np.repeat(np.arange(len(test)), [len(known) for known in test.texts])
    embedded = text_embeddings(towers, texts)
    ranks = retrieval_ranks(image, embedded, image_of, texts=texts, merge_identical_text=True)
    sides = {
        "image to text": (ranks.image_to_text, test.groups),
        "text to image": (ranks.text_to_image, test.groups[image_of]),
    }
    found = {}
    for side, (rank, groups) in sides.items():
        for k in (1, 5, 10):
            found |= {f"{side}, recall at {k}": rank <= k, f"{side}, recall at {k} groups": groups}
    return found


def shape(towers: Towers, test: ImageSet) -> dict:
    """What the terms ask for, and how the space is filled, by the test images and their names."""
    image, text = image_embeddings(towers, test), text_embeddings(towers, [known[0] for known in test.texts])
    return {
        "in-modal term, pairs": losses.cyclic_in_modal(image, text).numpy(),
        "cross-modal term, pairs": losses.cyclic_cross_modal(image, text).numpy(),
        "alignment": measures.alignment(image, text).numpy(),
        "uniformity": measures.cross_uniformity(image, text).numpy(),
        "temperature": towers.temperature.numpy(),
    }


def other_style(towers: Towers, run: Path, train: ImageSet) -> dict:
    """Drawings of a style that the run has not seen: of unseen concepts, and of those that it knows."""
    settings = {**run_settings(run), "data": TWITTER}
    parts = split(open_data(DataOptions(**vars(own_data(settings)))))
    assert parts.test is not None
    found = names_of(towers, parts.test, "other style, unseen concepts: ")
    found |= names_of(towers, parts.train, "other style, known concepts: ")
    names = sorted({known[0] for known in parts.train.texts})
    image = image_embeddings(towers, parts.train)
    said = cosines(image, text_embeddings(towers, names)).argmax(1).numpy()
    places = {name: number for number, name in enumerate(names)}
    bank = np.array([places[known[0]] for known in train.texts])
    agrees = consistency(image, said, image_embeddings(towers, train), bank, k=1)
    name = "other style, known concepts: consistency, 1 nearest"
    return found | {name: agrees, f"{name} groups": parts.train.groups}


if __name__ == "__main__":
    main()
