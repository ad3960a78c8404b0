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
