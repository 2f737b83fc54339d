"""Balancing (algorithm A2): the product stays, both Gram matrices become one diagonal."""

import numpy as np
import pytest

from lrla import _threads
from lrla.completion._balance import balance, gram
from lrla.completion._half_sweep import Factors, mean_squares


def factors_of(U, V, offsets=False):
    factors = Factors.empty((len(U), len(V)), U.dtype, offsets)
    factors.replace(U, V)
    return factors


@pytest.fixture
def pair(rng):
    """Two factors of very different scales, far from orthogonal."""
    U = rng.standard_normal((60, 5)) @ (np.diag(10.0 ** np.arange(-2, 3)) + rng.standard_normal((5, 5)))
    return U, 1e3 * rng.standard_normal((40, 5))


@pytest.mark.parametrize("offsets", [False, True])
def test_the_product_stays_and_both_grams_are_the_singular_values(pair, offsets):
    U, V = pair
    factors = factors_of(U, V, offsets)
    sigma = balance(factors)
    A, B = factors.U[:, factors.columns], factors.V[:, factors.columns]
    product = U @ V.T
    assert np.linalg.norm(A @ B.T - product) <= 1e-12 * np.linalg.norm(product)
    for X in (A, B):
        assert np.abs(X.T @ X - np.diag(sigma)).max() <= 1e-12 * sigma[0]
    np.testing.assert_allclose(sigma, np.linalg.svd(product, compute_uv=False)[:5], rtol=1e-11)
    assert np.all(np.diff(sigma) <= 0)
    if offsets:  # their columns are left alone
        assert np.all(factors.U[:, 1] == 1)
        assert np.all(factors.V[:, 0] == 1)


def test_weighted_grams_are_equal_and_diagonal(pair, rng):
    W, Z = rng.random(60) + 0.1, rng.random(40) + 0.1
    factors = factors_of(*pair)
    sigma = balance(factors, W, Z)
    for X, weights in ((factors.U, W), (factors.V, Z)):
        assert np.abs(gram(X, factors.columns, weights) - np.diag(sigma)).max() <= 1e-12 * sigma[0]


def test_no_other_way_to_write_the_product_has_a_smaller_penalty(pair, rng):
    factors = factors_of(*pair)
    balance(factors)
    least = np.square(factors.U).sum() + np.square(factors.V).sum()
    assert least <= np.square(pair[0]).sum() + np.square(pair[1]).sum()
    A, B = factors.U[:, :5], factors.V[:, :5]
    for _ in range(5):
        T = np.eye(5) + 0.1 * rng.standard_normal((5, 5))
        assert np.square(A @ T).sum() + np.square(B @ np.linalg.inv(T).T).sum() >= least


def test_dependent_columns_are_dropped(pair):
    U, V = pair
    U = np.hstack([U, U[:, :2]])
    V = np.hstack([V, V[:, 2:4]])
    factors = factors_of(U, V)
    sigma = balance(factors)
    assert len(sigma) == factors.k == 5
    np.testing.assert_allclose(factors.U[:, :5] @ factors.V[:, :5].T, U @ V.T, rtol=0, atol=1e-9 * sigma[0])


def test_a_zero_factor_leaves_no_column(pair):
    factors = factors_of(np.zeros((60, 5)), pair[1])
    assert balance(factors).shape == (0,)
    assert factors.k == 0


def test_small_columns_keep_their_relative_accuracy_in_single_precision(rng):
    U = np.linalg.qr(rng.standard_normal((200, 4)))[0] * [1, 1e-2, 1e-3, 1e-4]
    V = np.linalg.qr(rng.standard_normal((100, 4)))[0]
    factors = factors_of(U.astype(np.float32), V.astype(np.float32))
    np.testing.assert_allclose(balance(factors), [1, 1e-2, 1e-3, 1e-4], rtol=1e-2)


def test_threads_make_no_difference_to_sums_and_products(rng, monkeypatch):
    U, V = rng.standard_normal((40_000, 3)), rng.standard_normal((1500, 3))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        factors = factors_of(U, V)
        found.append((balance(factors), factors.U, factors.V, mean_squares(factors.U, np.arange(40_000.0))))
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_mean_squares_count_rows_as_often_as_they_are_observed(rng):
    F, counts = rng.standard_normal((2500, 8)).astype(np.float32), rng.integers(0, 5, 2500).astype(float)
    np.testing.assert_allclose(mean_squares(F, counts), counts @ F.astype(float) ** 2 / counts.sum(), rtol=1e-12)
    assert np.all(mean_squares(F[:0], counts[:0]) == 0)
