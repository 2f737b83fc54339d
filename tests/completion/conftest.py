"""Fixtures of the tests of matrix completion."""

import pytest

from lrla.completion import _half_sweep, _observed


@pytest.fixture
def few_at_a_time(monkeypatch):
    """A function after whose call few entries count as many, and as a group."""

    def act():
        monkeypatch.setattr(_observed, "FEW", 1 << 10)
        monkeypatch.setattr(_observed, "CHUNK", 1 << 10)
        monkeypatch.setattr(_half_sweep, "LEAST_GROUP", 1 << 10)

    return act
