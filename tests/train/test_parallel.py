"""Device, precision and compilation."""

import re
import shutil
import warnings
from dataclasses import replace

import pytest
import torch

from kontrast.errors import InputError
from kontrast.nn.encoders import Encoder
from kontrast.train import Fit, checkpoint, fit, parallel
from kontrast.train.parallel import COMPILE_FROM, _say, autocast, choose_device, choose_precision, compiled

CPU = torch.device("cpu")


def test_auto_is_the_first_gpu_if_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "abacus", ""])
def test_a_device_that_torch_does_not_see_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"a device is auto, cpu, or a GPU .*{name!r} is none"):
        choose_device(name)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_that_is_named_is_used(name, dtype):
    assert choose_precision(name, CPU) == dtype


def test_fp16_on_a_processor_is_refused_with_the_way_out():
    with pytest.raises(InputError, match=r"the device is cpu, so leave --precision out"):
        choose_precision("fp16", CPU)


def test_what_was_chosen_and_why_is_said_once_a_process(caplog):
    _say.cache_clear()
    with caplog.at_level("INFO", logger="kontrast"):
        for _ in range(3):
            choose_precision("float32", CPU)
            choose_precision("auto", CPU)
    first, second = (record.getMessage() for record in caplog.records if record.levelname == "INFO")
    assert re.fullmatch(r"precision float32: as asked; device cpu with \d+ threads", first)
    assert re.fullmatch(
        r"precision \w+: this processor (multiplies it natively|only emulates) .*; device cpu .*", second
    )


def test_bf16_on_a_processor_that_only_emulates_it_is_used_with_a_warning(caplog, monkeypatch):
    _say.cache_clear()
    monkeypatch.setattr(parallel, "native_bf16", lambda: "")
    assert choose_precision("auto", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith(
        "bf16 is probably slower than float32 here, since this processor is not known to multiply bf16 itself"
    )


def test_auto_is_bf16_on_a_processor_only_where_it_has_the_instructions():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            words = set(file.read().split())
    except OSError:
        words = set()
    has = bool({"avx512_bf16", "amx_bf16"} & words)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if has else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_are_multiplied_in_the_chosen_type(dtype):
    with autocast(CPU, dtype):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("choice", "device", "steps", "expected"),
    [
        ("auto", "cpu", 10 * COMPILE_FROM, False),
        ("auto", "cuda", COMPILE_FROM - 1, False),
        ("auto", "cuda", COMPILE_FROM, True),
        ("on", "cpu", 1, True),
        ("off", "cuda", COMPILE_FROM, False),
    ],
)
def test_auto_compiles_long_runs_on_a_gpu_and_nothing_else(choice, device, steps, expected, build_method):
    net = build_method("simclr").encoder.net
    with compiled(build_method("simclr", net), choice, torch.device(device), steps):
        assert (net._compiled_call_impl is not None) == expected
    assert net._compiled_call_impl is None


def test_a_teacher_is_compiled_with_its_student(build_method):
    method = build_method("byol")
    encoders = [part for part in method.modules() if isinstance(part, Encoder)]
    assert len(encoders) == 2
    with compiled(method, "on", CPU, 1):
        assert all(part.net._compiled_call_impl is not None for part in encoders)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling on a processor needs a C++ compiler")
def test_a_compiled_run_learns_as_an_eager_one_and_keeps_every_name(build_method, loader, tmp_path, caplog):
    config = Fit(epochs=3, precision="float32")
    eager = build_method("simclr")
    whole = fit(eager, loader, replace(config, compile="off"), show=False)
    method = build_method("simclr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler sets off deprecations of its own
        rows = fit(method, loader, replace(config, compile="on"), out=tmp_path, show=False)
    assert "could not be compiled" not in caplog.text
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in whole], rel=1e-4)
    assert list(method.state_dict()) == list(eager.state_dict())
    assert list(checkpoint.load(tmp_path / "checkpoint")["method"]) == list(eager.state_dict())


@pytest.mark.slow
def test_a_run_that_cannot_be_compiled_warns_once_and_learns_as_an_eager_one(build_method, loader, caplog):
    _say.cache_clear()
    config = Fit(epochs=2, precision="float32")
    whole = fit(build_method("simclr"), loader, replace(config, compile="off"), show=False)
    torch.compiler.reset()
    with warnings.catch_warnings(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        warnings.simplefilter("ignore")
        rows = fit(build_method("simclr"), loader, replace(config, compile="on"), show=False)
    warned = [record.getMessage() for record in caplog.records if "could not be compiled" in record.getMessage()]
    assert len(warned) == 1
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in whole], rel=1e-6)
