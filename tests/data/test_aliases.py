"""Patients and files under aliases: the same everywhere, never in clear, and found again by who has the key."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import kontrast.data as data
from kontrast.data.aliases import KEY, Aliases
from kontrast.errors import InputError

ALIAS = re.compile(r"group-[0-9a-f]{12}")


@pytest.fixture
def folder(tmp_path, save):
    for number, patient in enumerate(["DOE_JANE", "DOE_JANE", "ROE", "POE"]):
        save(tmp_path / "set" / f"{patient}_{number}.png", number)
    return tmp_path / "set"


def test_the_same_text_has_the_same_alias_as_long_as_the_key_is_there(tmp_path):
    first = Aliases(tmp_path)
    assert ALIAS.fullmatch(first.group("DOE"))
    assert first.group("DOE") == Aliases(tmp_path).group("DOE") != first.group("ROE")
    assert first.group("DOE")[6:] != first.file("DOE")[6:]
    (tmp_path / KEY).unlink()
    assert Aliases(tmp_path).group("DOE") != first.group("DOE")


def test_two_folders_do_not_share_aliases(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert Aliases(tmp_path / "a").group("DOE") != Aliases(tmp_path / "b").group("DOE")


def test_aliases_of_data_without_a_folder_follow_from_their_name():
    first = Aliases(None, name="sample:emoji")
    assert first.group("cat") == Aliases(None, name="sample:emoji").group("cat") != Aliases(None).group("cat")


def test_the_key_can_be_read_by_its_owner_alone(tmp_path):
    Aliases(tmp_path).group("DOE")
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600


def test_no_key_is_made_where_nothing_needs_one(folder):
    data.open(folder)
    assert not (folder / KEY).exists()


def test_where_the_folder_cannot_be_written_the_key_lies_in_the_cache(tmp_path, cache, monkeypatch):
    real = os.open

    def refuse(path, flags, mode=0o777, **rest):
        if os.path.dirname(path) == str(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", refuse)
    alias = Aliases(tmp_path).group("DOE")
    assert alias == Aliases(tmp_path).group("DOE")
    assert not (tmp_path / KEY).exists()
    assert len(list((cache / "keys").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"0" * 63])
def test_a_damaged_key_is_refused_and_kept(tmp_path, content):
    (tmp_path / KEY).write_bytes(content)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        Aliases(tmp_path).group("DOE")
    assert (tmp_path / KEY).read_bytes() == content


def test_a_pattern_takes_the_group_from_the_name(folder):
    opened = data.open(folder, group_pattern=r"([A-Z]+(?:_[A-Z]+)?)_\d")
    assert opened.names == ("DOE_JANE_0.png", "DOE_JANE_1.png", "POE_3.png", "ROE_2.png")
    assert opened.groups[0] == opened.groups[1]
    assert len(set(opened.groups.tolist())) == 3
    names = [opened.group_names[code] for code in opened.groups]
    assert all(ALIAS.fullmatch(name) for name in names)
    assert names[0] == names[1]


def test_files_that_the_pattern_does_not_fit_are_groups_of_their_own(folder):
    opened = data.open(folder, group_pattern=r"(DOE)")
    assert len(set(opened.groups.tolist())) == 3
    assert sorted(opened.group_names[code] == "" for code in opened.groups) == [False, False, True, True]


def test_the_pattern_wins_over_the_table(tmp_path, folder):
    rows = "\n".join(f"{name.name},all" for name in sorted(folder.glob("*.png")))
    (folder / "table.csv").write_text(f"path,group\n{rows}\n")
    assert len(set(data.open(folder / "table.csv").groups.tolist())) == 1
    assert len(set(data.open(folder / "table.csv", group_pattern="(DOE|POE|ROE)").groups.tolist())) == 3


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is a regular expression"), ("DOE", "has 0"), ("(D)(O)", "has 2"), (r"(\d{9})", "fits none")],
)
def test_a_pattern_that_cannot_be_used_is_refused(folder, pattern, message):
    with pytest.raises(InputError, match=message):
        data.open(folder, group_pattern=pattern)


def test_the_chest_images_of_one_patient_are_one_group(tmp_path, save):
    for name in ("person1946_bacteria_4874", "person1946_bacteria_4875", "person194_bacteria_1"):
        save(tmp_path / f"{name}.png", len(name))
    groups = data.open(tmp_path, group_pattern=r"person(\d+)").groups
    assert groups[0] == groups[1] != groups[2]


def test_aliased_paths_appear_nowhere_in_clear(folder, caplog):
    (folder / "DOE_JOHN_9.png").write_bytes(b"broken")
    with caplog.at_level(logging.DEBUG):
        opened = data.open(folder, group_pattern="(DOE)", alias_paths=True, max_unreadable=0.5)
    shown = f"{opened.names} {opened.skipped} {opened.group_names} {caplog.text}".replace(str(folder), "")
    assert "DOE" not in shown
    assert all(re.fullmatch(r"image-[0-9a-f]{12}", name) for name in opened.names)
    assert opened.names == data.open(folder, alias_paths=True, max_unreadable=0.5).names
    np.testing.assert_array_equal(
        opened.pixels[opened.rows], data.open(folder, max_unreadable=0.5).batch(np.arange(4)).image
    )


@pytest.mark.parametrize("what", [{"size": 99}, {"max_unreadable": 0.0}])
def test_errors_name_files_by_their_aliases_too(folder, what):
    (folder / "DOE_JOHN_9.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"image-[0-9a-f]{12}") as refused:
        data.open(folder, alias_paths=True, **{"max_unreadable": 0.5, **what})
    assert "DOE" not in str(refused.value)


def test_a_reason_names_no_folder(folder, monkeypatch):
    (folder / "DOE_JOHN_9.png").symlink_to(folder / "nowhere.png")
    opened = data.open(folder, alias_paths=True, max_unreadable=0.5)
    assert [reason for _, reason in opened.skipped] == ["FileNotFoundError: No such file or directory"]


def test_aliases_change_neither_fingerprint_nor_codes(folder):
    clear, aliased = (
        data.open(folder, group_pattern="(DOE)"),
        data.open(folder, group_pattern="(DOE)", alias_paths=True),
    )
    assert clear.fingerprint == aliased.fingerprint
    (folder / KEY).unlink()
    again = data.open(folder, group_pattern="(DOE)", alias_paths=True)
    assert again.names != aliased.names
    assert again.groups.tolist() == clear.groups.tolist()


def test_a_name_that_would_steer_the_terminal_is_told_without_its_escapes(tmp_path, save, caplog):
    save(tmp_path / "a.png")
    (tmp_path / "b\x1b[31m\n.png").write_bytes(b"broken")
    opened = data.open(tmp_path, max_unreadable=0.5)
    assert opened.skipped[0][0] == "b\x1b[31m\n.png"
    assert "\x1b" not in caplog.text
    assert "b?[31m?.png" in caplog.text


def test_many_processes_at_once_make_one_key(tmp_path):
    code = "import sys; from kontrast.data.aliases import Aliases; from pathlib import Path;"
    code += "print([Aliases(Path(sys.argv[1], str(n))).group('DOE') for n in range(40)])"
    for number in range(40):
        (tmp_path / str(number)).mkdir()
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) for _ in range(3)]
    said = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(said) == 1
    assert [path.name for path in (tmp_path / "0").iterdir()] == [KEY]


def test_an_error_of_the_pattern_names_no_file_under_aliases(folder):
    with pytest.raises(InputError, match="fits none") as refused:
        data.open(folder, group_pattern=r"(\d{9})", alias_paths=True)
    assert "DOE" not in str(refused.value).replace(str(folder), "")
