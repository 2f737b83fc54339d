"""`qb`: the error asked for is met, the error returned is the true one, and the rank is near the smallest possible."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from lrla import qb
from tests._matrices import matrix_with_spectrum, orthogonality_ratio, sparse_matrix

EPS = np.finfo(np.float64).eps


def relative_error(A, Q, B):
    return np.linalg.norm(A - Q @ B) / np.linalg.norm(A)


def optimal_rank(s, error):
    """The smallest rank whose tail is within the error."""
    tails = np.sqrt(np.r_[np.cumsum(s[::-1] ** 2)[::-1], 0.0])
    return int(np.argmax(tails <= error * tails[0]))


@pytest.fixture
def exponential(rng):
    s = np.exp(-np.arange(200) / 7.0)
    return matrix_with_spectrum(300, 200, s, rng), s


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("error", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_the_error_is_met_at_nearly_the_optimal_rank(exponential, container, error):
    A, s = exponential
    Q, B, reached = qb(container(A), error=error, block_size=5, random_state=0)
    assert relative_error(A, Q, B) <= error * (1 + 1e-3)  # the indicator's rounding is (2e-7 / 1e-6)^2 / 2 at most
    assert Q.shape[1] <= optimal_rank(s, error) + 5 + 2  # rounded up to a block, and two for randomness
    assert orthogonality_ratio(Q) <= 30


def test_a_slow_spectrum_costs_a_few_ranks_more(rng):
    s = 1.0 / np.arange(1, 301)
    A = matrix_with_spectrum(400, 300, s, rng)
    Q, B, _ = qb(A, error=0.1, block_size=5, random_state=0)
    assert relative_error(A, Q, B) <= 0.1
    assert Q.shape[1] <= 1.2 * optimal_rank(s, 0.1) + 5  # the specification measured 57 for 53


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_the_energy_is_captured(exponential, energy):
    A, s = exponential
    Q, B, _ = qb(A, energy=energy, block_size=2, random_state=0)
    assert np.linalg.norm(B) ** 2 >= energy * np.linalg.norm(A) ** 2
    assert Q.shape[1] <= optimal_rank(s, np.sqrt(1 - energy)) + 2 + 2


def test_energy_and_error_say_the_same(exponential):
    A = exponential[0]
    by_error = qb(A, error=np.sqrt(1 - 0.99), random_state=0)
    by_energy = qb(A, energy=0.99, random_state=0)
    assert np.array_equal(by_error[0], by_energy[0])


@pytest.mark.parametrize("rank", [1, 7, 10, 23, 200])
def test_max_rank_alone_is_the_rank(rng, rank):
    A = rng.standard_normal((300, 200))
    Q, B, reached = qb(A, max_rank=rank, random_state=0)
    assert Q.shape == (300, rank)
    assert B.shape == (rank, 200)
    assert abs(reached - relative_error(A, Q, B)) <= 2.1e-7


def test_max_rank_stops_before_the_error_is_met(exponential):
    A = exponential[0]
    Q, B, reached = qb(A, error=1e-6, max_rank=12, random_state=0)
    assert Q.shape[1] == 12
    assert reached > 1e-6
    assert abs(reached - relative_error(A, Q, B)) <= 1e-6 * reached


@pytest.mark.parametrize("error", [1e-1, 1e-3, 1e-5])
def test_the_error_returned_is_the_true_one(exponential, error):
    A = exponential[0]
    Q, B, reached = qb(A, error=error, random_state=0)
    true = relative_error(A, Q, B)
    # A difference of squares, each summed with an error of a hundred eps ||A||^2
    assert abs(reached**2 - true**2) <= 100 * EPS


def test_b_is_the_projection(exponential):
    A = exponential[0]
    Q, B, _ = qb(A, error=1e-3, random_state=0)
    assert np.linalg.norm(B - Q.T @ A) <= 100 * EPS * np.linalg.norm(A)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_error_that_the_indicator_cannot_see_is_refused(rng, dtype):
    A = rng.standard_normal((20, 10)).astype(dtype)
    floor = 2.1e-7 if dtype == np.float64 else 1e-3
    with pytest.raises(ValueError, match="below"):
        qb(A, error=0.99 * floor)
    qb(A, error=floor)


def test_float32_meets_its_error(exponential):
    A = exponential[0].astype(np.float32)
    Q, B, reached = qb(A, error=1e-2, random_state=0)
    assert Q.dtype == B.dtype == np.float32
    assert relative_error(A.astype(np.float64), Q.astype(np.float64), B.astype(np.float64)) <= 1e-2 * (1 + 1e-3)
    assert orthogonality_ratio(Q) <= 30


def test_exact_rank_is_found_and_not_exceeded(rng):
    A = matrix_with_spectrum(300, 200, np.linspace(2, 1, 15), rng)
    Q, B, reached = qb(A, error=2.1e-7, random_state=0)
    assert Q.shape[1] == 15
    assert relative_error(A, Q, B) <= 1e-13


def test_an_exhausted_matrix_ends_the_search_for_rank(rng):
    A = matrix_with_spectrum(300, 200, np.linspace(2, 1, 15), rng)
    Q, B, reached = qb(A, max_rank=60, random_state=0)
    assert relative_error(A, Q, B) <= 1e-13
    assert orthogonality_ratio(Q) <= 30


def test_a_zero_matrix_has_rank_zero():
    Q, B, reached = qb(np.zeros((6, 4)), error=0.1)
    assert (Q.shape, B.shape, reached) == ((6, 0), (0, 4), 0.0)


def test_more_power_iterations_need_no_more_rank(rng):
    A = matrix_with_spectrum(400, 300, np.arange(1, 301) ** -0.5, rng)
    ranks = [qb(A, error=0.5, block_size=5, n_iter=q, random_state=0)[0].shape[1] for q in (0, 1, 3)]
    assert ranks[0] >= ranks[1] >= ranks[2]


@pytest.mark.parametrize(
    "options", [{}, {"error": 0.1, "energy": 0.9}, {"error": 0.0}, {"error": 1.5}, {"energy": 1.0}, {"max_rank": 0}]
)
def test_what_is_wanted_has_to_be_said(options):
    with pytest.raises(ValueError, match=r"error|energy|max_rank"):
        qb(np.eye(4), **options)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scaling_scales_b(exponential, scale):
    A = exponential[0]
    Q, B, reached = qb(A * scale, error=1e-3, random_state=0)
    assert relative_error(A, Q, B / scale) <= 1e-3
    assert reached <= 1e-3


def test_sparse_and_dense_give_the_same_error(rng):
    A = sparse_matrix(300, 200, 0.05, rng)
    sparse, dense = (qb(X, max_rank=40, random_state=0)[2] for X in (A, A.toarray()))
    assert abs(sparse - dense) <= 1e-10


def test_the_factors_stay_on_the_device(exponential, device_xp):
    A = exponential[0]
    Q, B, reached = qb(device_xp.asarray(A), error=1e-2, random_state=0)
    assert device_xp.owns(Q)
    assert device_xp.owns(B)
    assert relative_error(A, device_xp.to_numpy(Q), device_xp.to_numpy(B)) <= 1e-2
