"""`TiledOperator`: a large dense array in memory, as products that read it where it lies (`_tile_kernels`)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lrla._jit import frozen
from lrla._threads import share
from lrla.linalg._operator import DenseOperator
from lrla.linalg._panels import copy_transposed
from lrla.linalg._tile_kernels import REGISTER, ROWS, multiply_tiles

# Bytes of the panel that meet A at a time: where the elements of a row are neighbours they stay in the second cache, where
# those of a column are in the first one (measured).
ALONG, ACROSS = 384 * 2**10, 12 * 2**10
# Columns after which a sum of float32 numbers begins anew, so that its rounding errors stay those of a short one.
SEGMENT = 2**14
# Rows of A that are taken at a time for A^T A, and their bytes: they stay in the second cache (measured).
BLOCK, BLOCK_BYTES = 64, 2**20
# Parts of the rows with sums of their own, however many threads there are.
PARTS = 8


class TiledOperator(DenseOperator):
    """A `DenseOperator` with products of its own, equal to the bit for any number of threads.

    Parameters
    ----------
    A : numpy.ndarray of shape (m, n)
        In any order with positive strides; it is fast where the elements of a row or of a column are neighbours.
    mean : array of shape (n,), float64, optional
        Subtracted from every row.

    Notes
    -----
    With a general matrix product the time goes into copying A: OpenBLAS reaches 45 % of its own rate in float32 with 48
    vectors and 60 % in float64 (AVX-512, one thread), these products 60 to 85 %.
    """

    own_threads = True

    def _multiply(self, X: np.ndarray, B: np.ndarray) -> np.ndarray:
        """``X B``, (b, q), for X (b, p) and B (p, q)."""
        return _rows(_times_panel(B.T, _panel(X)), len(X))

    def both(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``X A^T`` and ``X (A^T A)``.

        Where the elements of a row are neighbours, and some dozens of rows fit into a cache, A is read once for the two.
        """
        m, n = self.shape
        block = min(BLOCK, BLOCK_BYTES // (n * self.A.itemsize) // ROWS * ROWS)
        if self._blockwise or self.A.strides[1] != self.A.itemsize or block < BLOCK // 2:
            return super().both(X)
        panel = _panel(X)
        image = np.zeros((m, panel.shape[1]), self.dtype)
        if self._mu is not None:
            image[:, : len(X)] = -(X @ self._mu)
        Z = _rows(_times_gram(self.A, panel, image, block), len(X))
        Y = _rows(image, len(X))
        return Y, Z if self._mu is None else Z - self.xp.sum(Y, axis=1)[:, None] * self._mu[None, :]


def _panel(X: np.ndarray) -> np.ndarray:
    """The vectors X (b, n) as columns, (n, width), with zeros up to a full register."""
    lanes = REGISTER // X.itemsize
    panel = np.zeros((X.shape[1], -(-len(X) // lanes) * lanes), X.dtype)
    copy_transposed(X, panel[:, : len(X)])
    return panel


def _rows(panel: np.ndarray, b: int) -> np.ndarray:
    """The first b columns of a panel, as rows."""
    result = np.empty((b, len(panel)), panel.dtype)
    copy_transposed(panel[:, :b], result)
    return result


def _flat(A: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The memory of A as one vector, and the strides in it, in elements."""
    (m, n), (si, sj) = A.shape, (stride // A.itemsize for stride in A.strides)
    return frozen(as_strided(A, (1 + (m - 1) * si + (n - 1) * sj,), (A.itemsize,))), si, sj


def _times_gram(A: np.ndarray, panel: np.ndarray, image: np.ndarray, block: int) -> np.ndarray:
    """``A^T (image + A panel)``, (n, width); what is in brackets is left in `image`."""
    m, n = A.shape
    flat, si, sj = _flat(A)
    count = -(-m // block)
    parts = min(count, max(PARTS, -(-m // SEGMENT)))
    sums = np.zeros((parts, *panel.shape), A.dtype)
    chunk = max(1, ALONG // (panel.shape[1] * panel.itemsize))
    panel, seen = frozen(panel), frozen(image)

    def work(low: int, high: int) -> None:
        for part in range(low, high):
            rows = count * part // parts * block, min(count * (part + 1) // parts * block, m)
            multiply_tiles(flat, si, sj, rows, (0, n), chunk, block, panel, image, seen, sums[part])

    share(work, parts)
    return np.sum(sums, axis=0)


def _times_panel(A: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """``A panel``, (m, width)."""
    m, n = A.shape
    total = np.zeros((m, panel.shape[1]), A.dtype)
    _add_product(A, panel, 0, min(SEGMENT, n), total)
    for first in range(SEGMENT, n, SEGMENT):
        part = np.zeros_like(total)
        _add_product(A, panel, first, min(first + SEGMENT, n), part)
        total += part
    return total


def _add_product(A: np.ndarray, panel: np.ndarray, first: int, last: int, out: np.ndarray) -> None:
    """Add what columns first <= j < last of A contribute; the rows of the result are shared among threads."""
    m = len(A)
    flat, si, sj = _flat(A)
    panel = frozen(panel)
    chunk = max(1, (ALONG if sj == 1 else ACROSS) // (panel.shape[1] * panel.itemsize))

    def work(low: int, high: int) -> None:
        rows = low * ROWS, min(high * ROWS, m)
        multiply_tiles(flat, si, sj, rows, (first, last), chunk, 0, panel, out, panel, out)

    share(work, -(-m // ROWS))
