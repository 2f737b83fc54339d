"""`Observed`: the observed entries of a matrix by rows, and by columns once somebody asks.

A fit needs its entries in both orders.  Few are held in both.  Of many, which may fill half of the memory, no copy is made:
groups of columns are put together when their turn comes, in about the time of one more step over the entries.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from lrla import _validation
from lrla._arrays import FLOAT32, FLOAT64
from lrla._jit import frozen
from lrla.completion import _column_kernels

# Blocks of rows that threads share; a fixed number, so that sums over blocks do not depend on the threads.
BLOCKS = 64
ROW_COST = 12  # what a row costs besides its entries, in entries
FEW = 1 << 20  # entries of which copies are made
CHUNK = 1 << 16  # entries that are worked on at a time where all are gone through


class Part(NamedTuple):
    """The entries of some consecutive rows as CSR arrays; one of those that `parts` gives.

    Attributes
    ----------
    rows : slice
    blocks : slice
        Which of the blocks that threads share are theirs.
    bounds : (blocks + 1,) int64
        Where these begin and end, counted from the first of the rows.
    indptr, indices, values, weights
        As in `Observed`; weights are an empty array where all are 1, and zero where an entry is left out.
    """

    rows: slice
    blocks: slice
    bounds: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    weights: np.ndarray


class Observed:
    """The observed entries of an (m, n) matrix in CSR, on the host; nothing in it is ever changed.

    Stored zeros are observations.

    Attributes
    ----------
    shape : (m, n)
    indptr : (m + 1,) int64
    indices : (nnz,) int32, ascending in every row
    values : (nnz,) float32 or float64
    weights : (nnz,) of the dtype of the values, or None: all are 1
    left_out : (count,) int64
        Places in these arrays, ascending, of entries that are not to be seen; see `without`.  Only what half-sweeps need
        heeds it: `nnz`, `counts`, `parts`, `chunks` and the transpose.
    """

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        values: np.ndarray,
        shape: tuple[int, int],
        weights: np.ndarray | None = None,
        left_out: np.ndarray | None = None,
    ):
        dtype = FLOAT32 if values.dtype == FLOAT32 else FLOAT64
        self.shape = (int(shape[0]), int(shape[1]))
        self.indptr = frozen(indptr.astype(np.int64, copy=False))
        self.indices = frozen(indices.astype(np.int32, copy=False))
        self.values = frozen(values.astype(dtype, copy=False))
        self.weights = None if weights is None else frozen(weights.astype(dtype, copy=False))
        self.left_out = np.empty(0, np.int64) if left_out is None else left_out
        self._transpose: Observed | Columns | None = None
        self._source: weakref.ref[Observed] | None = None  # what this is the transpose of

    @classmethod
    def from_triplets(
        cls,
        rows: np.ndarray,
        columns: np.ndarray,
        values: np.ndarray,
        shape: tuple[int, int],
        weights: np.ndarray | None = None,
    ) -> Observed:
        """From distinct (row, column) pairs in any order."""
        indptr, indices, order = sorted_by_rows(rows, columns, shape)
        return cls(indptr, indices, np.asarray(values)[order], shape, None if weights is None else weights[order])

    @classmethod
    def from_csr(cls, csr: Any, weights: np.ndarray | None = None) -> Observed:
        """From a SciPy CSR matrix with sorted indices and no duplicates; stored zeros are observations."""
        return cls(csr.indptr, csr.indices, csr.data, csr.shape, weights)

    @property
    def nnz(self) -> int:
        """Number of observed entries."""
        return self.values.size - len(self.left_out)

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.values.dtype

    @property
    def T(self) -> Observed | Columns:
        """The same entries by columns: built once, and kept.

        It knows this one weakly: in a cycle the memory of both would wait for the garbage collector.
        """
        source = None if self._source is None else self._source()
        if source is not None:
            return source
        if self._transpose is None:
            self._transpose = self._turned() if self.values.size <= FEW else Columns(self)
            self._transpose._source = weakref.ref(self)
        return self._transpose

    def _turned(self) -> Observed:
        turned = self.matrix(self.values).tocsc()
        weights = None if self.weights is None else self.matrix(self.weights).tocsc().data
        return Observed(turned.indptr, turned.indices, turned.data, self.shape[::-1], weights)

    @cached_property
    def weight_array(self) -> np.ndarray:
        """The weights as kernels take them: an empty array where all are 1."""
        return frozen(np.empty(0, self.dtype)) if self.weights is None else self.weights

    @cached_property
    def counts(self) -> np.ndarray:
        """Observations in every row, (m,) float64: the sum of their weights where there are some."""
        if self.weights is None:
            gone = np.bincount(self.rows_of(self.left_out), minlength=self.shape[0])
            return (np.diff(self.indptr) - gone).astype(np.float64)
        counts = np.zeros(self.shape[0])
        for rows, part in _groups(self.indptr, np.arange(self.shape[0] + 1), CHUNK):
            index = np.repeat(np.arange(rows.stop - rows.start), np.diff(self.indptr[rows.start : rows.stop + 1]))
            gone = self._left_out_in(part)
            counts[rows] = np.bincount(_but(index, gone), _but(self.weights[part], gone), rows.stop - rows.start)
        return counts

    @cached_property
    def column_counts(self) -> np.ndarray:
        """Number of observations in every column, (n,) int64."""
        n = self.shape[1]
        counts, step = -np.bincount(self.indices[self.left_out], minlength=n), max(CHUNK, n)
        for start in range(0, self.indices.size, step):
            counts += np.bincount(self.indices[start : start + step], minlength=n)
        return counts

    @cached_property
    def bounds(self) -> np.ndarray:
        """First rows of `BLOCKS` blocks of about equal work, and then m."""
        return equal_blocks(self.indptr, BLOCKS)

    def parts(self, first: int, last: int, most: int) -> Iterator[Part]:
        """The entries of blocks first to last - 1; where some are left out, a group at a time, with weight zero for these."""
        if not len(self.left_out):
            rows, bounds = slice(0, self.shape[0]), self.bounds[first : last + 1]
            yield Part(rows, slice(first, last), bounds, self.indptr, self.indices, self.values, self.weight_array)
            return
        groups = list(_groups(self.indptr, self.bounds[first : last + 1], min(most, CHUNK)))
        room = np.ones(max((part.stop - part.start for _, part in groups), default=0), self.dtype)
        for blocks, part in groups:
            where = slice(first + blocks.start, first + blocks.stop)
            rows = slice(int(self.bounds[where.start]), int(self.bounds[where.stop]))
            bounds, indptr = self.bounds[where.start : where.stop + 1], self.indptr[rows.start : rows.stop + 1]
            weights, gone = room[: part.stop - part.start], self._left_out_in(part)
            if self.weights is not None:
                weights[:] = self.weights[part]
            weights[gone] = 0
            arrays = bounds - rows.start, indptr - part.start, self.indices[part], self.values[part], weights
            yield Part(rows, where, *(frozen(array) for array in arrays))
            weights[gone] = 1

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Values and weights of some entries at a time."""
        for start in range(0, self.values.size, CHUNK):
            part = slice(start, start + CHUNK)
            gone = self._left_out_in(part)
            values = _but(self.values[part], gone)
            if values.size:
                yield values, None if self.weights is None else _but(self.weights[part], gone)

    def _left_out_in(self, part: slice) -> np.ndarray:
        """Places of entries left out, counted from the first of that part of the arrays."""
        first, last = np.searchsorted(self.left_out, (part.start, part.stop))
        return self.left_out[first:last] - part.start

    def matrix(self, values: np.ndarray) -> scipy.sparse.csr_array:
        """Other values (nnz,) at the same places; the indices are shared, not copied.

        SciPy would copy them to 64 bits to suit `indptr`, and all products would be slower.
        """
        indptr = self.indptr.astype(np.int32) if self.nnz <= np.iinfo(np.int32).max else self.indptr
        return scipy.sparse.csr_array((values, self.indices, indptr), shape=self.shape)

    def row_of_entry(self) -> np.ndarray:
        """The row of every entry, (nnz,) int32."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    def rows_of(self, places: np.ndarray) -> np.ndarray:
        """The rows of the entries at these places of the arrays, int32."""
        return (np.searchsorted(self.indptr, places, side="right") - 1).astype(np.int32)

    def without(self, places: np.ndarray) -> Observed:
        """The entries but those at these places (ascending); many of them without a copy."""
        if self.values.size > FEW:
            return Observed(self.indptr, self.indices, self.values, self.shape, self.weights, places)
        weights = None if self.weights is None else np.delete(self.weights, places)
        indptr = self.indptr - np.searchsorted(places, self.indptr)
        return Observed(indptr, np.delete(self.indices, places), np.delete(self.values, places), self.shape, weights)

    def alone(self, copied: bool) -> Observed:
        """Without what has been made of them, the transpose above all; the arrays may be copied."""
        indptr, indices, values, weights = self.indptr, self.indices, self.values, self.weights
        if copied:
            indptr, indices, values = indptr.copy(), indices.copy(), values.copy()
            weights = None if weights is None else weights.copy()
        return Observed(indptr, indices, values, self.shape, weights)


class Columns:
    """The entries of an `Observed` by columns, of which only a group at a time is ever put together.

    Attributes
    ----------
    shape : (n, m)
    nnz, dtype
    indptr : (n + 1,) int64
        Where the columns would begin.
    """

    def __init__(self, rows: Observed):
        self.shape, self.nnz, self.dtype = rows.shape[::-1], rows.nnz, rows.dtype
        self.indptr = frozen(np.concatenate(([0], np.cumsum(rows.column_counts))))
        self._arrays = rows.indptr, rows.indices, rows.values, rows.weights, rows.left_out
        self._source: weakref.ref[Observed] | None = None
        self._starts: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def T(self) -> Observed:
        """The same entries by rows."""
        source = None if self._source is None else self._source()
        indptr, indices, values, weights, left_out = self._arrays
        return source or Observed(indptr, indices, values, self.shape[::-1], weights, left_out)

    @cached_property
    def counts(self) -> np.ndarray:
        """Observations in every column, (n,) float64: the sum of their weights where there are some."""
        _, indices, _, weights, left_out = self._arrays
        if weights is None:
            return np.diff(self.indptr).astype(np.float64)
        counts = np.zeros(self.shape[0])
        step = max(CHUNK, len(counts))
        for start in range(0, indices.size, step):
            part = slice(start, start + step)
            counts += np.bincount(indices[part], weights[part], len(counts))
        counts -= np.bincount(indices[left_out], weights[left_out], len(counts))
        counts[np.diff(self.indptr) == 0] = 0.0  # and not what rounding leaves
        return counts

    @cached_property
    def bounds(self) -> np.ndarray:
        """First columns of blocks of about equal work, and then n; more than `BLOCKS` where these would hold too much."""
        return equal_blocks(self.indptr, max(BLOCKS, self.nnz // max(2 * CHUNK, sum(self.shape))))

    def parts(self, first: int, last: int, most: int) -> Iterator[Part]:
        """The entries of blocks first to last - 1, in copies of about `most` at a time, each in the memory of the one before."""
        _, indices, values, weights, left_out = self._arrays
        cursors, skipped = (array.copy() for array in self._start(first))
        left_out = np.append(left_out, indices.size)
        weights = np.empty(0, self.dtype) if weights is None else weights
        groups = list(_groups(self.indptr, self.bounds[first : last + 1], most))
        largest = max((part.stop - part.start for _, part in groups), default=0)
        room = (
            np.empty(largest, np.int32),
            np.empty(largest, self.dtype),
            np.empty(largest * (weights.size > 0), self.dtype),
        )
        for blocks, part in groups:
            columns = slice(int(self.bounds[first + blocks.start]), int(self.bounds[first + blocks.stop]))
            indptr = self.indptr[columns.start : columns.stop + 1] - part.start
            found = tuple(array[: part.stop - part.start] for array in room)
            _column_kernels.gather_columns(
                self._arrays[0], indices, values, frozen(weights), frozen(left_out), cursors, skipped,
                (columns.start, columns.stop), indptr[:-1].copy(), *found,
            )  # fmt: skip
            bounds = self.bounds[first + blocks.start : first + blocks.stop + 1] - columns.start
            yield Part(
                columns,
                slice(first + blocks.start, first + blocks.stop),
                *(frozen(a) for a in (bounds, indptr, *found)),
            )

    def _start(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in the rows (m,) the entries of a block begin, and how many are left out before.  Kept: it is asked for again."""
        if block not in self._starts:
            indptr, indices, _, _, left_out = self._arrays
            column, low, high = self.bounds[block], indptr[:-1].copy(), indptr[1:].copy()
            while column and np.any(low < high):
                middle = (low + high) // 2
                before = low < high
                before[before] = indices[middle[before]] < column
                low, high = np.where(before, middle + 1, low), np.where(before, high, np.minimum(middle, high))
            self._starts[block] = low, np.searchsorted(left_out, low)
        return self._starts[block]


