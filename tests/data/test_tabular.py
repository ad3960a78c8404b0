import pyarrow as pa
import pytest
from pyarrow import parquet

from kontrast.data.tabular import Columns, read_table
from kontrast.errors import InputError


def table(folder, text, name="table.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("path,text", ["x", "y"]),
        ("image,caption", ["x", "y"]),
        ("image,text,caption", ["x", "y"]),
        ("path,caption,image", ["x", "y"]),
        ("filepath,title", ["x", "y"]),
    ],
)
def test_images_and_texts_are_found_by_their_usual_names_the_first_of_which_wins(tmp_path, header, found):
    read = read_table(table(tmp_path, f"{header}\nx,y{',z' * (header.count(',') - 1)}\n"))
    assert [read.columns["path"][0], read.columns["text"][0]] == found


def test_a_title_is_a_text_only_where_files_are_called_as_open_clip_calls_them(tmp_path):
    assert "text" not in read_table(table(tmp_path, "path,title\nx,y\n")).columns


def test_columns_and_delimiter_may_be_named(tmp_path):
    text = "text;report|image|path\nA, b; c|a.png|wrong\n"
    read = read_table(table(tmp_path, text), Columns(image="image", text="text;report", delimiter="|"))
    assert read.columns == {"path": ["a.png"], "text": ["A, b; c"]}


@pytest.mark.parametrize("delimiter", ["tab", "\\t", "\t"])
def test_a_tab_may_be_written_in_words(tmp_path, delimiter):
    read = read_table(table(tmp_path, "image\ttext, and more\na.png\tx\n"), Columns(delimiter=delimiter))
    assert read.columns == {"path": ["a.png"], "text, and more": ["x"]}


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n"])
def test_what_parts_no_columns_is_refused(tmp_path, delimiter):
    with pytest.raises(InputError, match="one character"):
        read_table(table(tmp_path, "image,text\na.png,x\n"), Columns(delimiter=delimiter))


@pytest.mark.parametrize(
    ("columns", "flag"), [(Columns(image="file"), "--image-column"), (Columns(text="report"), "--text-column")]
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, columns, flag):
    with pytest.raises(InputError, match=f"has image, text and not .*{flag}"):
        read_table(table(tmp_path, "image,text\na.png,x\n"), columns)


def test_quoted_texts_hold_separators_quotes_and_line_breaks_and_rows_are_counted_from_where_they_begin(tmp_path):
    read = read_table(
        table(tmp_path, 'image,text\r\na.png,"Clear lungs,\r\nno ""effusion"".\r\n"\r\n\r\nb.png,ü 漢\r\n')
    )
    assert read.columns["text"] == ['Clear lungs,\nno "effusion".', "ü 漢"]
    assert read.where == ["line 2", "line 6"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,text\na.png,x\nb.png,Größe\n".encode("cp1252"), "line 3, holds the byte 0xf6.*Windows-1252"),
        ("image,text\na.png,x\n".encode("utf-16"), "line 1, holds the byte 0xff.*UTF-16"),
    ],
)
def test_another_encoding_is_refused_with_the_place_and_a_guess(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_table(table(tmp_path, content))


def test_parquet_names_its_columns_in_the_same_way(tmp_path):
    parquet.write_table(pa.table({"caption": ["x", None], "image": ["a.png", "a.png"]}), tmp_path / "table.parquet")
    read = read_table(tmp_path / "table.parquet")
    assert read.columns == {"path": ["a.png", "a.png"], "text": ["x", ""]}
    assert read.where == ["row 1", "row 2"]
