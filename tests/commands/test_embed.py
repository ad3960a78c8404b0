"""Embeddings in every format are the encoder's representations."""

import csv

import numpy as np
import pytest
from pyarrow import parquet

import kontrast as package
from kontrast import data
from kontrast.evaluate.features import features


@pytest.fixture(scope="module")
def expected(run, images):
    opened = data.open(images)
    return (
        list(opened.names),
        [opened.classes[label] for label in opened.labels],
        features(package.load(run=run), opened),
    )


def read_csv(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["path", "label", "e0"]
    return [row[0] for row in rows], [row[1] for row in rows], np.array([row[2:] for row in rows], np.float32)


def read_npz(path):
    with np.load(path, allow_pickle=False) as found:
        return found["path"].tolist(), found["label"].tolist(), found["embedding"]


def read_parquet(path):
    table = parquet.read_table(path)
    names, labels, *columns = (table[name].to_pylist() for name in table.column_names)
    return names, labels, np.array(columns, np.float32).T


@pytest.mark.parametrize("read", [read_csv, read_npz, read_parquet], ids=[".csv", ".npz", ".parquet"])
def test_names_labels_and_float32_values_come_back_exactly(read, run, images, expected, kontrast, tmp_path):
    out = tmp_path / "new" / f"e.{read.__name__.partition('_')[2]}"
    assert kontrast("embed", run, images, "--out", out) == 0
    names, labels, values = read(out)
    assert (names, labels) == expected[:2]
    assert np.array_equal(values, expected[2])
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_images_without_a_label_have_an_empty_one(run, draw_folder, tmp_path):
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=4)
    out = package.embed(run=run, data=str(flat), out=tmp_path / "e.csv")
    assert read_csv(out)[1] == [""] * 4


def test_wrong_input_is_refused(run, images, refused, draw_folder, tmp_path):
    assert "--out must end in .parquet, .csv, .npz" in refused("embed", run, images, "--out", tmp_path / "e.txt")
    (tmp_path / "e.csv").write_text("mine")
    assert "embeddings never overwrite" in refused("embed", run, images, "--out", tmp_path / "e.csv")
    assert (tmp_path / "e.csv").read_text() == "mine"
    colour = draw_folder(tmp_path / "colour", channels=3, count=3)
    assert "use --channels 1" in refused("embed", run, colour, "--out", tmp_path / "f.csv")
    assert "give a finished run" in refused("embed", tmp_path, images, "--out", tmp_path / "f.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colour", "e.csv"]
