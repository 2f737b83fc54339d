"""The door of this room: whatever holds some entries of a matrix becomes `Observed`.

An entry is observed or it is not, and a zero is a value.  So the zeros that a sparse matrix stores are observations, holes of
a dense one are marked (NaN, a mask, or a value that is told), and entries given twice are averaged, not added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse

from lrla import _arrays, _validation
from lrla.completion._observed import CHUNK, Observed, numbers, sorted_by_rows


@dataclass(frozen=True)
class Entries:
    """Entries by rows, columns ascending; those given twice stand side by side."""

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]
    order: np.ndarray | None = None  # which of the stored entries each is; None: they are in this order already

    def rows(self) -> np.ndarray:
        """The row of every entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    def kept(self, mask: np.ndarray, values: np.ndarray) -> Entries:
        """The entries where the mask is true, with these values."""
        before = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        return Entries(before[self.indptr], self.indices[mask], values, self.shape)


def read_observed(
    X: Any,
    name: str = "X",
    *,
    shape: tuple[int | None, int | None] | None = None,
    sample_weight: Any = None,
    missing_values: float = math.nan,
    weight_name: str = "sample_weight",
    allow_empty: bool = False,
) -> Observed:
    """The observed entries of X, checked.

    Parameters
    ----------
    X : sparse matrix or array, array-like, masked array, data frame, or tuple (values, (rows, columns))
        Of a sparse matrix the stored entries are observed, zeros included.  Of an array those that are neither masked nor
        equal to `missing_values`.  An entry that is given several times counts once for each, with its (weighted) mean.
    name, weight_name : str
        Names of the arguments, for messages.
    shape : (m, n), optional
        Of triplets; None in the place of a side, or no shape at all: one more than the largest index.
    sample_weight : array-like of shape (nnz,) or (m, n) or sparse matrix, optional
        Weights of the observed entries: in the order in which X stores them (an array: row by row), or of every cell, or a
        sparse matrix with the pattern of X.  Entries of weight zero are not observed.
    missing_values : float
        Marks a hole in an array.  Where it is a number, NaN is an error.
    allow_empty : bool
        Whether X may be without any observed entry.

    Raises
    ------
    TypeError, ValueError
        As contracted in docs/bad_input.md.
    """
    if isinstance(missing_values, bool) or not isinstance(missing_values, Real):
        raise TypeError(f"missing_values must be a real number or NaN; got {missing_values!r}.")
    masked = isinstance(X, np.ma.MaskedArray)
    if not masked:
        _validation.check_on_host(X, name, "matrix completion")
    if isinstance(X, tuple) and len(X) == 2 and isinstance(X[1], tuple) and len(X[1]) == 2:
        entries = _triplets(X, shape, name)
    elif shape is not None:
        raise TypeError(f"shape is that of triplets (values, (rows, columns)); {name} is a {type(X).__name__}.")
    elif _arrays.kind(X) == "operator":
        raise TypeError(f"{name} is a LinearOperator; matrix completion needs the entries: pass an array or triplets.")
    elif _arrays.kind(X) == "sparse":
        entries = _sparse(X, name)
    else:
        entries = _dense(X, name, float(missing_values))
    entries = replace(entries, values=_finite(entries.values, name))
    weights = None if sample_weight is None else _weights(sample_weight, entries, weight_name)
    observed = _without_duplicates(entries, weights)
    if not allow_empty:
        require_entries(observed, name)
    return observed


def require_entries(observed: Observed, name: str) -> None:
    """ValueError where nothing is observed."""
    if not observed.nnz:
        raise ValueError(f"{name} has no observed entry, so there is nothing to learn from.")


def check_index(index: Any, size: int, name: str) -> np.ndarray:
    """Integers in [0, size), or TypeError or IndexError."""
    index = np.asarray(index)
    if index.size and index.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {index.dtype}.")
    if index.size and (index.min() < 0 or index.max() >= size):
        bad = index.min() if index.min() < 0 else index.max()
        raise IndexError(f"{name} must lie in [0, {size}); found {bad}.")
    return index.astype(np.int64, copy=False)


