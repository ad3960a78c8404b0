"""What is taken out of an archive, and what never is."""

import io
import os
import zipfile

import pytest

from kontrast.data.unpack import Selection, SourceError, copy_files, unpack_tar, unpack_zip


def zipped(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            if isinstance(content, tuple):
                entry.external_attr, content = 0o120777 << 16, content[1].encode()
            archive.writestr(entry, content)
    return path


@pytest.fixture
def unpack(tmp_path, tarred):
    """Makes an archive of that kind, unpacks it, and returns what then lies in the folder."""

    def unpack(kind, entries, wanted):
        into = tmp_path / "into"
        into.mkdir()
        if kind == "tar":
            unpack_tar(io.BytesIO(tarred(entries)), wanted, into)
        else:
            unpack_zip(zipped(tmp_path / "made.zip", entries), wanted, into)
        return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}

    return unpack


ARCHIVES = pytest.mark.parametrize("kind", ["tar", "zip"])


@ARCHIVES
def test_only_what_is_wanted_is_unpacked(kind, unpack):
    entries = {"p/a.png": b"a", "p/deep/b.png": b"b", "p/deep/b_flip.png": b"f", "p/c.txt": b"c", "p/run.py": b"!"}
    found = unpack(kind, entries, [Selection("p/*.png", ("*_flip*",)), Selection("p/c.txt")])
    assert found == {"p/a.png": b"a", "p/deep/b.png": b"b", "p/c.txt": b"c"}


@ARCHIVES
@pytest.mark.parametrize("name", ["p/../../out.png", "/p/out.png", "p\\..\\out.png", "p/C:out.png"])
def test_a_path_that_leads_out_of_the_folder_is_refused(kind, name, tmp_path, unpack):
    with pytest.raises(SourceError, match="stay below"):
        unpack(kind, {name: b"x"}, [Selection("*.png")])
    assert not list(tmp_path.rglob("out.png"))


@ARCHIVES
def test_links_are_not_taken_even_if_they_match(kind, unpack):
    entries = {"p/a.png": b"a", "p/link.png": ("link", "/etc/passwd"), "p/again.png": ("link", "a.png")}
    assert unpack(kind, entries, [Selection("p/*.png")]) == {"p/a.png": b"a"}


def test_a_hard_link_is_not_taken(unpack):
    entries = {"p/a.png": b"a", "p/hard.png": ("hard", "p/a.png")}
    assert unpack("tar", entries, [Selection("p/*.png")]) == {"p/a.png": b"a"}


@ARCHIVES
def test_a_selection_without_a_file_is_named(kind, unpack):
    with pytest.raises(SourceError, match=r"no file p/b\.png"):
        unpack(kind, {"p/a.png": b"a"}, [Selection("p/a.png"), Selection("p/b.png")])


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="zip cannot be read"):
        unpack_zip(tmp_path / "a.zip", [Selection("a")], tmp_path)
    with pytest.raises(SourceError, match="tar cannot be read"):
        unpack_tar(io.BytesIO(b"<html>"), [Selection("a")], tmp_path)


def test_an_archive_that_breaks_off_is_refused(tmp_path, tarred):
    half = tarred({"a": os.urandom(100_000)})[:50_000]
    with pytest.raises(SourceError, match="tar cannot be read"):
        unpack_tar(io.BytesIO(half), [Selection("a")], tmp_path)


def test_a_folder_is_searched_for_a_pattern_and_links_out_of_it_are_left(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "p").mkdir(parents=True)
    (tmp_path / "root" / "p" / "a.dcm").write_bytes(b"a")
    os.symlink(tmp_path / "secret", tmp_path / "root" / "p" / "b.dcm")
    (tmp_path / "into").mkdir()
    copy_files(tmp_path / "root", [Selection("p/*.dcm")], tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").rglob("*.dcm")] == ["a.dcm"]
