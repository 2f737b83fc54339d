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
        lanes = REGISTER // B.itemsize
        panel = np.zeros((B.shape[0], -(-len(X) // lanes) * lanes), self.dtype)
        copy_transposed(X, panel[:, : len(X)])
        result = np.empty((len(X), B.shape[1]), self.dtype)
        copy_transposed(_times_panel(B.T, panel)[:, : len(X)], result)
        return result


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
    m, n = A.shape
    si, sj = (stride // A.itemsize for stride in A.strides)
    flat = frozen(as_strided(A, (1 + (m - 1) * si + (n - 1) * sj,), (A.itemsize,)))
    panel = frozen(panel)
    chunk = max(1, (ALONG if sj == 1 else ACROSS) // (panel.shape[1] * panel.itemsize))

    def work(low: int, high: int) -> None:
        multiply_tiles(flat, si, sj, (low * ROWS, min(high * ROWS, m)), (first, last), chunk, panel, out)

    share(work, -(-m // ROWS))
