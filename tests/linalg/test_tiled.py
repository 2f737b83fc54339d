"""Products of a dense array by lrla's own kernels, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from lrla import _threads, truncated_svd
from lrla.linalg import _operator
from lrla.linalg._operator import DenseOperator, as_operator
from lrla.linalg._tiled import TiledOperator
from lrla.svd import _truncated

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def stored(A, how):
    """A in another order of its elements, or as a part of a larger array."""
    if how == "columns":
        return np.asfortranarray(A)
    if how == "slice":
        larger = np.full((2 * A.shape[0] + 3, A.shape[1] + 5), np.nan, A.dtype)
        larger[2:-1:2, 3:-2] = A
        return larger[2:-1:2, 3:-2]
    return np.ascontiguousarray(A)


def close(found, expected, bound):
    return np.abs(found - expected).max() <= bound


@DTYPES
@pytest.mark.parametrize("how", ["rows", "columns", "slice"])
@pytest.mark.parametrize("b", [1, 8, 16, 17, 33, 48, 60, 81, 104])
def test_products_are_those_of_numpy(rng, dtype, how, b):
    m, n = 93, 150  # neither a multiple of the rows of a tile
    A = stored(rng.standard_normal((m, n)).astype(dtype), how)
    op, exact = TiledOperator(A), A.astype(np.float64)
    X, Y = rng.standard_normal((b, n)).astype(dtype), rng.standard_normal((b, m)).astype(dtype)
    eps = np.finfo(dtype).eps
    for found, expected, size in (
        (op.forward(X), X.astype(np.float64) @ exact.T, np.abs(X.astype(np.float64)) @ np.abs(exact).T),
        (op.adjoint(Y), Y.astype(np.float64) @ exact, np.abs(Y.astype(np.float64)) @ np.abs(exact)),
        (op.T.forward(Y), Y.astype(np.float64) @ exact, np.abs(Y.astype(np.float64)) @ np.abs(exact)),
    ):
        assert found.dtype == dtype
        assert found.flags.c_contiguous
        assert (np.abs(found - expected) <= 20 * eps * size).all()


@DTYPES
@pytest.mark.parametrize("how", ["rows", "columns", "slice"])
@pytest.mark.parametrize("m", [31, 32, 93, 700])
@pytest.mark.parametrize("centre", [None, 0.3])
def test_both_products_at_once(rng, dtype, how, m, centre):
    """``X A^T`` and ``X (A^T A)``, whether A is read once for them or twice; with fewer and with more rows than are taken at
    a time, and a rest."""
    A, X = stored(rng.standard_normal((m, 150)).astype(dtype), how), rng.standard_normal((17, 150)).astype(dtype)
    mean = None if centre is None else np.full(150, centre)
    exact, Y = A.astype(np.float64) - (centre or 0.0), X.astype(np.float64)
    image, product = TiledOperator(A, mean).both(X)
    eps, size = np.finfo(dtype).eps, np.abs(exact) + (centre or 0.0)
    assert image.dtype == product.dtype == dtype
    assert (np.abs(image - Y @ exact.T) <= 20 * eps * (np.abs(Y) @ size.T)).all()
    assert (np.abs(product - Y @ exact.T @ exact) <= 40 * eps * (np.abs(Y) @ size.T @ size)).all()


@pytest.mark.parametrize("n", [4, 5000, 9000])
def test_rows_too_long_for_a_cache_are_read_twice(rng, n):
    A, X = rng.standard_normal((40, n)), rng.standard_normal((3, n))
    image, product = TiledOperator(A).both(X)
    np.testing.assert_allclose(image, X @ A.T, atol=1e-11)
    np.testing.assert_allclose(product, X @ A.T @ A, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (8, 3), (1, 1), (300, 2)])
def test_small_shapes(rng, shape):
    A = rng.standard_normal(shape).astype(np.float32)
    X = rng.standard_normal((3, shape[1])).astype(np.float32)
    assert close(TiledOperator(A).forward(X), X @ A.T, 1e-5)


def test_long_sums_lose_no_more_than_short_ones(rng):
    """A sum of 4e5 numbers in float32: the error of one sum after the other would be ten times as large."""
    A = rng.random((400_000, 3)).astype(np.float32)
    Y = np.ones((2, len(A)), np.float32)
    exact = A.astype(np.float64).sum(axis=0)
    assert np.abs(TiledOperator(A).adjoint(Y) / exact - 1.0).max() <= 2e-6
    assert np.abs(TiledOperator(np.asfortranarray(A)).adjoint(Y) / exact - 1.0).max() <= 2e-6
    product = A.astype(np.float64).T @ A.astype(np.float64)
    assert np.abs(TiledOperator(A).both(np.eye(3, dtype=np.float32))[1] / product - 1.0).max() <= 2e-6


@pytest.mark.parametrize("centre", [0.3, 100.0])
def test_a_mean_is_taken_off(rng, centre):
    A = (rng.standard_normal((200, 90)) + centre).astype(np.float32)
    X, mean = rng.standard_normal((20, 90)).astype(np.float32), A.astype(np.float64).mean(axis=0)
    C = A - mean
    assert close(TiledOperator(A, mean).gram(X), X @ C.T @ C, 2e-5 * np.abs(X @ C.T @ C).max())
    assert close(TiledOperator(A, mean).T.gram(X @ C.T.astype(np.float32)), X @ C.T @ C @ C.T, 2e-3 * 200)


def test_the_number_of_threads_changes_no_bit(rng, monkeypatch):
    A, X = rng.standard_normal((700, 333)).astype(np.float32), rng.standard_normal((48, 333)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(_threads, "available_threads", lambda count=threads: count)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(np.vstack((TiledOperator(A).gram(X), TiledOperator(A).both(X)[1])))
    monkeypatch.setattr(_threads, "_pool", None)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_they_are_used_where_they_are_faster(rng, monkeypatch):
    """For large arrays in memory, beside an OpenBLAS with its SkylakeX kernels; elsewhere BLAS does it."""
    monkeypatch.setattr(_operator, "TILED_BYTES", 4000)
    monkeypatch.setattr(_operator, "parallel_allowed", lambda: True)
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"SkylakeX"})
    A = rng.standard_normal((50, 40)).astype(np.float32)
    for large in (A, A.T, A.astype(np.float64), A[::2].astype(np.float64)):
        assert type(as_operator(large, iterated=True)) is TiledOperator
        assert type(as_operator(large, iterated=True).T) is TiledOperator
        assert type(as_operator(large)) is DenseOperator
    for other in (A[:20], A[::-1], A[:, ::-1]):
        assert type(as_operator(other, iterated=True)) is DenseOperator
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"Haswell"})
    assert type(as_operator(A, iterated=True)) is DenseOperator
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"SkylakeX"})
    monkeypatch.setattr(_operator, "parallel_allowed", lambda: False)
    assert type(as_operator(A, iterated=True)) is DenseOperator


@DTYPES
@pytest.mark.parametrize("tol", [0.3, 1e-3])
def test_a_truncated_svd_is_as_good_with_them(rng, monkeypatch, dtype, tol):
    for module in (_operator, _truncated):
        monkeypatch.setattr(module, "is_for_tiles", lambda A: isinstance(A, np.ndarray))
    A = (rng.standard_normal((900, 20)) @ rng.standard_normal((20, 400))).astype(dtype)
    A += 0.1 * rng.standard_normal(A.shape).astype(dtype)
    truth = np.linalg.svd(A.astype(np.float64), compute_uv=False)[:10]
    for matrix in (A, A.T, np.asfortranarray(A)):
        for center in (False, True):
            C = matrix - matrix.mean(axis=0) if center else matrix
            U, s, Vt = truncated_svd(matrix, 10, tol=tol, center=center, random_state=0)
            expected = np.linalg.svd(C.astype(np.float64), compute_uv=False)[:10] if center else truth
            assert np.abs(s / expected - 1.0).max() <= max(2e-6, tol**2)
            left, right = np.linalg.norm(C.T @ U - Vt.T * s, axis=0), np.linalg.norm(C @ Vt.T - U * s, axis=0)
            assert (np.maximum(left, right) <= tol * s).all()
            assert (np.minimum(left, right) <= 1e-5 * s[0]).all()
            if tol == 1e-3:
                assert np.abs(C @ Vt.T - U * s).max() <= 1e-5 * s[0]
