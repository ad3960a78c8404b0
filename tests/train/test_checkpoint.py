"""Checkpoints are whole or absent."""

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from kontrast.errors import InputError
from kontrast.train import checkpoint

FULL = Path("/dev/full")


def state(value):
    return {"epoch": value, "weights": {"w": torch.full((300,), float(value))}, "draws": torch.get_rng_state()}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = {**state(3), "exact": torch.randn(50, dtype=torch.float64), "half": torch.randn(5).bfloat16()}
    checkpoint.save(tmp_path / "new", 3, saved)
    found = checkpoint.load(tmp_path / "new")
    assert found["epoch"] == 3
    assert all(torch.equal(found[key], saved[key]) for key in ("exact", "half", "draws"))


def test_only_the_last_two_are_kept_and_nothing_else_is_left(tmp_path):
    for epoch in (1, 2, 9, 10, 11):
        checkpoint.save(tmp_path, epoch, state(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_00010.pt", "epoch_00011.pt"]
    assert checkpoint.load(tmp_path)["epoch"] == 11


def test_where_there_is_none_none_is_found(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "missing") is None


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(tmp_path, share, caplog):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, state(epoch))
    newest = tmp_path / "epoch_00002.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(len(content) * share)])
    assert checkpoint.load(tmp_path)["epoch"] == 1
    assert "epoch_00002.pt is damaged" in caplog.text
    assert "going back to the checkpoint before" in caplog.text


def test_a_file_that_is_no_checkpoint_is_passed_over(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, state(1))
    bytes_that_end_torch_s_reader_with_an_index_error = b"."
    garbage = [np.random.default_rng(seed).bytes(4000) for seed in range(40)]
    for content in (bytes_that_end_torch_s_reader_with_an_index_error, b"", *garbage):
        (tmp_path / "epoch_00002.pt").write_bytes(content)
        caplog.clear()
        assert checkpoint.load(tmp_path)["epoch"] == 1
        assert "damaged" in caplog.text


class Trap:
    def __reduce__(self):
        return (os.mkdir, (str(Path(os.environ["KONTRAST_TRAP"]) / "sprung"),))


def test_nothing_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_TRAP", str(tmp_path))
    checkpoint.save(tmp_path, 1, state(1))
    torch.save({"epoch": 2, "evil": Trap()}, tmp_path / "epoch_00002.pt")
    assert checkpoint.load(tmp_path)["epoch"] == 1
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_leaves_earlier_checkpoints_whole(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, state(epoch))
    (tmp_path / "epoch_00003.partial").symlink_to(FULL)
    with pytest.raises(InputError, match=r"no space is left for .*epoch_00003.pt, so free some and go on"):
        checkpoint.save(tmp_path, 3, state(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_00001.pt", "epoch_00002.pt"]
    assert checkpoint.load(tmp_path)["epoch"] == 2


def test_a_full_disk_is_recognised_however_a_library_wraps_it():
    wrapped = RuntimeError("unexpected pos 704 vs 598")  # what torch makes of it
    wrapped.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert checkpoint.no_space_left(wrapped)
    assert checkpoint.no_space_left(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not checkpoint.no_space_left(OSError(errno.ENOENT, "No such file"))
    assert not checkpoint.no_space_left(RuntimeError("shapes differ"))


def test_any_other_error_while_writing_is_not_hidden(tmp_path):
    with pytest.raises(Exception, match=r"pickle|Can't get"):
        checkpoint.save(tmp_path, 1, {"f": lambda: None})
    assert checkpoint.saved(tmp_path) == []


def test_ctrl_c_while_a_checkpoint_is_written_waits_for_its_end(tmp_path):
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = 0
    try:
        for epoch in range(1, 41):
            try:
                with checkpoint._ctrl_c_held_back():
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 * epoch)
                    with (tmp_path / "a.pt").open("wb") as file:
                        torch.save({"weights": [torch.zeros(1000) for _ in range(300)]}, file)
                    while signal.getitimer(signal.ITIMER_REAL)[0] > 0:
                        pass
            except KeyboardInterrupt:
                pressed += 1
            assert len(torch.load(tmp_path / "a.pt", weights_only=True)["weights"]) == 300
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, handler)
    assert pressed == 40
