"""`UpdatableSVD`: every update against the SVD of the matrix that it makes, on long streams and on bad input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from lrla.svd import _factored_svd, _updating
from lrla.svd._implicit_factor import PRECISION
from lrla.svd._updatable_svd import UpdatableSVD
from tests._matrices import matrix_with_spectrum, orthonormal, sparse_matrix

EPS = np.finfo(np.float64).eps
DTYPES = [np.float64, np.float32]


def low_rank(m, n, r, rng, density=0.3):
    """A sparse matrix of exact rank r, as an array; many of its rows are zero or depend on others."""
    sparse = [rng.standard_normal(shape) * (rng.random(shape) < density) for shape in ((m, r), (r, n))]
    return sparse[0] @ sparse[1]


def zipf(m, n, rng, entries=20):
    """Counts of words in documents: a few columns are in most rows."""
    p = np.arange(1, n + 1) ** -0.9
    columns = rng.choice(n, size=m * entries, p=p / p.sum())
    rows = np.repeat(np.arange(m), entries)
    return sp.coo_array((np.ones(m * entries), (rows, columns)), shape=(m, n)).tocsr()


def product(model):
    return model.U.astype(np.float64) * model.singular_values_ @ model.Vt


def orthogonality(model):
    r = model.rank_
    Vt = model.Vt[:r].astype(np.float64)
    gaps = [np.abs(Vt @ Vt.T - np.eye(r)).max(initial=0)]
    if model.left:
        U = model.U[:, :r].astype(np.float64)
        gaps.append(np.abs(U.T @ U - np.eye(r)).max(initial=0))
    return max(gaps)


def assert_equals(model, A, tol=1e-12):
    """All of A is in the model: values, product and orthonormality, relative to s_1."""
    s = np.linalg.svd(A, compute_uv=False)
    k = min(model.n_components, len(s))
    shown = model.singular_values_.astype(np.float64)
    assert np.abs(shown[:k] - s[:k]).max() <= tol * s[0]
    assert not shown[k:].any()
    assert np.linalg.norm(product(model) - A, 2) <= 10 * tol * s[0]  # as many terms as components
    assert orthogonality(model) <= tol
    assert model.shape == A.shape


def state(model):
    """Everything that an update may change, by value."""
    return pickle.dumps(model)


# ---------------------------------------------------------------------------- oracle 2: exact rank


@pytest.mark.parametrize("p", [0, 4])
@pytest.mark.parametrize("buffer_size", [0, "auto"])
@pytest.mark.parametrize("block", [1, 7, 150])
def test_rows_of_exact_rank(rng, p, buffer_size, block):
    A = low_rank(300, 200, 12, rng)
    model = UpdatableSVD(12, n_oversamples=p, buffer_size=buffer_size)
    for start in range(0, 300, block):
        model.add_rows(sp.csr_array(A[start : start + block]))
    assert_equals(model, A)
    assert model.rank_ == 12


@pytest.mark.parametrize("sparse", [False, True])
def test_columns_of_exact_rank(rng, sparse):
    A = low_rank(200, 300, 12, rng)
    model = UpdatableSVD(12)
    for start in range(0, 300, 7):
        F = A[:, start : start + 7]
        model.add_columns(sp.csc_array(F) if sparse else F)
    assert_equals(model, A)


def test_adding_columns_is_adding_rows_of_the_transpose(rng):
    A = zipf(120, 80, rng).T
    by_columns, by_rows = UpdatableSVD(5), UpdatableSVD(5)
    for start in range(0, 120, 10):
        by_columns.add_columns(A[:, start : start + 10])
        by_rows.add_rows(A[:, start : start + 10].T)
    assert np.array_equal(by_columns.singular_values_, by_rows.singular_values_)
    assert np.array_equal(by_columns.U, by_rows.Vt.T)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_mixture_of_all_updates(rng, sparse):
    """Rank at most 12 throughout, so nothing may be lost."""
    wrap = sp.csr_array if sparse else np.asarray
    A = low_rank(160, 120, 8, rng)
    model = UpdatableSVD(12, buffer_size=3).add_rows(wrap(A[:60, :50]))
    B = A[:60, :50]
    for _ in range(10):
        i, j = B.shape
        model.add_rows(wrap(A[i : i + 10, :j]))
        model.add_columns(wrap(A[: i + 10, j : j + 7]))
        B = A[: i + 10, : j + 7].copy()
        assert model.shape == B.shape
    D, E = np.zeros((160, 2)), np.zeros((120, 2))
    D[[3, 50], [0, 1]] = 1, -2
    E[[7, 90, 8], [0, 1, 1]] = 3, 1, 1
    D, E = D[: len(B)], E[: B.shape[1]]
    model.add_low_rank(wrap(D), wrap(E))
    B = B + D @ E.T
    assert_equals(model, B)
    model.update_entries([1, 2, 1], [5, 6, 5], [0.5, -1.0, 0.25])
    B[1, 5] += 0.75
    B[2, 6] -= 1.0
    assert_equals(model, B)
    model.remove_rows([0, 4, 9]).remove_columns([10, 2])
    B = np.delete(np.delete(B, [0, 4, 9], axis=0), [2, 10], axis=1)
    assert_equals(model, B)
    model.add_zero_columns(3)
    assert_equals(model, np.pad(B, ((0, 0), (0, 3))))


def test_a_term_added_and_subtracted_again_and_again_leaves_no_trace(rng):
    A = low_rank(100, 80, 6, rng)
    model = UpdatableSVD(6).add_rows(A)
    D, E = sp.random_array((100, 2), density=0.1, rng=rng), sp.random_array((80, 2), density=0.1, rng=rng)
    for _ in range(30):
        model.add_low_rank(D, E).add_low_rank(D, -E)
    assert_equals(model, A)


def test_entries_changed_at_full_rank(rng):
    A = rng.standard_normal((40, 40))
    model = UpdatableSVD(40, n_oversamples=0).add_rows(A)
    for _ in range(50):
        i, j, delta = rng.integers(40), rng.integers(40), rng.standard_normal()
        model.update_entries([i], [j], [delta])
        A[i, j] += delta
    assert_equals(model, A, tol=1e-11)  # s_40 is about 1e-3 s_1, and its vectors move by eps s_1 / s_40 in every step


# ---------------------------------------------------------------------------- oracle 3: the textbook


class ZhaSimon:
    """The update of Zha and Simon (1999), dense, by QR."""

    def __init__(self, k, n):
        self.k, self.U, self.s, self.V = k, np.zeros((0, 0)), np.zeros(0), np.zeros((n, 0))

    def add_rows(self, E):
        r, count = len(self.s), len(E)
        C = E @ self.V
        Q, R = np.linalg.qr(E.T - self.V @ C.T)
        M = np.block([[np.diag(self.s), np.zeros((r, len(R)))], [C, R.T]])
        F, S, Gt = np.linalg.svd(M, full_matrices=False)
        k = min(self.k, np.count_nonzero(S / S[0] > 1e-8))
        left = np.block([[self.U, np.zeros((len(self.U), count))], [np.zeros((count, r)), np.eye(count)]])
        self.U, self.s, self.V = left @ F[:, :k], S[:k], np.hstack([self.V, Q]) @ Gt[:k].T


@pytest.mark.parametrize("block", [1, 10])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_every_step_equals_zha_and_simon(rng, block, kind):
    A = zipf(300, 150, rng)
    A = A.toarray() if kind == "dense" else A
    model, textbook = UpdatableSVD(10, n_oversamples=0, buffer_size=0), ZhaSimon(10, 150)
    for start in range(0, 300, block):
        E = A[start : start + block]
        model.add_rows(E)
        textbook.add_rows(E if kind == "dense" else E.toarray())
        s = textbook.s
        assert np.abs(model.singular_values_[: len(s)] - s).max() <= 1e-10 * s[0]
    reference = textbook.U * s @ textbook.V.T
    assert np.linalg.norm(product(model) - reference, 2) <= 1e-10 * s[0]


# ---------------------------------------------------------------------------- oracle 4: the error that it knows


def test_row_stream_is_a_projection_with_known_error(rng):
    A = zipf(400, 200, rng)
    model = UpdatableSVD(8, n_oversamples=5)
    last = np.zeros(8)
    for start in range(0, 400, 40):
        model.add_rows(A[start : start + 40])
        s = model.singular_values_
        assert np.all(s >= last * (1 - 10 * EPS))  # never falls
        last = s
    exact = np.linalg.svd(A.toarray(), compute_uv=False)
    assert np.all(last <= exact[:8] * (1 + 10 * EPS))  # never exceeds
    projected = model.U @ (model.U.T @ A.toarray())
    assert np.linalg.norm(projected - product(model)) <= 1e-12 * exact[0]
    error = np.linalg.norm(A.toarray() - product(model))
    assert model.error_is_exact_
    assert model.reconstruction_error_ == pytest.approx(error, rel=1e-10)


def test_column_stream_knows_its_error(rng):
    A = zipf(200, 150, rng)
    model = UpdatableSVD(8)
    for start in range(0, 150, 30):
        model.add_columns(A[:, start : start + 30])
    assert model.error_is_exact_
    assert model.reconstruction_error_ == pytest.approx(np.linalg.norm(A.toarray() - product(model)), rel=1e-10)


def test_mixed_stream_bounds_its_error(rng):
    A = zipf(200, 150, rng).toarray()
    model = UpdatableSVD(8, buffer_size=0).add_rows(A[:100, :100])
    model.add_columns(A[:100, 100:]).add_rows(A[100:])
    model.update_entries([3, 4], [5, 6], [1.0, 2.0])
    A[[3, 4], [5, 6]] += [1.0, 2.0]
    model.remove_rows(np.arange(10))
    error = np.linalg.norm(A[10:] - product(model))
    assert not model.error_is_exact_
    assert error <= model.reconstruction_error_ <= 5 * error  # four losses, and of what was removed


def test_nothing_lost_is_known(rng):
    A = low_rank(100, 80, 5, rng)
    model = UpdatableSVD(5).add_rows(A[:, :40]).add_columns(A[:, 40:])
    assert model.error_is_exact_
    assert model.reconstruction_error_ <= 1e-6 * np.linalg.norm(A)  # Gram matrices see no more than sqrt(64 eps)


# ---------------------------------------------------------------------------- oracle 6: invariances


def test_orthogonal_transform_of_the_columns_leaves_the_values(rng):
    A, Q = rng.standard_normal((90, 30)), orthonormal(30, 30, rng)
    one, other = UpdatableSVD(6).add_rows(A), UpdatableSVD(6).add_rows(A @ Q)
    assert np.abs(one.singular_values_ - other.singular_values_).max() <= 1e-13 * one.singular_values_[0]


def test_permuted_columns_permute_the_right_vectors(rng):
    A, order = zipf(100, 60, rng), rng.permutation(60)
    one, other = UpdatableSVD(6), UpdatableSVD(6)
    for start in range(0, 100, 20):
        one.add_rows(A[start : start + 20])
        other.add_rows(A[start : start + 20, order])
    assert np.abs(one.Vt[:, order] - other.Vt).max() <= 1e-11  # eps over the gaps of a few percent, five times


@pytest.mark.parametrize(
    ("dtype", "factor"), [(np.float64, 1e-150), (np.float64, 1e150), (np.float32, 1e-18), (np.float32, 1e18)]
)
@pytest.mark.parametrize("sparse", [False, True])
def test_scaled_data_scales_the_values_only(rng, dtype, factor, sparse):
    A = zipf(100, 60, rng) if sparse else rng.standard_normal((100, 60))
    A = A.astype(dtype)
    factor = dtype(2.0 ** np.round(np.log2(factor)))
    one, other = (UpdatableSVD(6, buffer_size=0) for _ in range(2))
    for model, data in ((one, A), (other, A * factor)):
        model.add_rows(data[:50]).add_rows(data[50:])
        model.add_columns(data[:, :3])
        model.add_low_rank(data[:, :2], np.eye(63, 2))
        model.remove_rows([1, 2])
    assert np.array_equal(one.Vt, other.Vt)
    assert np.array_equal(one.singular_values_ * factor, other.singular_values_)
    assert other.reconstruction_error_ == pytest.approx(one.reconstruction_error_ * float(factor), rel=1e-6)


def test_data_much_larger_than_what_was_seen(rng):
    A = rng.standard_normal((20, 15))
    A[10:] *= 1e200
    model = UpdatableSVD(5, buffer_size=0).add_rows(A[:10]).add_rows(A[10:])
    s = np.linalg.svd(A[10:] * 1e-200, compute_uv=False)[:5]
    assert np.allclose(model.singular_values_ * 1e-200, s, rtol=1e-12)
    assert orthogonality(model) <= 1e-12


def test_subnormal_data(rng):
    A = rng.standard_normal((20, 15)) * 1e-310
    model = UpdatableSVD(3).add_rows(A)
    s = np.linalg.svd(A * 1e300, compute_uv=False)[:3]
    assert np.allclose(model.singular_values_ * 1e300, s, rtol=1e-12)  # 1e-310 holds some 13 digits


def test_splitting_a_block_changes_nothing_when_nothing_is_cut_off(rng):
    A = low_rank(100, 80, 6, rng)
    whole = UpdatableSVD(6, buffer_size=0).add_rows(A)
    parts = UpdatableSVD(6, buffer_size=0).add_rows(A[:3]).add_rows(A[3:70]).add_rows(A[70:])
    assert np.linalg.norm(product(whole) - product(parts), 2) <= 1e-12 * whole.singular_values_[0]


def test_buffering_is_one_block(rng):
    A = zipf(40, 60, rng)
    buffered, whole = UpdatableSVD(4, buffer_size=1000), UpdatableSVD(4).add_rows(A)
    for start in range(40):
        buffered.add_rows(A[[start]])
    assert np.array_equal(buffered.singular_values_, whole.singular_values_)
    assert np.array_equal(buffered.U, whole.U)


# ---------------------------------------------------------------------------- oracle 8: long streams


def drift_stream(n, k, count, rng, every=100):
    """Rows in a random sparse k-dimensional subspace that is replaced every 100 rows by a three times stronger one."""
    scale = 1.0
    for t in range(count):
        if t % every == 0:
            basis = np.zeros((k, n))
            for b in basis:
                b[rng.choice(n, 8, replace=False)] = rng.standard_normal(8)
            scale = 1.0 if scale > 1e8 else 3.0 * scale
        yield sp.csr_array(scale * rng.standard_normal((1, k)) @ basis)


def follow(model, stream, check_every):
    for t, row in enumerate(stream):
        model.add_rows(row)
        if t % check_every == 0:
            for factor in (model._model.left, model._model.right):
                assert np.linalg.cond(factor.K) <= PRECISION[factor.dtype.name].cond_max
                unused = factor.W[: factor.n] @ factor.K[:, factor.r :]
                assert np.abs(unused).max(initial=0) <= 1e3 * np.finfo(factor.dtype).eps
    return model


@pytest.mark.parametrize("dtype", DTYPES)
def test_drifting_subspace(rng, dtype):
    model = UpdatableSVD(12, n_oversamples=0, buffer_size=0, dtype=dtype)
    follow(model, drift_stream(300, 12, 1500, rng), 10)
    assert orthogonality(model) <= (1e-10 if dtype == np.float64 else 1e-5)
    assert model.n_updates_ == 1500


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_drifting_subspace_for_twenty_thousand_updates(rng, dtype):
    model = UpdatableSVD(12, n_oversamples=0, buffer_size=0, dtype=dtype)
    follow(model, drift_stream(300, 12, 20_000, rng), 200)
    assert orthogonality(model) <= (1e-10 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_drift_estimate_is_no_wishful_thinking(rng, dtype):
    """It decides when a factor is made new; single rows do better than it says, blocks are near it."""
    A = zipf(1500, 400, rng).astype(dtype)
    model = UpdatableSVD(10, n_oversamples=0, buffer_size=0)
    for start in range(0, A.shape[0], 3):
        model.add_rows(A[start : start + 3])
    estimate = max(model._model.left.drift, model._model.right.drift)
    assert orthogonality(model) <= 10 * estimate
    assert estimate <= 1500 * PRECISION[np.dtype(dtype).name].rounding  # three times what the changes alone make


def test_rows_in_the_span_touch_nothing_but_the_small_matrices(rng):
    A = low_rank(103, 100, 5, rng, density=0.15)
    model = UpdatableSVD(5, buffer_size=0).add_rows(sp.csr_array(A[:100]))
    W = model._model.right.W.copy()
    for i in range(100, 103):
        model.add_rows(sp.csr_array(A[[i]]))
    assert np.array_equal(model._model.right.W, W)
    assert_equals(model, A)


def test_alternating_addition_and_removal(rng):
    A = low_rank(60, 50, 5, rng) + 0.0
    model = UpdatableSVD(6, buffer_size=0).add_rows(A)
    for _ in range(40):
        model.add_rows(10 * rng.standard_normal((1, 50)))
        model.remove_rows([60])
    assert_equals(model, A, tol=1e-11)  # each removal takes 10 / s_6 of the digits of what stays


# ---------------------------------------------------------------------------- oracle 9: cost


@pytest.mark.parametrize(("m", "n"), [(1000, 1000), (1000, 50_000), (50_000, 1000)])
def test_an_update_writes_only_what_it_names(rng, m, n):
    U, V = orthonormal(m, 5, rng), orthonormal(n, 5, rng)
    model = UpdatableSVD.from_svd(U, np.arange(5, 0, -1.0), V.T, n_oversamples=0, buffer_size=0)
    left, right = model._model.left, model._model.right
    model.add_rows(sparse_matrix(1, n, 0, rng))  # grows the capacity once
    U_before, V_before, capacity = left.W.copy(), right.W.copy(), left.W
    places = np.repeat([0, 1], 10), rng.choice(n, 20, replace=False)
    E = sp.csr_array((0.1 * rng.standard_normal(20), places), shape=(2, n))
    model.add_rows(E)
    assert capacity is left.W
    written, touched = (np.any(old - new.W, axis=1) for new, old in ((left, U_before), (right, V_before)))
    assert np.array_equal(np.flatnonzero(written), [m + 1, m + 2])
    assert np.isin(np.flatnonzero(touched), E.indices).all()


# ---------------------------------------------------------------------------- options


def test_forgetting_is_the_svd_of_weighted_rows(rng):
    A = rng.standard_normal((30, 20))
    model = UpdatableSVD(20, n_oversamples=0, forget=0.5)
    for start in range(0, 30, 10):
        model.add_rows(A[start : start + 10])
    assert_equals(model, A * np.repeat([0.25, 0.5, 1.0], 10)[:, None])


def test_forgetting_does_not_depend_on_the_buffer(rng):
    A = rng.standard_normal((40, 20))
    models = [UpdatableSVD(20, n_oversamples=0, forget=0.9, buffer_size=size) for size in (0, 7, 100)]
    for model in models:
        for start in range(0, 40, 2):
            model.add_rows(A[start : start + 2])
        assert_equals(model, A * np.repeat(0.9 ** np.arange(19, -1, -1), 2)[:, None])


def test_frequent_directions_keeps_its_promise(rng):
    """||A^T A - B^T B||_2 <= ||A - A_k||_F^2 / (l - k), with l the width, for an adversarial stream."""
    A = np.vstack([np.eye(60)[i % 60] * (1 + i / 100) for i in range(240)])
    model = UpdatableSVD(4, n_oversamples=8, shrinkage=1.0, buffer_size=0)
    for start in range(0, 240, 6):
        model.add_rows(A[start : start + 6])
    B = model._model.s[:, None] * model._model.right.dense().T
    tail = np.sum(np.linalg.svd(A, compute_uv=False)[4:] ** 2)
    assert np.linalg.norm(A.T @ A - B.T @ B, 2) <= tail / (12 - 4)
    assert np.linalg.eigvalsh(A.T @ A - B.T @ B).min() >= -1e-10 * tail  # B^T B never exceeds A^T A
    assert not model.error_is_exact_
    assert np.linalg.norm(A - product(model)) <= model.reconstruction_error_


def test_residual_rank_of_a_whole_block_is_exact(rng):
    A = zipf(60, 50, rng)
    exact, same = UpdatableSVD(5, buffer_size=0), UpdatableSVD(5, buffer_size=0, residual_rank=20)
    for start in range(0, 60, 20):
        exact.add_rows(A[start : start + 20])
        same.add_rows(A[start : start + 20])
    assert np.abs(exact.singular_values_ - same.singular_values_).max() <= 1e-12 * exact.singular_values_[0]


def test_residual_rank_keeps_so_many_directions_of_a_block(rng):
    A = zipf(60, 50, rng).toarray()
    model = UpdatableSVD(30, n_oversamples=0, buffer_size=0, residual_rank=3)
    for start in range(0, 60, 20):
        model.add_rows(A[start : start + 20])
        assert model.rank_ == 3 * (start // 20 + 1)
    assert np.linalg.norm(A - product(model)) <= model.reconstruction_error_ * (1 + 1e-12)
    assert orthogonality(model) <= 1e-12


def test_more_oversampling_is_more_accurate(rng):
    A = zipf(600, 300, rng)
    errors = []
    for p in (0, 8, 32):
        model = UpdatableSVD(8, n_oversamples=p, buffer_size=0)
        for start in range(0, 600, 10):
            model.add_rows(A[start : start + 10])
        errors.append(model.reconstruction_error_)
    assert errors[0] > errors[1] > errors[2]


def test_without_left_factor_the_right_one_is_the_same(rng):
    A = zipf(100, 60, rng)
    one, other = UpdatableSVD(5), UpdatableSVD(5, left=False)
    for start in range(0, 100, 9):
        one.add_rows(A[start : start + 9])
        other.add_rows(A[start : start + 9])
    assert np.array_equal(one.Vt, other.Vt)
    assert other.shape == (100, 60)
    for call in (
        lambda: other.U,
        lambda: other.left_rows([0]),
        lambda: other.add_columns(np.ones((100, 1))),
        lambda: other.remove_rows([0]),
        lambda: other.update_entries([0], [0], [1.0]),
        lambda: other.add_low_rank(np.ones((100, 1)), np.ones((60, 1))),
    ):
        with pytest.raises(ValueError, match="left=True"):
            call()


def test_without_left_factor_columns_can_go(rng):
    A = low_rank(50, 30, 4, rng)
    model = UpdatableSVD(4, left=False).add_rows(A).remove_columns([3, 5])
    s = np.linalg.svd(np.delete(A, [3, 5], axis=1), compute_uv=False)[:4]
    assert np.abs(model.singular_values_ - s).max() <= 1e-12 * s[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_kept(rng, dtype):
    A = zipf(50, 40, rng).astype(dtype)
    model = UpdatableSVD(3).add_rows(A).add_rows(A.toarray())
    assert {x.dtype for x in (model.U, model.Vt, model.singular_values_)} == {np.dtype(dtype)}
    assert model._model.right.K.dtype == np.float64
    assert UpdatableSVD(3, dtype=np.float32).add_rows(A).Vt.dtype == np.float32


def test_float32_of_exact_rank(rng):
    A = low_rank(300, 200, 12, rng)
    model = UpdatableSVD(12, buffer_size=0, dtype=np.float32)
    for i in range(300):
        model.add_rows(sp.csr_array(A[[i]]))
    s = np.linalg.svd(A, compute_uv=False)
    assert np.abs(model.singular_values_ - s[:12]).max() <= 1e-5 * s[0]
    assert orthogonality(model) <= 1e-5


# ---------------------------------------------------------------------------- from an SVD, merge, refine, fit


def test_from_svd_is_that_svd(rng):
    A = matrix_with_spectrum(40, 30, [3, 2, 1, 0.5], rng)
    U, s, Vt = np.linalg.svd(A)
    model = UpdatableSVD.from_svd(U[:, :4], s[:4], Vt[:4])
    assert_equals(model, A)
    E = rng.standard_normal((3, 30))
    model = UpdatableSVD.from_svd(U[:, :4], s[:4], Vt[:4], n_components=7).add_rows(E)
    assert_equals(model, np.vstack([A, E]))


def test_from_svd_takes_zero_singular_values_with_arbitrary_vectors(rng):
    U, Vt = orthonormal(20, 2, rng), orthonormal(15, 2, rng).T
    model = UpdatableSVD.from_svd(np.hstack([U, np.zeros((20, 1))]), [2.0, 1.0, 0.0], np.vstack([Vt, np.zeros(15)]))
    assert model.rank_ == 2
    assert_equals(model, U * [2.0, 1.0] @ Vt)


def test_from_svd_without_left(rng):
    model = UpdatableSVD.from_svd(None, [2.0, 1.0], orthonormal(15, 2, rng).T)
    assert not model.left
    assert model.shape == (0, 15)


def test_from_svd_refuses_what_is_none(rng):
    U, s, Vt = orthonormal(20, 2, rng), np.array([2.0, 1.0]), orthonormal(15, 2, rng).T
    for bad, message in (
        ((2 * U, s, Vt), "U must be orthonormal"),
        ((U, s, Vt[[0, 0]]), "Vt must be orthonormal"),
        ((U, -s, Vt), "must not be negative"),
        ((U[:, :1], s, Vt), "U must have 2 columns"),
        ((U, s[:1], Vt), "s must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            UpdatableSVD.from_svd(*bad)


@pytest.mark.parametrize("left", [True, False])
def test_merge_is_the_svd_of_the_stack(rng, left):
    A = low_rank(100, 60, 6, rng)
    one, other = (UpdatableSVD(6, left=left).add_rows(part) for part in (A[:30], A[30:]))
    before = state(other)
    merged = copy.deepcopy(one).merge(other)
    assert state(other) == before
    s = np.linalg.svd(A, compute_uv=False)[:6]
    assert np.abs(merged.singular_values_ - s).max() <= 1e-12 * s[0]
    assert merged.shape == (100, 60)
    if left:
        assert_equals(merged, A)
    swapped = other.merge(one)
    assert np.abs(np.abs(np.sum(swapped.Vt * merged.Vt, axis=1)) - 1).max() <= 1e-10  # commutes, up to signs


def test_merge_into_nothing_is_a_copy(rng):
    A = low_rank(30, 20, 4, rng)
    assert_equals(UpdatableSVD(4).merge(UpdatableSVD(4).add_rows(A)), A)


def test_merged_models_know_their_error(rng):
    A = zipf(200, 100, rng)
    model = UpdatableSVD(6).add_rows(A[:100]).merge(UpdatableSVD(6).add_rows(A[100:]))
    assert model.error_is_exact_
    assert model.reconstruction_error_ == pytest.approx(np.linalg.norm(A.toarray() - product(model)), rel=1e-9)


def test_merge_refuses_other_widths_and_things(rng):
    model = UpdatableSVD(2).add_rows(np.eye(4))
    with pytest.raises(ValueError, match="other must have 4 columns"):
        model.merge(UpdatableSVD(2).add_rows(np.eye(5)))
    with pytest.raises(TypeError, match="UpdatableSVD"):
        model.merge(np.eye(4))
    with pytest.raises(ValueError, match="left=True"):
        model.merge(UpdatableSVD(2, left=False).add_rows(np.eye(4)))


def test_refine_comes_nearer_to_the_truth(rng):
    A = zipf(400, 200, rng)
    model = UpdatableSVD(8, n_oversamples=0, buffer_size=0)
    for start in range(0, 400, 10):
        model.add_rows(A[start : start + 10])
    best = np.sqrt(np.sum(np.linalg.svd(A.toarray(), compute_uv=False)[8:] ** 2))
    errors = [model.reconstruction_error_]
    for _ in range(4):
        model.refine(A)
        errors.append(np.linalg.norm(A.toarray() - product(model)))
        assert model.reconstruction_error_ == pytest.approx(errors[-1], rel=1e-9)
        assert orthogonality(model) <= 1e-13
    excess = np.array(errors) - best
    assert np.all(np.diff(excess) < 0)
    assert excess[-1] < 0.3 * excess[0]


def test_fit_then_update(rng):
    A = low_rank(100, 60, 6, rng)
    model = UpdatableSVD(6, n_oversamples=2).add_rows(np.ones((3, 5))).fit(sp.csr_array(A[:70]))
    assert_equals(model, A[:70])
    assert_equals(model.add_rows(A[70:]), A)


# ---------------------------------------------------------------------------- reading


def test_rows_of_the_factors_without_multiplying_out(rng):
    A = zipf(80, 50, rng)
    model = UpdatableSVD(4).add_rows(A)
    left, right = model.left_rows([3, 70, 3]), model.right_rows([0, 49])
    assert not model._shown
    assert np.allclose(left, model.U[[3, 70, 3]], rtol=0, atol=1e-14)
    assert np.allclose(right, model.Vt.T[[0, 49]], rtol=0, atol=1e-14)


def test_factors_are_kept_until_the_next_update_and_read_only(rng):
    model = UpdatableSVD(2).add_rows(rng.standard_normal((5, 4)))
    assert model.U is model.U
    assert model.Vt is model.Vt
    with pytest.raises(ValueError, match="read-only"):
        model.Vt[0, 0] = 1
    old = model.Vt
    model.add_rows(rng.standard_normal((1, 4)))
    assert model.Vt is not old


@pytest.mark.parametrize("attribute", ["singular_values_", "U", "Vt", "rank_", "reconstruction_error_", "n_updates_"])
def test_every_attribute_has_seen_all_the_data(rng, attribute):
    model = UpdatableSVD(3, buffer_size=100).add_rows(rng.standard_normal((4, 5)))
    assert model._buffer.blocks
    getattr(model, attribute)
    assert not model._buffer.blocks


def test_signs_do_not_flip(rng):
    A = zipf(400, 100, rng)
    model = UpdatableSVD(3, n_oversamples=10, buffer_size=0).add_rows(A[:200])
    for i in range(200, 400):
        before = model.Vt
        model.add_rows(A[[i]])
        assert np.all(np.sum(before * model.Vt, axis=1) > -1e-12)  # near 1, but for values that cross


def test_without_data_there_is_nothing_to_read():
    model = UpdatableSVD(2)
    with pytest.raises(NotFittedError):
        model.singular_values_  # noqa: B018
    with pytest.raises(NotFittedError):
        model.remove_columns([0])
    assert not hasattr(model, "Vt")


# ---------------------------------------------------------------------------- unusual data


def test_more_components_than_rows_seen(rng):
    model = UpdatableSVD(6).add_rows(rng.standard_normal((2, 10)))
    assert model.rank_ == 2
    assert model.Vt.shape == (6, 10)
    assert not model.Vt[2:].any()
    assert not model.U[:, 2:].any()


def test_zero_matrix_and_zero_rows(rng):
    model = UpdatableSVD(3, buffer_size=0).add_rows(np.zeros((4, 5))).add_rows(sp.csr_array((3, 5)))
    assert model.rank_ == 0
    assert not model.singular_values_.any()
    assert model.reconstruction_error_ == 0
    A = np.zeros((9, 5))
    A[8] = rng.standard_normal(5)
    model.add_rows(A[7:])
    assert_equals(model, A)
    assert not model.left_rows(np.arange(8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_one_row_or_column(rng, shape):
    A = rng.standard_normal(shape)
    assert_equals(UpdatableSVD(2).add_rows(A), A)


def test_sparse_forms_give_one_answer(rng):
    A = sparse_matrix(30, 20, 0.2, rng)
    expected = UpdatableSVD(4).add_rows(A).singular_values_
    coo = A.tocoo()
    duplicated = sp.coo_array(
        (np.r_[coo.data / 2, coo.data / 2], (np.r_[coo.row, coo.row], np.r_[coo.col, coo.col])), shape=A.shape
    )
    wide_index = A.copy()
    wide_index.indices, wide_index.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    unsorted = A.copy()
    for start, stop in zip(A.indptr[:-1], A.indptr[1:], strict=True):
        unsorted.indices[start:stop] = A.indices[start:stop][::-1]
        unsorted.data[start:stop] = A.data[start:stop][::-1]
    unsorted.has_sorted_indices = False
    for B in (
        A.tocsc(),
        coo,
        duplicated,
        wide_index,
        unsorted,
        sp.csr_matrix(A),
        sp.lil_array(A),
        A.toarray().tolist(),
    ):
        assert np.allclose(UpdatableSVD(4).add_rows(B).singular_values_, expected, rtol=1e-13)


def test_inputs_are_not_changed_and_not_kept(rng):
    A = sparse_matrix(5, 20, 0.3, rng)
    copied = A.copy()
    model, same = UpdatableSVD(3).add_rows(A), UpdatableSVD(3).add_rows(copied)
    A.data[:] = 0  # while it is still in the buffer
    assert np.array_equal(model.singular_values_, same.singular_values_)


def test_read_only_input(rng):
    A = sparse_matrix(50, 20, 0.3, rng)
    for array in (A.data, A.indices, A.indptr):
        array.flags.writeable = False
    UpdatableSVD(3, buffer_size=0).add_rows(A).add_columns(A)


def test_long_input_is_cut_into_blocks(rng):
    A = low_rank(700, 50, 5, rng)
    model = UpdatableSVD(5).add_rows(sp.csr_array(A))
    assert_equals(model, A)
    assert model.n_updates_ == 6


# ---------------------------------------------------------------------------- failures


BAD = [
    (lambda m: m.add_rows(np.ones((2, 6))), ValueError, "E must have 5 columns; got 6"),
    (lambda m: m.add_columns(np.ones((2, 6))), ValueError, "F must have 41 rows; got 2"),
    (lambda m: m.add_rows([[1, 2, np.nan, 4, 5]]), ValueError, "NaN"),
    (lambda m: m.add_rows(sp.csr_array([[1, 2, np.inf, 4, 5]])), ValueError, "infinity"),
    (lambda m: m.add_rows(np.ones((0, 5))), ValueError, "0 sample"),
    (lambda m: m.add_rows(np.ones(5)), ValueError, "1D array"),
    (lambda m: m.add_rows(np.ones((1, 5)) * 1j), ValueError, "Complex"),
    (lambda m: m.add_low_rank(np.ones((3, 1)), np.ones((5, 1))), ValueError, "D must have 41 rows; got 3"),
    (lambda m: m.add_low_rank(np.ones((41, 1)), np.ones((4, 1))), ValueError, "E must have 5 rows; got 4"),
    (lambda m: m.add_low_rank(np.ones((41, 1)), np.ones((5, 2))), ValueError, "E must have 1 columns, as D has; got 2"),
    (lambda m: m.update_entries([41], [0], [1.0]), ValueError, r"i must lie in \[0, 41\)"),
    (lambda m: m.update_entries([0], [-1], [1.0]), ValueError, r"j must lie in \[0, 5\)"),
    (lambda m: m.update_entries([0], [1, 2], [1.0]), ValueError, "j must have 1 entries"),
    (lambda m: m.update_entries([0], [1], [np.nan]), ValueError, "NaN"),
    (lambda m: m.update_entries([0.5], [1], [1.0]), TypeError, "integers"),
    (lambda m: m.remove_rows([41]), ValueError, r"idx must lie in \[0, 41\)"),
    (lambda m: m.remove_columns(np.arange(5)), ValueError, "idx names all 5 columns"),
    (lambda m: m.refine(np.ones((3, 5))), ValueError, "shape"),
    (lambda m: m.add_zero_columns(-1), ValueError, "count"),
    (lambda m: m.fit(np.ones((2, 3))), ValueError, "n_components"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named_and_changes_nothing(rng, call, error, message):
    model = UpdatableSVD(3).add_rows(rng.standard_normal((40, 5))).add_rows(rng.standard_normal((1, 5)))
    before = state(model)
    with pytest.raises(error, match=message):
        call(model)
    assert state(model) == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_components": 0}, ValueError),
        ({"n_components": 2.5}, TypeError),
        ({"n_oversamples": -1}, ValueError),
        ({"n_oversamples": "many"}, TypeError),
        ({"buffer_size": -1}, ValueError),
        ({"forget": 0.0}, ValueError),
        ({"forget": 1.5}, ValueError),
        ({"shrinkage": -0.1}, ValueError),
        ({"residual_rank": 0}, ValueError),
        ({"dtype": np.int32}, ValueError),
    ],
)
def test_bad_parameters(options, error):
    with pytest.raises(error):
        UpdatableSVD(**{"n_components": 3, **options})


UPDATES = [
    lambda m: m.add_rows(sp.csr_array(np.eye(5)[[0, 2]])),
    lambda m: m.add_rows(np.arange(1000.0).reshape(200, 5)),
    lambda m: m.add_rows(sp.csr_array(np.tile(np.eye(5), (100, 1)))),
    lambda m: m.add_columns(np.ones((41, 2))),
    lambda m: m.add_low_rank(np.ones((41, 1)), np.ones((5, 1))),
    lambda m: m.update_entries([0], [1], [1.0]),
    lambda m: m.remove_rows([0, 1]),
    lambda m: m.remove_columns([0]),
    lambda m: m.refine(np.ones((41, 5))),
    lambda m: m.merge(UpdatableSVD(2).add_rows(np.ones((3, 5)))),
    lambda m: m.flush(),
]


@pytest.mark.parametrize("call", UPDATES)
@pytest.mark.parametrize("failure", [np.linalg.LinAlgError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("place", ["algebra", "renew"])
def test_a_failure_inside_leaves_the_object_as_it_was(rng, monkeypatch, call, failure, at, place):
    """The failure comes in the at-th small problem, or when a factor is made new: after everything has been written."""
    model = (
        UpdatableSVD(3, n_oversamples=0).add_rows(rng.standard_normal((40, 5))).add_rows(rng.standard_normal((1, 5)))
    )
    if place == "renew":
        model._model.left.precision = model._model.right.precision = PRECISION["float64"]._replace(drift_max=0.0)
    before, calls = state(model), []

    def failing(original):
        def wrapper(*args):
            calls.append(1)
            if len(calls) == at:
                raise failure
            return original(*args)

        return wrapper

    owner, names = _updating, ("append_rows", "change_low_rank", "remove_rows", "rediagonalize")
    if place == "renew":
        owner, names = _factored_svd.FactoredSVD, ("renew",)
    for name in names:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    try:
        call(model)
    except failure:
        assert state(model) == before
    else:
        assert len(calls) < at


def test_a_generator_that_raises_leaves_what_was_added(rng):
    A = rng.standard_normal((30, 8))

    def batches():
        yield A[:10]
        yield A[10:20]
        raise OSError("disk gone")

    model = UpdatableSVD(8)
    with pytest.raises(OSError, match="disk gone"):
        _ = [model.add_rows(batch) for batch in batches()]
    assert_equals(model, A[:20])
    assert_equals(model.add_rows(A[20:]), A)


# ---------------------------------------------------------------------------- copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_in_mid_stream_continues_identically(rng, duplicate):
    A = zipf(300, 100, rng)
    model = UpdatableSVD(5, buffer_size=8)
    for i in range(100):
        model.add_rows(A[[i]])
    other = duplicate(model)
    for i in range(100, 300):
        model.add_rows(A[[i]])
        other.add_rows(A[[i]])
    assert np.array_equal(model.U, other.U)
    assert np.array_equal(model.singular_values_, other.singular_values_)


def test_clone_has_the_parameters_and_no_data(rng):
    model = UpdatableSVD(3, forget=0.5, n_oversamples=7, dtype=np.float32).add_rows(rng.standard_normal((5, 4)))
    other = clone(model)
    assert (other.n_components, other.forget, other.n_oversamples, other.dtype) == (3, 0.5, 7, np.float32)
    assert not hasattr(other, "shape")
    assert repr(other) == "UpdatableSVD(n_components=3, no data yet)"
    assert repr(model) == "UpdatableSVD(n_components=3, shape=(5, 4))"
