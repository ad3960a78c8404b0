"""The rows of a CSV: its encoding, and cells of any length that a text may have."""

import contextlib
import csv
import threading

import pytest

from kontrast.data import delimited
from kontrast.data.delimited import MOST_OF_A_CELL, read_rows
from kontrast.errors import InputError


@pytest.fixture
def read(tmp_path):
    def read(content, separator=""):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return read_rows(path, separator)

    return read


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_cell_may_be_as_long_as_the_longest_text(read, quote):
    long = "ü" * MOST_OF_A_CELL
    assert read(f"image,text\na.png,{quote}{long}{quote}\n")[1] == ("line 2", ["a.png", long])


@pytest.mark.parametrize("content", ["a.png,{}\n", 'a.png,"{}\n'])
def test_a_longer_cell_is_refused_with_the_row_in_which_it_begins_and_its_own_reason(read, content):
    with pytest.raises(
        InputError, match=r"at most 1,048,576 characters; .*table\.csv, line 3, .*close a quote"
    ) as caught:
        read("image,text\nb.png,x\n" + content.format("x" * (MOST_OF_A_CELL + 1)))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("content", ["a,b\n1,2\n", 'a,b\n1,"2\n', "a,b\n1," + "x" * (MOST_OF_A_CELL + 1)])
def test_the_limit_of_the_process_is_afterwards_what_it_was(read, content):
    before = csv.field_size_limit(77)
    try:
        with contextlib.suppress(InputError):
            read(content)
        assert csv.field_size_limit() == 77
    finally:
        csv.field_size_limit(before)


def test_tables_read_at_the_same_time_keep_the_limit_up_for_each_other(read, monkeypatch):
    seen, slow = [], delimited._rows

    def rows(*told):
        for _ in range(200):
            seen.append(csv.field_size_limit())
        return slow(*told)

    monkeypatch.setattr(delimited, "_rows", rows)
    before = csv.field_size_limit()
    threads = [threading.Thread(target=read, args=("a,b\n1,2\n",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {MOST_OF_A_CELL}
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,text\na.png,x\xed\xa0\xbdy\n", "line 2, holds the byte 0xed.*half of a surrogate pair"),
        (b"\xef\xbb\xbfimage,text\na.png,x\nb.png,\xf6\n", "line 3, holds the byte 0xf6.*Windows-1252"),
        ("image,text\na.png,x\n".encode("utf-16-le"), "line 1, holds the byte 0x00.*UTF-16"),
        ("image,text\na.png,ü\n".encode("utf-16-be"), "line 2, holds the byte 0xfc.*UTF-16"),
    ],
)
def test_what_is_no_utf8_is_refused_with_its_place_and_a_guess(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)
