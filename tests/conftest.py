"""Fixtures for all tests: a cache of their own, and the real digits."""

import pytest

from kontrast import data


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
