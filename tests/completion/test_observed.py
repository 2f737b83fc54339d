"""The observed entries of a matrix, by rows and by columns."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import scipy.sparse

from lrla.completion import _observed
from lrla.completion._observed import Columns, Observed


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


def test_entries_that_are_left_out_are_gone(entries, rng):
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    places = np.flatnonzero(rng.random(observed.nnz) < 0.3)
    wanted = dense_of(observed)
    wanted[observed.rows_of(places), observed.indices[places]] = np.nan
    np.testing.assert_array_equal(dense_of(observed.without(places)), wanted)


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


@pytest.fixture(
    params=[(False, False), (True, False), (False, True), (True, True)], ids=["", "weights", "left out", "both"]
)
def many(request, rng, monkeypatch):
    """Entries that count as many, and dense arrays of values and of weights with NaN and 0 elsewhere."""
    monkeypatch.setattr(_observed, "FEW", 0)
    monkeypatch.setattr(_observed, "CHUNK", 7)
    weighted, left_out = request.param
    m, n = 47, 31
    mask = rng.random((m, n)) < 0.3
    mask[3], mask[:, 5] = False, False
    mask[:, 9] = True
    dense, weights = np.where(mask, rng.standard_normal((m, n)), np.nan), np.where(mask, rng.uniform(1, 2, (m, n)), 0.0)
    observed = Observed.from_triplets(*np.nonzero(mask), dense[mask], (m, n), weights[mask] if weighted else None)
    if left_out:
        places = np.flatnonzero(
            (rng.random(observed.nnz) < 0.2) | (observed.indices == 9)
        )  # a whole column, and others
        dense[observed.rows_of(places), observed.indices[places]] = np.nan
        observed = observed.without(places)
        assert np.shares_memory(observed.values, observed.without(places).values)
    return observed, dense, np.where(np.isnan(dense), 0.0, weights if weighted else 1.0)


def assert_parts_are(side, dense, weights, most, cuts):
    """Parts of some blocks each, put together, are these arrays."""
    found, found_weights, seen = np.full(dense.shape, np.nan), np.zeros(dense.shape), []
    for first, last in itertools.pairwise(cuts):
        for part in side.parts(first, last, most):
            blocks = range(part.blocks.start, part.blocks.stop)
            np.testing.assert_array_equal(
                part.rows.start + part.bounds, side.bounds[part.blocks.start : part.blocks.stop + 1]
            )
            for row in range(*part.bounds[[0, -1]]):
                here = slice(part.indptr[row], part.indptr[row + 1])
                assert np.all(np.diff(part.indices[here]) > 0)
                w = part.weights[here] if part.weights.size else np.ones(here.stop - here.start)
                found[part.rows.start + row, part.indices[here]] = np.where(w > 0, part.values[here], np.nan)
                found_weights[part.rows.start + row, part.indices[here]] = w
            seen += blocks
    assert seen == list(range(cuts[-1]))
    np.testing.assert_array_equal(found, dense)
    np.testing.assert_array_equal(found_weights, weights)


@pytest.mark.parametrize("most", [1, 50, 10_000])
def test_parts_of_many_entries_by_rows_and_by_columns(many, most):
    observed, dense, weights = many
    for side, X, w in ((observed, dense, weights), (observed.T, dense.T, weights.T)):
        blocks = len(side.bounds) - 1
        for cuts in ([0, blocks], [0, blocks // 3, blocks // 2, blocks]):
            assert_parts_are(side, X, w, most, cuts)
        assert side.nnz == np.count_nonzero(~np.isnan(X))
        assert side.shape == X.shape
        np.testing.assert_allclose(side.counts, w.sum(axis=1), rtol=1e-14)
        assert np.all(side.counts[np.isnan(X).all(axis=1)] == 0)


def test_columns_lead_back(entries, monkeypatch):
    monkeypatch.setattr(_observed, "FEW", 0)
    rows, columns, values, dense = entries
    observed = Observed.from_triplets(rows, columns, values, dense.shape)
    turned = observed.T
    assert isinstance(turned, Columns)
    assert observed.T is turned
    assert turned.T is observed
    del observed
    np.testing.assert_array_equal(dense_of(turned.T), dense)


def test_blocks_of_columns_are_small_where_there_are_many_entries(rng, monkeypatch):
    monkeypatch.setattr(_observed, "FEW", 0)
    monkeypatch.setattr(_observed, "CHUNK", 8)
    dense = rng.standard_normal((200, 400))
    columns = Observed.from_csr(scipy.sparse.csr_array(dense)).T
    assert len(columns.bounds) - 1 == dense.size // 600  # of about as many entries as there are rows and columns
