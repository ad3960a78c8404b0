"""From a folder of images and a table of labels to a page that says whether pre-training helps.

The folder is made here, of real digits, so that there is one: some 400 PNG files, and a table that labels each. On your
own images only the call of `study` remains.
"""

import csv
from pathlib import Path

from PIL import Image

import kontrast
from kontrast import data

folder = Path("images")
folder.mkdir(exist_ok=True)
digits = data.open("sample:digits-5k").take(range(0, 5000, 12))
with Path("labels.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "label"])
    for number, (row, label) in enumerate(zip(digits.rows, digits.labels, strict=True)):
        Image.fromarray(digits.pixels[row, 0]).save(folder / f"{number:04d}.png")
        table.writerow([f"{number:04d}.png", digits.classes[label]])

# Real studies have more of everything: images, epochs, seeds, draws.
page = kontrast.study(
    data=str(folder),
    labels=Path("labels.csv"),
    policy="digits",
    encoder="resnet10t",
    stem="standard",
    methods=("simclr",),
    epochs=3,
    seeds=1,
    draws=2,
    fractions=(0.1, 0.5),
    finetune_steps=20,
    out=Path("study"),
)
print(f"open {page} in a browser")
