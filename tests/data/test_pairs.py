"""Tables and folders of pairs: who belongs to whom, and what is left out."""

import logging

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import kontrast.data as data
from kontrast.data.delimited import MOST_OF_A_CELL
from kontrast.data.folder import list_folder
from kontrast.data.pairs import MOST_BYTES, with_texts_beside
from kontrast.data.table import list_table
from kontrast.data.tabular import Columns
from kontrast.errors import InputError


@pytest.fixture
def pictures(tmp_path, save):
    for number, name in enumerate("abcd"):
        save(tmp_path / "images" / f"{name}.png", number)
    return tmp_path


def table(folder, *rows, header="image,text", name="pairs.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


# Tables


def test_several_rows_of_an_image_are_several_texts_of_it_wherever_they_stand(pictures):
    rows = ["images/b.png,two", "images/a.png,one", "./images/b.png,deux", "images/b.png,two"]
    opened = data.open(table(pictures, *rows))
    assert opened.names == ("images/a.png", "images/b.png")
    assert opened.texts == (("one",), ("two", "deux"))


def test_texts_of_an_image_keep_the_order_of_their_rows(pictures):
    rows = [f"images/a.png,{text}" for text in ("z", "a", "m", "a")]
    assert data.open(table(pictures, *rows)).texts == (("z", "a", "m"),)


def test_paths_are_relative_to_the_table_from_any_working_directory_or_absolute(
    pictures, tmp_path_factory, monkeypatch
):
    path = table(pictures, "images/a.png,one", f"{pictures}/images/b.png,two")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert set(data.open(path).texts) == {("one",), ("two",)}


def test_a_table_of_open_clip_is_read_as_it_is(pictures):
    path = table(pictures, 'images/a.png\tA "small" cat, alone', header="filepath\ttitle", name="train.csv")
    assert data.open(path).texts == (('A "small" cat, alone',),)


def test_a_table_without_a_column_of_texts_has_none(pictures):
    assert data.open(table(pictures, "images/a.png,x", header="path,label")).texts is None


def test_another_column_of_texts_can_be_chosen(pictures):
    path = table(pictures, "images/a.png,x,y", header="image,text,impression")
    assert data.open(path, columns=Columns(text="impression")).texts == (("y",),)


def test_label_group_and_split_are_those_of_the_image_and_may_stand_in_one_of_its_rows(pictures):
    rows = ["images/a.png,one,cat,,p1", "images/a.png,uno,,test,p1", "images/b.png,two,dog,train,p2"]
    opened = data.open(table(pictures, *rows, header="image,text,label,split,group"))
    assert [opened.classes[code] for code in opened.labels] == ["cat", "dog"]
    assert opened.parts.tolist() == ["test", "train"]
    assert opened.texts == (("one", "uno"), ("two",))
    assert len(opened.group_names) == 2


def test_one_file_in_several_spellings_is_one_image(pictures):
    (pictures / "images" / "x").mkdir()
    rows = [f"{pictures}/images/a.png,one,7", "images/a.png,two,7", "images/x/../a.png,three,7", "images/b.png,x,8"]
    opened = data.open(table(pictures, *rows, header="image,text,image_id"))
    assert len(opened) == 2
    assert set(opened.texts) == {("one", "two", "three"), ("x",)}


def test_one_file_in_two_spellings_is_refused_where_a_table_has_no_texts(pictures):
    path = table(pictures, "images/a.png", f"{pictures}/images/a.png", header="image")
    with pytest.raises(InputError, match=r"names 'images/a\.png' or '/.*/images/a\.png' 2 times"):
        data.open(path)


@pytest.mark.parametrize("column", ["label", "group", "split", "label:mass"])
def test_rows_of_one_image_that_contradict_each_other_are_refused(pictures, column):
    values = ("train", "test") if column == "split" else ("0", "1")
    rows = [f"images/b.png,two,{values[0]}", f"images/a.png,one,{values[0]}", f"images/a.png,uno,{values[1]}"]
    with pytest.raises(InputError, match=f"line 3 and line 4, give 'images/a.png' .*{values[0]}.* and .*{values[1]}"):
        list_table(table(pictures, *rows, header=f"image,text,{column}"))


def test_what_else_a_table_says_of_a_text_may_differ(pictures):
    rows = ["images/a.png,one,Ann", "images/a.png,uno,Bea"]
    assert list_table(table(pictures, *rows, header="image,text,reader")).annotations.texts == (("one", "uno"),)


def test_a_file_of_two_image_ids_is_refused(pictures):
    rows = ["images/a.png,one,7", "images/a.png,uno,8"]
    with pytest.raises(InputError, match=r"line 2 and line 3, give 'images/a.png' the image_id '7' and '8'"):
        list_table(table(pictures, *rows, header="image,text,image_id"))


def test_an_image_id_of_two_files_is_refused(pictures):
    rows = ["images/a.png,one,7", "images/b.png,two,", "images/b.png,deux,7"]
    with pytest.raises(InputError, match=r"line 2 and line 4, give '7' to 'images/a.png' and 'images/b.png'"):
        list_table(table(pictures, *rows, header="image,text,image_id"))


@pytest.fixture
def bad(pictures):
    """Four pairs and one row of each kind that is none."""
    (pictures / "images" / "broken.png").write_bytes(b"no picture")
    rows = ["images/a.png,one", "images/none.png,x", ",no image", "images/b.png,", "images/broken.png,y"]
    rows += ["images/b.png,two", "images/c.png,nan", "images/d.png,four", "images/a.png,uno"]
    return table(pictures, *rows)


def test_rows_that_are_no_pairs_are_skipped_and_named_by_reason_with_their_lines(bad, caplog):
    with caplog.at_level(logging.WARNING, logger="kontrast"):
        opened = data.open(bad, max_unreadable=0.5)
    assert opened.names == ("images/a.png", "images/b.png", "images/d.png")
    assert opened.texts == (("one", "uno"), ("two",), ("four",))
    np.testing.assert_array_equal(
        opened.pixels[opened.rows[2]], data.open(bad.parent / "images" / "..", max_unreadable=0.5).pixels[3]
    )
    told = caplog.text
    assert "4 of 9 pairs are incomplete and are skipped" in told
    assert "no such file: line 3 (images/none.png)" in told
    assert "no image named: line 4;" in told or "no image named: line 4\n" in told
    assert "no text: line 5 (images/b.png), line 8 (images/c.png)" in told
    assert dict(opened.skipped).keys() == {
        "images/none.png",
        "line 4",
        "images/b.png",
        "images/c.png",
        "images/broken.png",
    }
    assert dict(opened.skipped)["images/broken.png"].startswith("line 6: UnidentifiedImageError")
    assert dict(opened.skipped)["images/none.png"] == "line 3: no such file"


def test_more_rows_that_are_no_pairs_than_allowed_are_refused_in_a_sentence(bad):
    with pytest.raises(
        InputError, match=r"1\.00% at most; 4 of 9 pairs of .*line 3 \(images/none\.png\).*--max-unreadable"
    ):
        data.open(bad)


@pytest.mark.parametrize("rows", [["images/a.png,", "images/b.png,"], [",x", ",y"], ["gone.png,x"]])
def test_a_table_with_no_pair_at_all_is_refused_whatever_is_allowed(pictures, rows):
    with pytest.raises(InputError, match=f"{len(rows)} of {len(rows)} pairs"):
        data.open(table(pictures, *rows), max_unreadable=1.0)


def test_names_of_rows_that_are_no_pairs_are_aliased_too(bad, caplog):
    with caplog.at_level(logging.WARNING, logger="kontrast"):
        opened = data.open(bad, max_unreadable=0.5, alias_paths=True)
    assert "images/" not in caplog.text
    assert not any("images/" in name + reason for name, reason in opened.skipped)


def test_a_text_in_place_of_a_file_name_is_a_missing_file_and_no_crash(pictures):
    with pytest.raises(InputError, match="no such file"):
        data.open(table(pictures, f"images/a.png,{'long ' * 2000}"), columns=Columns(image="text", text="image"))


def test_texts_of_16_bit_images_leave_their_range_alone(tmp_path, save):
    save(tmp_path / "a.png", np.array([[0, 300], [40000, 65535]], np.uint16))
    save(tmp_path / "b.png", np.zeros((2, 2), np.uint16))
    opened = data.open(table(tmp_path, "a.png,x", "b.png,y"))
    assert opened.pixels.dtype == np.uint16
    assert opened.pixels[opened.rows[0], 0].tolist() == [[0, 300], [40000, 65535]]
    assert opened.channels == 1


def test_other_texts_of_the_same_images_decode_nothing_anew(pictures, cache):
    first = data.open(table(pictures, "images/a.png,x", "images/b.png,y"))
    second = data.open(table(pictures, "images/a.png,z", "images/b.png,y"))
    assert len(list((cache / "images").iterdir())) == 1
    assert (first.texts[0], second.texts[0]) == (("x",), ("z",))
    assert first.fingerprint == second.fingerprint


def test_a_table_of_pairs_may_label_a_folder(pictures):
    path = table(pictures, "images/a.png,one,cat", "images/a.png,uno,cat", header="image,text,label")
    assert data.open(pictures / "images", labels=path).labels.tolist() == [0, -1, -1, -1]


def test_a_text_with_nul_characters_is_left_out_by_reason(pictures, caplog):
    path = table(pictures, "images/a.png,one", "images/b.png,t\0wo", "images/c.png,three")
    assert data.open(path, max_unreadable=0.4).texts == (("one",), ("three",))
    assert "text with NUL characters: line 3 (images/b.png)" in caplog.text
    assert len(data.open(path, texts=False)) == 3


def arrow(folder, **columns):
    """A Parquet file of bytes called text, which nothing on the way looks at."""
    cells = {name: pa.array(values, pa.binary()).cast(pa.string(), safe=False) for name, values in columns.items()}
    parquet.write_table(pa.table(cells), folder / "pairs.parquet")
    return folder / "pairs.parquet"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"half \xed\xa0\xbd of a pair", "text that is not UTF-8"),
        (b"gr\xf6sser", "text that is not UTF-8"),
        (b"t\0wo", "text with NUL characters"),
        (b"x" * (MOST_OF_A_CELL + 1), "text of more than a million characters"),
    ],
)
def test_a_text_of_parquet_that_cannot_be_one_is_left_out_by_reason(pictures, text, reason, caplog):
    path = arrow(pictures, image=[b"images/a.png", b"images/b.png", b"images/c.png"], text=[b"one", text, None])
    assert data.open(path, max_unreadable=0.7).texts == (("one",),)
    assert f"{reason}: row 2 (images/b.png); no text: row 3 (images/c.png)" in caplog.text
    assert len(data.open(path, texts=False)) == 3


