"""Products of a dense array by lrla's own kernels, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from lrla import _threads
from lrla.linalg import _operator
from lrla.linalg._operator import DenseOperator, as_operator
from lrla.linalg._tiled import TiledOperator

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
        results.append(TiledOperator(A).gram(X))
    monkeypatch.setattr(_threads, "_pool", None)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_they_are_used_where_they_are_faster(rng, monkeypatch):
    """For large float32 arrays in memory, beside an OpenBLAS with its SkylakeX kernels; elsewhere BLAS does it."""
    monkeypatch.setattr(_operator, "TILED", 1000)
    monkeypatch.setattr(_operator, "parallel_allowed", lambda: True)
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"SkylakeX"})
    A = rng.standard_normal((50, 40)).astype(np.float32)
    assert type(as_operator(A, iterated=True)) is TiledOperator
    assert type(as_operator(A.T, iterated=True)) is TiledOperator
    assert type(as_operator(A, iterated=True).T) is TiledOperator
    assert type(as_operator(A)) is DenseOperator
    for other in (A.astype(np.float64), A[:20], A[::-1], A[:, ::-1]):
        assert type(as_operator(other, iterated=True)) is DenseOperator
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"Haswell"})
    assert type(as_operator(A, iterated=True)) is DenseOperator
    monkeypatch.setattr(_operator, "openblas_cores", lambda: {"SkylakeX"})
    monkeypatch.setattr(_operator, "parallel_allowed", lambda: False)
    assert type(as_operator(A, iterated=True)) is DenseOperator


def test_a_truncated_svd_is_as_good_with_them(rng, monkeypatch):
    monkeypatch.setattr(_operator, "_is_for_tiles", lambda A: isinstance(A, np.ndarray))
    from lrla import truncated_svd

    A = (rng.standard_normal((900, 20)) @ rng.standard_normal((20, 400))).astype(np.float32)
    A += 0.1 * rng.standard_normal(A.shape).astype(np.float32)
    truth = np.linalg.svd(A.astype(np.float64), compute_uv=False)[:10]
    for matrix in (A, A.T, np.asfortranarray(A)):
        U, s, Vt = truncated_svd(matrix, 10, random_state=0)
        assert np.abs(s / truth - 1.0).max() <= 2e-6
        assert np.abs(matrix @ Vt.T - U * s).max() <= 1e-5 * s[0]
