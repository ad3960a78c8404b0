import math
import os
import platform
import subprocess
import sys

import pytest
import torch

from kontrast import distributed
from kontrast.errors import InputError


def test_without_a_launcher_there_is_one_process_and_it_is_the_main_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    distributed.start()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)


def test_a_launch_with_several_processes_is_refused_with_their_number_and_the_way_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="launcher started 4; start `kontrast` without torchrun"):
        distributed.start()


def test_a_launcher_with_one_process_is_welcome(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    distributed.start()


def test_only_rank_0_is_the_main_process(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert (distributed.rank(), distributed.is_main()) == (3, False)


def test_gathering_on_one_process_gives_every_row_and_passes_the_gradient():
    x = torch.randn(4, 3, requires_grad=True)
    gathered = distributed.gather(2 * x)
    assert torch.equal(gathered, 2 * x)
    gathered.sum().backward()
    assert torch.equal(x.grad, torch.full((4, 3), 2.0))


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "nonsense\n"}, math.inf),
        ({}, math.inf),
    ],
    ids=str,
)
def test_cores_are_those_the_container_grants_and_never_more_than_the_mask_has(files, granted, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert distributed.allowed_cores(tmp_path) == min(granted, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
def test_a_command_uses_as_many_threads_as_it_has_cores_unless_it_was_told_how_many(given, threads):
    script = (
        "import os, torch\nfrom kontrast import distributed\ntorch.set_num_threads(3)\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\ndistributed.start()\nprint(torch.get_num_threads())\n"
    )
    told = {} if given is None else {"OMP_NUM_THREADS": given}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | told
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads


@pytest.mark.parametrize(
    ("flags", "found"),
    [("sse2 avx512_bf16 amx_bf16 amx_tile", "amx_bf16"), ("avx512f avx512_bf16 fma", "avx512_bf16"), ("avx512f", "")],
)
def test_bf16_is_native_where_the_processor_lists_an_instruction_for_it(flags, found, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} lm\n")
    assert distributed.native_bf16(tmp_path / "cpuinfo") == found


def test_without_a_description_of_the_processor_bf16_is_not_native(tmp_path):
    assert distributed.native_bf16(tmp_path / "none") == ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_freed_stays_for_the_next_step_unless_the_user_has_settings_of_her_own():
    """Counted in page faults: of steps that each fill and free the same 240 MB, once the first ten have settled."""

    def faults(**settings):
        lines = (
            "import resource, torch\nfrom kontrast import distributed\ndistributed.start()\n"
            "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
            "step = lambda: [torch.empty(2**k).fill_(1) for k in (24, 23, 24, 22, 24)]\n"
            "for _ in range(10): step()\nbefore = faults()\nfor _ in range(5): step()\nprint(faults() - before)"
        )
        foreign = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        done = subprocess.run([sys.executable, "-c", lines], env=clean | settings, capture_output=True, check=True)
        return int(done.stdout)

    left_alone = faults(MALLOC_ARENA_MAX="4")
    if left_alone < 1000:
        pytest.skip("this system gives memory in huge pages, so that there is nothing to save")
    assert faults() < left_alone / 10


def test_gathered_rows_are_all_in_order_of_rank_and_their_gradient_is_the_sum_over_processes(processes):
    """Of 3, 1 and 2 rows; process r weighs all rows by r + 1, so that each has the gradient 1 + 2 + 3."""
    found = processes(
        "from kontrast import distributed\n"
        "x = torch.arange(12.).view(6, 2).split([3, 1, 2])[rank].clone().requires_grad_()\n"
        "gathered = distributed.gather(2 * x)\n"
        "((rank + 1) * gathered * torch.arange(6.)[:, None]).sum().backward()\n"
        "numbers = distributed.gather(torch.full((rank + 1,), 2**62 + rank))\n"
        "told = [*distributed.place(x), distributed.rank(), distributed.world_size(), distributed.is_main()]\n"
        "result = {'gathered': gathered.detach(), 'grad': x.grad, 'told': told, 'numbers': numbers}",
        num=3,
    )
    grads = (2 * (1 + 2 + 3) * torch.arange(6.0))[:, None].expand(6, 2).split([3, 1, 2])
    for rank, (one, grad) in enumerate(zip(found, grads, strict=True)):
        assert torch.equal(one["gathered"], 2 * torch.arange(12.0).view(6, 2))
        assert torch.equal(one["grad"], grad)
        assert one["told"] == [(0, 3, 4)[rank], 6, (1.5, 0.5, 1)[rank], rank, 3, rank == 0]
        assert one["numbers"].tolist() == [2**62, *[2**62 + 1] * 2, *[2**62 + 2] * 3]


def test_alone_ones_rows_are_the_only_ones():
    assert distributed.place(torch.ones(4, 3)) == (0, 4, 1)