def check_row_ids(row_ids: Any, count: int, n_rows: int) -> np.ndarray:
    """The rows of a model that `count` rows take the place of, all different; None: those after its `n_rows`."""
    if row_ids is None:
        return n_rows + np.arange(count)
    ids = np.asarray(row_ids)
    if ids.shape != (count,) or ids.dtype.kind not in "iu" or ids.min() < 0 or len(np.unique(ids)) < count:
        raise ValueError(f"row_ids must be {count} different integers >= 0, one for each row of X; got {row_ids!r}.")
    return ids.astype(np.int64)


# ---------------------------------------------------------------------------------------------------- to entries


def _triplets(X: Any, shape: Any, name: str) -> Entries:
    values, rows, columns = np.asarray(X[0]), *(np.asarray(index) for index in X[1])
    if values.ndim != 1 or not values.shape == rows.shape == columns.shape:
        raise ValueError(
            f"Values, rows and columns of {name} must be 1-dimensional and of one length; got shapes {values.shape}, "
            f"{rows.shape} and {columns.shape}."
        )
    for index, what in ((rows, "rows"), (columns, "columns")):
        if index.size and index.dtype.kind not in "iu":
            raise TypeError(f"The {what} of {name} must be integers; got dtype {index.dtype}.")
    given = (None, None) if shape is None else tuple(shape)
    if len(given) != 2:
        raise ValueError(f"shape must be two integers; got {shape!r}.")
    m, n = (
        max(1, int(index.max(initial=0)) + 1) if side is None else _validation.check_integer(side, f"shape[{axis}]", 1)
        for axis, (side, index) in enumerate(zip(given, (rows, columns), strict=True))
    )
    for index, side, what in ((rows, m, "row"), (columns, n, "column")):
        _validation.check_range(index, side, f"{what} index of {name}")
    rows, columns = (
        index if index.dtype in (np.int32, np.int64) else index.astype(np.int64) for index in (rows, columns)
    )
    return _by_rows(values, rows, columns, (m, n))