@pytest.mark.parametrize("column", ["image", "label", "remark"])
def test_another_cell_of_parquet_that_is_not_utf8_is_refused_with_its_place(pictures, column):
    names = [b"images/a.png", b"images/b.png"]
    path = arrow(pictures, **{"image": names, "text": [b"x", b"y"], column: [names[0], b"\xff"]})
    with pytest.raises(
        InputError, match=rf"row 2, column {'path' if column == 'image' else column}, holds one that is"
    ):
        data.open(path)


# Folders


def write(folder, **texts):
    for name, text in texts.items():
        (folder / "images" / f"{name}.txt").write_text(text, encoding="utf-8")


def test_a_text_beside_an_image_is_its_text(pictures, save):
    write(pictures, a="\ufeffone,\n\nand more\n", b=" two ", c="ü", d="4")
    save(pictures / "images" / "cat" / "x.JPG", 9)
    (pictures / "images" / "cat" / "x.txt").write_text("five")
    opened = data.open(pictures / "images")
    assert dict(zip(opened.names, opened.texts, strict=True)) == {
        "a.png": ("one,\n\nand more",), "b.png": ("two",), "c.png": ("ü",), "d.png": ("4",), "cat/x.JPG": ("five",),
    }  # fmt: skip


def test_a_folder_whose_texts_belong_to_no_image_has_none(pictures):
    write(pictures, README="about these images")
    assert data.open(pictures / "images").texts is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no text beside it"),
        (b" \n", "empty text"),
        (b"\xef\xbb\xbf\n", "empty text"),
        (b"\xff\xfe", "text that is not UTF-8"),
        (b"half \xed\xa0\xbd of a pair", "text that is not UTF-8"),
        ("one".encode("utf-16"), "text that is not UTF-8"),
        ("one".encode("utf-16-le"), "text with NUL characters"),
        (b"x" * (MOST_BYTES + 1), "text of more than a megabyte"),
    ],
)
def test_images_without_a_text_are_skipped_by_reason_up_to_the_limit(pictures, content, reason, caplog):
    write(pictures, a="one", b="two", c="three")
    if content is not None:
        (pictures / "images" / "d.txt").write_bytes(content)
    opened = data.open(pictures / "images", max_unreadable=0.25)
    assert opened.names == ("a.png", "b.png", "c.png")
    assert opened.skipped == (("d.png", reason),)
    assert f"1 of 4 pairs are incomplete and are skipped: {reason}: d.png" in caplog.text


