"""Operators against dense NumPy products: blocks of rows, implicit centring, norms, means and Gram matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from lrla import _arrays
from lrla.linalg._operator import (
    DenseOperator,
    ProductOperator,
    Transposed,
    as_operator,
    column_means,
    gram_matrix,
    squared_norm,
)
from tests._matrices import sparse_matrix

EPS = np.finfo(np.float64).eps
M, N, B = 70, 40, 5


def make(kind, A, mean):
    """The operator A - 1 mean^T in one of the ways to store it."""
    if kind == "dense":
        return DenseOperator(A, mean)
    if kind == "operator":
        return ProductOperator(aslinearoperator(A), mean)
    if kind == "transposed":
        return Transposed(Transposed(DenseOperator(A, mean)))
    return as_operator(_sparse(A), mean)


def _sparse(A):
    return sp.csr_array(A)


def close(found, expected, scale, count, eps=EPS):
    """Sums of `count` products, each rounded: count eps times the sizes that went in (`scale`)."""
    return np.abs(np.asarray(found, dtype=np.float64) - expected).max() <= 4 * count * eps * scale


KINDS = pytest.mark.parametrize("kind", ["dense", "operator", "transposed", "sparse"])
CENTERED = pytest.mark.parametrize("centered", [False, True])


@KINDS
@CENTERED
def test_products_equal_those_of_the_centred_matrix(rng, kind, centered):
    A, X, Y = rng.standard_normal((M, N)) + 3.0, rng.standard_normal((B, N)), rng.standard_normal((B, M))
    mean = A.mean(axis=0) if centered else None
    op, C = make(kind, A, mean), A - (0.0 if mean is None else mean)
    size = np.abs(A).max()
    assert op.shape == (M, N)
    assert close(op.forward(X), X @ C.T, size * np.abs(X).max(), N)
    assert close(op.adjoint(Y), Y @ C, size * np.abs(Y).max(), M)
    assert close(op.gram(X), X @ C.T @ C, size**2 * np.abs(X).max(), M * N)


@KINDS
@CENTERED
def test_the_transpose_changes_forward_and_adjoint(rng, kind, centered):
    A, X, Y = rng.standard_normal((M, N)), rng.standard_normal((B, N)), rng.standard_normal((B, M))
    mean = rng.standard_normal(N) if centered else None
    op = make(kind, A, mean)
    assert op.T.shape == (N, M)
    assert np.allclose(op.T.forward(Y), op.adjoint(Y), rtol=0, atol=4 * M * EPS * 30)
    assert np.allclose(op.T.adjoint(X), op.forward(X), rtol=0, atol=4 * N * EPS * 30)
    assert np.allclose(op.T.gram(Y), op.forward(op.adjoint(Y)), rtol=0, atol=4 * M * N * EPS * 30)
    assert np.allclose(op.T.T.forward(X), op.forward(X), rtol=0, atol=4 * N * EPS * 30)


@KINDS
def test_forward_and_adjoint_are_adjoint(rng, kind):
    A, X, Y = rng.standard_normal((M, N)), rng.standard_normal((B, N)), rng.standard_normal((B, M))
    op = make(kind, A, rng.standard_normal(N))
    error = op.forward(X) @ Y.T - X @ op.adjoint(Y).T
    assert np.abs(error).max() <= M * N * EPS * np.linalg.norm(X) * np.linalg.norm(Y)


@KINDS
@CENTERED
def test_squared_norm(rng, kind, centered):
    A = rng.standard_normal((M, N)) + 2.0
    mean = A.mean(axis=0) if centered else None
    expected = np.linalg.norm(A - (0.0 if mean is None else mean)) ** 2
    op = make(kind, A, mean)
    # A difference of squares with centring: relative to the squares that went in.
    for found in (op.squared_norm, op.T.squared_norm):
        assert abs(found - expected) <= M * N * EPS * np.linalg.norm(A) ** 2


@KINDS
@CENTERED
def test_gram_matrix(rng, kind, centered):
    A = rng.standard_normal((M, N)) + 1.0
    mean = A.mean(axis=0) if centered else None
    C = A - (0.0 if mean is None else mean)
    assert close(gram_matrix(make(kind, A, mean)), C.T @ C, np.abs(A).max() ** 2, M)


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "operator"])
def test_column_means(rng, form):
    A = sparse_matrix(M, N, 0.3, rng).toarray()
    given = {"dense": A, "csr": _sparse(A), "csc": _sparse(A).tocsc(), "operator": aslinearoperator(A)}[form]
    assert close(column_means(given), A.mean(axis=0), np.abs(A).max(), 1)


def test_column_means_of_float32_are_summed_in_float64(rng):
    A = (rng.standard_normal((20000, 3)) + 1e4).astype(np.float32)
    exact = A.astype(np.float64).mean(axis=0)
    found = column_means(A)
    assert found.dtype == np.float64
    assert np.abs(found - exact).max() <= 1e-12 * 1e4  # float32 sums would be off by 1e-4 of it


def test_squared_norm_of_float32_is_summed_in_float64_by_blocks(rng):
    A = rng.standard_normal((3000, 500)).astype(np.float32)  # two blocks of 8 MiB in float64
    exact = float(np.sum(A.astype(np.float64) ** 2))
    assert abs(squared_norm(A) - exact) <= 1e-12 * exact


@pytest.mark.parametrize("flipped", [False, True])
def test_float32_with_a_mean_a_thousand_times_its_spread(rng, flipped):
    """Centring inside a float32 product would lose three of seven digits; rows are centred in float64 before it."""
    A = (rng.standard_normal((3000, 400)) + 1e3).astype(np.float32)
    mean = A.astype(np.float64).mean(axis=0)
    C = A.astype(np.float64) - mean
    op = DenseOperator(A, mean)
    X = rng.standard_normal((B, 400)).astype(np.float32)
    Y = rng.standard_normal((B, 3000)).astype(np.float32)
    if flipped:
        op, C, X, Y = op.T, C.T, Y, X
    bound = 10 * np.finfo(np.float32).eps  # of one product of centred numbers, relative to the norm of its rows
    for found, exact in ((op.forward(X), X @ C.T), (op.adjoint(Y), Y @ C), (op.gram(X), X @ C.T @ C)):
        assert found.dtype == np.float32
        assert np.linalg.norm(found - exact) <= bound * np.linalg.norm(exact)
    assert abs(op.squared_norm - np.linalg.norm(C) ** 2) <= 10 * np.finfo(np.float32).eps * np.linalg.norm(C) ** 2


def test_float32_gram_matrix_is_accumulated_in_float64(rng):
    A = (rng.standard_normal((500, 30)) + 1e3).astype(np.float32)
    mean = A.astype(np.float64).mean(axis=0)
    C = A.astype(np.float64) - mean
    G = gram_matrix(DenseOperator(A, mean))
    assert G.dtype == np.float64
    assert np.abs(G - C.T @ C).max() <= 500 * EPS * np.abs(C).max() ** 2


def test_products_keep_float32(rng):
    A = rng.standard_normal((M, N)).astype(np.float32)
    X = rng.standard_normal((B, N)).astype(np.float32)
    for op in (DenseOperator(A), ProductOperator(aslinearoperator(A)), as_operator(_sparse(A))):
        assert op.dtype == np.float32
        assert op.gram(X).dtype == np.float32
        assert op.empty((2, 3)).dtype == np.float32


def test_astype_changes_the_precision_and_nothing_else(rng):
    A, X = rng.standard_normal((M, N)), rng.standard_normal((B, N)).astype(np.float32)
    op = DenseOperator(A, A.mean(axis=0))
    half = op.astype(np.dtype(np.float32))
    assert op.astype(np.dtype(np.float64)) is op
    assert half.dtype == np.float32
    assert half.T.astype(np.dtype(np.float64)).dtype == np.float64
    exact = X @ (A - A.mean(axis=0)).T
    assert np.linalg.norm(half.forward(X) - exact) <= 10 * np.finfo(np.float32).eps * np.linalg.norm(exact)


@CENTERED
def test_products_stay_on_the_device(rng, xp, centered):
    A, X, Y = rng.standard_normal((M, N)), rng.standard_normal((B, N)), rng.standard_normal((B, M))
    given = xp.asarray(A)
    mean = column_means(given) if centered else None
    C = A - (A.mean(axis=0) if centered else 0.0)
    op = as_operator(given, mean)
    results = [op.forward(xp.asarray(X)), op.adjoint(xp.asarray(Y)), op.gram(xp.asarray(X)), gram_matrix(op)]
    exact = [X @ C.T, Y @ C, X @ C.T @ C, C.T @ C]
    for found, wanted in zip(results, exact, strict=True):
        assert xp.owns(found)
        assert np.abs(xp.to_numpy(found) - wanted).max() <= M * N * EPS * 30
    assert abs(op.squared_norm - np.linalg.norm(C) ** 2) <= M * N * EPS * np.linalg.norm(A) ** 2


def test_as_operator_chooses_by_storage(rng):
    A = rng.standard_normal((4, 3))
    assert isinstance(as_operator(A), DenseOperator)
    assert isinstance(as_operator(aslinearoperator(A)), ProductOperator)
    assert _arrays.kind(_sparse(A)) == "sparse"
    assert type(as_operator(_sparse(A))).__name__ == "SparseOperator"
