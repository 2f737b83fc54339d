"""`Observed`: the observed entries of a matrix by rows, and by columns once somebody asks."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from lrla import _validation
from lrla._arrays import FLOAT32, FLOAT64
from lrla._jit import frozen

# Blocks of rows that threads share; a fixed number, so that sums over blocks do not depend on the threads.
BLOCKS = 64
ROW_COST = 12  # what a row costs besides its entries, in entries


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
    """

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        values: np.ndarray,
        shape: tuple[int, int],
        weights: np.ndarray | None = None,
    ):
        dtype = FLOAT32 if values.dtype == FLOAT32 else FLOAT64
        self.shape = (int(shape[0]), int(shape[1]))
        self.indptr = frozen(indptr.astype(np.int64, copy=False))
        self.indices = frozen(indices.astype(np.int32, copy=False))
        self.values = frozen(values.astype(dtype, copy=False))
        self.weights = None if weights is None else frozen(weights.astype(dtype, copy=False))
        self._transpose: Observed | None = None
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
        by_entry = cls(
            np.arange(len(values) + 1), np.asarray(columns), np.asarray(values), (len(values), shape[1]), weights
        )
        by_column = by_entry.T  # indices are now numbers of entries, in the order of their columns
        entries = by_column.indices
        by_column = cls(
            by_column.indptr, np.asarray(rows)[entries], by_column.values, (shape[1], shape[0]), by_column.weights
        )
        return by_column.T

    @classmethod
    def from_csr(cls, csr: Any, weights: np.ndarray | None = None) -> Observed:
        """From a SciPy CSR matrix with sorted indices and no duplicates; stored zeros are observations."""
        return cls(csr.indptr, csr.indices, csr.data, csr.shape, weights)

    @property
    def nnz(self) -> int:
        """Number of observed entries."""
        return self.values.size

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.values.dtype

    @property
    def T(self) -> Observed:
        """The same entries by columns: built once, and kept.

        It knows this one weakly: in a cycle the memory of both would wait for the garbage collector.
        """
        source = None if self._source is None else self._source()
        if source is not None:
            return source
        if self._transpose is None:
            m, n = self.shape
            turned = self.matrix(self.values).tocsc()
            weights = None if self.weights is None else self.matrix(self.weights).tocsc().data
            other = Observed(turned.indptr, turned.indices, turned.data, (n, m), weights)
            other._source = weakref.ref(self)
            self._transpose = other
        return self._transpose

    @cached_property
    def weight_array(self) -> np.ndarray:
        """The weights as kernels take them: an empty array where all are 1."""
        return frozen(np.empty(0, self.dtype)) if self.weights is None else self.weights

    @cached_property
    def counts(self) -> np.ndarray:
        """Observations in every row, (m,) float64: the sum of their weights where there are some."""
        if self.weights is None:
            return np.diff(self.indptr).astype(np.float64)
        return np.bincount(self.row_of_entry(), self.weights, self.shape[0])

    @cached_property
    def bounds(self) -> np.ndarray:
        """First rows of `BLOCKS` blocks of about equal work, and then m."""
        m = self.shape[0]
        work = self.indptr + ROW_COST * np.arange(m + 1)
        inner = np.searchsorted(work, np.arange(1, BLOCKS) * int(work[-1]) // BLOCKS)
        return frozen(np.concatenate(([0], inner, [m])).astype(np.int64))

    def matrix(self, values: np.ndarray) -> scipy.sparse.csr_array:
        """Other values (nnz,) at the same places; the indices are shared, not copied.

        SciPy would copy them to 64 bits to suit `indptr`, and all products would be slower.
        """
        indptr = self.indptr.astype(np.int32) if self.nnz <= np.iinfo(np.int32).max else self.indptr
        return scipy.sparse.csr_array((values, self.indices, indptr), shape=self.shape)

    def row_of_entry(self) -> np.ndarray:
        """The row of every entry, (nnz,) int32."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    def subset(self, mask: np.ndarray) -> Observed:
        """The entries where `mask` (nnz,), in the order of the rows, is true."""
        kept = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        weights = None if self.weights is None else self.weights[mask]
        return Observed(kept[self.indptr], self.indices[mask], self.values[mask], self.shape, weights)


def lines(observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of observations in every row, and in every column."""
    return np.diff(observed.indptr), np.bincount(observed.indices, minlength=observed.shape[1])


def own(observed: Observed, X: Any) -> Observed:
    """The observations without their transpose, and without memory that belongs to a sparse X."""
    theirs = [getattr(X, name, None) for name in ("data", "indices", "indptr")]

    def copied(array: Any) -> Any:
        shared = any(isinstance(other, np.ndarray) and np.may_share_memory(array, other) for other in theirs)
        return array.copy() if shared else array

    weights = None if observed.weights is None else copied(observed.weights)
    indptr, indices, values = (copied(part) for part in (observed.indptr, observed.indices, observed.values))
    return Observed(indptr, indices, values, observed.shape, weights)


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
