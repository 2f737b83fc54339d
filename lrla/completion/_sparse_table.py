"""Rows that show a few entries each, for the factor model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from lrla.completion._table import BLOCK_NUMBERS, Entries, Passes
from lrla.completion._table_kernels import STRIP


@dataclass(frozen=True)
class SparseTable(Passes):
    """The observed entries of a table, by rows."""

    indptr: np.ndarray  # (m + 1,)
    indices: np.ndarray  # (nnz,), ascending within a row
    values: np.ndarray  # (nnz,) float32 or float64
    columns: int
    weight: np.ndarray  # (m,); 0 for rows that take no part
    scale: float = 1.0  # unit of the values

    @property
    def n(self) -> int:
        """Number of columns."""
        return self.columns

    def extent(self, k: int) -> tuple[float, int]:
        """See `Passes`: a block is not smaller than the sums by columns, to which it is added."""
        rows = max(BLOCK_NUMBERS // ((k + 1) * (k + 2) // 2), self.n)
        return float(len(self.values)), -(-rows // STRIP) * STRIP

    def entries(self, rows: slice, mean: np.ndarray | float = 0.0) -> Entries:
        """The entries of some rows, less the mean."""
        first, last = self.indptr[rows.start], self.indptr[rows.stop]
        width = -(-(rows.stop - rows.start) // STRIP) * STRIP
        indptr = np.full(width + 1, last - first, self.indices.dtype)  # or SciPy copies the indices
        indptr[: rows.stop - rows.start] = self.indptr[rows] - first
        indices = self.indices[first:last]
        values = self.values[first:last] / self.scale - np.broadcast_to(mean, self.n)[indices]
        M, D = (
            scipy.sparse.csr_array((data, indices, indptr), shape=(width, self.n))
            for data in (np.ones(len(values)), values.astype(np.float64, copy=False))
        )
        return Entries(M, D, np.empty(0, np.int64), np.empty(0))

    @property
    def counts(self) -> np.ndarray:
        """(n,), weight of the entries of every column."""
        return self._column_sums(1.0)

    def variance(self, center: bool = True) -> np.ndarray:
        """(n,), of the entries of every column about their mean, or about zero; 0 where there are none."""
        counts = np.maximum(self.counts, np.finfo(np.float64).tiny)
        values = self.values.astype(np.float64) / self.scale
        means = self._column_sums(values) / counts * center
        return self._column_sums((values - means[self.indices]) ** 2) / counts

    def _column_sums(self, numbers: np.ndarray | float) -> np.ndarray:
        return np.bincount(self.indices, np.repeat(self.weight, np.diff(self.indptr)) * numbers, self.n)
