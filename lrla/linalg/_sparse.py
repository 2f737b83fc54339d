"""`SparseOperator`: a sparse matrix, implicitly centred if wanted, as the products that the solvers ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from lrla._jit import frozen
from lrla._threads import share
from lrla.linalg._kernels import WIDTHS, multiply_panel, recur_panel
from lrla.linalg._operator import Successive
from lrla.linalg._panels import SHARED, by_tiles, copy_transposed

# Bytes that the accumulators of one panel may take; there are fewer blocks of rows where they would take more.
WORK_BUDGET = 256 * 2**20
# Blocks of rows, and so threads that a product can use.
MAX_BLOCKS = 16
CACHE_LINE = 64
NO_SHIFT = frozen(np.empty(0))


class _Csr(NamedTuple):
    """The arrays of a CSR matrix, read-only and of one index type, with its shape."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: tuple[int, int]) -> _Csr:
        index = np.int32 if indptr.dtype == indices.dtype == np.int32 else np.int64
        entries = int(indptr[-1])  # SciPy lets the other two be longer
        return cls(
            frozen(indptr.astype(index, copy=False)),
            frozen(indices[:entries].astype(index, copy=False)),
            frozen(data[:entries]),
            (int(shape[0]), int(shape[1])),
        )

    def transposed(self) -> _Csr:
        turned = scipy.sparse.csr_array(self[:3][::-1], shape=self.shape).tocsc()
        return _Csr.of(turned.indptr, turned.indices, turned.data, self.shape[::-1])

    def astype(self, dtype: np.dtype) -> _Csr:
        return self._replace(data=frozen(self.data.astype(dtype)))

    def bounds(self, blocks: int) -> np.ndarray:
        """First rows of `blocks` blocks with about equal numbers of entries, and then the number of rows."""
        targets = np.arange(1, blocks) * self.data.size // blocks
        inner = np.searchsorted(self.indptr, targets.astype(self.indptr.dtype))
        return frozen(np.concatenate(([0], inner, [self.shape[0]])).astype(np.int64))


