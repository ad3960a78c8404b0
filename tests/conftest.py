"""Fixtures for all tests: a cache of their own, and the real digits."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tiny models are faster on one thread, here and in the processes that tests start

import pytest
import torch

from kontrast import data

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Tests never read or write the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONTRAST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits():
    """5,000 real digits, 4,000 for training and 1,000 for testing; in the dev requirements, so always there."""
    return data.open("sample:digits-5k")
