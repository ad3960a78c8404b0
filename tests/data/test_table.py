import builtins

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from kontrast.data.folder import list_folder
from kontrast.data.table import attach, list_table, read_table
from kontrast.errors import InputError


@pytest.fixture
def two(tmp_path, save):
    save(tmp_path / "images" / "a.png", 1)
    save(tmp_path / "images" / "b.png", 2)
    return tmp_path


def csv(folder, text):
    path = folder / "table.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_whatever_the_spreadsheet_wrote(two, delimiter, mark, end):
    rows = [["path", "label", "group", "split"], ["images/b.png", "x", "p", "test"], ["images/a.png", "", "", "train"]]
    listing = list_table(csv(two, mark + end.join(delimiter.join(row) for row in rows) + end))
    assert listing.names == ("images/a.png", "images/b.png")
    assert listing.annotations.labels.tolist() == [-1, 0]
    assert listing.annotations.parts.tolist() == ["train", "test"]
    assert len(set(listing.annotations.groups.tolist())) == 2


def test_quoted_cells_may_hold_the_separator(two):
    listing = list_table(csv(two, 'path,label\nimages/a.png,"x, y"\nimages/b.png,z\n'))
    assert listing.annotations.classes == ("x, y", "z")


def test_label_columns_are_multilabel_with_nan_for_unknown(two):
    known = list_table(csv(two, "path,label:mass,label:edema\nimages/a.png,1,\nimages/b.png,0,1.0\n")).annotations
    assert known.classes == ("mass", "edema")
    np.testing.assert_array_equal(known.labels, [[1, np.nan], [0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nimages/a.png,x\n", "has the columns file, label"),
        ("path,label\n", "has none"),
        ("", "none"),
        ("path,label\nimages/a.png,x\nimages/c.png,y\n", "1 of 2 .*images/c.png"),
        ("path,label\nimages/a.png,x\n./images/a.png,y\n", "2 times"),
        ("path,label\nimages/a.png,x\nimages/b.png,nan\n", "line 3, has 'nan': leave the cell empty"),
        ("path,label\nimages/a.png,None\n", "line 2, has 'None'"),
        ("path,label\nimages/a.png,x,y\n", "line 2, has 3 cells for 2 columns"),
        ("path,label,label\nimages/a.png,x,y\n", "'label' twice"),
        ("path,label,label:b\nimages/a.png,x,1\n", "has both"),
        ("path,label:b\nimages/a.png,2\n", "line 2, column label:b, has '2'"),
        ("path,split\nimages/a.png,fold1\n", "has 'fold1'"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(two, text, message):
    with pytest.raises(InputError, match=message):
        list_table(csv(two, text))


def test_a_table_that_is_not_text_is_refused(two):
    path = two / "table.csv"
    path.write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(path)


def test_parquet_gives_the_same_as_csv(two):
    path = two / "table.parquet"
    columns = {"path": ["images/a.png", "images/b.png"], "label": [10, None], "label_unused": [0.5, 1.0]}
    parquet.write_table(pa.table(columns), path)
    listing = list_table(path)
    assert listing.annotations.labels.tolist() == [0, -1]
    assert listing.annotations.classes == ("10",)


def test_a_floating_point_nan_in_a_label_column_of_parquet_is_refused(two):
    path = two / "table.parquet"
    parquet.write_table(pa.table({"path": ["images/a.png", "images/b.png"], "label": [1.0, float("nan")]}), path)
    with pytest.raises(InputError, match="row 2, has 'nan'"):
        list_table(path)


def test_a_file_that_only_claims_to_be_parquet_is_refused(two):
    path = two / "table.parquet"
    path.write_text("path\n")
    with pytest.raises(InputError, match="must be a Parquet file"):
        read_table(path)


def test_without_pyarrow_the_extra_is_named(two, monkeypatch):
    path = two / "table.parquet"
    path.write_text("")
    real = builtins.__import__

    def without_pyarrow(name, *rest):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(InputError, match=r"kontrast\[tables\]"):
        read_table(path)


@pytest.mark.parametrize("path", ["images/b.png", "b.png", "../{root}/images/b.png", "{absolute}/images/b.png"])
def test_labels_find_their_image_from_the_table_or_from_the_data_folder(two, path):
    path = path.format(root=two.name, absolute=two)
    listing = attach(list_folder(two / "images"), csv(two, f"path,label\n{path},x\n"), two / "images")
    assert listing.annotations.labels.tolist() == [-1, 0]


def test_a_table_replaces_the_classes_of_subfolders_and_keeps_their_split(tmp_path, save):
    save(tmp_path / "train" / "cat" / "1.png")
    save(tmp_path / "test" / "cat" / "1.png")
    table = csv(tmp_path, "path,label\ntrain/cat/1.png,tiger\n")
    known = attach(list_folder(tmp_path), table, tmp_path).annotations
    assert known.classes == ("tiger",)
    assert known.parts.tolist() == ["test", "train"]


def test_labels_of_files_that_are_not_there_are_refused(two):
    with pytest.raises(InputError, match=r"2 of 3 .*c.png, d.png"):
        attach(list_folder(two / "images"), csv(two, "path,label\na.png,x\nc.png,x\nd.png,y\n"), two / "images")


def test_a_table_of_labels_without_labels_is_refused(two):
    with pytest.raises(InputError, match="has path, class: rename"):
        attach(list_folder(two / "images"), csv(two, "path,class\na.png,x\n"), two / "images")


def test_two_rows_for_one_file_under_two_paths_are_refused(two):
    with pytest.raises(InputError, match="in two ways"):
        attach(list_folder(two / "images"), csv(two, "path,label\na.png,x\nimages/a.png,y\n"), two / "images")
