"""Powers of two taken out of matrices of any size, storage and array library."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from lrla.linalg._blas_threads import one_blas_thread
from lrla.linalg._exponent import exponent_of, is_within, without


@pytest.mark.parametrize("largest", [1.0, -3.0, 4.0, 1e-300, 5e-324, -1.7e308])
def test_the_largest_magnitude_lies_below_its_power_of_two(largest, xp):
    A = np.array([[0.0, largest / 2], [largest, largest / 3]])
    exponent = exponent_of(xp.asarray(A))
    assert abs(largest) / 2.0 ** (exponent - 1) >= 1.0
    assert exponent == 1024 or abs(largest) < 2.0**exponent
    assert exponent_of(sp.csr_array(A)) == exponent


def test_zeros_have_none():
    for A in (np.zeros((2, 3)), np.zeros((0, 3)), sp.csr_array((4, 5)), sp.csr_array(np.zeros((1, 1)))):
        assert exponent_of(A) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("power", [-120, -90, -40, -1, 0, 1, 40, 65, 90, 127])
def test_a_norm_never_promises_too_much(power, dtype, rng):
    """True is a proof that the largest magnitude and the norm are within; False says nothing, but is rare."""
    A = (rng.uniform(-0.9, 0.9, (30, 20)) * 2.0**power).astype(dtype)
    inside = is_within(A, -80, 80)
    assert not inside or (exponent_of(A) > -80 and np.linalg.norm(A.astype(float)) < 2.0**80)
    assert inside == (abs(power) <= (40 if dtype == np.float32 else 65))  # whose squares overflow from 2^64 on
    assert is_within(sp.csr_array(A), -80, 80) == inside


def test_a_norm_does_not_tell_where_there_is_none(device_xp):
    assert not is_within(np.zeros((3, 3)), -80, 80)
    assert not is_within(np.zeros((0, 3)), -80, 80)
    assert not is_within(device_xp.asarray(np.ones((3, 3))), -80, 80)


def test_what_is_taken_out_is_exact():
    for A in (np.array([[3e-310, 1e-300]]), np.array([[1e300, -2e280]]), np.array([[3e-42, 1e-40]], dtype=np.float32)):
        scaled, exponent = without(A, exponent_of(A))
        assert scaled.dtype == A.dtype
        assert np.abs(scaled).max() >= 2.0**-30  # as far as 2^-e is a number
        np.testing.assert_array_equal(np.ldexp(scaled, exponent), A)


def test_the_norm_of_sparse_data_wakes_no_thread_of_blas(monkeypatch):
    """It would wait for more work, on a core that is needed, long after the norm is there."""
    inside = []

    def vdot(x, y):
        inside.append(one_blas_thread.active)
        return float(x @ y)

    monkeypatch.setattr(np, "vdot", vdot)
    A = sp.random_array((50, 40), density=0.1, format="csr", rng=0)
    assert is_within(A, -200, 200)
    assert is_within(A.toarray(), -200, 200)
    assert inside == [True, False]
