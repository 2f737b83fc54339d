"""The observed entries of a matrix, by rows and by columns."""

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse

from lrla.completion._observed import Observed


@pytest.fixture
def entries(rng):
    """Triplets in random order, with a dense matrix that has NaN elsewhere; row 3 and column 5 are empty."""
    dense = np.full((30, 20), np.nan)
    cells = rng.choice(600, 200, replace=False)
    rows, columns = np.divmod(cells, 20)
    kept = (rows != 3) & (columns != 5)
    rows, columns = rows[kept], columns[kept]
    values = np.round(rng.standard_normal(len(rows)), 1)
    dense[rows, columns] = values
    return rows, columns, values, dense


def dense_of(observed):
    dense = np.full(observed.shape, np.nan)
    dense[observed.row_of_entry(), observed.indices] = observed.values
    return dense


def test_triplets_in_any_order_become_sorted_rows(entries):
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    np.testing.assert_array_equal(dense_of(observed), dense)
    assert all(np.all(np.diff(observed.indices[a:b]) > 0) for a, b in np.c_[observed.indptr[:-1], observed.indptr[1:]])
    assert (observed.indptr.dtype, observed.indices.dtype) == (np.int64, np.int32)


def test_the_transpose_holds_the_same_entries_and_leads_back(entries):
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape, weights=np.arange(1.0, len(values) + 1))
    np.testing.assert_array_equal(dense_of(observed.T), dense.T)
    weights = {(i, j): w for i, j, w in zip(rows, columns, np.arange(1.0, len(values) + 1), strict=True)}
    turned = observed.T
    assert [
        weights[i, j] for j, i in zip(turned.row_of_entry(), turned.indices, strict=True)
    ] == turned.weights.tolist()
    assert observed.T.T is observed
    assert observed.T is turned


def test_stored_zeros_are_observations():
    csr = scipy.sparse.csr_array(([0.0, 1.0, 0.0], [0, 2, 1], [0, 2, 3]), shape=(2, 3))
    observed = Observed.from_csr(csr)
    assert observed.nnz == 3
    assert observed.counts.tolist() == [2.0, 1.0]
    assert observed.T.counts.tolist() == [1.0, 1.0, 1.0]


def test_counts_are_sums_of_weights():
    observed = Observed.from_triplets(
        np.array([0, 0, 2]), np.array([0, 1, 1]), np.ones(3), (3, 2), np.array([0.5, 2, 3])
    )
    assert observed.counts.tolist() == [2.5, 0.0, 3.0]
    assert observed.T.counts.tolist() == [0.5, 5.0]


def test_a_subset_and_its_complement_are_the_whole(entries, rng):
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    mask = rng.random(observed.nnz) < 0.3
    both = np.where(
        np.isnan(dense_of(observed.subset(mask))), dense_of(observed.subset(~mask)), dense_of(observed.subset(mask))
    )
    np.testing.assert_array_equal(both, dense)
    assert observed.subset(mask).nnz == mask.sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_and_the_input_unchanged(entries, dtype):
    rows, columns, values, dense = entries
    values = values.astype(dtype)
    before = values.copy()
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    assert observed.dtype == observed.T.dtype == dtype
    np.testing.assert_array_equal(values, before)


def test_blocks_cover_all_rows_with_about_equal_entries(rng):
    lengths = np.minimum(2000 // np.arange(1, 3001), 400)
    columns = np.concatenate([np.sort(rng.choice(400, size, replace=False)) for size in lengths])
    observed = Observed(np.r_[0, np.cumsum(lengths)], columns, np.ones(len(columns)), (3000, 400))
    bounds = observed.bounds
    assert bounds[0] == 0
    assert bounds[-1] == 3000
    assert np.all(np.diff(bounds) >= 0)
    work = np.diff(observed.indptr[bounds] + 12 * bounds)
    assert work.max() <= work.mean() + lengths.max() + 12  # a row is never split


def test_the_transpose_goes_with_the_matrix(entries):
    """Without waiting for the garbage collector; and a transpose that is left alone makes a new one."""
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    turned = weakref.ref(observed.T)
    gc.disable()
    try:
        del observed
        assert turned() is None
    finally:
        gc.enable()
    alone = Observed.from_triplets(rows, columns, values, dense.shape).T
    np.testing.assert_array_equal(dense_of(alone.T), dense)


def test_a_matrix_of_other_values_shares_the_indices(entries):
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    matrix = observed.matrix(np.arange(1.0, observed.nnz + 1))
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.shares_memory(matrix.indices, observed.indices)
    wanted = np.zeros(dense.shape)
    wanted[observed.row_of_entry(), observed.indices] = np.arange(1.0, observed.nnz + 1)
    np.testing.assert_array_equal(matrix.toarray(), wanted)
