"""The door of matrix completion: every way to say which entries are observed leads to the same observations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from lrla.completion import _input
from lrla.completion._input import read_observed

SHAPE = (7, 5)


def table(seed=0, share=0.5):
    """Values, of which some are zero, and which of them are observed."""
    rng = np.random.default_rng(seed)
    A = np.round(3 * rng.standard_normal(SHAPE))
    return A, rng.random(SHAPE) < share


def with_nan(A, kept):
    return np.where(kept, A, np.nan)


def triplets(A, kept, seed=1):
    rows, columns = np.nonzero(kept)
    order = np.random.default_rng(seed).permutation(len(rows))
    return A[kept][order], (rows[order], columns[order])


def as_dense(observed):
    """The entries as an array with NaN where there is none."""
    A = np.full(observed.shape, np.nan)
    A[observed.row_of_entry(), observed.indices] = observed.values
    return A


def check(observed, A, kept):
    assert observed.shape == SHAPE
    assert observed.nnz == np.count_nonzero(kept)
    np.testing.assert_array_equal(as_dense(observed), with_nan(A, kept))
    for i in range(SHAPE[0]):
        assert np.all(np.diff(observed.indices[observed.indptr[i] : observed.indptr[i + 1]]) > 0)


def pandas(A, kept):
    return pytest.importorskip("pandas").DataFrame(with_nan(A, kept))


def nullable(A, kept):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(A).astype("Int64")
    return frame.mask(~kept)


def polars(A, kept):
    pl = pytest.importorskip("polars")
    return pl.DataFrame(
        {f"c{j}": [float(x) if k else None for x, k in zip(A[:, j], kept[:, j], strict=True)] for j in range(SHAPE[1])}
    )


def unsorted_csr(A, kept):
    B = sp.csr_array(sp.coo_array(triplets(A, kept), shape=SHAPE))
    order = np.concatenate([np.arange(b, a, -1) - 1 for a, b in zip(B.indptr[:-1], B.indptr[1:], strict=True)])
    return sp.csr_array((B.data[order], B.indices[order], B.indptr), shape=SHAPE)


def masked(A, kept):
    return np.ma.masked_array(np.where(kept, A, np.inf), ~kept)


FORMS = {
    "array": with_nan,
    "Fortran order": lambda A, kept: np.asfortranarray(with_nan(A, kept)),
    "list": lambda A, kept: with_nan(A, kept).tolist(),
    "objects": lambda A, kept: with_nan(A, kept).astype(object),
    "masked": masked,
    "masked integers": lambda A, kept: np.ma.masked_array(A.astype(int), ~kept),
    "pandas": pandas,
    "pandas NA": nullable,
    "polars": polars,
    **{
        f"{form.__name__}": lambda A, kept, form=form: form(sp.coo_array(triplets(A, kept), shape=SHAPE))
        for form in (sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix, sp.coo_array, sp.coo_matrix)
    },
    "dok": lambda A, kept: sp.coo_array(triplets(A + 9.0 * (A == 0), kept), shape=SHAPE).todok(),
    "unsorted": unsorted_csr,
    "big-endian": lambda A, kept: with_nan(A, kept).astype(">f8"),
    "sparse integers": lambda A, kept: sp.coo_array(triplets(A.astype(int), kept), shape=SHAPE),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_observations(form):
    A, kept = table()
    A = A + 9.0 * (A == 0) if form == "dok" else A  # SciPy's dictionary of keys drops zeros by itself
    check(read_observed(FORMS[form](A, kept)), A, kept)


@pytest.mark.parametrize("shape", [SHAPE, (7, None), (None, 5)])
def test_triplets(shape):
    A, kept = table()
    kept[-1, -1] = True
    check(read_observed(triplets(A, kept), shape=shape), A, kept)
    check(read_observed(triplets(A, kept)), A, kept)


def test_triplets_with_room_for_more():
    observed = read_observed(([1.0, 2.0], ([0, 1], [2, 0])), shape=(4, 6))
    assert observed.shape == (4, 6)
    assert observed.nnz == 2


def test_a_marker_of_holes():
    A, kept = table()
    check(read_observed(np.where(kept, A, -99.0), missing_values=-99), A, kept)
    check(read_observed(np.where(kept, A, -99).astype(int), missing_values=-99), A, kept)
    check(read_observed(np.ma.masked_array(np.where(kept, A, -99.0), False), missing_values=-99), A, kept)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        read_observed(with_nan(A, kept), missing_values=-99)
    with pytest.raises(TypeError, match="missing_values must be a real number or NaN"):
        read_observed(A, missing_values="?")


def test_stored_zeros_are_observations():
    """Oracle 13: the same matrix without its stored zeros is another problem."""
    A, kept = table()
    X = sp.csr_array(sp.coo_array(triplets(A, kept), shape=SHAPE))
    assert np.any(X.data == 0.0)
    assert read_observed(X).nnz == X.nnz
    fewer = X.copy()
    fewer.eliminate_zeros()
    assert read_observed(fewer).nnz == fewer.nnz < X.nnz


# ---------------------------------------------------------------------------------------------------- duplicates


@pytest.mark.parametrize("form", ["triplets", "coo", "csr", "csc"])
def test_duplicates_are_averaged_with_their_count(form):
    A, kept = table()
    values, (rows, columns) = triplets(A, kept)
    again = np.r_[0, 3, 3]  # one entry twice, one three times
    values = np.r_[values, values[again] + [2.0, 3.0, 6.0]]
    rows, columns = np.r_[rows, rows[again]], np.r_[columns, columns[again]]
    X = (values, (rows, columns))
    if form == "triplets":
        observed = read_observed(X, shape=SHAPE)
    elif form == "coo":
        observed = read_observed(sp.coo_array(X, shape=SHAPE))
    else:
        major, minor, side = (rows, columns, SHAPE[0]) if form == "csr" else (columns, rows, SHAPE[1])
        order = np.argsort(major, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=side))])
        container = sp.csr_array if form == "csr" else sp.csc_array
        observed = read_observed(container((values[order], minor[order], indptr), shape=SHAPE))
    wanted, weights = with_nan(A, kept), np.where(kept, 1.0, np.nan)
    wanted[rows[0], columns[0]] += 1.0
    weights[rows[0], columns[0]] = 2.0
    wanted[rows[3], columns[3]] += 3.0
    weights[rows[3], columns[3]] = 3.0
    np.testing.assert_allclose(as_dense(observed), wanted, rtol=0, atol=1e-14)
    found = np.full(SHAPE, np.nan)
    found[observed.row_of_entry(), observed.indices] = observed.weights
    np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize("place", range(6))
def test_duplicates_are_found_wherever_the_chunks_end(place, monkeypatch):
    """Rows (0, 2), (2, 3), () and (3, 5): the columns where rows meet are equal, and no duplicates."""
    monkeypatch.setattr(_input, "CHUNK", 2)
    rows, columns = np.array([0, 0, 1, 1, 3, 3]), np.array([0, 2, 2, 3, 3, 5])
    assert read_observed((np.ones(6), (rows, columns))).nnz == 6
    again = np.append(np.arange(6), place)
    observed = read_observed((np.arange(7.0), (rows[again], columns[again])))
    assert observed.nnz == 6
    assert observed.values[place] == (place + 6) / 2
    assert observed.counts.sum() == 7


def test_weighted_duplicates():
    observed = read_observed(([1.0, 4.0, 5.0], ([0, 0, 1], [1, 1, 0])), sample_weight=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(observed.values, [3.0, 5.0])
    np.testing.assert_allclose(observed.weights, [3.0, 3.0])


def test_duplicates_at_the_limit_of_the_type():
    big = np.finfo(float).max
    observed = read_observed(([big, big], ([0, 0], [0, 0])))
    assert observed.values[0] == big


def test_without_duplicates_there_are_no_weights():
    assert read_observed(table()[0]).weights is None


# ---------------------------------------------------------------------------------------------------- weights

WEIGHTS = np.random.default_rng(5).random(SHAPE) + 0.5


def weights_of(observed):
    W = np.full(observed.shape, np.nan)
    W[observed.row_of_entry(), observed.indices] = observed.weights
    return W


def test_weights_in_every_form():
    A, kept = table()
    values, (rows, columns) = triplets(A, kept)
    wanted = np.where(kept, WEIGHTS, np.nan)
    w = WEIGHTS[rows, columns]
    coo, coo_w = (sp.coo_array((data, (rows, columns)), shape=SHAPE) for data in (values, w))
    for X, given, options in [
        ((values, (rows, columns)), w, {"shape": SHAPE}),
        (coo, w, {}),
        (coo, coo_w, {}),
        (coo, WEIGHTS, {}),
        (coo.tocsc(), coo_w.tocsr(), {}),
        (with_nan(A, kept), WEIGHTS, {}),
        (with_nan(A, kept), WEIGHTS[kept], {}),
        (with_nan(A, kept), WEIGHTS.tolist(), {}),
    ]:
        observed = read_observed(X, sample_weight=given, **options)
        np.testing.assert_array_equal(weights_of(observed), wanted)
        check(observed, A, kept)


def test_entries_of_weight_zero_are_not_observed():
    A, kept = table()
    W = np.where(np.arange(SHAPE[1]) == 2, 0.0, WEIGHTS)
    check(read_observed(with_nan(A, kept), sample_weight=W), A, kept & (W > 0))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(SHAPE), "must not be negative"),
        (np.zeros(SHAPE), "must be positive for at least one entry"),
        (np.ones(3), r"must have shape \(35,\), one for each observed entry, or \(7, 5\); got \(3,\)"),
        (np.full(SHAPE, np.nan), "contains NaN"),
        (np.full(SHAPE, np.inf), "contains infinity"),
        (sp.csr_array(np.eye(7, 5)), "must store the same entries as X"),
    ],
)
def test_weights_that_are_none(weights, message):
    with pytest.raises(ValueError, match=f"my_weights {message}" if "contains" not in message else message):
        read_observed(table()[0], sample_weight=weights, weight_name="my_weights")


# ---------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        *((t, "float64") for t in ("float16", "int8", "bool", "uint64", "g")),
    ],
)
def test_types(dtype, wanted):
    A, _ = table()
    A = np.abs(A).astype(dtype)
    for X in (A, sp.coo_array(A) if dtype not in ("float16", "g") else A, (A.ravel(), np.divmod(np.arange(35), 5))):
        observed = read_observed(X)
        assert observed.dtype == wanted
        if observed.nnz == 35:
            np.testing.assert_array_equal(as_dense(observed), A.astype(float))


@pytest.mark.parametrize("form", ["array", "csr_array", "coo_array", "unsorted"])
def test_the_input_is_not_changed_or_needed_writable(form):
    A, kept = table()
    X = FORMS[form](A, kept)
    arrays = (
        [getattr(X, name) for name in ("data", "indices", "indptr", "row", "col") if hasattr(X, name)]
        if sp.issparse(X)
        else [X]
    )
    for array in arrays:
        array.flags.writeable = False
    before = [array.copy() for array in arrays]
    check(read_observed(X), A, kept)
    for array, copied in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copied)


# ---------------------------------------------------------------------------------------------------- refused


def broken(**changes):
    X = sp.csr_array(np.arange(1.0, 36.0).reshape(SHAPE))
    for name, (position, value) in changes.items():
        getattr(X, name)[position] = value
    return X


REFUSED = {
    "all NaN": (lambda: np.full(SHAPE, np.nan), ValueError, "X has no observed entry"),
    "all masked": (lambda: np.ma.masked_all(SHAPE), ValueError, "X has no observed entry"),
    "nothing stored": (lambda: sp.csr_array(SHAPE), ValueError, "X has no observed entry"),
    "no triplets": (lambda: ([], ([], [])), ValueError, "X has no observed entry"),
    "inf": (lambda: np.where(np.eye(7, 5) == 1, np.inf, 1.0), ValueError, "contains infinity"),
    "sparse inf": (lambda: broken(data=(3, np.inf)), ValueError, "X contains infinity"),
    "sparse NaN": (lambda: broken(data=(3, np.nan)), ValueError, "X contains NaN. Leave out"),
    "complex": (lambda: table()[0] * 1j, ValueError, "[Cc]omplex"),
    "sparse complex": (lambda: broken() * 1j, ValueError, "[Cc]omplex"),
    "complex triplets": (lambda: ([1j], ([0], [0])), ValueError, "[Cc]omplex"),
    "text": (lambda: (["a"], ([0], [0])), ValueError, "values of X must be numeric"),
    "index too large": (lambda: broken(indices=(-1, 5)), ValueError, r"index of X must lie in \[0, 5\)"),
    "negative index": (lambda: broken(indices=(0, -1)), ValueError, r"index of X must lie in \[0, 5\)"),
    "falling indptr": (lambda: broken(indptr=(2, 0)), ValueError, r"X\.indptr"),
    "negative triplet": (lambda: ([1.0], ([-1], [0])), ValueError, r"row index of X must lie in \[0, 1\)"),
    "float index": (lambda: ([1.0], ([0.5], [0])), TypeError, "rows of X must be integers"),
    "lengths": (lambda: ([1.0, 2.0], ([0], [0])), ValueError, "of one length"),
    "2-D triplets": (lambda: (np.ones((1, 1)), (np.ones((1, 1), int),) * 2), ValueError, "1-dimensional"),
    "COO 3-D": (lambda: sp.coo_array(np.ones((2, 3, 4))), ValueError, "2-dimensional"),
    "1-D": (lambda: np.ones(4), ValueError, "[Rr]eshape"),
    "operator": (lambda: sp.linalg.aslinearoperator(np.eye(3)), TypeError, "LinearOperator"),
    "no rows": (lambda: sp.csr_array((0, 4)), ValueError, "minimum of 1"),
    "no columns": (lambda: np.ones((4, 0)), ValueError, "minimum of 1"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refused(case):
    build, error, message = case
    with pytest.raises(error, match=message):
        read_observed(build())


def test_triplets_beyond_their_shape():
    with pytest.raises(ValueError, match=r"column index of X must lie in \[0, 3\); found 4"):
        read_observed(([1.0], ([0], [4])), shape=(2, 3))
    with pytest.raises(ValueError, match=r"shape\[0\] must be an integer >= 1"):
        read_observed(([1.0], ([0], [4])), shape=(0, 5))
    with pytest.raises(TypeError, match="shape is that of triplets"):
        read_observed(np.ones((2, 3)), shape=(2, 3))


def test_a_device_array_is_refused_with_the_way_home(device_xp):
    with pytest.raises(TypeError, match=r"ratings .*host.*NumPy"):
        read_observed(device_xp.asarray(np.ones((3, 2))), "ratings")


def test_nothing_observed_where_that_is_allowed():
    assert read_observed(sp.csr_array(SHAPE), allow_empty=True).nnz == 0
    assert read_observed(np.full(SHAPE, math.nan), allow_empty=True).nnz == 0


def test_no_stray_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="infinity"):
            read_observed((np.array([1e4000], dtype=np.longdouble), ([0], [0])))
