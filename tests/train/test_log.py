"""metrics.jsonl is always readable, and the progress line says what it should."""

import json

from kontrast.train.log import MetricLog, ProgressLine, read_rows


def row(epoch, **more):
    return {"epoch": epoch, "loss": 1 / epoch, "seconds": 2.0, "images_per_second": 50.0, "data_wait": 0.125, **more}


def test_rows_come_back_bit_for_bit(tmp_path):
    log = MetricLog(tmp_path)
    rows = [row(1), row(2, score=0.1 + 0.2), row(3)]
    for one in rows:
        log.add(one)
    log.close()
    assert read_rows(tmp_path / "metrics.jsonl") == rows == log.rows


def test_every_row_is_on_disk_as_soon_as_it_is_added(tmp_path):
    log = MetricLog(tmp_path)
    log.add(row(1))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["epoch"] == 1
    log.close()


def test_a_last_line_that_a_kill_cut_off_is_left_out_and_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:-9])
    assert read_rows(path) == [row(1)]
    log = MetricLog(tmp_path, keep_until=1)
    log.add(row(2))
    log.close()
    assert read_rows(path) == [row(1), row(2)]


def test_rows_after_the_checkpoint_are_dropped_and_a_new_run_starts_empty(tmp_path):
    log = MetricLog(tmp_path)
    for epoch in (1, 2, 3):
        log.add(row(epoch))
    log.close()
    MetricLog(tmp_path, keep_until=2).close()
    assert [one["epoch"] for one in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]
    MetricLog(tmp_path).close()
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.jsonl") == []


def test_without_a_folder_rows_stay_in_memory():
    log = MetricLog(None)
    log.add(row(1))
    log.close()
    assert log.rows == [row(1)]


def test_the_progress_line_has_rate_waiting_share_and_time_left(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with ProgressLine("training", 100) as line:
        line.step()
        line.epoch(row(4), 10)
    shown = capsys.readouterr().err
    assert "training  epoch 4/10  loss 0.250  50 images/s  waiting for data 12%  12 s left" in shown


def test_a_long_run_without_a_terminal_prints_about_twenty_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with ProgressLine("training", 1000) as line:
        for epoch in range(1, 206):
            line.epoch(row(epoch), 205)
    lines = capsys.readouterr().err.splitlines()
    assert 18 <= len(lines) <= 25
    assert "epoch 205/205" in lines[-1]


def test_progress_that_is_not_shown_prints_nothing(capsys):
    with ProgressLine("training", 2, shown=False) as line:
        line.step()
        line.epoch(row(1), 1)
    assert capsys.readouterr() == ("", "")
