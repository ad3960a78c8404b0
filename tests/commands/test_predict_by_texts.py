"""Zero-shot predictions are the softmax of cosines as a reader of the docs would compute it from the towers."""

import csv
import json

import numpy as np
import pytest
import torch
from pyarrow import parquet

import kontrast as package
from kontrast import data
from kontrast.nn.towers import load_towers

CLASSES = {"classes": ["dark field", "light half"], "templates": ["a {}", "view of a {}."]}


@pytest.fixture
def classes(tmp_path):
    def classes(content=CLASSES):
        path = tmp_path / "classes.json"
        path.write_text(json.dumps(content))
        return path

    return classes


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_hand(run, images):
    """Names, and `exp(cosine / temperature)` over its sum, each class the mean of its sentences."""
    towers, opened = load_towers(run), data.open(images)
    pixels = torch.from_numpy(np.array(opened.pixels[opened.rows]))
    with torch.no_grad():
        image = towers.encode_image(pixels).numpy().astype(np.float64)
        means = []
        for name in CLASSES["classes"]:
            mean = towers.encode_text([f"a {name}", f"view of a {name}."]).numpy().astype(np.float64).mean(0)
            means.append(mean / np.linalg.norm(mean))
    powers = np.exp(image @ np.stack(means).T / towers.temperature.item())
    return opened.names, powers / powers.sum(1, keepdims=True)


def test_probabilities_are_those_recomputed_from_the_towers_and_in_the_columns_of_a_classifier(
    clip_run, images, kontrast, classes, tmp_path, caplog
):
    caplog.set_level("INFO", logger="kontrast")
    out = tmp_path / "p.csv"
    assert kontrast("predict", clip_run, images, "--classes", classes(), "--out", out) == 0
    rows, (names, expected) = read(out), by_hand(clip_run, images)
    assert list(rows[0]) == ["path", "prediction", "confidence", "abstained", "p:dark field", "p:light half"]
    assert [row["path"] for row in rows] == list(names)
    found = np.array([[float(row[f"p:{name}"]) for name in CLASSES["classes"]] for row in rows])
    assert found == pytest.approx(expected, abs=1e-4)
    assert [row["prediction"] for row in rows] == [CLASSES["classes"][i] for i in found.argmax(1)]
    assert [float(row["confidence"]) for row in rows] == found.max(1).tolist()
    assert {row["abstained"] for row in rows} == {"no"}
    assert "not calibrated" in caplog.text


def test_answers_below_the_threshold_are_withheld_and_a_parquet_file_says_the_same(clip_run, images, classes, tmp_path):
    middle = float(np.median(by_hand(clip_run, images)[1].max(1)))
    options = {"run": clip_run, "data": str(images), "classes": classes(), "abstain_below": middle}
    rows = read(package.predict(out=tmp_path / "p.csv", **options))
    assert 0 < sum(row["abstained"] == "yes" for row in rows) < len(rows)
    for row in rows:
        assert (row["abstained"] == "yes") == (row["prediction"] == "") == (float(row["confidence"]) < middle)
    table = parquet.read_table(package.predict(out=tmp_path / "p.parquet", **options)).to_pylist()
    assert [{key: str(value) for key, value in row.items()} for row in table] == rows


def test_classes_go_by_what_tables_of_labels_call_them(clip_run, images, classes, tmp_path):
    words = {"classes": {"dark": "dark field", "light": "light half"}, "templates": CLASSES["templates"]}
    rows = read(package.predict(run=clip_run, data=str(images), classes=classes(words), out=tmp_path / "p.csv"))
    expected = by_hand(clip_run, images)[1]
    assert [row["prediction"] for row in rows] == [("dark", "light")[i] for i in expected.argmax(1)]
    assert list(rows[0])[4:] == ["p:dark", "p:light"]


def test_sentences_that_the_context_cuts_are_counted(clip_run, images, classes, tmp_path, caplog):
    long = {"classes": ["dark field", "z" * 60]}
    package.predict(run=clip_run, data=str(images), classes=classes(long), out=tmp_path / "p.csv")
    assert "of 1 of 2 sentences of classes, only the first 14 tokens are read" in caplog.text


def test_wrong_input_is_refused_and_writes_nothing(
    clip_run, run, untrained, images, refused, classes, draw_folder, tmp_path
):
    words = [images, "--out", tmp_path / "p.csv"]
    assert "--classes is missing, so write a file such as" in refused("predict", clip_run, *words)
    assert "has no towers.safetensors" in refused("predict", run, *words, "--classes", classes())
    classifier = untrained(tmp_path / "classifier", classes=("a", "b"))
    assert "so leave --classes out" in refused("predict", classifier, *words, "--classes", classes())
    assert "has 'one' alone" in refused("predict", clip_run, *words, "--classes", classes({"classes": ["one"]}))
    assert "classes are a JSON file" in refused("predict", clip_run, *words, "--classes", tmp_path / "none.json")
    colour = draw_folder(tmp_path / "colour", channels=3, count=3)
    given = ["--classes", classes(), "--out", tmp_path / "p.csv"]
    assert "use --channels 1" in refused("predict", clip_run, colour, *given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.json", "classifier", "colour"]