class _Storage:
    """A in one or both orientations, its mean and the work arrays: what an operator shares with its transpose.

    `flipped` means A^T everywhere: ``csr(flipped=True)`` is the CSR of A^T.
    """

    def __init__(self, given: _Csr, flipped: bool, mean: np.ndarray | None):
        self.given, self.given_flipped, self.mean = given, flipped, mean
        self.other: _Csr | None = None
        self.ones = NO_SHIFT if mean is None else frozen(np.ones(given.shape[flipped]))
        self.work: dict[str, np.ndarray] = {}
        self.row_blocks: dict[tuple[bool, int], np.ndarray] = {}

    def has(self, flipped: bool) -> bool:
        return flipped == self.given_flipped or self.other is not None

    def csr(self, flipped: bool) -> _Csr:
        """CSR of A, or of A^T if flipped; built from the given one on the first request, and kept."""
        if flipped == self.given_flipped:
            return self.given
        if self.other is None:
            self.other = self.given.transposed()
        return self.other

    def shift(self, flipped: bool) -> tuple[np.ndarray, np.ndarray]:
        """The vectors u, v of A - u v^T, or of its transpose if flipped; both empty without a mean."""
        mean = NO_SHIFT if self.mean is None else self.mean
        return (mean, self.ones) if flipped else (self.ones, mean)

    def astype(self, dtype: np.dtype) -> _Storage:
        twin = _Storage(self.given.astype(dtype), self.given_flipped, self.mean)
        if self.other is not None:
            twin.other = self.other.astype(dtype)
        return twin

    def bounds(self, flipped: bool, blocks: int) -> np.ndarray:
        """`_Csr.bounds` of ``csr(flipped)``, remembered."""
        key = flipped, blocks
        if key not in self.row_blocks:
            self.row_blocks[key] = self.csr(flipped).bounds(blocks)
        return self.row_blocks[key]

    @cached_property
    def squared_norm(self) -> float:
        csr = self.given
        values = csr.data.astype(np.float64)
        if self.mean is None:
            return float(np.square(values).sum())
        m, n = csr.shape[::-1] if self.given_flipped else csr.shape
        column = np.repeat(np.arange(n), np.diff(csr.indptr)) if self.given_flipped else csr.indices
        # the shifted entries, and the squares of the mean where nothing is stored: no difference of large sums
        stored = np.bincount(column, minlength=n)
        return float(np.square(values - self.mean[column]).sum() + ((m - stored) * np.square(self.mean)).sum())

    def work_array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with any contents that starts on a cache line; its memory is reused from call to call."""
        size = math.prod(shape) * dtype.itemsize
        memory = self.work.get(name)
        if memory is None or memory.size < size:
            whole = np.empty(size + CACHE_LINE, np.uint8)
            memory = self.work[name] = whole[-whole.ctypes.data % CACHE_LINE :]
        return memory[:size].view(dtype).reshape(shape)


class SparseOperator(Successive):
    """The matrix A - 1 mean^T for a sparse A, as products with block vectors; A is never densified nor changed.

    Block vectors are the rows of arrays of the operator's dtype.

    Parameters
    ----------
    A : scipy.sparse CSR or CSC matrix or array, (m, n)
        float32 or float64, validated, without duplicate entries; it may be read-only.
    mean : (n,) array or None
        Subtracted from every row, inside the products.  None: no shift.

    Attributes
    ----------
    shape : (m, n)
    dtype : float32 or float64
    xp : module
        numpy.
    T : SparseOperator
        The transpose, an operator of the same kind that shares the storage and the work arrays.
    squared_norm : float
        ||A - 1 mean^T||_F^2, summed in float64 without cancellation.

    Notes
    -----
    `forward` and `adjoint` use the orientation that is there.  `gram` needs the rows of the matrix whose Gram product
    it is: for A in CSC, and for the transpose of A in CSR, it builds the other orientation on the first call and keeps
    it (about the time of two products with 8 vectors, and the memory of A).

    Work arrays are kept as well: up to 32 (n + 1) (1 + R) numbers for `gram`, where R <= 16 blocks of rows have an
    accumulator each, R so small that they fit `WORK_BUDGET`; up to 32 (m + n) numbers for `forward`.

    Results are equal to the bit for any number of threads.  An operator, with its transpose, is used from one thread at
    a time; different operators are independent.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> A = SparseOperator(scipy.sparse.csr_array([[1.0, 0.0], [2.0, 3.0]]))
    >>> A.gram(np.eye(2))
    array([[5., 6.],
           [6., 9.]])
    """

    xp = np
    gram_is_fused = own_threads = True

    def __init__(self, A: Any, mean: np.ndarray | None = None):
        flipped = A.format == "csc"
        csr = _Csr.of(A.indptr, A.indices, A.data, A.shape[::-1] if flipped else A.shape)
        mean = None if mean is None else frozen(np.asarray(mean, dtype=np.float64))
        self._set(_Storage(csr, flipped, mean), flipped=False)

    def _set(self, storage: _Storage, flipped: bool) -> SparseOperator:
        given = storage.given
        self.shape = given.shape if flipped == storage.given_flipped else given.shape[::-1]
        self.dtype = given.data.dtype
        self._storage, self._flipped = storage, flipped
        return self

    @property
    def T(self) -> SparseOperator:
        return object.__new__(SparseOperator)._set(self._storage, not self._flipped)

    def astype(self, dtype: Any) -> SparseOperator:
        """Return the operator with values of `dtype` (itself if it has it); the index arrays are shared."""
        if self.dtype == dtype:
            return self
        return object.__new__(SparseOperator)._set(self._storage.astype(np.dtype(dtype)), self._flipped)

    def empty(self, shape: tuple[int, int]) -> np.ndarray:
        """An uninitialised block of vectors."""
        return np.empty(shape, self.dtype)

    @property
    def n_entries(self) -> int:
        """Stored entries of A."""
        return self._storage.given.data.size

    @property
    def squared_norm(self) -> float:
        return self._storage.squared_norm

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X B^T, (b, m), for X (b, n), where B is the operator."""
        return self._product(X, self.shape[1], result_rows=self._flipped)

    def adjoint(self, Y: np.ndarray) -> np.ndarray:
        """Return Y B, (b, n), for Y (b, m), where B is the operator."""
        return self._product(Y, self.shape[0], result_rows=not self._flipped)

    def gram(self, X: np.ndarray) -> np.ndarray:
        """Return `adjoint(forward(X))`, (b, n), for X (b, n); A is read once for every 32 vectors."""
        return self._run(self._flipped, X, self.shape[1], gather=True, scatter=True)

    def _product(self, vectors: np.ndarray, length: int, result_rows: bool) -> np.ndarray:
        # Gather over the CSR whose rows are those of the result where it is there, else scatter over the other one.
        if self._storage.has(result_rows):
            return self._run(result_rows, vectors, length, gather=True, scatter=False)
        return self._run(not result_rows, vectors, length, gather=False, scatter=True)

    def chebyshev(self, X: np.ndarray, degree: int, slope: float) -> np.ndarray:
        """Return ``T_degree(slope B^T B - I) X``, (b, n), for X (b, n), where B is the operator and degree >= 1.

        The recurrence T_{j+1} = 2 (slope B^T B - I) T_j - T_{j-1} stays in the layout of the kernels.
        """
        self._check_vectors(X, self.shape[1])
        csr, result = self._storage.csr(self._flipped), self.empty(X.shape)
        for part, width in _panels(len(X)):
            before, now = (self._work_panel(name, csr.shape[1] + 1, width) for name in ("before", "now"))
            _fill(before, X[part])
            now[:] = 0
            self._recur(csr, before, now, slope, 1.0)
            for _ in range(degree - 1):
                self._recur(csr, now, before, 2.0 * slope, 2.0)
                before, now = now, before
            copy_transposed(now[:-1, : len(result[part])], result[part])
        return result

    def _recur(self, csr: _Csr, x: np.ndarray, y: np.ndarray, a: float, b: float) -> None:
        """Write ``a B^T B x - b x - y`` over y; panels (n + 1, width), whose last rows are not used."""
        v = self._storage.shift(self._flipped)[1]
        totals = self._panel_product(csr, self._flipped, x, x.shape[1], gather=True, scatter=True)
        if v.size:
            totals[0, :-1] -= v[:, np.newaxis] * totals[:, -1].sum(axis=0)  # (u^T Y) v
        kernel, (rows, width) = recur_panel[x.shape[1]], x.shape

        def work(first: int, last: int) -> None:
            kernel(totals.reshape(-1, width), len(totals), first, last, x, y, a, b)

        share(work, rows) if x.size > SHARED else work(0, rows)

    def _check_vectors(self, source: np.ndarray, length: int) -> None:
        if source.ndim != 2 or source.shape[1] != length or source.dtype != self.dtype:
            raise ValueError(
                f"block vectors must be rows of an array of shape (b, {length}) and dtype {self.dtype}, "
                f"not {source.shape} and {source.dtype}"
            )

    def _run(self, flipped: bool, source: np.ndarray, length: int, gather: bool, scatter: bool) -> np.ndarray:
        """Multiply `source` by the CSR of A (of A^T if flipped), its transpose, or one after the other, in panels.

        Y = A X - u t^T with t = X v, and Z = A^T Y - v (u^T Y).
        """
        self._check_vectors(source, length)
        csr, source = self._storage.csr(flipped), frozen(source)
        (m, n), v = csr.shape, self._storage.shift(flipped)[1]
        result = self.empty((len(source), n if scatter else m))
        for part, width in _panels(len(source)):
            panel = self._work_panel("panel", n + 1 if gather else m, width)
            _fill(panel, source[part])
            totals = self._panel_product(csr, flipped, panel, width, gather, scatter)
            _transpose_sum_into(totals, result[part])
            if scatter and v.size:
                s = totals[:, n, : len(result[part])].sum(axis=0, dtype=np.float64)  # u^T Y
                np.subtract(result[part], s[:, np.newaxis] * v, out=result[part], casting="same_kind")
        return result

    def _panel_product(
        self, csr: _Csr, flipped: bool, panel: np.ndarray, width: int, gather: bool, scatter: bool
    ) -> np.ndarray:
        """The kernel on one panel; returns what its blocks of rows contribute.

        The shift stays inside the product: u is a last column of A, and -t^T a last row of the panel.
        """
        (m, n), (u, v) = csr.shape, self._storage.shift(flipped)
        bounds = self._storage.bounds(flipped, _block_count(csr, width) if scatter else MAX_BLOCKS)
        shape = (len(bounds) - 1, n + 1, width) if scatter else (1, m, width)
        totals = self._storage.work_array("totals", shape, self.dtype)
        if gather and u.size:
            panel[n] = -np.einsum("ij,i->j", panel[:n], v)

        def work(first: int, last: int) -> None:
            multiply_panel[width](*csr[:3], u, bounds, (first, last), panel, totals, gather, scatter)

        share(work, len(bounds) - 1)
        return totals

    def _work_panel(self, name: str, rows: int, width: int) -> np.ndarray:
        return self._storage.work_array(name, (rows, width), self.dtype)


