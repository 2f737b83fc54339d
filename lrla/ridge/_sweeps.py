"""The matrix of a least-squares problem, seen through sweeps over its rows, and the units of its columns.

The problem is ``min ||F x - b||`` with ``F = [A; ridge I]``, A (m, n).  Several right-hand sides are rows: b (t, m), x (t, n).
Vectors of length m and products with A are in the dtype of A; sums of squares are float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from lrla import _arrays
from lrla._threads import share
from lrla.linalg._blas_threads import one_blas_thread
from lrla.linalg._exponent import exponent_of, values_of, without
from lrla.linalg._operator import as_operator

BLOCK_BYTES = 1 << 20  # of rows of A that are multiplied twice while they are in cache
PARTS = 16  # of a sweep, each with sums of its own: how many threads there are makes no difference


class Sweep(NamedTuple):
    """Residual-like vectors U = (top, bottom) with one part for A and one for the ridge rows, and what belongs to them."""

    top: Any  # (t, m)
    bottom: Any  # (t, n), or None without a penalty
    norm: Any  # (t,) float64, of both parts together
    top_norm: Any  # (t,) float64
    adjoint: Any  # (t, n): rows times F


class System:
    """``F = [A; ridge I]``, seen through sweeps that need A once."""

    def __init__(self, A: Any, ridge: float = 0.0):
        if isinstance(A, np.ndarray) and not A.flags.aligned:  # which BLAS would copy block by block
            A = A.copy(order="K")
        self.A, self.ridge = A, ridge
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self.like = values_of(A)
        self.xp = _arrays.namespace(self.like)
        self.dtype = _arrays.real_dtype(self.like)
        self.in_cache = isinstance(A, np.ndarray) and A.flags.c_contiguous

    @cached_property
    def operator(self) -> Any:
        """A as products with rows."""
        return as_operator(self.A)

    def sweep(self, X: Any, top: Any, bottom: Any, factor: Any) -> Sweep:
        """``U = X F^T - factor (top, bottom)`` and ``U F``, for X (t, n) and factor (t, 1); None for (top, bottom) is zero."""
        scale = _arrays.astype(factor, self.dtype)
        top, squares, G = (self._blocks if self.in_cache else self._products)(X, top, scale)
        if not self.ridge:
            return Sweep(top, None, self.xp.sqrt(squares), self.xp.sqrt(squares), G)
        bottom = self.ridge * X if bottom is None else self.ridge * X - scale * bottom
        total = squares + self.xp.sum(_arrays.astype(bottom, np.float64) ** 2, axis=1)
        return Sweep(top, bottom, self.xp.sqrt(total), self.xp.sqrt(squares), G + self.ridge * bottom)

    def _products(self, X: Any, top: Any, scale: Any) -> tuple[Any, Any, Any]:
        if X.shape[0] > 1 or _arrays.kind(self.A) != "sparse":
            U, adjoint = self.operator.forward(X), self.operator.adjoint
        else:  # one vector: SciPy's product reads as much as is needed, lrla's serves eight
            U, adjoint = (self.A @ X[0])[None, :], lambda U: (self.A.T @ U[0])[None, :]
        U = U if top is None else U - scale * top
        return U, self.xp.sum(_arrays.astype(U, np.float64) ** 2, axis=1), adjoint(U)

    def _blocks(self, X: np.ndarray, top: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of A in blocks that stay in cache between the two products; half the way of two sweeps."""
        (m, n), t = self.shape, len(X)
        step = max(16, BLOCK_BYTES // (self.dtype.itemsize * n))
        blocks = -(-m // step)
        U, G, squares = np.empty((t, m), self.dtype), np.zeros((PARTS, t, n), self.dtype), np.zeros((PARTS, t))

        def work(first: int, last: int) -> None:
            for part in range(first, last):
                for block in range(blocks * part // PARTS, blocks * (part + 1) // PARTS):
                    rows = slice(block * step, min((block + 1) * step, m))
                    V = X @ self.A[rows].T
                    if top is not None:
                        V -= scale * top[:, rows]
                    U[:, rows] = V
                    squares[part] += np.einsum("ij,ij->i", V, V)
                    G[part] += V @ self.A[rows]

        with one_blas_thread:
            share(work, PARTS)
        return U, squares.sum(axis=0), G.sum(axis=0)

    def gram(self, M: Any) -> Any:
        """``(F M)^T (F M)``, (r, r) in float64, by blocks of rows."""
        A = self.A.tocsr() if _arrays.kind(self.A) in ("sparse", "device_sparse") else self.A
        W = self.ridge * M
        G = _arrays.astype(W.T @ W, np.float64)
        for rows in self._blocks_of(BLOCK_BYTES // 8, 512):
            W = A[rows, :] @ M
            G = G + _arrays.astype(W.T @ W, np.float64)
        return G

    def scaled_gram(self, inverse: np.ndarray, b: Any) -> tuple[np.ndarray, np.ndarray]:
        """``D^-1 A^T A D^-1`` (n, n) with products in float32, and ``D^-1 A^T b^T`` (n, t), on the host; A dense."""
        unit = _arrays.from_host(inverse, self.like)
        exact = bool(np.all((inverse > 1e-15) & (inverse < 1e15)))  # float32 holds the squares of A as they are
        G: Any = 0.0
        c: Any = 0.0
        for rows in self._blocks_of(1 << 21, 512):
            W = self.A[rows, :]
            c = c + _arrays.astype(b[:, rows] @ W, np.float64)
            if not exact:
                W = _arrays.astype(W, np.float64) * unit[None, :]
            W = _arrays.astype(W, np.float32)
            G = G + _arrays.astype(W.T @ W, np.float64)
        G, c = _arrays.to_host(G), _arrays.to_host(c).T
        return (inverse[:, None] * G * inverse if exact else G), inverse[:, None] * c

    def some_rows(self, count: int) -> np.ndarray:
        """About so many rows of dense A, evenly spread, float64 on the host."""
        return _arrays.to_host(self.A[:: max(1, self.shape[0] // count), :]).astype(np.float64)

    def triangular_gram(self, T: np.ndarray, dtype: Any) -> np.ndarray:
        """The same for dense A on the host and upper triangular T, with products in `dtype`: two thirds of the flops."""
        T = np.asfortranarray(T, dtype=dtype)
        trmm, syrk = scipy.linalg.get_blas_funcs(("trmm", "syrk"), (T,))
        W = self.ridge * T
        G = (W.T @ W).astype(np.float64)
        for rows in self._blocks_of(BLOCK_BYTES // 8, 512):
            G += syrk(1.0, trmm(1.0, T, self.A[rows].astype(dtype, copy=False).T, trans_a=1))
        return np.triu(G) + np.triu(G, 1).T

    def _blocks_of(self, numbers: int, least: int) -> Iterator[slice]:
        """Consecutive rows with about so many numbers in them."""
        m, n = self.shape
        step = max(least, numbers // n)
        return (slice(start, min(start + step, m)) for start in range(0, m, step))


# ---------------------------------------------------------------------------------------------------- units


def without_exponent(A: Any, limit: int) -> tuple[Any, int]:
    """``(A 2^-e, e)`` with the largest entry near 1, or A itself if that is between ``2^-limit`` and ``2^limit``."""
    exponent = exponent_of(A)
    return (A, 0) if abs(exponent) <= limit else without(A, exponent)


def column_norms(A: Any) -> np.ndarray:
    """Euclidean norms of the columns in float64, on the host; right also where squares would overflow or vanish."""
    with np.errstate(over="ignore", under="ignore"):
        squares = _column_squares(A, None)
    if np.all((squares > 1e-250) & (squares < 1e250)):
        return np.sqrt(squares)
    exponent = np.clip(np.frexp(_column_tops(A))[1], -1000, 1000)
    return np.ldexp(np.sqrt(_column_squares(A, np.ldexp(1.0, -exponent))), exponent)


def _column_squares(A: Any, unit: np.ndarray | None) -> np.ndarray:
    """Sums of squares of the columns of ``A diag(unit)``, in blocks of rows, so that A is not copied."""
    if _arrays.kind(A) in ("sparse", "device_sparse"):
        A = A.astype("float64")
        scaled = A if unit is None else A @ scipy.sparse.diags_array(unit)
        return _arrays.to_host(_arrays.namespace(A).asarray(scaled.multiply(scaled).sum(axis=0))).ravel()
    xp = _arrays.namespace(A)
    step = max(16, BLOCK_BYTES // (8 * A.shape[1]))
    factor = None if unit is None else _arrays.from_host(unit, A)
    total = xp.zeros(A.shape[1], dtype=xp.float64, device=_arrays.device(A))
    for start in range(0, A.shape[0], step):
        block = _arrays.astype(A[start : min(start + step, A.shape[0]), :], np.float64)
        block = block if factor is None else block * factor
        total = total + (
            np.einsum("ij,ij->j", block, block) if isinstance(block, np.ndarray) else xp.sum(block**2, axis=0)
        )
    return _arrays.to_host(total)


def _column_tops(A: Any) -> np.ndarray:
    """Largest magnitude in each column."""
    if _arrays.kind(A) in ("sparse", "device_sparse"):
        return np.asarray(_arrays.to_host(abs(A).max(axis=0).toarray()), dtype=np.float64).ravel()
    xp = _arrays.namespace(A)
    return _arrays.to_host(_arrays.astype(xp.max(xp.abs(A), axis=0), np.float64))


# ---------------------------------------------------------------------------------------------------- rows


def norm_of_rows(xp: Any, X: Any) -> Any:
    """Lengths of the rows of X (t, n), (t,)."""
    return xp.sqrt(xp.sum(X**2, axis=1))


def unit_rows(xp: Any, X: Any) -> tuple[Any, Any]:
    """The rows of X scaled to length 1 (zero rows stay), and their lengths."""
    size = norm_of_rows(xp, X)
    return ratio(xp, X, size[:, None]), size


def ratio(xp: Any, over: Any, under: Any) -> Any:
    """The quotient, or zero where nothing is left to divide by."""
    return xp.where(under > 0.0, over / xp.where(under > 0.0, under, xp.ones_like(under)), xp.zeros_like(over))
