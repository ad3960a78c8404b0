"""From images to a classifier that others can run: pre-train, fine-tune, predict with abstention, export as ONNX."""

import csv
from pathlib import Path

import numpy as np
import onnxruntime

import kontrast
from kontrast import data
from kontrast.batch import as_float

kontrast.pretrain(
    method="simclr",
    data="sample:digits-5k",
    limit=500,
    policy="digits",
    encoder="resnet10t",
    stem="standard",
    epochs=3,
    batch_size=128,
    out=Path("runs/encoder"),
)
kontrast.finetune(task="classification", run=Path("runs/encoder"), epochs=3, out=Path("runs/classifier"))

kontrast.predict(
    run=Path("runs/classifier"), data="sample:digits-5k", limit=100, abstain_below=0.8, out=Path("predictions.csv")
)
with Path("predictions.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
print(f"answers {sum(row['abstained'] == 'no' for row in rows)} of {len(rows)} images, abstains from the rest")

# The ONNX file needs neither Kontrast nor torch: images in 0..1 go in, calibrated probabilities come out.
kontrast.export(run=Path("runs/classifier"), out=Path("classifier.onnx"))
session = onnxruntime.InferenceSession("classifier.onnx")
images = as_float(data.open("sample:digits-5k").batch(np.arange(5)).image).numpy()
[probabilities] = session.run(["probabilities"], {session.get_inputs()[0].name: images})
print(probabilities.argmax(axis=1), "is what ONNX says of the first five digits; runs/classifier holds a model card")
