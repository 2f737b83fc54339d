"""The residual of a factorization at the observed entries, as an operator that Krylov methods can take.

Its products are sums over the entries of a row, by rows or by columns, which the kernel of the half-sweeps does anyway:
there is nothing more to compile.
"""

from __future__ import annotations

import numpy as np

from lrla._threads import share
from lrla.completion._half_sweep import add_up, aligned_empty, aligned_zeros, padded, pair_products
from lrla.completion._observed import BLOCKS, Observed

TILE = 1 << 14  # entries at a time


class Residual:
    """The matrix ``row_scale_i column_scale_j w_ij (scale x_ij - mean - u_i v_j)``, zero where nothing is observed.

    Parameters
    ----------
    observed : Observed, (m, n)
    U, V : (m, width), (n, width)
        C-contiguous rows of whole cache lines.
    numbers : (2,)
        Scale and mean.
    row_scale, column_scale : (m,), (n,), or None
        None: ones.

    Attributes
    ----------
    shape : (m, n)
    dtype : float32 or float64
    """

    def __init__(
        self,
        observed: Observed,
        U: np.ndarray,
        V: np.ndarray,
        numbers: np.ndarray,
        row_scale: np.ndarray | None = None,
        column_scale: np.ndarray | None = None,
    ):
        self.observed, self.shape, self.dtype = observed, observed.shape, U.dtype
        self.scales = row_scale, column_scale
        self.values, self.turned = _differences(observed, U, V, numbers), _differences(observed.T, V, U, numbers)

    def matmat(self, X: np.ndarray) -> np.ndarray:
        """The product with the columns of X (n, b), (m, b)."""
        return _product(self.observed, self.values, X, *self.scales)

    def rmatmat(self, Y: np.ndarray) -> np.ndarray:
        """The product of the transpose with the columns of Y (m, b), (n, b)."""
        return _product(self.observed.T, self.turned, Y, *self.scales[::-1])

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """The product with one vector."""
        return self.matmat(x[:, None])[:, 0]

    def toarray(self) -> np.ndarray:
        """As a dense array."""
        observed = self.observed
        values = self.values if observed.weights is None else self.values * observed.weights
        dense = observed.matrix(values).toarray()
        for scale, axis in zip(self.scales, (1, 0), strict=True):
            if scale is not None:
                dense *= np.expand_dims(scale, axis)
        return dense


def _product(
    observed: Observed, values: np.ndarray, X: np.ndarray, row_scale: np.ndarray | None, column_scale: np.ndarray | None
) -> np.ndarray:
    b, dtype = X.shape[1], values.dtype
    (m, n), width = observed.shape, padded(b, dtype)
    F, result = aligned_zeros(n, width, dtype), aligned_empty(m, width, dtype)
    F[:, :b] = X if column_scale is None else X * column_scale[:, None]
    add_up(observed, F, result, values)
    if row_scale is not None:
        result *= row_scale[:, None]
    return np.ascontiguousarray(result[:, :b].T).T


def _differences(observed: Observed, U: np.ndarray, V: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """``scale x_ij - mean - u_i v_j`` at the observed entries, (nnz,)."""
    out, indptr = np.empty(observed.nnz, observed.dtype), observed.indptr
    scale, mean = numbers

    def work(first: int, last: int) -> None:
        end = last * observed.nnz // BLOCKS
        for start in range(first * observed.nnz // BLOCKS, end, TILE):
            stop = min(start + TILE, end)
            top, bottom = np.searchsorted(indptr, start, "right") - 1, np.searchsorted(indptr, stop)
            counts = np.diff(np.clip(indptr[top : bottom + 1], start, stop))
            rows = np.repeat(np.arange(top, bottom, dtype=np.int32), counts)
            here = slice(start, stop)
            np.multiply(observed.values[here], scale, out=out[here])
            out[here] -= mean
            out[here] -= pair_products(rows, observed.indices[here], U, V)

    share(work, BLOCKS)
    return out
