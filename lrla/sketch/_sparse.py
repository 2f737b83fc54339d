"""Sparse sketches: a few entries +-1 in every row of S."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse

from lrla import _arrays, _validation
from lrla._jit import frozen
from lrla._random import HASH
from lrla._threads import available_threads, share
from lrla.sketch._operator import SketchOperator, remembered

HOST = ("host", "sparse")
ROWS = 1 << 16  # of a table that is made while it is used
SMALL = 1 << 22  # entries of a table that is kept, 16 MiB
PANEL_ROWS = 128  # input coordinates that are brought together before they are added up
TILES = 16  # lines of a row that are read together
SUMS_BYTES = 512 * 1024  # of the sums that are kept at a time, about half of the second-level cache
GROUP = 512  # columns whose sums, a line each, stay in the first-level cache


@dataclass(frozen=True)
class SparseStack(SketchOperator):
    """One entry in each of `nnz` blocks of columns: +-1 / sqrt(nnz), at a column that is hashed from the row.

    Block t of b begins at column floor(t d / b), where d and b are those that the sketch was made with: `prefix` keeps the
    first blocks.  With one block it is a CountSketch.
    """

    nnz: int = 8
    made_with: tuple[int, int] = (0, 0)  # d, b

    @property
    def law(self) -> str | None:
        """That of a Gaussian matrix, from four entries a row on."""
        return "gaussian" if self.nnz >= 4 else None

    @property
    def edges(self) -> np.ndarray:
        """First column of every block, and n_out; int64, shape (nnz + 1,)."""
        d, blocks = self.made_with
        return np.arange(self.nnz + 1) * d // blocks

    @property
    def scale(self) -> float:
        """Magnitude of the entries."""
        return 1.0 / math.sqrt(self.nnz)

    def prefix(self, n_out: int) -> SparseStack:
        """The sketch made of the first blocks; see `SketchOperator.prefix`."""
        n_out, edges = _validation.check_integer(n_out, "n_out", 1, self.n_out), self.edges
        if n_out not in edges:
            raise ValueError(
                f"n_out must be the end of a block of columns of this sketch, one of {edges[1:].tolist()}; got {n_out}."
            )
        return replace(self, n_out=n_out, nnz=int(np.flatnonzero(edges == n_out)[0]))

    def table(self, first: int, last: int, like: Any) -> Any:
        """The entries of rows first <= i < last: (column << 1) | (1 if negative), (last - first, nnz), where `like` lives."""
        xp, device = _arrays.namespace(like), _arrays.device(like)
        words = self.stream.words(self.nnz, last - first, HASH, xp=xp, device=device, first=first)
        edges = _arrays.from_host(self.edges, like)
        begin, length = edges[:-1][:, None], (edges[1:] - edges[:-1])[:, None]
        column = begin + (((words >> 1) * length) >> 31)
        return ((column << 1) | (words & 1)).T

    def to_csr(self) -> scipy.sparse.csr_array:
        """S in compressed rows; see `SketchOperator.to_csr`."""
        table = self.table(0, self.n_in, np.empty(0))
        values = (1 - 2 * (table & 1)) * self.scale
        indptr = np.arange(self.n_in + 1) * self.nnz
        return scipy.sparse.csr_array(
            (values.ravel().astype(self.dtype), (table >> 1).ravel(), indptr), shape=self.shape
        )

    def _tile(self, first: int, last: int, like: Any) -> Any:
        xp, device, dtype = _arrays.namespace(like), _arrays.device(like), _arrays.real_dtype(like)
        table, edges = self.table(first, last, like), self.edges
        signs = _arrays.astype(1 - 2 * (table & 1), dtype) * self.scale
        blocks = []
        for t in range(self.nnz):
            columns = xp.arange(int(edges[t]), int(edges[t + 1]), dtype=xp.int64, device=device)[None, :]
            hit = (table[:, t] >> 1)[:, None] == columns
            blocks.append(_arrays.astype(hit, dtype) * signs[:, t][:, None])
        return xp.concat(blocks, axis=1)

    # On the host compiled kernels do the products; on a device, dense tiles.

    @remembered
    def _table(self) -> np.ndarray:
        """The whole table, uint32."""
        return self._hashed(0, self.n_in)

    def _entries(self, first: int, last: int) -> np.ndarray:
        """The table of some rows: of the whole one where that is small, else made for the purpose."""
        if self.n_in * self.nnz <= SMALL:
            return self._table[first:last]
        return self._hashed(first, last)

    def _hashed(self, first: int, last: int) -> np.ndarray:
        """The table of some rows, uint32; equal to `table`."""
        from lrla.sketch import _kernels

        table = np.empty((last - first, self.nnz), dtype=np.uint32)
        key, edges = [np.uint64(word) for word in self.stream.key], self.edges
        share(lambda i, j: _kernels.hash_rows(*key, np.uint64(HASH), i, j, first, edges, table), last - first)
        return table

    def _right(self, X: Any) -> Any:
        return right_together(X, [self])[0] if _arrays.kind(X) in HOST else super()._right(X)

    def _left(self, A: Any) -> Any:
        if _arrays.kind(A) not in HOST:
            return super()._left(A)
        B = np.zeros((self.n_out, A.shape[1]), dtype=A.dtype)
        self._add(A, 0, B)
        return B

    def _add(self, A: Any, offset: int, out: Any) -> None:
        kind = _arrays.kind(A)
        if kind not in HOST:
            super()._add(A, offset, out)
            return
        A = A.tocsr() if kind == "sparse" else A
        sums = out if _usable(out, A.dtype) else np.ascontiguousarray(out, dtype=A.dtype)
        for first in range(0, A.shape[0], ROWS):
            last = min(first + ROWS, A.shape[0])
            table = self._entries(offset + first, offset + last)
            if kind == "sparse":
                _scatter_sparse(table, self, A[first:last], sums)
            else:
                scatter(table, groups_of([self]), values_of([self], A.dtype), A, first, sums)
        if sums is not out:
            out[...] = sums

    def _expand(self, W: Any) -> Any:
        if _arrays.kind(W) != "host":
            return super()._expand(W)
        from lrla.sketch import _kernels

        out = np.empty((self.n_in, W.shape[1]), dtype=W.dtype)
        W, table, values = frozen(W), self._table, values_of([self], W.dtype)[:2]
        share(lambda i, j: _kernels.gather(table, values, W, i, j, out), self.n_in)
        return out


# ---------------------------------------------------------------------------------------------------- on the host


def right_together(X: Any, ops: Sequence[SparseStack]) -> list[np.ndarray]:
    """``X S`` for several sketches S in one sweep over a dense or sparse X on the host."""
    starts = np.cumsum([0, *(op.n_out for op in ops)])
    tables = [
        op._table if start == 0 else op._table + np.uint32(2 * start) for op, start in zip(ops, starts, strict=False)
    ]
    table = tables[0] if len(ops) == 1 else np.concatenate(tables, axis=1)
    Z = np.zeros((X.shape[0], int(starts[-1])), dtype=X.dtype)
    if scipy.sparse.issparse(X):
        from lrla.sketch import _kernels

        X = X.tocsr()
        arrays = [frozen(a) for a in (X.indptr, X.indices, X.data)]
        values = np.concatenate([np.tile(values_of([op], X.dtype)[:2], op.nnz) for op in ops])
        share(lambda i, j: _kernels.scatter_csr_rows(table, values, *arrays, i, j, Z), X.shape[0])
    else:
        scatter(table, groups_of(ops), values_of(ops, X.dtype), X.T, 0, Z.T)
    return [Z[:, i:j] for i, j in pairwise(starts)]


def groups_of(ops: Sequence[SparseStack]) -> np.ndarray:
    """(g, 4): first and last entry, and first and last column, of groups whose sums fit the first-level cache."""
    groups, entries, columns = [], 0, 0
    for op in ops:
        edges = op.edges
        first = 0
        for t in range(1, op.nnz + 1):
            if t == op.nnz or edges[t + 1] - edges[first] > GROUP:
                groups.append((entries + first, entries + t, columns + edges[first], columns + edges[t]))
                first = t
        entries, columns = entries + op.nnz, columns + op.n_out
    return np.array(groups, dtype=np.int64)


def values_of(ops: Sequence[SparseStack], dtype: Any) -> np.ndarray:
    """For every group of `groups_of` the value of a positive and of a negative entry."""
    values = [(op.scale, -op.scale) for op in ops for _ in groups_of([op])]
    return np.array(values, dtype=dtype).ravel()


def scatter(
    table: np.ndarray, groups: np.ndarray, values: np.ndarray, M: np.ndarray, start: int, out: np.ndarray
) -> None:
    """Add S^T M to `out`, M the rows of a dense matrix that belong to the table and begin with row `start`.

    Threads share the columns of M, or the entries of S if M has few columns.

    Whichever it is, a sum runs over the rows of M in their order.
    """
    from lrla.sketch import _kernels

    c, width = M.shape[1], _kernels.LINE_BYTES // M.itemsize
    if not len(table) * c:
        return
    source, layout = _vector(M, start)
    source.flags.writeable = False  # one variant of the kernel, for arrays that may be read only
    target, target_layout = _vector(out, 0)

    tiles = -(-c // width)
    some = max(1, min(TILES if layout[2] == 1 else 1, tiles, SUMS_BYTES // (out.shape[0] * _kernels.LINE_BYTES)))

    def add(part: slice, first: int, last: int) -> None:
        panels, totals = (_lines((some, size * width), M.dtype) for size in (PANEL_ROWS, out.shape[0]))
        _kernels.scatter(
            table, groups[part], values[2 * part.start : 2 * part.stop], source, layout, (first, last), c, panels,
            totals, target, target_layout,
        )  # fmt: skip

    if tiles >= available_threads():
        share(lambda first, last: add(slice(0, len(groups)), first, last), tiles)
    else:
        share(lambda g0, g1: add(slice(g0, g1), 0, tiles), len(groups))


def _scatter_sparse(table: np.ndarray, op: SparseStack, A: Any, out: np.ndarray) -> None:
    from lrla.sketch import _kernels

    arrays = [frozen(a) for a in (A.indptr, A.indices, A.data)]
    values = values_of([op], A.dtype)[:2]
    share(lambda t0, t1: _kernels.scatter_csr(table, values, *arrays, t0, t1, out), op.nnz)


def _usable(out: Any, dtype: Any) -> bool:
    return isinstance(out, np.ndarray) and out.dtype == dtype and out.flags.c_contiguous and out.flags.writeable


def _vector(M: np.ndarray, row: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The entries of M, in C or Fortran order, as one vector, and in it the place of a row, its next row, its next column."""
    down, along = (M.shape[1], 1) if M.flags.c_contiguous else (1, M.shape[0])
    return M.ravel(order="C" if M.flags.c_contiguous else "F").view(np.ndarray), (row * down, down, along)


def _lines(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """Zeros that begin where a cache line does."""
    raw = np.zeros(shape[0] * shape[1] * np.dtype(dtype).itemsize + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + len(raw) - 64].view(dtype).reshape(shape)


@dataclass(frozen=True)
class SparseIid(SketchOperator):
    """Independent entries: +-1 / sqrt(density n_out) with probability density / 2 each, else zero."""

    density: float = 1.0

    @property
    def scale(self) -> float:
        """Magnitude of the entries that are not zero."""
        return 1.0 / math.sqrt(self.density * self.n_out)

    @property
    def threshold(self) -> int:
        """An entry is not zero where its 31-bit number lies below."""
        return max(1, round(self.density * 2**31))

    def _tile(self, first: int, last: int, like: Any) -> Any:
        xp, device, dtype = _arrays.namespace(like), _arrays.device(like), _arrays.real_dtype(like)
        words = self.stream.words(self.n_out, last - first, HASH, xp=xp, device=device, first=first).T
        kept = _arrays.astype((words >> 1) < self.threshold, dtype)
        return kept * _arrays.astype(1 - 2 * (words & 1), dtype) * self.scale
