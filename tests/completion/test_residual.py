"""The residual as an operator (`_residual`), and what it is made of: sums of features and products of pairs."""

import numpy as np
import pytest

from lrla.completion import _half_sweep
from lrla.completion._half_sweep import add_up_residuals, aligned_zeros, padded, pair_products
from lrla.completion._observed import Observed
from lrla.completion._residual import Residual

SHAPE, NUMBERS = (40, 23), (0.5, 0.25)


def rows_of_lines(rng, rows, k, dtype):
    X = aligned_zeros(rows, padded(k, np.dtype(dtype)), np.dtype(dtype))
    X[:, :k] = rng.standard_normal((rows, k))
    return X


@pytest.fixture(params=[("float64", True), ("float64", False), ("float32", True), ("float32", False)])
def data(request, rng):
    """Observations, the mask of the observed cells, and the dense arrays of values and of weights."""
    dtype, weighted = request.param
    mask = rng.random(SHAPE) < 0.4
    mask[3], mask[:, 5], mask[7] = False, False, True
    X, W = rng.standard_normal(SHAPE).astype(dtype), rng.uniform(0.5, 2.0, SHAPE).astype(dtype)
    indptr = np.concatenate(([0], np.cumsum(mask.sum(axis=1))))
    observed = Observed(indptr, np.nonzero(mask)[1], X[mask], SHAPE, W[mask] if weighted else None)
    return observed, mask, X, W if weighted else np.ones_like(W)


@pytest.mark.parametrize("scaled", [True, False])
def test_products_are_those_of_the_dense_residual(data, rng, scaled):
    observed, mask, X, W = data
    dtype = observed.dtype
    U, V = rows_of_lines(rng, SHAPE[0], 3, dtype), rows_of_lines(rng, SHAPE[1], 3, dtype)
    scales = [rng.uniform(0.5, 2.0, size).astype(dtype) for size in SHAPE] if scaled else []
    residual = Residual(observed, U, V, np.array(NUMBERS, dtype), *scales)
    dense = np.where(mask, W * (NUMBERS[0] * X - NUMBERS[1] - U.astype(float) @ V.T), 0)
    if scaled:
        dense = scales[0][:, None] * dense * scales[1]
    tolerance = {"rtol": 0, "atol": 200 * np.finfo(dtype).eps}
    np.testing.assert_allclose(residual.toarray(), dense, **tolerance)
    for b in (1, 8, 20):
        right, left = rng.standard_normal((SHAPE[1], b)), rng.standard_normal((SHAPE[0], b))
        found = residual.matmat(right.astype(dtype)), residual.rmatmat(left.astype(dtype))
        assert found[0].dtype == found[1].dtype == dtype
        np.testing.assert_allclose(found[0], dense @ right, **tolerance)
        np.testing.assert_allclose(found[1], dense.T @ left, **tolerance)
        both = residual.gram(right.astype(dtype))
        assert both.dtype == dtype
        image, again = residual.image_and_gram(right.astype(dtype))
        np.testing.assert_allclose(image, dense @ right, **tolerance)
        np.testing.assert_array_equal(again, both)
        wanted = dense.T @ (dense @ right)
        np.testing.assert_allclose(both, wanted, rtol=0, atol=20 * np.finfo(dtype).eps * np.abs(wanted).max())
    np.testing.assert_allclose(residual.matvec(right[:, 0].astype(dtype)), dense @ right[:, 0], **tolerance)


def add_up(observed, F, out):
    """The weighted sums of the features of the entries of every row, as those of residuals of one."""
    F, X = (np.hstack([np.zeros((len(Z), padded(1, Z.dtype)), Z.dtype), Z]) for Z in (F, out))
    add_up_residuals(observed, F, X, np.array([0, -1], F.dtype), out.shape[1])
    out[:] = X[:, -out.shape[1] :]


def test_features_are_added_up_with_their_weights(data, rng, monkeypatch):
    observed, mask, _, W = data
    # whatever the memory that rows are worked on in held before
    monkeypatch.setattr(_half_sweep, "aligned_empty", lambda *shape: np.full_like(aligned_zeros(*shape), np.nan))
    F, found = rows_of_lines(rng, SHAPE[1], 9, observed.dtype), rows_of_lines(rng, SHAPE[0], 9, observed.dtype)
    add_up(observed, F, found)
    np.testing.assert_allclose(found, (mask * W) @ F, rtol=0, atol=100 * np.finfo(observed.dtype).eps)


def test_many_entries_of_a_row_are_added_up(rng):
    n = 5001  # in several chunks, the last of which is not full
    observed = Observed(np.array([0, n]), np.arange(n), np.ones(n), (1, n), rng.uniform(0, 2, n))
    F, found = rows_of_lines(rng, n, 4, "float64"), rows_of_lines(rng, 1, 4, "float64")
    add_up(observed, F, found)
    np.testing.assert_allclose(found[0], observed.weights @ F, rtol=0, atol=1e-11)


@pytest.mark.parametrize("pairs", [0, 1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_products_of_pairs(rng, pairs, dtype):
    U, V = rows_of_lines(rng, 7, 11, dtype), rows_of_lines(rng, 9, 11, dtype)
    rows, columns = (rng.integers(0, size, pairs).astype(np.int32) for size in (7, 9))
    found = pair_products(rows, columns, U, V)
    assert found.dtype == dtype
    assert found.shape == (pairs,)
    np.testing.assert_allclose(found, np.sum(U[rows] * V[columns], axis=1), rtol=0, atol=50 * np.finfo(dtype).eps)
