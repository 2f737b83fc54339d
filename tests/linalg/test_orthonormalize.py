"""Rank-revealing orthonormalisation of row blocks: W = R Q whatever the block, and what is noise is dropped."""

from __future__ import annotations

import numpy as np
import pytest

from lrla.linalg._orthonormalize import complete_rows, gram, orthonormalize
from tests._matrices import matrix_with_spectrum, orthogonality_ratio, orthonormal

EPS = np.finfo(np.float64).eps
B, N = 12, 200


def factorization_ratio(W, R, Q):
    """||W - R Q||_2 / (b eps ||W||_2) for a block of b rows."""
    W, R, Q = (np.asarray(X, dtype=np.float64) for X in (W, R, Q))
    return np.linalg.norm(W - R @ Q, 2) / (len(W) * np.linalg.norm(W, 2))


def block(spectrum, rng, dtype=np.float64):
    """A block of B rows with given singular values."""
    return matrix_with_spectrum(B, N, spectrum, rng, dtype)


@pytest.mark.parametrize("cond", [1.0, 1e3, 1e7, 1e9, 1e12])
def test_any_condition_gives_orthonormal_rows_and_the_block(rng, cond):
    W = block(np.logspace(0, -np.log10(cond), B), rng)
    Q, R = orthonormalize(W)
    assert Q.shape == (B, N)
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * EPS  # a product per pass, each b eps ||W||, some of six passes


@pytest.mark.parametrize("cond", [1.0, 1e2, 1e4])
def test_float32_is_orthonormal_to_its_own_rounding(rng, cond):
    W = block(np.logspace(0, -np.log10(cond), B), rng, np.float32)
    Q, R = orthonormalize(W)
    assert Q.dtype == np.float32
    assert Q.shape == (B, N)
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * np.finfo(np.float32).eps


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_rank_of_an_exactly_deficient_block(rng, rank):
    W = block(np.linspace(2.0, 1.0, rank), rng)
    Q, R = orthonormalize(W)
    assert Q.shape == (rank, N)
    assert R.shape == (B, rank)
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * EPS


def test_directions_below_the_noise_of_the_block_are_dropped(rng):
    s = np.r_[np.ones(6), np.full(6, 1e-16)]  # the documented limit is 10 sqrt(b) eps = 8e-15 of the norm
    Q, R = orthonormalize(block(s, rng))
    assert Q.shape[0] == 6


def test_scale_of_the_operator_decides_what_is_noise(rng):
    s = np.r_[np.ones(6), np.full(6, 1e-9)]
    W = block(s, rng)
    assert orthonormalize(W)[0].shape[0] == B
    assert orthonormalize(W, scale=1e6)[0].shape[0] == 6  # limit 10 sqrt(200) eps 1e6 = 3e-8
    assert orthonormalize(W, scale=1e16)[0].shape[0] == 0


def test_rows_graded_over_150_decades(rng):
    sizes = 10.0 ** -(150 / (B - 1) * np.arange(B))  # 1, 2e-14, 5e-28, ...: the second is just above the limit of 8e-15
    W = sizes[:, None] * orthonormal(N, B, rng).T
    Q, R = orthonormalize(W)
    assert 1 <= Q.shape[0] <= 2
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * EPS


def test_graded_rows_within_precision_are_all_kept(rng):
    W = 10.0 ** -np.arange(B)[:, None] * orthonormal(N, B, rng).T
    Q, R = orthonormalize(W)
    assert Q.shape[0] == B
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * EPS


@pytest.mark.parametrize("size", [1e-140, 1e140])
def test_a_block_far_from_one_keeps_its_rank(rng, size):
    W = size * block(np.logspace(0, -3, B), rng)
    Q, R = orthonormalize(W)
    assert Q.shape[0] == B
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W / size, R / size, Q) <= 20 * EPS


def test_duplicate_rows_count_once(rng):
    rows = rng.standard_normal((4, N))
    W = rows[[0, 1, 2, 3, 0, 0, 3, 1]]
    Q, R = orthonormalize(W)
    assert Q.shape[0] == 4
    assert orthogonality_ratio(Q.T) <= 30
    assert factorization_ratio(W, R, Q) <= 20 * EPS


def test_zero_rows_have_no_coefficients(rng):
    W = rng.standard_normal((6, N))
    W[[1, 4]] = 0.0
    Q, R = orthonormalize(W)
    assert Q.shape[0] == 4
    assert np.abs(R[[1, 4]]).max() <= 20 * EPS * np.linalg.norm(W, 2)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_zero_block_has_rank_zero(scale):
    Q, R = orthonormalize(np.zeros((3, 7)), scale=scale)
    assert Q.shape == (0, 7)
    assert R.shape == (3, 0)


