"""The energy that a run leaves is that of its head and keys, whatever else it is asked about."""

import pytest
import torch
import torch.nn.functional as F

from kontrast.errors import InputError
from kontrast.nn.energy import Energy, energy_head, load_energy, save_energy


def made(seed=0):
    torch.manual_seed(seed)
    return Energy(energy_head(6, 6, 4), F.normalize(torch.randn(9, 4), dim=1), 0.1).eval()


def test_an_energy_is_minus_the_log_sum_of_what_each_key_gives():
    energy, x = made(), torch.randn(5, 6)
    with torch.no_grad():
        z = F.normalize(energy.project(x), dim=1)
        expected = [-sum(torch.exp(-(row - key).square().sum() / 0.1) for key in energy.key).log().item() for row in z]
        assert energy(x).tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_an_energy_does_not_depend_on_what_is_asked_about_together():
    energy, x = made(), torch.randn(8, 6)
    with torch.no_grad():
        together = energy(x)
        torch.testing.assert_close(torch.cat([energy(one[None]) for one in x]), together)
        torch.testing.assert_close(energy(x.flip(0)).flip(0), together)


def test_an_energy_is_lowest_at_its_keys():
    energy = made()
    energy.project = torch.nn.Identity()
    with torch.no_grad():
        at, away = energy(energy.key), energy(-energy.key.mean(0, keepdim=True))
    assert at.max() < away.min()


def test_what_is_saved_is_loaded_in_evaluation_mode_with_its_temperature(tmp_path):
    energy, x = made(), torch.randn(5, 6)
    energy.temperature.fill_(0.3)
    save_energy(energy, tmp_path)
    found = load_energy(tmp_path)
    assert not found.training
    with torch.no_grad():
        assert torch.equal(found(x), energy(x))


def test_a_run_that_left_none_or_half_of_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="has none, so name such a run"):
        load_energy(tmp_path)
    save_energy(made(), tmp_path)
    content = (tmp_path / "energy.safetensors").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nothing of the kind" * 9):
        (tmp_path / "energy.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match="not the whole of what a run of ebclr leaves"):
            load_energy(tmp_path)