def _panels(count: int) -> Iterator[tuple[slice, int]]:
    """Parts of `count` vectors that are multiplied at a time, each with the width of its panel."""
    start = 0
    while start < count:
        width = next((width for width in WIDTHS if width >= count - start), WIDTHS[-1])
        yield slice(start, start + width), width
        start += width


def _fill(panel: np.ndarray, source: np.ndarray) -> None:
    """Write the rows of `source` (b, n) into the columns of a panel with at least n rows; other columns are zero."""
    b, n = source.shape
    copy_transposed(source, panel[:n, :b])
    panel[:, b:] = 0
    panel[n:] = 0


def _transpose_sum_into(totals: np.ndarray, result: np.ndarray) -> None:
    """result[lane, j] = sum over r, in order, of totals[r, j, lane]; `totals` is used up."""
    b, n = result.shape

    def add_up(tile: slice) -> None:
        total = totals[0, tile]
        for r in range(1, len(totals)):
            total += totals[r, tile]
        result[:, tile] = total[:, :b].T

    by_tiles(add_up, n, totals.size)


def _block_count(csr: _Csr, width: int) -> int:
    """Number of blocks of rows that have an accumulator each: a power of two that the matrix alone decides.

    To clear and sum one more accumulator costs as much as 1 to 3 entries for each of its rows.  With 2 R^2 entries in a
    column the total for R blocks stays below 20 % of the time of one thread (measured: 3 to 6 % for 2 blocks, 2 to 20 %
    for 4 blocks), against the gain of R threads.
    """
    columns = csr.shape[1]
    blocks = 1
    while 2 * blocks <= MAX_BLOCKS and csr.indices.size >= 2 * (2 * blocks) ** 2 * columns:
        blocks *= 2
    while blocks > 1 and blocks * columns * width * csr.data.itemsize > WORK_BUDGET:
        blocks //= 2
    return blocks
