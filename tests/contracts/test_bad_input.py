"""docs/bad_input.md, row by row: every way for a matrix into the library against every input of the table.

The number at the front of a test's name is the row of the table.  Never a wrong number, never a crash, never a
half-changed object (that part is in test_state.py); the message names the argument and, where there is one, the fix.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator
from sklearn.exceptions import DataConversionWarning, NotFittedError

import lrla
from lrla.exceptions import NotIdentifiableWarning, RankDeficientWarning, UnobservedWarning
from tests._matrices import orthogonality_ratio
from tests.contracts._cases import (
    ESTIMATORS,
    FACTORS,
    FITTING,
    ON_DEVICE,
    ROUTINES,
    SHAPE,
    SUBJECTS,
    UPDATES,
    add_batch,
    apply,
    close,
    finite,
    fitted,
    for_each,
    for_each_device_estimator,
    for_each_estimator,
    for_each_streaming_decomposition,
    for_each_streaming_estimator,
    good,
    is_array,
    make,
    pick,
    public_state,
    same,
    sparse_good,
)

# Rows that nothing of this table's library has an occasion for yet.
LATER = {
    5: "Tucker: not built yet",
    49: "robust recovery: not built yet",
    59: "Tucker: not built yet",
    67: "Dask: refused as a whole for now, with the message of row 69",
    68: "Dask: refused as a whole for now, with the message of row 69",
}
COVERED: set[int] = set()


def row(*numbers: int) -> Any:
    """Mark a test with the rows of the table that it covers; they appear in its name."""

    def decorate(test: Any) -> Any:
        COVERED.update(numbers)
        return pytest.mark.parametrize("rows", ["+".join(map(str, numbers))])(test)

    return decorate


def test_every_row_of_the_table_is_covered_or_has_a_reason():
    text = (Path(__file__).parents[2] / "docs" / "bad_input.md").read_text()
    numbers = {int(n) for n in re.findall(r"^\| *(\d+) *\|", text, re.MULTILINE)}
    assert len(numbers) >= 50
    assert numbers <= COVERED | set(LATER), "a row of the table that no test checks"
    assert numbers >= COVERED, "a tested row that the table does not tell"
    assert not COVERED & set(LATER)


# ---------------------------------------------------------------------------------------------------- refused matrices


@dataclass(frozen=True)
class Refused:
    number: int
    label: str
    build: Any
    error: Any
    message: str  # {name} is what the routine calls its matrix
    hole: bool = False  # to a completion it is an entry that is not observed


def _pandas(**columns):
    return pytest.importorskip("pandas").DataFrame(columns)


def _with(value, container=None):
    A = good()
    A[3, 2] = value
    return A if container is None else container(A)


def _text_frame(library):
    columns = {name: list(column) for name, column in zip("abcde", good().T, strict=False)}
    return pytest.importorskip(library).DataFrame({**columns, "colour": ["red"] * SHAPE[0]})


def _nullable_frame():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(np.round(good()), columns=list("abcdef")).astype("Int64")
    frame.iloc[2, 3] = pd.NA
    return frame


def _polars_null():
    columns = {name: list(column) for name, column in zip("abcdef", good().T, strict=True)}
    columns["c"][1] = None
    return pytest.importorskip("polars").DataFrame(columns)


def _lazy():
    pl = pytest.importorskip("polars")
    return pl.LazyFrame(dict(zip("abcdef", good().T, strict=True)))


def _np_matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(good())


def _broken(**changes):
    A = sparse_good()
    for name, (position, value) in changes.items():
        getattr(A, name)[position] = value
    return A


def _truncated_indptr():
    A = sparse_good()
    A.data = A.data[:-1]
    return A


def _coo(shape):
    return sp.coo_array(np.ones(shape))


def _dask(chunks=(10, 6)):
    da = pytest.importorskip("dask.array")

    def explode(block):
        raise AssertionError("a Dask block was computed")

    return da.from_array(good(), chunks=chunks).map_blocks(explode, dtype=float, meta=np.empty((0, 0)))


def _dask_unknown():
    da = pytest.importorskip("dask.array")
    A = da.from_array(good(), chunks=(10, 6))
    return A[A[:, 0] > 0]


def _jax():
    return type("ArrayImpl", (), {"__module__": "jaxlib._jax", "shape": SHAPE, "ndim": 2, "dtype": np.dtype(float)})()


def _requires_grad():
    return pytest.importorskip("torch").tensor(good(), requires_grad=True)


TWO_D = r"2D array|2-dimensional|dim 3|ndim"
NOT_A_NUMBER = r"could not convert|complex|must be|dtype|float\(\)|numeric|Unable to convert|setting an array element"

REFUSED = [
    Refused(1, "None", lambda: None, ValueError, r"Expected 2D array|{name}"),
    Refused(2, "scalar", lambda: 3.0, ValueError, r"Expected 2D array|{name}"),
    Refused(3, "1-D", lambda: np.ones(6), ValueError, "[Rr]eshape"),
    Refused(3, "1-D list", lambda: [1.0] * 6, ValueError, "[Rr]eshape"),
    Refused(4, "3-D", lambda: np.ones((2, *SHAPE)), ValueError, TWO_D),
    Refused(6, "0 rows", lambda: np.ones((0, SHAPE[1])), ValueError, "minimum of|0 sample|0 row"),
    Refused(6, "0 rows, sparse", lambda: sp.csr_array((0, SHAPE[1])), ValueError, "minimum of|0 sample|0 row"),
    Refused(7, "0 columns", lambda: np.ones((SHAPE[0], 0)), ValueError, "minimum of|0 feature|0 column"),
    Refused(7, "0 columns, sparse", lambda: sp.csr_array((SHAPE[0], 0)), ValueError, "minimum of|0 feature|0 column"),
    Refused(9, "ragged", lambda: [[1.0, 2.0], [3.0]], ValueError, "inhomogeneous|array element"),
    Refused(10, "strings", lambda: [["a"] * 6] * 20, ValueError, NOT_A_NUMBER),
    Refused(12, "object text", lambda: np.full(SHAPE, "red", dtype=object), ValueError, NOT_A_NUMBER),
    Refused(13, "complex", lambda: good() + 1j, ValueError, "[Cc]omplex"),
    Refused(13, "sparse complex", lambda: sparse_good() * 1j, ValueError, "[Cc]omplex"),
    Refused(18, "NaN", lambda: _with(np.nan), ValueError, "{name} contains NaN", hole=True),
    Refused(18, "sparse NaN", lambda: _with(np.nan, sp.csr_array), ValueError, "{name} contains NaN"),
    Refused(20, "Inf", lambda: _with(np.inf), ValueError, "{name} contains infinity"),
    Refused(20, "-Inf", lambda: _with(-np.inf), ValueError, "{name} contains infinity"),
    Refused(20, "sparse Inf", lambda: _with(np.inf, sp.csc_array), ValueError, "{name} contains infinity"),
    Refused(
        24,
        "masked",
        lambda: np.ma.masked_array(good()),
        TypeError,
        r"{name} is a masked array.*{name}\.filled",
        hole=True,
    ),
    Refused(25, "np.matrix", _np_matrix, TypeError, "matrix is not supported"),
    Refused(30, "pandas text column", lambda: _text_frame("pandas"), ValueError, "{name}.*'colour'"),
    Refused(30, "polars text column", lambda: _text_frame("polars"), ValueError, "{name}.*'colour'"),
    Refused(31, "pandas NA", _nullable_frame, ValueError, "NaN", hole=True),
    Refused(32, "polars null", _polars_null, ValueError, "NaN", hole=True),
    Refused(33, "LazyFrame", _lazy, TypeError, r"{name}\.collect\(\)"),
    Refused(
        39, "index too large", lambda: _broken(indices=(-1, 99)), ValueError, r"index of {name} must lie in \[0, 6\)"
    ),
    Refused(
        39, "negative index", lambda: _broken(indices=(0, -1)), ValueError, r"index of {name} must lie in \[0, 6\)"
    ),
    Refused(40, "indptr end", lambda: _broken(indptr=(-1, 9999)), ValueError, r"{name}\.indptr"),
    Refused(40, "indptr falls", lambda: _broken(indptr=(3, 0)), ValueError, r"{name}\.indptr"),
    Refused(40, "data too short", _truncated_indptr, ValueError, r"{name}\.indptr"),
    Refused(43, "COO 3-D", lambda: _coo((2, *SHAPE)), ValueError, "{name} must be a 2-dimensional.*3-dimensional"),
    Refused(44, "COO 1-D", lambda: _coo(6), ValueError, "{name} must be a 2-dimensional.*1-dimensional"),
    Refused(65, "requires grad", _requires_grad, TypeError, r"{name}\.detach\(\)"),
    Refused(66, "Dask, unknown chunks", _dask_unknown, TypeError, r"{name}\.compute_chunk_sizes\(\)"),
    Refused(69, "Dask", _dask, TypeError, r"{name}\.compute\(\)"),
    Refused(69, "Dask by columns", lambda: _dask((20, 3)), TypeError, r"{name}\.compute\(\)"),
    Refused(69, "JAX", _jax, TypeError, r"numpy\.asarray\({name}\)"),
]
COVERED.update(case.number for case in REFUSED)


def for_each_pair(cases: list[Any], applies: Any) -> Any:
    """Every subject with every case that applies to it."""
    pairs = [(subject, case) for subject in SUBJECTS for case in cases if applies(subject, case)]
    ids = [f"{case.number}-{case.label}-{subject.name}" for subject, case in pairs]
    return pytest.mark.parametrize(("subject", "case"), pairs, ids=ids)


@for_each_pair(REFUSED, lambda subject, case: not (subject.holes and case.hole))
def test_refused(subject, case):
    with pytest.raises(case.error, match=case.message.replace("{name}", subject.argument)):
        subject(case.build())


# ---------------------------------------------------------------------------------------------------- accepted matrices


@dataclass(frozen=True)
class Accepted:
    number: int
    label: str
    build: Any
    equal_to: Any  # the plain matrix that gives the same result, to the bit
    sparse: bool = False
    adds_up: bool = False  # duplicates: a completion takes their mean


def _memmap():
    import tempfile

    with tempfile.TemporaryFile() as file:
        A = np.memmap(file, dtype=float, shape=SHAPE)
        A[...] = good()
        A.flags.writeable = False
        return A


def _read_only():
    A = good()
    A.flags.writeable = False
    return A


def _rounded(dtype):
    return np.clip(np.round(20 * good()), -100, 100).astype(dtype)


def _as_float(dtype):
    return lambda: _rounded(dtype).astype(np.float64)


def _duplicates():
    A = sparse_good()
    i, j = A.nonzero()
    return sp.coo_array((np.r_[A.data / 2, A.data / 2], (np.r_[i, i], np.r_[j, j])), shape=SHAPE)


def _csr_with_duplicates():
    A = sparse_good()
    return sp.csr_array((np.repeat(A.data / 2, 2), np.repeat(A.indices, 2), 2 * A.indptr), shape=SHAPE)


def _unsorted():
    A = sparse_good()
    order = np.concatenate([np.arange(b, a, -1) - 1 for a, b in zip(A.indptr[:-1], A.indptr[1:], strict=True)])
    return sp.csr_array((A.data[order], A.indices[order], A.indptr), shape=SHAPE)


def _long_indices():
    A = sparse_good()
    A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    return A


def _sparse_of(dtype):
    return lambda: sp.csr_array(_rounded(dtype))


class Subclass(np.ndarray):
    pass


ACCEPTED = [
    Accepted(11, "objects that are numbers", lambda: good().astype(object), good),
    Accepted(14, "bool", lambda: _rounded(bool), _as_float(bool)),
    Accepted(14, "int8", lambda: _rounded(np.int8), _as_float(np.int8)),
    Accepted(14, "uint64", lambda: np.abs(_rounded(int)).astype(np.uint64), lambda: np.abs(_rounded(float))),
    Accepted(15, "float16", lambda: good().astype(np.float16), lambda: good().astype(np.float16).astype(float)),
    Accepted(16, "longdouble", lambda: good().astype(np.longdouble), good),
    Accepted(17, "big-endian", lambda: good().astype(">f8"), good),
    Accepted(17, "big-endian float32", lambda: _rounded(">f4"), lambda: _rounded(float)),
    Accepted(26, "subclass", lambda: good().view(Subclass), good),
    Accepted(27, "read-only", _read_only, good),
    Accepted(27, "memmap", _memmap, good),
    Accepted(28, "negative strides", lambda: good()[::-1, ::-1].copy()[::-1, ::-1], good),
    Accepted(
        28, "broadcast", lambda: np.broadcast_to(good()[:, :1], SHAPE), lambda: np.repeat(good()[:, :1], 6, axis=1)
    ),
    Accepted(37, "COO duplicates", _duplicates, sparse_good, sparse=True, adds_up=True),
    Accepted(37, "CSR duplicates", _csr_with_duplicates, sparse_good, sparse=True, adds_up=True),
    Accepted(38, "unsorted", _unsorted, sparse_good, sparse=True),
    Accepted(41, "int64 indices", _long_indices, sparse_good, sparse=True),
    Accepted(45, "sparse bool", _sparse_of(bool), lambda: sp.csr_array(_rounded(bool).astype(float)), sparse=True),
    Accepted(45, "sparse int32", _sparse_of(np.int32), lambda: sp.csr_array(_rounded(float)), sparse=True),
]
COVERED.update(case.number for case in ACCEPTED)


@for_each_pair(
    ACCEPTED, lambda subject, case: not (case.sparse and not subject.sparse) and not (case.adds_up and subject.holes)
)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
def test_accepted(subject, case):
    same(subject(case.equal_to()), subject(case.build()))


@for_each(SUBJECTS)
@row(28)
def test_fortran_order(subject, rows):
    """Equal to rounding: a copy in C order would be equal to the bit, and cost as much memory as the matrix."""
    got, wanted = subject(np.asfortranarray(good())), subject(good())
    close(pick(got, FACTORS), pick(wanted, FACTORS), rtol=1e-12)


def _with_stored_zeros():
    A = sparse_good()
    rows = np.repeat(np.arange(SHAPE[0]), np.diff(A.indptr))
    stored = sp.coo_array((np.r_[A.data, 0.0, 0.0], (np.r_[rows, 0, 5], np.r_[A.indices, 0, 1])), shape=SHAPE)
    stored = sp.csr_array((stored.data, (stored.row, stored.col)), shape=SHAPE)
    assert stored.nnz > A.nnz
    return stored


@for_each([s for s in SUBJECTS if s.sparse and not s.holes])
@row(42)
def test_explicit_zeros_are_zeros(subject, rows):
    close(pick(subject(_with_stored_zeros()), FACTORS), pick(subject(sparse_good()), FACTORS), rtol=1e-11)


# ---------------------------------------------------------------------------------------------------- missing entries

HOLES = [s for s in SUBJECTS if s.holes]


def _holes():
    """Half of the entries of `good`, in the places of `sparse_good`; NaN elsewhere."""
    A = sparse_good().toarray()
    return np.where(A == 0.0, np.nan, A)


def _masked():
    A = _holes()
    return np.ma.masked_array(np.where(np.isnan(A), np.inf, A), np.isnan(A))


def _nullable_holes():
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(_holes()).astype("Float64").to_numpy(dtype=object, na_value=None)


@for_each(HOLES)
@row(19, 24)
@pytest.mark.parametrize("build", [_masked, lambda: _holes().tolist(), _nullable_holes], ids=["masked", "list", "None"])
def test_holes_however_they_are_marked(subject, build, rows):
    same(subject(_holes()), subject(build()))


@for_each(HOLES)
@row(31, 32)
@pytest.mark.parametrize("build", [_nullable_frame, _polars_null], ids=["pandas", "polars"])
def test_holes_of_frames(subject, build, rows):
    finite(subject(build()))


@for_each([s for s in HOLES if s.sparse])
@row(42)
def test_what_is_stored_is_observed(subject, rows):
    """Zeros too; what is not stored is a hole."""
    for build in (sparse_good, _with_stored_zeros):
        dense = np.full(SHAPE, np.nan)
        dense[build().tocoo().coords] = build().tocoo().data
        same(subject(dense), subject(build()))


@for_each([s for s in HOLES if s.sparse])
@row(37)
@pytest.mark.parametrize("build", [_duplicates, _csr_with_duplicates])
def test_duplicates_of_observations(subject, build, rows):
    """They count twice, with their mean: all entries twice are the same matrix at half the penalty of everything."""
    A, twice = sparse_good(), build()
    twice.data = np.repeat(A.data, 2) if twice.format == "csr" else np.tile(A.data, 2)
    finite(subject(twice))


@for_each([s for s in HOLES if not s.name.endswith(".transform")])
@row(46)
def test_an_empty_row_and_an_empty_column(subject, rows):
    A = good()
    A[3], A[:, 2] = np.nan, np.nan
    with pytest.warns(UnobservedWarning, match="1 rows and 1 columns"):
        results = subject(A)
    finite(results)
    assert (list(results["empty_rows_"]), list(results["empty_columns_"])) == ([3], [2])


@for_each([s for s in HOLES if not s.name.endswith(".transform")])
@row(47)
def test_nothing_observed(subject, rows):
    with pytest.raises(ValueError, match="X has no observed entry"):
        subject(np.full(SHAPE, np.nan))


@for_each([s for s in HOLES if s.name.startswith("MatrixCompletion") and not s.name.endswith(".transform")])
@row(48)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.UnobservedWarning")
def test_fewer_entries_than_degrees_of_freedom(subject, rows):
    A = np.full(SHAPE, np.nan)
    A[np.arange(20), np.arange(20) % 6] = good()[:, 0]
    with pytest.warns(NotIdentifiableWarning, match=r"20 observed entries.* rank (1 .* 25|2 .* 48) degrees"):
        finite(subject(A))


@for_each(FITTING)
@row(36)
def test_sparse_is_accepted_or_refused_with_the_fix(subject, rows):
    try:
        finite(subject.run(sparse_good()))
    except TypeError as error:
        assert "toarray" in str(error)  # noqa: PT017 (either way is right)


@for_each(FITTING)
@row(8)
@pytest.mark.parametrize("shape", [(1, 6), (20, 1), (1, 1)])
def test_one_row_or_column(subject, shape, rows):
    A = good(shape)
    if subject.name.endswith(("add_rows", "add_columns")) and shape != (1, 6)[:: 1 if "rows" in subject.name else -1]:
        pytest.skip("another width, which is row 62")
    try:
        finite(subject(A, k=1))
    except ValueError as error:
        assert re.search(r"minimum|at least|must be", str(error))  # noqa: PT017 (either way is right)


@for_each(FITTING)
@row(21)
def test_squares_beyond_float64(subject, rows):
    try:
        got = subject(1e200 * good())
    except ValueError as error:  # a variance of 1e400 does not exist
        assert re.search("too large|overflow|scale", str(error))  # noqa: PT017 (either way is right)
        assert subject not in (*ROUTINES, *UPDATES)  # which return no variance
        return
    finite(got)
    if not subject.name.endswith(("add_rows", "add_columns")):  # these stand on a model of size 1
        plain = subject(good())
        names = {"U": 0, "s": 1, "Vt": 0, "product": 1, "components_": 0, "singular_values_": 1}
        wanted = {name: plain[name] * 1e200**power for name, power in names.items() if name in plain}
        close({name: got[name] for name in wanted}, wanted, rtol=1e-11)


@for_each(FITTING)
@row(22)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
def test_subnormal_entries(subject, rows):
    A = np.full(SHAPE, 1e-310)
    results = subject(A)
    finite(results)
    s = np.asarray(results.get("s", results.get("singular_values_", 0.0)))
    assert np.all(s >= 0)
    if not subject.name.endswith(("add_rows", "add_columns")):
        assert np.all(s <= 1.01e-310 * np.sqrt(A.size))


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(
    "call",
    [lambda A: lrla.truncated_svd(A, 2, dtype=np.float32), lambda A: lrla.UpdatableSVD(2, dtype=np.float32).fit(A)],
    ids=["truncated_svd", "UpdatableSVD"],
)
@row(23)
def test_values_too_large_for_the_float32_asked_for(call, container, rows):
    with pytest.raises(ValueError, match="A contains values too large for float32"):
        call(container(1e200 * good()))


@for_each(SUBJECTS)
@row(29)
def test_outputs_are_always_fresh(subject, rows):
    A = good()
    first, second = subject(A), subject(A)
    arrays = [x for results in (first, second) for x in results.values() if isinstance(x, np.ndarray) and x.size]
    for i, x in enumerate(arrays):
        assert not np.shares_memory(x, A)
        assert not any(np.shares_memory(x, y) for y in arrays[:i])


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_operator_that_returns_nan(at):
    """No row of the table, but its first promise: no NaN comes out without an exception."""
    A, products = good((400, 310)), []

    def spoiled(Y):
        products.append(1)
        return Y * np.nan if len(products) == at else Y

    operator = LinearOperator(
        A.shape,
        dtype=float,
        matvec=lambda x: spoiled(A @ x),
        rmatvec=lambda y: spoiled(A.T @ y),
        matmat=lambda X: spoiled(A @ X),
        rmatmat=lambda Y: spoiled(A.T @ Y),
    )
    with pytest.raises(ValueError, match=r"NaN|finite|converge"):
        lrla.truncated_svd(operator, 4, tol=1e-8, random_state=0)


# ---------------------------------------------------------------------------------------------------- at transform


def _transformer(cls):
    if not hasattr(cls, "transform"):
        pytest.skip(f"{cls.__name__} has no transform")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(good(), columns=list("abcdef"))
    return fitted(cls, frame), frame


@for_each_estimator
@row(34)
@pytest.mark.parametrize("names", ["bacdef", "aacdef", "abcdeg"])
def test_other_names_of_columns_at_transform(cls, names, rows):
    model, frame = _transformer(cls)
    frame.columns = list(names)
    with pytest.raises(ValueError, match=r"feature names should match|unique column names"):
        model.transform(frame)


@for_each_estimator
@row(35)
@pytest.mark.parametrize("build", [good, sparse_good])
def test_another_width_at_transform(cls, build, rows):
    model, _ = _transformer(cls)
    if build is sparse_good and not cls().__sklearn_tags__().input_tags.sparse:
        pytest.skip(f"{cls.__name__} takes no sparse matrix")
    with pytest.raises(ValueError, match=f"X has 4 features, but {cls.__name__} is expecting 6 features"):
        fitted(cls, good()).transform(build((20, 4)))
    assert model.n_features_in_ == 6


@for_each_estimator
@row(61)
def test_transform_before_fit(cls, rows):
    for name in ("transform", "inverse_transform"):
        if hasattr(cls, name):
            with pytest.raises(NotFittedError):
                getattr(make(cls), name)(good((5, 2)) if name == "inverse_transform" else good())


@row(61)
def test_reading_an_empty_updatable_svd(rows):
    for name in ("U", "Vt", "singular_values_", "shape"):
        with pytest.raises(NotFittedError):
            getattr(lrla.UpdatableSVD(2), name)


@for_each_streaming_estimator
@row(62)
@pytest.mark.parametrize("build", [good, sparse_good])
def test_another_width_at_partial_fit(cls, build, rows):
    model = add_batch(make(cls), good())
    before = public_state(model)
    with pytest.raises(ValueError, match="features"):
        add_batch(model, build((20, 4)))
    same(before, public_state(model))


# ---------------------------------------------------------------------------------------------------- ranks and seeds

BAD_RANKS = [
    (0, ValueError, r"integer (in \[1, \d+\]|>= 1)"),
    (-3, ValueError, r"integer (in \[1, \d+\]|>= 1)"),
    (2.5, (TypeError, ValueError), "integer|real number in"),  # a share in (0, 1) is legal
    (True, TypeError, "integer"),
    ("2", (TypeError, ValueError), "integer|must be"),
]


@for_each(FITTING)
@row(50)
@pytest.mark.parametrize(("rank", "error", "message"), BAD_RANKS, ids=lambda value: repr(value)[:12])
def test_rank_must_be_a_positive_integer(subject, rank, error, message, rows):
    with pytest.raises(error, match=message) as caught:
        subject(good(), k=rank)
    assert re.search(r"\b(k|n_components|max_rank)\b", str(caught.value))


@for_each([
    s for s in FITTING if "Ridge" not in s.name and not s.name.endswith(("add_rows", "add_columns", "partial_fit"))
])  # fmt: skip
@row(51)
def test_rank_above_the_shorter_side(subject, rows):
    with pytest.raises(ValueError, match=r"\b(k|n_components|max_rank)\b.*\b6\b"):
        subject(good(), k=7)


@for_each_streaming_decomposition
@row(51)
def test_rank_above_the_rows_seen_so_far(cls, rows):
    """Legal in a stream: missing components are zero, and come with the rows."""
    model = make(cls, n_components=4).partial_fit(good((2, 6)))
    assert model.components_.shape == (4, 6)
    assert not np.any(model.components_[2:])
    model.partial_fit(good())
    assert np.all(np.any(model.components_, axis=1))


def orthonormal_factors(results):
    for name in ("U", "Q"):
        if name in results:
            assert orthogonality_ratio(results[name]) < 30
    for name in ("Vt", "components_"):
        if name in results:
            assert orthogonality_ratio(results[name].T) < 30


@for_each([s for s in ROUTINES if s.name in ("truncated_svd", "randomized_svd")])
@row(52)
def test_rank_above_the_numerical_rank(subject, rows):
    A = np.outer(good()[:, 0], good()[0])
    with pytest.warns(RankDeficientWarning):
        results = subject(A, k=3)
    orthonormal_factors(results)
    s = np.asarray(results["s"])
    assert s[0] > 0
    assert np.all(s[1:] == 0)


@for_each_estimator
@row(52)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
def test_estimators_above_the_numerical_rank(cls, rows):
    A = np.outer(good()[:, 0], good()[0])
    state = public_state(fitted(cls, A, n_components=3))
    finite(state)
    if "singular_values_" in state:
        assert np.all(state["singular_values_"][1:] <= 1e-7 * state["singular_values_"][0])
    if "rank_" in state:
        assert state["rank_"] == 1


@for_each([s for s in FITTING if not s.name.endswith(("add_rows", "add_columns"))])
@row(53)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_all_zero(subject, container, rows):
    if subject.holes and container is not np.asarray:
        with pytest.raises(ValueError, match="no observed entry"):
            subject(container(np.zeros(SHAPE)))
        return
    results = subject(container(np.zeros(SHAPE)))
    finite(results)
    for name in ("s", "B", "singular_values_", "explained_variance_"):
        assert not np.any(results.get(name, 0.0)), name
    if subject in ROUTINES[:2]:
        orthonormal_factors(results)


@for_each([s for s in FITTING if not s.name.endswith(("add_rows", "add_columns"))])
@row(54)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
def test_constant_matrix(subject, rows):
    results = subject(np.full(SHAPE, 3.0))
    finite(results)
    s = np.asarray(results.get("s", results.get("singular_values_", [0.0])))
    # a model with noise, and a small penalty on the completion of moments
    rel = 1e-3 if subject.name.startswith("OneSidedCompletion") else 1e-12
    assert s[0] == pytest.approx(3.0 * np.sqrt(120), rel=rel) or s[0] <= 1e-13 * 3 * np.sqrt(120)  # centred


@for_each(ROUTINES)
@row(54)
def test_repeated_singular_values(subject, rows):
    Q = np.linalg.qr(good())[0]
    results = subject(Q, k=3)
    orthonormal_factors(results)
    s = results["s"] if "s" in results else np.linalg.svd(results["B"], compute_uv=False)
    np.testing.assert_allclose(s, 1.0, rtol=1e-12)


@for_each([s for s in FITTING if not s.name.startswith("UpdatableSVD") and not s.name.endswith("partial_fit")])
@row(60)
@pytest.mark.parametrize("value", ["0", 1.5, -1, True])
def test_random_state_of_another_type(subject, value, rows):
    cls = getattr(lrla, subject.name.partition(".")[0])
    if cls in ESTIMATORS and "random_state" not in make(cls).get_params():
        pytest.skip(f"{cls.__name__} has no random_state")
    with pytest.raises((TypeError, ValueError), match="random_state must be"):
        subject(good((400, 310)), random_state=value)


@for_each([s for s in FITTING if "Ridge" not in s.name and not s.name.endswith(("add_rows", "add_columns"))])
@row(70)
def test_more_memory_than_any_machine_has(subject, rows):
    # The factors of rank 4000 of a matrix with 2e8 columns are 6.4 TB; the (empty) matrix itself is 40 kB.
    with pytest.raises(ValueError, match=r"would take about .* bytes.*fewer components"):
        subject(sp.csr_array((5000, 2 * 10**8)), k=4000)


@row(70)
def test_more_memory_than_any_machine_has_for_an_operator(rows):
    A = LinearOperator((10**9, 10**9), matvec=lambda x: x, rmatvec=lambda x: x, dtype=float)
    with pytest.raises(ValueError, match=r"would take about .* bytes.*fewer components"):
        lrla.truncated_svd(A, 10**5)


# ---------------------------------------------------------------------------------------------------- devices


@for_each_device_estimator
@row(63)
def test_device_at_fit_and_host_at_transform(cls, device_xp, rows):
    there, here = fitted(cls, device_xp.asarray(good())), fitted(cls, good())
    wanted = "must use the same namespace and the same device as those passed to fit"
    with pytest.raises(ValueError, match=wanted):
        apply(there, good())
    with pytest.raises(ValueError, match=wanted):
        apply(here, device_xp.asarray(good()))


@row(64)
def test_tensors_on_two_devices(rows):
    import array_api_strict

    first, second = (array_api_strict.Device(f"device{i}") for i in (1, 2))
    A, mean = array_api_strict.asarray(good(), device=first), array_api_strict.asarray(np.zeros(6), device=second)
    with pytest.raises(ValueError, match=r"device2.*device1"):
        lrla.truncated_svd(A, 2, center=mean)


@for_each_device_estimator
@row(64)
def test_fit_and_transform_on_two_devices(cls, rows):
    import array_api_strict

    first, second = (array_api_strict.asarray(good(), device=array_api_strict.Device(f"device{i}")) for i in (1, 2))
    with pytest.raises(ValueError, match=r"device1.*device2"):
        apply(fitted(cls, first), second)


DEVICE_REFUSED = [
    (3, lambda: np.ones(6), "2-dimensional"),
    (4, lambda: np.ones((2, *SHAPE)), "2-dimensional"),
    (6, lambda: np.ones((0, 6)), "minimum of 1"),
    (7, lambda: np.ones((20, 0)), "minimum of 1"),
    (13, lambda: good() + 1j, "[Cc]omplex"),
    (18, lambda: _with(np.nan), "{name} contains NaN"),
    (20, lambda: _with(np.inf), "{name} contains NaN or infinity"),
]


@for_each(ON_DEVICE)
@pytest.mark.parametrize(("number", "build", "message"), DEVICE_REFUSED, ids=[str(case[0]) for case in DEVICE_REFUSED])
def test_refused_on_a_device(subject, number, build, message, device_xp):
    with pytest.raises(ValueError, match=message.replace("{name}", subject.argument)):
        subject(device_xp.asarray(build()))


@for_each(ON_DEVICE)
def test_other_types_on_a_device_become_float64(subject, device_xp):
    for name, value in subject(device_xp.asarray(_rounded(np.int64))).items():
        if is_array(value) and value.ndim == 2:
            assert str(value.dtype).endswith("float64"), name


# ---------------------------------------------------------------------------------------------------- responses, weights

SUPERVISED = [cls for cls in ESTIMATORS if cls().__sklearn_tags__().target_tags.required]
for_each_supervised = pytest.mark.parametrize("cls", SUPERVISED, ids=lambda cls: cls.__name__)
LABELS = np.arange(SHAPE[0]) % 2


@for_each_supervised
@row(55)
def test_a_response_of_another_length(cls, rows):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make(cls).fit(good(), LABELS[:-1])


@row(56)
def test_a_column_of_labels(rows):
    with pytest.warns(DataConversionWarning, match="column-vector"):
        lrla.SketchedRidgeClassifierCV().fit(good(), LABELS[:, None])


WEIGHTS = {
    "negative": (-np.ones(SHAPE[0]), "sample_weight must not be negative"),
    "all zero": (np.zeros(SHAPE[0]), "sample_weight must be positive for at least 2 rows"),
    "wrong length": (np.ones(SHAPE[0] - 1), r"sample_weight must have shape \(20,\)"),
    "NaN": (np.full(SHAPE[0], np.nan), "sample_weight contains NaN"),
}


@for_each_supervised
@row(57)
@pytest.mark.parametrize("case", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_are_none(cls, case, rows):
    with pytest.raises(ValueError, match=case[1]):
        make(cls).fit(good(), LABELS, case[0])


@row(58)
def test_penalties_below_the_bound(rows):
    X, y = np.random.default_rng(0).standard_normal((30, 40)), good((30, 40), 1)[:, 0]
    with pytest.raises(ValueError, match=r"alpha must be >= 0 for plain ridge"):
        lrla.SketchedRidge(-1.0, sketch=None).fit(X, y)
    with pytest.raises(ValueError, match=r"alpha must be > -.*alpha_min_"):
        lrla.SketchedRidge(-1e9, n_components=5, random_state=0).fit(X, y)
    model = lrla.SketchedRidge(0.0, sketch=None, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coef_, np.linalg.pinv(X) @ y, rtol=1e-6, atol=1e-9)
