"""Device and precision."""

import pytest
import torch

from kontrast.errors import InputError
from kontrast.train.parallel import autocast, choose_device, choose_precision

CPU = torch.device("cpu")


def test_auto_is_the_first_gpu_if_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "abacus", ""])
def test_a_device_that_torch_does_not_see_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"a device is auto, cpu, or a GPU .*{name!r} is none"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_precision_that_is_named_is_used(name, dtype):
    assert choose_precision(name, CPU) == dtype


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