def test_no_rows_at_all():
    Q, R = orthonormalize(np.zeros((0, 7)))
    assert Q.shape == (0, 7)
    assert R.shape == (0, 0)


def test_more_rows_than_columns(rng):
    W = rng.standard_normal((9, 4))
    Q, R = orthonormalize(W)
    assert Q.shape == (4, 4)
    assert np.linalg.norm(Q @ Q.T - np.eye(4), 2) <= 30 * 9 * EPS
    assert factorization_ratio(W, R, Q) <= 20 * EPS


def test_the_block_given_is_left_alone(rng):
    W = rng.standard_normal((5, 30))
    before = W.copy()
    orthonormalize(W, project=lambda X, size: X)
    assert np.array_equal(W, before)


@pytest.mark.parametrize("outside", [1.0, 1e-6, 1e-11])
def test_projection_keeps_the_block_orthogonal_to_a_basis(rng, outside):
    frame = orthonormal(N, 20 + B, rng).T
    P, rest = frame[:20], frame[20:]
    W = rng.standard_normal((B, 20)) @ P + outside * rest  # nearly inside the basis
    c = W @ P.T
    Q, R = orthonormalize(W - c @ P, scale=1.0, project=lambda X, size: X - (X @ P.T) @ P)
    # Directions of size `outside` start with eps ||W|| / outside in the basis; projecting again takes that to eps.
    assert Q.shape[0] == B
    assert np.abs(Q @ P.T).max() <= 30 * EPS
    assert orthogonality_ratio(Q.T) <= 30
    assert np.linalg.norm(W - c @ P - R @ Q, 2) <= 100 * B * EPS * np.linalg.norm(W, 2)


def test_a_block_that_was_not_projected_before_is_projected_until_it_is_orthogonal(rng):
    """All but 1e-6 of the block lies in the basis: what one projection leaves is well conditioned, but polluted."""
    frame = orthonormal(N, 20 + B, rng).T
    P, rest = frame[:20], frame[20:]
    W = orthonormal(20, B, rng).T @ P + 1e-6 * rest
    Q, R = orthonormalize(W, project=lambda X, size: X - (X @ P.T) @ P)
    assert Q.shape[0] == B
    assert np.abs(Q @ P.T).max() <= 30 * EPS
    assert orthogonality_ratio(Q.T) <= 30


def test_a_block_inside_the_basis_is_dropped_entirely(rng):
    P = orthonormal(N, 20, rng).T
    W = rng.standard_normal((B, 20)) @ P
    Q, R = orthonormalize(W - (W @ P.T) @ P, scale=10.0, project=lambda X, size: X - (X @ P.T) @ P)
    assert Q.shape == (0, N)


def test_gram_eigenvalues_are_squared_singular_values(rng):
    W = rng.standard_normal((B, N))
    lam, E = np.linalg.eigh(gram(W))
    s = np.linalg.svd(W, compute_uv=False)
    assert np.abs(lam[::-1] - s**2).max() <= B * N * EPS * s[0] ** 2
    assert np.linalg.norm(E.T @ E - np.eye(B), 2) <= 30 * B * EPS


@pytest.mark.parametrize("given", [0, 3, 40])
@pytest.mark.parametrize("count", [40, 41, 60])
def test_complete_rows_keeps_what_is_there_and_adds_orthonormal_rows(rng, given, count):
    Q = orthonormal(60, given, rng).T if given else np.zeros((0, 60))
    full = complete_rows(Q, count, lambda j: rng.standard_normal((j, 60)))
    assert full.shape == (count, 60)
    assert np.array_equal(full[:given], Q)
    assert orthogonality_ratio(full.T) <= 30


def test_complete_rows_survives_repeated_random_rows(rng):
    Q = complete_rows(np.zeros((0, 20)), 6, lambda j: np.tile(rng.standard_normal(20), (j, 1)))
    assert orthogonality_ratio(Q.T) <= 30


def test_on_a_device_only_the_gram_matrix_is_copied(rng, device_xp, transfers):
    W = rng.standard_normal((4, 50))
    Q, R = orthonormalize(device_xp.asarray(W))
    assert device_xp.owns(Q)
    assert not transfers.larger_than(16)
    assert factorization_ratio(W, R, device_xp.to_numpy(Q)) <= 20 * EPS
