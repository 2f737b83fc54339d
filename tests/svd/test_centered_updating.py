"""`CenteredStream`: scikit-learn's IncrementalPCA on dense batches, and the same on sparse ones, never densified."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA, IncrementalPCA

from lrla.svd import _centered_updating, _updating
from lrla.svd._centered_updating import CenteredStream, Moments

EPS = np.finfo(np.float64).eps


def normal(m, n, rng, mean=3.0):
    """Columns of decreasing spread around a mean."""
    return rng.standard_normal((m, n)) * np.linspace(2, 0.2, n) + mean * rng.random(n)


def counts(m, n, rng, density=0.03):
    """Non-negative entries, few in a row, more in the first columns."""
    p = density * n * np.arange(1, n + 1) ** -0.7 / np.sum(np.arange(1, n + 1) ** -0.7)
    return np.where(rng.random((m, n)) < np.minimum(p, 0.9), 1 + rng.random((m, n)), 0.0)


def batches_of(A, size):
    return [A[start : start + size] for start in range(0, len(A), size)]


def feed(batches, k, wrap=np.asarray, **options):
    stream = CenteredStream(k, **options)
    for batch in batches:
        stream.partial_fit(wrap(batch))
    return stream


def assert_same(stream, pca, tol):
    """Values, components up to their signs, moments; relative."""
    k = len(pca.components_)
    assert np.abs(stream.singular_values[:k] / pca.singular_values_ - 1).max() <= tol
    signs = np.sign(np.sum(stream.components[:k] * pca.components_, axis=1))
    assert np.abs(stream.components[:k] * signs[:, None] - pca.components_).max() <= tol
    assert np.abs(stream.mean - pca.mean_).max() <= tol * np.abs(pca.mean_).max()


@pytest.mark.parametrize("wrap", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(
    ("make", "n", "size"), [(normal, 20, 40), (normal, 60, 15), (counts, 300, 20), (counts, 400, 7)]
)
def test_equals_incremental_pca_batch_by_batch(rng, wrap, make, n, size):
    k, pca, stream = 5, IncrementalPCA(5), CenteredStream(5)
    for batch in batches_of(make(200, n, rng), size)[: 200 // size]:
        pca.partial_fit(batch)
        stream.partial_fit(wrap(batch))
        assert_same(stream, pca, 1e-9)
        assert np.abs(stream.var - pca.var_).max() <= 1e-12 * pca.var_.max()
        assert stream.n_seen == pca.n_samples_seen_
    shares = stream.singular_values**2 / (stream.n_seen - 1) / stream.total_variance
    assert np.allclose(shares, pca.explained_variance_ratio_, rtol=1e-10)
    assert stream.components.shape == (k, n)


@pytest.mark.parametrize("wrap", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_equals_pca_when_nothing_is_cut_off(rng, wrap, size):
    A = counts(50, 200, rng)
    stream = feed(batches_of(A, size), 49, wrap)
    assert_same(stream, PCA(40, svd_solver="full").fit(A), 1e-9)


def test_rows_one_by_one_sparse_equal_dense(rng):
    A = counts(300, 150, rng)
    dense, sparse = (feed(batches_of(A, 1), 6, wrap) for wrap in (np.asarray, sp.csr_array))
    assert np.abs(dense.singular_values / sparse.singular_values - 1).max() <= 1e-11
    assert np.abs(dense.components - sparse.components).max() <= 1e-9
    assert np.abs(dense.var - sparse.var).max() <= 1e-13


def test_dense_and_sparse_batches_in_one_stream(rng):
    A = counts(200, 150, rng)
    expected = feed(batches_of(A, 20), 6)
    mixed = CenteredStream(6)
    for i, batch in enumerate(batches_of(A, 20)):
        mixed.partial_fit(sp.csr_array(batch) if i % 3 else batch)
    assert np.abs(mixed.components - expected.components).max() <= 1e-9
    assert np.abs(mixed.mean - expected.mean).max() <= 1e-14


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_components_stay_orthonormal(rng, dtype):
    A = counts(1500, 200, rng).astype(dtype)
    stream = feed(batches_of(A, 3), 8, sp.csr_array)
    gap = np.abs(stream.components.astype(np.float64) @ stream.components.T - np.eye(8)).max()
    assert gap <= (1e-11 if dtype == np.float64 else 1e-5)
    assert stream.components.dtype == dtype
    assert stream.mean.dtype == np.float64


def test_a_large_mean_does_not_cost_digits(rng):
    """Centred entries are formed before they are multiplied; the mean row alone keeps eps * mean / spread = 1e-10."""
    A = normal(200, 30, rng) + 1e5
    for wrap in (np.asarray, sp.csr_array):
        stream = feed(batches_of(A, 25), 4, wrap)
        pca = IncrementalPCA(4)
        for batch in batches_of(A, 25):
            pca.partial_fit(batch)
        assert_same(stream, pca, 1e-8)
        assert np.allclose(stream.var, A.var(axis=0), rtol=1e-9)


def test_sparse_columns_with_a_large_mean(rng):
    """Few dense columns with a large mean beside many empty ones: the batch touches all that the mean is made of."""
    A = np.zeros((120, 300))
    A[:, :10] = normal(120, 10, rng) + 1e4
    dense, sparse = (feed(batches_of(A, 12), 4, wrap) for wrap in (np.asarray, sp.csr_array))
    assert np.abs(dense.singular_values / sparse.singular_values - 1).max() <= 1e-9
    assert np.allclose(sparse.var, A.var(axis=0), rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-150, 1e150, 1e-310])
@pytest.mark.parametrize("wrap", [np.asarray, sp.csr_array])
def test_scaled_data(rng, factor, wrap):
    A = counts(60, 100, rng)
    one, other = feed(batches_of(A, 10), 4, wrap), feed(batches_of(A * factor, 10), 4, wrap)
    digits = 1e-9 if factor > 1e-300 else 1e-6  # subnormal numbers have fewer
    assert np.abs(one.components - other.components).max() <= digits
    assert np.allclose(other.singular_values / factor, one.singular_values, rtol=digits)
    assert np.allclose(other.mean / factor, one.mean, rtol=digits)


def test_data_much_larger_than_what_was_seen(rng):
    A = counts(40, 100, rng)
    A[20:] *= 1e180
    stream = feed(batches_of(A, 10), 4, sp.csr_array)
    expected = PCA(4).fit(A * 1e-180)
    assert np.allclose(stream.singular_values * 1e-180, expected.singular_values_, rtol=0.2)  # rank 4 of 20 batches
    assert np.abs(stream.components @ stream.components.T - np.eye(4)).max() <= 1e-12
    assert np.allclose(stream.mean * 1e-180, expected.mean_, rtol=1e-12, atol=1e-15)


def test_constant_rows_have_no_component():
    for wrap in (np.asarray, sp.csr_array):
        stream = feed([np.tile([0.0, 2.0, 0.0, 5.0], (3, 1))] * 4, 2, wrap)
        assert stream.rank == 0
        assert not stream.singular_values.any()
        assert not stream.components.any()
        assert np.array_equal(stream.mean, [0, 2, 0, 5])
        assert not stream.var.any()


def test_one_row_is_enough(rng):
    for wrap in (np.asarray, sp.csr_array):
        stream = feed([counts(1, 50, rng)], 3, wrap)
        assert stream.n_seen == 1
        assert stream.rank == 0
        assert stream.total_variance == 0


def test_zero_batches(rng):
    A = np.vstack([np.zeros((5, 40)), counts(20, 40, rng, 0.1), np.zeros((5, 40))])
    for wrap in (np.asarray, sp.csr_array):
        assert_same(feed(batches_of(A, 5), 29, wrap), PCA(10, svd_solver="full").fit(A), 1e-9)


def test_long_batches_are_cut_or_compressed(rng, monkeypatch):
    A = normal(900, 30, rng)
    assert_same(feed([A], 30), PCA(20, svd_solver="full").fit(A), 1e-9)
    monkeypatch.setattr(_centered_updating, "LONGEST_BLOCK", 64)
    B = counts(200, 100, rng)
    assert_same(feed([sp.csr_array(B)], 100, sp.csr_array), PCA(20, svd_solver="full").fit(B), 1e-9)


def test_only_touched_rows_are_written(rng):
    A = counts(400, 3000, rng, density=0.004)
    stream = feed(batches_of(A[:380], 20), 4, sp.csr_array)
    W, batch = stream._factor.W.copy(), sp.csr_array(A[380:390])
    stream.partial_fit(batch)
    assert set(np.flatnonzero((stream._factor.W != W).any(axis=1))) <= set(batch.indices)


def test_late_zeros_count_in_the_variance(rng):
    A = rng.standard_normal((30, 4)) * (rng.random((30, 4)) < 0.3)
    moments = Moments(4)
    for row in A:
        at = np.flatnonzero(row)
        moments.merge(at, 1, row[at], np.zeros(len(at)))
    assert np.allclose(moments.settled(slice(None)) / 30, A.var(axis=0), rtol=1e-13)


@pytest.mark.parametrize("failure", [np.linalg.LinAlgError, KeyboardInterrupt])
@pytest.mark.parametrize("wrap", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_failure_leaves_the_stream_as_it_was(rng, monkeypatch, failure, wrap, at, fresh):
    monkeypatch.setattr(_centered_updating, "LONGEST_BLOCK", 16)
    A = counts(120, 200, rng, 0.01)
    A[100] = 1.0  # a dense row among sparse ones
    stream = CenteredStream(3) if fresh else feed([A[:60]], 3, sp.csr_array)
    before, calls, original = pickle.dumps(stream), [], _updating.append_rows

    def failing(*args):
        calls.append(1)
        if len(calls) == at:
            raise failure
        return original(*args)

    monkeypatch.setattr(_updating, "append_rows", failing)
    with pytest.raises(failure):
        stream.partial_fit(wrap(A[60:]))
    assert pickle.dumps(stream) == before


def test_a_copy_in_mid_stream_continues_identically(rng):
    A = counts(200, 300, rng)
    stream = feed(batches_of(A[:100], 5), 4, sp.csr_array)
    others = copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))
    for each in (stream, *others):
        for batch in batches_of(A[100:], 5):
            each.partial_fit(sp.csr_array(batch))
    for other in others:
        assert np.array_equal(stream.components, other.components)
        assert np.array_equal(stream.var, other.var)
