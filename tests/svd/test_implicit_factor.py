"""`ImplicitFactor`: the same matrix as the dense product; conditioning, orthonormality and touched rows in check."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from lrla.svd._implicit_factor import PRECISION, ImplicitFactor
from lrla.svd._row_blocks import DenseRows, rows_of
from tests._matrices import orthogonality_ratio, orthonormal

EPS = np.finfo(np.float64).eps
DTYPES = [np.float64, np.float32]


def sparse_rows(s, n, rng, density=0.05):
    return rows_of(sp.random_array((s, n), density=density, rng=rng, format="csr"))


def dense_of(E):
    return E.X if isinstance(E, DenseRows) else sp.csr_array((E.data, E.indices, E.indptr), shape=E.shape).toarray()


def rotation(r, r2, rng, spread=0.3):
    return orthonormal(max(r, r2), max(r, r2), rng)[:r, :r2] + spread * rng.standard_normal((r, r2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("r", "r2"), [(3, 3), (3, 5), (5, 3), (0, 4), (5, 5)])
@pytest.mark.parametrize("dense", [False, True])
def test_a_change_equals_the_dense_product(rng, dtype, r, r2, dense):
    X = orthonormal(80, r, rng).astype(dtype)
    factor = ImplicitFactor.from_dense(X, 5, dtype)
    T, H, rows = rotation(r, r2, rng), rng.standard_normal((4, r2)), rng.standard_normal((2, r2))
    E = DenseRows(rng.standard_normal((4, 80))) if dense else sparse_rows(4, 80, rng)
    factor.commit(factor.plan(T, E, H, rows))
    expected = np.vstack([X @ T + dense_of(E).T @ H, rows])
    # rounding of W, magnified by the condition number of K (at most some 10 here)
    assert np.abs(factor.dense() - expected).max() <= 100 * np.finfo(dtype).eps * np.abs(expected).max()
    assert factor.dense().dtype == dtype


def test_a_hundred_changes_equal_the_dense_products(rng):
    X = orthonormal(200, 6, rng)
    factor = ImplicitFactor.from_dense(X, 6, np.float64)
    for _ in range(100):
        T, H, E = rotation(6, 6, rng, 0.05), 0.1 * rng.standard_normal((2, 6)), sparse_rows(2, 200, rng)
        factor.commit(factor.plan(T, E, H))
        X = X @ T + dense_of(E).T @ H
        assert np.linalg.cond(factor.K) <= PRECISION["float64"].cond_max
    # 100 steps, each of some eps times the largest condition number of K
    assert np.abs(factor.dense() - X).max() <= 100 * EPS * PRECISION["float64"].cond_max * np.abs(X).max()


def test_columns_beyond_the_rank_are_annihilated(rng):
    factor = ImplicitFactor.from_dense(orthonormal(60, 2, rng), 8, np.float64)
    for r in (2, 4, 4, 7):
        factor.commit(factor.plan(rotation(factor.r, r, rng), sparse_rows(3, 60, rng), rng.standard_normal((3, r))))
        assert np.abs(factor.W[:60] @ factor.K[:, factor.r :]).max() <= 100 * EPS


def test_only_named_rows_are_written(rng):
    factor = ImplicitFactor.from_dense(orthonormal(500, 4, rng), 4, np.float64)
    E = sparse_rows(3, 500, rng, density=0.01)
    before = factor.W.copy()
    factor.commit(factor.plan(rotation(4, 4, rng), E, rng.standard_normal((3, 4))))
    changed = np.flatnonzero((before != factor.W).any(axis=1))
    assert np.isin(changed, E.indices).all()


def test_rows_equal_rows_of_the_dense_matrix(rng):
    factor = ImplicitFactor.from_dense(orthonormal(90, 4, rng), 6, np.float64)
    factor.commit(factor.plan(rotation(4, 5, rng), sparse_rows(3, 90, rng), rng.standard_normal((3, 5))))
    index = np.array([5, 89, 5, 0])
    assert np.allclose(factor.rows(index), factor.dense()[index], rtol=0, atol=10 * EPS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_ill_conditioned_rotation_folds(rng, dtype):
    X = orthonormal(50, 3, rng).astype(dtype)
    factor = ImplicitFactor.from_dense(X, 4, dtype)
    T = np.diag([1.0, 1.0, 0.1 / PRECISION[np.dtype(dtype).name].cond_max])
    change = factor.plan(T)
    factor.commit(change)
    assert change.folded
    assert np.array_equal(factor.K, np.eye(4))
    assert np.abs(factor.dense() - X @ T).max() <= 4 * np.finfo(dtype).eps


def test_appending_copies_each_row_a_bounded_number_of_times(rng):
    factor = ImplicitFactor(0, 3, np.float64)
    copies = 0
    for _ in range(1000):
        capacity = len(factor.W)
        factor.commit(factor.plan(np.eye(factor.r, 3), rows=rng.standard_normal((1, 3))))
        copies += factor.n if len(factor.W) != capacity else 0
    assert copies <= 2 * 1000  # doubling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("disturbance", [1e-6, 1e-2, 1e3])
def test_orthonormalized_is_a_qr_factorization(rng, dtype, disturbance):
    X = (orthonormal(300, 5, rng) + disturbance * rng.standard_normal((300, 5))).astype(dtype)
    factor = ImplicitFactor.from_dense(X, 7, dtype)
    Q, R = factor.orthonormalized()
    assert orthogonality_ratio(Q.dense()) <= 1  # m eps is generous: two rounds of Cholesky QR reach a few eps
    assert np.abs(Q.dense() @ R - X).max() <= 30 * np.finfo(dtype).eps * np.abs(X).max()
    assert np.array_equal(Q.K, np.eye(7))


def test_orthonormalized_survives_dependent_columns(rng):
    X = orthonormal(40, 3, rng)[:, [0, 1, 1]]
    Q, R = ImplicitFactor.from_dense(X, 3, np.float64).orthonormalized()
    assert orthogonality_ratio(Q.dense()) <= 1
    assert np.abs(Q.dense() @ R - X).max() <= 30 * EPS


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("folding", [False, True])
def test_rollback_restores_every_bit(rng, whole, folding):
    factor = ImplicitFactor.from_dense(orthonormal(70, 4, rng), 5, np.float64)
    factor.commit(factor.plan(rotation(4, 4, rng), sparse_rows(3, 70, rng), rng.standard_normal((3, 4))))
    W, K, n = factor.W[: factor.n].copy(), factor.K.copy(), factor.n
    checkpoint = factor.checkpoint(whole)
    for step in range(4):
        r = 2 if folding and step == 2 else 5
        factor.commit(
            factor.plan(
                rotation(factor.r, r, rng),
                sparse_rows(3, 70, rng),
                rng.standard_normal((3, r)),
                rng.standard_normal((40, r)),
            )
        )
    factor.rollback(checkpoint)
    assert factor.n == n
    assert np.array_equal(factor.W[:n], W)
    assert np.array_equal(factor.K, K)


def test_a_plan_alone_changes_nothing(rng):
    factor = ImplicitFactor.from_dense(orthonormal(70, 4, rng), 5, np.float64)
    before = factor.dense()
    factor.plan(rotation(4, 5, rng), sparse_rows(3, 70, rng), rng.standard_normal((3, 5)), rng.standard_normal((2, 5)))
    assert np.array_equal(factor.dense(), before)


def test_pickle_leaves_unused_capacity_behind(rng):
    factor = ImplicitFactor.from_dense(rng.standard_normal((33, 2)), 2, np.float64)
    factor.commit(factor.plan(np.eye(2), rows=rng.standard_normal((1, 2))))
    other = pickle.loads(pickle.dumps(factor))
    assert len(factor.W) == 66
    assert len(other.W) == 34
    assert np.array_equal(other.dense(), factor.dense())


def test_without_removes_rows(rng):
    factor = ImplicitFactor.from_dense(rng.standard_normal((20, 2)), 3, np.float64)
    index = np.array([3, 19, 0])
    assert np.array_equal(factor.without(index).dense(), np.delete(factor.dense(), index, axis=0))
    assert factor.n == 20


def test_appended_zero_rows_are_zero(rng):
    factor = ImplicitFactor.from_dense(rng.standard_normal((20, 2)), 3, np.float64)
    factor.append_zeros(7)
    assert factor.dense().shape == (27, 2)
    assert not factor.dense()[20:].any()
