"""What a run has learned from, and that it is not tested on the same images under another name."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from kontrast import data
from kontrast.commands.assemble import EncoderOptions, build_encoder
from kontrast.commands.lineage import check_leaks, learned_from
from kontrast.errors import InputError


@pytest.fixture
def made(tmp_path):
    """A folder that says which data it was trained on, and from which weights."""

    def made(name, data, init="none"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"data": data, "init": str(init)}))
        return tmp_path / name

    return made


def test_a_run_has_learned_from_its_own_data_and_from_those_before(made):
    first = made("first", "sample:digits-5k", "pretrained")
    second = made("second", "images/", first)
    (second / "encoder.safetensors").touch()
    third = made("third", "more/", second / "encoder.safetensors")
    assert learned_from(third) == ["more/", "images/", "sample:digits-5k"]


def test_runs_that_name_each_other_do_not_go_on_for_ever(made, tmp_path):
    made("a", "x", tmp_path / "b")
    assert learned_from(made("b", "y", tmp_path / "a")) == ["y", "x"]


@pytest.mark.parametrize("init", ["none", "pretrained", "gone/run", "weights.npz"])
def test_of_other_weights_nothing_is_known(init):
    assert learned_from(init) == []


def test_weights_beside_no_run_have_no_lineage(tmp_path):
    (tmp_path / "weights.npz").touch()
    assert learned_from(tmp_path / "weights.npz") == []


def test_a_leak_is_found_through_the_chain(made):
    second = made("second", "images/", made("first", "sample:digits-5k"))
    with pytest.raises(InputError, match="digits-5k and mnist-10k hold the same images"):
        check_leaks(second, "sample:mnist-10k")
    check_leaks(second, "sample:digits-5k")
    check_leaks(second, "sample:fashion-mnist")


def test_a_run_is_not_evaluated_on_the_same_digits_under_another_name(run, tmp_path, refused):
    copy = shutil.copytree(run, tmp_path / "run")
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(settings | {"data": "sample:mnist-10k"}))
    said = refused("evaluate", "linear", str(copy), "--data", "sample:digits-5k")
    assert "mnist-10k and digits-5k hold the same images" in said
    assert "one cannot train and the other test" in said


def test_an_encoder_does_not_start_from_a_run_on_the_same_images_under_another_name(made):
    run = made("run", "sample:digits-5k")
    digits = data.open("sample:digits-5k")
    other = replace(digits.take(np.arange(4)), name="sample:mnist-10k")
    with pytest.raises(InputError, match="mnist-10k"):
        build_encoder(EncoderOptions(init=str(run)), other, 28, seed=0)
