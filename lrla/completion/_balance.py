"""Balancing: another basis for two factors, in which their product is the same and both Gram matrices are one diagonal."""

from __future__ import annotations

import numpy as np

from lrla._threads import share
from lrla.completion._half_sweep import BLOCK_ROWS, Factors, sum_over_rows

FLOOR = 1e-14  # of the largest eigenvalue: what is below is rounding noise


def balance(
    factors: Factors, row_weights: np.ndarray | None = None, column_weights: np.ndarray | None = None
) -> np.ndarray:
    """Balance in place, and return sigma (k,), descending, float64: ``U^T W U = V^T Z V = diag(sigma)``.

    Of all ways to write the product this one has the smallest penalty.  Without weights, sigma are the singular values of
    U V^T.  Columns whose sigma is rounding noise beside the first are dropped.  Variances of the factors follow, without
    the covariances that a change of basis brings.

    Parameters
    ----------
    factors : Factors
    row_weights, column_weights : (m,), (n,) or None
        The diagonals of W and Z; None for ones.
    """
    if factors.k == 0:
        return np.zeros(0)
    T, S, sigma = transforms(
        gram(factors.U, factors.columns, row_weights), gram(factors.V, factors.columns, column_weights),
        1e-6 if factors.U.dtype == np.float32 else 1e-7,
    )  # fmt: skip
    if len(sigma) == factors.k:
        for X, M in ((factors.U, T), (factors.V, S)):
            _multiply(X, factors.columns, M)
        for X, M in zip(factors.spreads or (), (T, S), strict=False):
            _multiply(X, factors.columns, np.square(M))
    else:
        columns, spreads = factors.columns, factors.spreads
        U, V = (X[:, columns] @ M.astype(X.dtype) for X, M in ((factors.U, T), (factors.V, S)))
        if spreads is not None:
            spreads = tuple(X[:, columns] @ np.square(M).astype(X.dtype) for X, M in zip(spreads, (T, S), strict=True))
        factors.replace(U, V, spreads)
    return sigma


def transforms(A: np.ndarray, B: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T, S = T^-T and sigma with ``T^T A T = S^T B S = diag(sigma)``, for two Gram matrices (k, k) in float64."""
    a, Q = np.linalg.eigh(A)
    if a[-1] <= 0:
        return (np.zeros((len(A), 0)),) * 2 + (np.zeros(0),)
    root = np.sqrt(np.maximum(a, FLOOR * a[-1]))
    L = Q * root
    squares, P = np.linalg.eigh(L.T @ B @ L)
    sigma = np.sqrt(np.maximum(squares[::-1], 0.0))
    kept = sigma > threshold * sigma[0]
    sigma, P = sigma[kept], P[:, ::-1][:, kept]
    return (Q / root) @ P * np.sqrt(sigma), L @ P / np.sqrt(sigma), sigma


def gram(X: np.ndarray, columns: slice, weights: np.ndarray | None = None) -> np.ndarray:
    """``X^T diag(weights) X`` of some columns, (k, k), accumulated in float64."""

    def term(rows: slice) -> np.ndarray:
        block = X[rows, columns].astype(np.float64, copy=False)
        return block.T @ (block if weights is None else block * weights[rows, None])

    total = sum_over_rows(len(X), term)
    return (total + total.T) / 2


def _multiply(X: np.ndarray, columns: slice, M: np.ndarray) -> None:
    """X M in place of these columns of X."""
    M = M.astype(X.dtype)

    def work(first: int, last: int) -> None:
        for start in range(first * BLOCK_ROWS, min(last * BLOCK_ROWS, len(X)), BLOCK_ROWS):
            block = X[start : start + BLOCK_ROWS, columns]
            block[:] = block @ M

    share(work, -(-len(X) // BLOCK_ROWS))