def _by_rows(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Entries:
    """From triplets in any order."""
    indptr, indices, order = sorted_by_rows(rows, columns, shape)
    return Entries(indptr, indices, values[order], shape, order)


def _sorted(numbered: Any, values: np.ndarray) -> Entries:
    """From a CSR matrix of which no one else knows, and whose entries are numbers of `values`."""
    numbered.sort_indices()
    order = numbered.data
    return Entries(numbered.indptr, numbered.indices, values[order], numbered.shape, order)


def _sparse(X: Any, name: str) -> Entries:
    _validation.check_structure(X, name)
    for size, what in zip(X.shape, ("row", "column"), strict=True):
        if size < 1:
            raise ValueError(f"Found {name} with 0 {what}s (shape={X.shape}), while a minimum of 1 is required.")
    if X.format not in ("csr", "csc", "coo"):
        X = X.tocoo()
    if X.format == "coo":
        return _by_rows(X.data, X.row, X.col, X.shape)
    if X.format == "csr" and X.has_sorted_indices:
        return Entries(X.indptr, X.indices, X.data, X.shape)
    copy = scipy.sparse.csr_array if X.format == "csr" else scipy.sparse.csc_array
    return _sorted(copy((numbers(len(X.data)), X.indices, X.indptr), shape=X.shape, copy=True).tocsr(), X.data)


def _dense(X: Any, name: str, missing_values: float) -> Entries:
    masked = isinstance(X, np.ma.MaskedArray)
    mask = np.ma.getmaskarray(X) if masked else False
    if masked:
        X = np.where(mask, np.zeros((), X.dtype), np.ma.getdata(X))  # what is under a mask is nobody's business
    X = _validation.check_dense(X, name, allow_nan=math.isnan(missing_values))
    kept = ~(np.isnan(X) if math.isnan(missing_values) else missing_values == X) & ~np.asarray(mask)
    counts = np.count_nonzero(kept, axis=1)
    columns = np.broadcast_to(np.arange(X.shape[1], dtype=np.int32), X.shape)
    return Entries(np.concatenate(([0], np.cumsum(counts))), columns[kept], X[kept], X.shape)


# ---------------------------------------------------------------------------------------------------- values, weights


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    """Values in float32 or float64 and native byte order."""
    if np.iscomplexobj(values):
        raise ValueError(f"{name} is complex; Complex data not supported. Pass its real part.")
    dtype = np.dtype(np.float32 if values.dtype.kind == "f" and values.dtype.itemsize == 4 else np.float64)
    try:
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
    except (TypeError, ValueError):
        raise ValueError(f"The values of {name} must be numeric; got dtype {values.dtype}.") from None
    if not all(np.isfinite(values[start : start + CHUNK]).all() for start in range(0, values.size, CHUNK)):
        if np.any(np.isnan(values)):
            raise ValueError(f"Input {name} contains NaN. Leave out what is not observed: no NaN is stored for it.")
        raise ValueError(f"Input {name} contains infinity or a value too large for {dtype}.")
    return values


def _weights(weights: Any, entries: Entries, name: str) -> np.ndarray:
    """One weight for each entry, in float64."""
    if scipy.sparse.issparse(weights):
        same = _sparse(weights, name)
        if not (
            same.shape == entries.shape
            and np.array_equal(same.indptr, entries.indptr)
            and np.array_equal(same.indices, entries.indices)
        ):
            raise ValueError(f"{name} must store the same entries as X.")
        given = same.values
    else:
        given = np.asarray(weights)
        if given.shape == entries.shape:
            given = given[entries.rows(), entries.indices]
        elif given.shape != entries.values.shape:
            raise ValueError(
                f"{name} must have shape ({len(entries.values)},), one for each observed entry, or {entries.shape}; got "
                f"{given.shape}."
            )
        elif entries.order is not None:
            given = given[entries.order]
    given = _finite(given, name).astype(np.float64)
    if np.any(given < 0.0):
        raise ValueError(f"{name} must not be negative; the smallest is {given.min()}.")
    if given.size and not np.any(given > 0.0):
        raise ValueError(f"{name} must be positive for at least one entry.")
    return given


def _without_duplicates(entries: Entries, weights: np.ndarray | None) -> Observed:
    """Entries of weight zero go; several of one cell become one, with their mean and the sum of their weights."""
    if weights is not None and np.any(weights == 0.0):
        mask = weights > 0.0
        entries, weights = entries.kept(mask, entries.values[mask]), weights[mask]
    if _any_twice(entries):
        first = np.ones(len(entries.values), dtype=bool)
        first[1:] = entries.indices[1:] != entries.indices[:-1]
        first[entries.indptr[:-1][np.diff(entries.indptr) > 0]] = True
        starts = np.flatnonzero(first)
        w = np.ones(len(entries.values)) if weights is None else weights
        total = np.add.reduceat(w, starts)
        share = w / np.repeat(total, np.diff(np.append(starts, len(w))))
        means = np.add.reduceat(share * entries.values, starts)
        entries, weights = entries.kept(first, means.astype(entries.values.dtype)), total
    return Observed(entries.indptr, entries.indices, entries.values, entries.shape, weights)


def _any_twice(entries: Entries) -> bool:
    """Whether an entry is given several times; some entries are looked at a time, since most often there are none."""
    indptr, indices = entries.indptr, entries.indices
    for start in range(0, len(indices), CHUNK):
        stop = min(start + CHUNK, len(indices) - 1)
        same = np.flatnonzero(indices[start + 1 : stop + 1] == indices[start:stop]) + start + 1
        if len(same) and np.any(indptr[np.searchsorted(indptr, same)] != same):  # not the first of its row
            return True
    return False
