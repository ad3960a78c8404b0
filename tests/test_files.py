"""A file is there whole or not at all."""

import pytest

from kontrast.files import whole_file


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_leaves_nothing_behind(stop, tmp_path):
    def write(path):
        with whole_file(path) as partial:
            partial.write_text("half")
            raise stop

    with pytest.raises(stop):
        write(tmp_path / "new" / "a.csv")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_finished_has_its_name_and_only_then(tmp_path):
    with whole_file(tmp_path / "a.csv") as partial:
        partial.write_text("all")
        assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.csv").read_text() == "all"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_there_stays_until_the_new_file_is_on_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    def write(path):
        with whole_file(path) as partial:
            partial.write_text("new")

    (tmp_path / "a.csv").write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
