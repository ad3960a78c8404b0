"""Predictions are those of the written weights, in the data's order, and keep silent where they should."""

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

import kontrast as package
from kontrast import data

HOSTILE = ("=1+1", "abstained", 'a"b,c\nd', "p:path", "path", "prediction", "ü <script>")


def read(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def by_hand(folder, images, *, multilabel=False):
    """Probabilities by plain torch from the files in the folder."""
    about, weights = json.loads((folder / "classifier.json").read_text()), load_file(folder / "classifier.safetensors")
    opened = data.open(images)
    with torch.no_grad():
        found = package.load(run=folder)(torch.from_numpy(np.array(opened.pixels[opened.rows])))
        logits = (found @ weights["weight"].T + weights["bias"]).double() / about["temperature"]
        return opened.names, (logits.sigmoid() if multilabel else logits.softmax(1)).numpy()


def test_every_image_gets_the_calibrated_probabilities_of_the_written_weights(classifier, noisy, kontrast, tmp_path):
    out = tmp_path / "new" / "p.csv"
    assert kontrast("predict", classifier, noisy, "--out", out) == 0
    rows, (names, expected) = read(out), by_hand(classifier, noisy)
    assert list(rows[0]) == ["path", "prediction", "confidence", "abstained", "p:dark", "p:light"]
    assert [row["path"] for row in rows] == list(names)
    found = np.array([[float(row["p:dark"]), float(row["p:light"])] for row in rows])
    assert found == pytest.approx(expected, abs=1e-6)
    assert [row["prediction"] for row in rows] == [("dark", "light")[i] for i in expected.argmax(1)]
    assert [float(row["confidence"]) for row in rows] == found.max(1).tolist()
    assert {row["abstained"] for row in rows} == {"no"}
    assert [path.name for path in out.parent.iterdir()] == ["p.csv"]


def test_answers_below_the_threshold_are_withheld_and_no_others(classifier, noisy, kontrast, tmp_path):
    assert kontrast("predict", classifier, noisy, "--out", tmp_path / "p.csv", "--abstain-below", 0.8) == 0
    rows = read(tmp_path / "p.csv")
    assert 0 < sum(row["abstained"] == "yes" for row in rows) < len(rows)
    for row in rows:
        assert (row["abstained"] == "yes") == (row["prediction"] == "") == (float(row["confidence"]) < 0.8)


def test_a_parquet_file_holds_the_same_as_the_csv(classifier, noisy, tmp_path):
    options = {"run": classifier, "data": str(noisy), "abstain_below": 0.8}
    rows = read(package.predict(out=tmp_path / "p.csv", **options))
    table = parquet.read_table(package.predict(out=tmp_path / "p.parquet", **options)).to_pylist()
    assert [{key: str(value) for key, value in row.items()} for row in table] == rows


def test_names_of_classes_and_paths_cannot_break_the_table(untrained, draw_folder, tmp_path):
    run = untrained(tmp_path / "run", classes=HOSTILE)
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=3)
    (flat / "00.png").rename(flat / "=cmd|x!A1,\n.png")
    rows = read(package.predict(run=run, data=str(flat), out=tmp_path / "p.csv"))
    assert list(rows[0]) == ["path", "prediction", "confidence", "abstained", *(f"p:{name}" for name in HOSTILE)]
    assert [row["path"] for row in rows] == ["01.png", "02.png", "./=cmd|x!A1,\n.png"]
    for row, expected in zip(rows, by_hand(run, flat)[1], strict=True):
        assert row["prediction"] == HOSTILE[expected.argmax()]
        assert [float(row[f"p:{name}"]) for name in HOSTILE] == pytest.approx(expected.tolist(), abs=1e-6)
    assert (flat / rows[2]["path"]).is_file()


def test_each_class_of_multilabel_data_is_answered_or_withheld_by_itself(untrained, images, tmp_path):
    classes = ("effusion", "mass; large", "node")
    run = untrained(tmp_path / "run", classes=classes, multilabel=True, temperature=0.3)
    out = package.predict(run=run, data=str(images), out=tmp_path / "p.csv", abstain_below=0.6)
    seen = set()
    for row, expected in zip(read(out), by_hand(run, images, multilabel=True)[1], strict=True):
        sure = {name: max(p, 1 - p) for name, p in zip(classes, expected, strict=True)}
        present = [name for name, p in zip(classes, expected, strict=True) if p >= 0.6]
        assert json.loads(row["prediction"]) == present
        assert json.loads(row["unanswered"]) == [name for name in classes if sure[name] < 0.6]
        assert row["abstained"] == ("yes" if min(sure.values()) < 0.6 else "no")
        answered = [value for value in sure.values() if value >= 0.6]
        assert (float(row["confidence"]) if row["confidence"] else None) == pytest.approx(min(answered, default=None))
        seen.add(row["abstained"])
    assert seen == {"yes", "no"}


