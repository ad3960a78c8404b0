"""Sixteen bits, and patients that no split may cut: what medical images need from the first byte.

The images are made: real digits stand in for findings, on noise of 16 bits, and every patient has five of them. That is
no medical evidence; it shows that 65,536 levels and patients survive the way from file to score.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

import kontrast
from kontrast import data

rng = np.random.default_rng(0)
digits = data.open("sample:digits-5k")
digits = digits.take(np.flatnonzero(digits.labels < 2)[::2])
folder = Path("images")
folder.mkdir(exist_ok=True)
with Path("labels.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "label", "group"])
    for number, (row, label) in enumerate(zip(digits.rows, digits.labels, strict=True)):
        exposure = rng.uniform(8_000, 20_000)
        pixels = digits.pixels[row, 0] * 100.0 + rng.normal(exposure, 2_000, (28, 28))
        Image.fromarray(pixels.clip(0, 65_535).astype(np.uint16)).save(folder / f"{number:04d}.png")
        table.writerow([f"{number:04d}.png", ["absent", "present"][label], f"patient-{number // 5}"])

images = data.open(folder, labels="labels.csv")
train, test = (images.take(part) for part in data.hold_out(images))
shared = np.intersect1d(train.groups, test.groups)
print(f"{images.pixels.dtype} with {len(np.unique(images.pixels)):,} levels; {len(shared)} patients on both sides")

run = kontrast.pretrain(
    method="simclr", data=str(folder), labels=Path("labels.csv"), policy="xray", encoder="resnet10t", stem="standard",
    epochs=3, batch_size=64, out=Path("run"),
)  # fmt: skip
scores = kontrast.evaluate(protocol="linear", run=run, per_class=(10,), draws=3)
[row] = scores["rows"]
print(f"{row['labels']} labels: AUROC {row['scores']['auroc']}, {row['scores']['auroc'].scope}")
