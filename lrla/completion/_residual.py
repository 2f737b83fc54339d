"""The residual of a factorization at the observed entries, as an operator that Krylov methods can take.

It is not kept, which would take half the memory of the entries or more, but computed again in every product.  The products
are sums over the entries of a row, by rows or by columns, which the kernel of the half-sweeps does anyway: there is nothing
more to compile.
"""

from __future__ import annotations

import numpy as np

from lrla.completion._half_sweep import add_up_residuals, aligned_zeros, padded, scatter_residuals
from lrla.completion._observed import Observed


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
        self.observed, self.numbers, self.shape, self.dtype = observed, numbers, observed.shape, U.dtype
        self.factors, self.scales = (U, V), (row_scale, column_scale)
        self._wide: tuple[np.ndarray, ...] = ()  # the factors, and room for vectors beside them

    def matmat(self, X: np.ndarray) -> np.ndarray:
        """The product with the columns of X (n, b), (m, b)."""
        return self._product(X, 1)

    def rmatmat(self, Y: np.ndarray) -> np.ndarray:
        """The product of the transpose with the columns of Y (m, b), (n, b)."""
        return self._product(Y, 0)

    def gram(self, X: np.ndarray) -> np.ndarray:
        """The product of the transpose with that with the columns of X (n, b), (n, b): the residual is computed once."""
        right, result = self._wide_for(X, 1)
        squares = np.ones(self.shape[0], self.dtype) if self.scales[0] is None else np.square(self.scales[0])
        scatter_residuals(self.observed, right, self._wide[0], self.numbers, padded(X.shape[1], self.dtype), squares)
        return _columns(self._scaled(result, 1))

    def image_and_gram(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The product with the columns of X (n, b), (m, b), and that of the transpose with it, (n, b)."""
        gram, width = self.gram(X), self.factors[0].shape[1]
        image = _columns(self._wide[0][:, width : width + X.shape[1]])
        return image if self.scales[0] is None else image / self.scales[0][:, None], gram

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """The product with one vector."""
        return self.matmat(x[:, None])[:, 0]

    def toarray(self) -> np.ndarray:
        """As a dense array, where one side is short."""
        m, n = self.shape
        return self.rmatmat(np.eye(m, dtype=self.dtype)).T if m < n else self.matmat(np.eye(n, dtype=self.dtype))

    def _product(self, X: np.ndarray, side: int) -> np.ndarray:
        """With vectors (n, b) on side 1, or (m, b) on side 0."""
        features, _ = self._wide_for(X, side)
        width, tail = self.factors[0].shape[1], padded(X.shape[1], self.dtype)
        add_up_residuals(self.observed if side else self.observed.T, features, self._wide[1 - side], self.numbers, tail)
        return _columns(self._scaled(self._wide[1 - side][:, width : width + X.shape[1]], 1 - side))

    def _wide_for(self, X: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The factor of a side with the vectors X beside it, scaled, and where these stand."""
        width, tail = self.factors[0].shape[1], padded(X.shape[1], self.dtype)
        if not self._wide or self._wide[0].shape[1] != width + tail:
            self._wide = tuple(aligned_zeros(len(factor), width + tail, self.dtype) for factor in self.factors)
            for wide, factor in zip(self._wide, self.factors, strict=True):
                wide[:, :width] = factor
        beside = self._wide[side][:, width : width + X.shape[1]]
        beside[:] = X
        self._scaled(beside, side)
        return self._wide[side], beside

    def _scaled(self, X: np.ndarray, side: int) -> np.ndarray:
        """X, which is changed in place, as it is returned."""
        scale = self.scales[side]
        if scale is not None:
            X *= scale[:, None]
        return X


def _columns(X: np.ndarray) -> np.ndarray:
    """A copy, column by column."""
    return X.copy(order="F")