def test_an_image_without_any_answer_has_no_confidence(untrained, images, tmp_path):
    run = untrained(tmp_path / "run", classes=("a", "b"), multilabel=True)
    rows = read(package.predict(run=run, data=str(images), out=tmp_path / "p.csv", abstain_below=1.0))
    assert {(row["prediction"], row["confidence"], row["unanswered"]) for row in rows} == {("[]", "", '["a", "b"]')}


def test_a_name_that_is_no_utf8_keeps_its_bytes(untrained, draw_folder, tmp_path):
    run, flat = untrained(tmp_path / "run", classes=("a", "b")), draw_folder(tmp_path / "f", kinds=(".",), count=2)
    try:
        os.rename(os.fsencode(flat / "00.png"), os.fsencode(flat) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    rows = read(package.predict(run=run, data=str(flat), out=tmp_path / "p.csv"))
    assert [os.fsencode(row["path"]) for row in rows] == [b"01.png", b"\xff.png"]
    table = parquet.read_table(package.predict(run=run, data=str(flat), out=tmp_path / "p.parquet"))
    assert table["path"].to_pylist() == ["01.png", r"\udcff.png"]


def test_files_that_cannot_be_read_are_named_and_skipped(untrained, draw_folder, kontrast, caplog, tmp_path):
    run, flat = untrained(tmp_path / "run", classes=("a", "b")), draw_folder(tmp_path / "f", kinds=(".",), count=4)
    (flat / "02.png").write_bytes(b"no image")
    caplog.set_level("INFO", logger="kontrast")
    words = ["predict", run, flat, "--max-unreadable", 0.5, "--out", tmp_path / "p.csv"]
    assert kontrast(*words) == 0
    assert "1 of 4 files could not be read and are skipped: 02.png" in caplog.text
    assert "predictions for 3 images" in caplog.text
    assert [row["path"] for row in read(tmp_path / "p.csv")] == ["00.png", "01.png", "03.png"]


def test_images_that_are_scaled_although_those_of_training_were_not_are_pointed_out(
    untrained, draw_folder, caplog, tmp_path
):
    run = untrained(tmp_path / "run", classes=("a", "b"))
    large = draw_folder(tmp_path / "f", kinds=(".",), count=2, side=40)
    package.predict(run=run, data=str(large), out=tmp_path / "p.csv")
    assert "these images have 40 px where training images had 16 px" in caplog.text


def test_wrong_input_is_refused_and_writes_nothing(run, classifier, images, refused, draw_folder, tmp_path):
    out = tmp_path / "p.csv"
    assert "kontrast finetune classification RUN" in refused("predict", run, images, "--out", out)
    assert "--out must end in .csv, .parquet; got p.txt" in refused(
        "predict", classifier, images, "--out", tmp_path / "p.txt"
    )
    words = ["predict", classifier, images, "--out", out]
    assert "lies in 0..1; --abstain-below is 80.0" in refused(*words, "--abstain-below", 80)
    assert "--limit is 0, so give 1 or more" in refused(*words, "--limit", 0)
    assert "--limit is -3, so give 1 or more" in refused(*words, "--limit", -3)
    assert "there is no folder" in refused("predict", classifier, tmp_path / "none", "--out", out)
    colour = draw_folder(tmp_path / "colour", channels=3, count=3)
    assert "use --channels 1" in refused("predict", classifier, colour, "--out", out)
    assert not out.exists()
    out.write_text("mine")
    assert "predictions never overwrite" in refused(*words)
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colour", "p.csv"]


def test_without_pyarrow_parquet_is_refused_with_the_way_out(untrained, images, refused, monkeypatch, tmp_path):
    run = untrained(tmp_path / "run", classes=("a", "b"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = refused("predict", run, images, "--out", tmp_path / "p.parquet")
    assert "pip install 'kontrast[tables]', or write .csv" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
