"""The sample data sets, listed and fetched."""

from kontrast.data.samples import SAMPLES


def test_every_sample_is_listed_with_its_licence(kontrast, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert kontrast("data", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and sample.licence in shown for name, sample in SAMPLES.items())


def test_a_fetched_sample_says_what_it_is_and_what_it_must_not_be_used_to_claim(kontrast, capsys, monkeypatch, digits):
    monkeypatch.setenv("COLUMNS", "1000")
    assert kontrast("data", "get", "digits-5k") == 0
    shown = capsys.readouterr().out
    sample = SAMPLES["digits-5k"]
    assert "5,000 images of 28 px, use it as sample:digits-5k" in shown
    assert sample.licence in shown
    assert " ".join(sample.caveat.split()) in " ".join(shown.split())


def test_an_unknown_sample_is_refused(refused):
    assert "digits-5k" in refused("data", "get", "digits5k")
