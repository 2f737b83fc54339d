"""Sketches of every kind for the tests of this folder, and how to compare what they give."""

from __future__ import annotations

import numpy as np
import pytest

from lrla import make_sketch
from lrla.sketch._make_sketch import FAMILIES

KINDS = [kind for kind in FAMILIES if kind != "leverage"]  # whose size is random, in test_sampling.py
HASHED = ["sparse_stack", "countsketch"]
N, D = 75, 22  # no powers of two, and 22 is no multiple of 8: blocks of two and of three columns
EQUAL = 1e-13  # sums of at most 128 numbers of order one, in another order
EQUAL32 = 1e-5
every_kind = pytest.mark.parametrize("kind", KINDS)
every_hashed_kind = pytest.mark.parametrize("kind", HASHED)


def sketch(kind, n_in=N, n_out=D, **options):
    """An operator, without the warning that sparse_iid gives at this size."""
    options = {"random_state": 3, "density": 0.3 if kind == "sparse_iid" else None, **options}
    return make_sketch(n_in, n_out, kind, **options)


def normal(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(x, y, atol=EQUAL):
    assert isinstance(x, np.ndarray)
    np.testing.assert_allclose(x, y, rtol=0, atol=atol * max(1.0, np.abs(y).max(initial=0)))