def test_a_folder_in_which_too_many_lack_a_text_keeps_its_images_and_says_that_texts_are_not_read(pictures, caplog):
    write(pictures, a="one", b="two", c="three")
    opened = data.open(pictures / "images", max_unreadable=0.24)
    assert len(opened) == 4
    assert opened.texts is None
    assert "1 of 4 images have no text beside them, more than --max-unreadable allows (24.00%)" in caplog.text


def test_labels_of_a_table_stay_with_the_images_that_have_a_text(pictures):
    write(pictures, a="one", c="three", d="four")
    labels = table(pictures, "a.png,x", "b.png,y", "d.png,z", header="path,label", name="labels.csv")
    opened = data.open(pictures / "images", labels=labels, max_unreadable=0.25)
    assert opened.names == ("a.png", "c.png", "d.png")
    assert [opened.classes[code] if code >= 0 else "" for code in opened.labels] == ["x", "", "z"]
    assert opened.texts == (("one",), ("three",), ("four",))


@pytest.mark.parametrize(
    ("image", "text"),
    [("a.nii.gz", "a.txt"), ("a.b.png", "a.b.txt"), ("1.2.840.113", "1.2.840.113.txt"), ("a.DCM", "a.txt")],
)
def test_the_name_of_a_text_is_that_of_its_image_without_what_says_its_kind(tmp_path, save, image, text):
    save(tmp_path / "x.png")
    found = list_folder(tmp_path)
    (tmp_path / text).write_text("here")
    found = found.__class__(name=found.name, names=(image,), paths=(tmp_path / image,), annotations=found.annotations)
    assert with_texts_beside(found, 0).annotations.texts == (("here",),)