def _but(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """An array without some places, which an empty array does not have; itself, where that is none."""
    return np.delete(array, places) if len(places) and array.size else array


def equal_blocks(indptr: np.ndarray, count: int) -> np.ndarray:
    """First rows of so many blocks of about equal work, and then the number of rows."""
    m = len(indptr) - 1
    work = indptr + ROW_COST * np.arange(m + 1)
    inner = np.searchsorted(work, np.arange(1, count) * int(work[-1]) // count)
    return frozen(np.concatenate(([0], inner, [m])).astype(np.int64))


def _groups(indptr: np.ndarray, bounds: np.ndarray, most: int) -> Iterator[tuple[slice, slice]]:
    """Successive blocks of rows with about `most` entries together at most, but one block at least, and their entries."""
    edges, first = indptr[bounds], 0
    while first < len(edges) - 1:
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + most, side="right")) - 1)
        yield slice(first, last), slice(int(edges[first]), int(edges[last]))
        first = last


def sorted_by_rows(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triplets in any order, by rows with ascending columns: indptr, indices, and which of the triplets stands where."""
    numbered = scipy.sparse.coo_array((numbers(len(rows)), (rows, columns)), shape=shape)
    numbered.has_canonical_format = True  # otherwise SciPy adds duplicates up
    turned = numbered.tocsr()
    turned.sort_indices()
    return turned.indptr, turned.indices, turned.data


def numbers(count: int) -> np.ndarray:
    """0 to count - 1, in 32 bits where they have room."""
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def lines(observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of observations in every row, and in every column."""
    return np.diff(observed.indptr), observed.column_counts


def cast(observed: Observed, dtype: Any, name: str) -> Observed:
    """The observations in another precision."""
    values = _validation.cast(observed.values, dtype, name)
    return Observed(observed.indptr, observed.indices, values, observed.shape, observed.weights)


def entries_of(observed: Observed, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the observed entries in these rows the place in `rows`, the column and the value."""
    counts = np.diff(observed.indptr)[rows]
    ends = np.cumsum(counts)
    take = np.repeat(observed.indptr[rows] - (ends - counts), counts) + np.arange(counts.sum())
    return np.repeat(np.arange(len(rows)), counts), observed.indices[take], observed.values[take]