# Images alone, where there are texts


def same(left, right):
    """Whether two sets are the same but for their names."""
    np.testing.assert_array_equal(left.pixels[left.rows], right.pixels[right.rows])
    for field in ("names", "classes", "group_names", "fingerprint", "texts"):
        assert getattr(left, field) == getattr(right, field), field
    for field in ("labels", "groups", "parts"):
        np.testing.assert_array_equal(getattr(left, field), getattr(right, field))
    return True


@pytest.mark.parametrize("column", ["text", "impression", "absent"])
def test_without_texts_a_table_is_what_it_is_without_their_column(pictures, caplog, column):
    rows = ["d,three,,p2,x,train", "b,one,cat,p1,x,test", "c,,dog,p1,y,train", "a,nan,,,y,"]
    rows = [f"images/{row[0]}.png{row[1:]}" for row in rows]
    path = table(pictures, *rows, header=f"image,{column.replace('absent', 'text')},label,group,image_id,split")
    plain = [",".join([cells[0], *cells[2:]]) for cells in (row.split(",") for row in rows)]
    other = table(pictures, *plain, header="image,label,group,image_id,split", name="plain.csv")
    opened = data.open(path, texts=False, columns=None if column == "text" else Columns(text=column))
    assert opened.texts is None
    assert opened.names == tuple(f"images/{name}.png" for name in "abcd")
    assert len({opened.group_names[code] for code in opened.groups[1:3]}) == 1
    assert opened.skipped == ()
    assert caplog.text == ""
    assert same(opened, data.open(other))


def test_without_texts_several_rows_of_an_image_are_one_image(pictures):
    rows = ["images/b.png,two,cat", "images/a.png,,dog", "images/b.png,,", "images/b.png,deux,cat"]
    opened = data.open(table(pictures, *rows, header="image,text,label"), texts=False)
    assert opened.names == ("images/a.png", "images/b.png")
    assert [opened.classes[code] for code in opened.labels] == ["dog", "cat"]
    assert opened.texts is None


def test_without_texts_an_image_of_a_table_that_is_not_there_is_refused_as_in_a_table_without_texts(pictures):
    path = table(pictures, "images/a.png,x", "images/gone.png,y")
    with pytest.raises(InputError, match=r"1 of 2 in .* do not exist"):
        data.open(path, texts=False, max_unreadable=1.0)


def test_without_texts_the_files_of_text_in_a_folder_are_not_even_opened(pictures, monkeypatch, caplog):
    plain = data.open(pictures / "images")
    write(pictures, a="0 0.5 0.5 0.1 0.1", b="")
    (pictures / "images" / "c.txt").write_bytes(b"\xff")
    monkeypatch.setattr("kontrast.data.pairs._text_of", lambda path: pytest.fail(f"opened {path}"))
    opened = data.open(pictures / "images", texts=False)
    assert same(opened, plain)
    assert caplog.text == ""


def test_a_table_of_labels_need_not_have_the_column_of_texts_of_other_tables(pictures):
    path = table(pictures, "images/a.png,cat", header="image,label")
    assert data.open(pictures / "images", labels=path, columns=Columns(text="report")).labels.tolist() == [
        0,
        -1,
        -1,
        -1,
    ]


def test_a_set_is_returned_as_it_is_or_without_its_texts(pictures):
    opened = data.open(table(pictures, "images/a.png,x"))
    assert data.open(opened) is opened
    without = data.open(opened, texts=False)
    assert without.texts is None
    assert data.open(without, texts=False) is without
