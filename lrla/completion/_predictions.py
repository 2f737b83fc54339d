"""What follows from fitted factors: predictions of pairs, the best columns of a row, the singular form, rows that change."""

from __future__ import annotations

import numpy as np

from lrla.completion._half_sweep import aligned_zeros, padded, pair_products
from lrla.completion._observed import Observed

BLOCK = 1 << 22  # numbers of a dense block of scores


def predict_pairs(
    rows: np.ndarray, columns: np.ndarray, U: np.ndarray, V: np.ndarray, row_bias: np.ndarray, column_bias: np.ndarray
) -> np.ndarray:
    """``u_i v_j + b_i + c_j`` for pairs (i, j), (n_pairs,).

    Parameters
    ----------
    rows, columns : (n_pairs,) int
    U, V : (m, k), (n, k)
    row_bias, column_bias : (m,), (n,)
    """
    row_bias, column_bias = row_bias[rows], column_bias[columns]
    if len(rows) < len(U) + len(V):  # fewer rows of factors are looked at than there are
        U, V, rows, columns = U[rows], V[columns], np.arange(len(rows)), np.arange(len(rows))
    dtype, k = U.dtype, U.shape[1]
    width = padded(k, dtype)
    X, F = aligned_zeros(len(U), width, dtype), aligned_zeros(len(V), width, dtype)
    X[:, :k], F[:, :k] = U, V
    return pair_products(rows.astype(np.int32), columns.astype(np.int32), X, F) + row_bias + column_bias


def best_columns(
    U: np.ndarray, Vt: np.ndarray, column_bias: np.ndarray, rows: np.ndarray, count: int, excluded: Observed | None
) -> tuple[np.ndarray, np.ndarray]:
    """The columns j with the largest ``u_i v_j + c_j`` that are not excluded, (n_rows, count), and these numbers.

    In descending order; -1 and NaN where fewer are left.
    """
    n = Vt.shape[1]
    columns, values = np.full((len(rows), count), -1), np.full((len(rows), count), np.nan, U.dtype)
    count = min(count, n)
    step = max(1, BLOCK // n)
    for start in range(0, len(rows), step):
        here = slice(start, min(start + step, len(rows)))
        scores = U[rows[here]] @ Vt + column_bias
        if excluded is not None:
            first, last = excluded.indptr[rows[here]], excluded.indptr[rows[here] + 1]
            for line, a, b in zip(scores, first, last, strict=True):
                line[excluded.indices[a:b]] = -np.inf
        best = (
            np.argpartition(-scores, count - 1, axis=1)[:, :count]
            if count < n
            else np.tile(np.arange(n), (len(scores), 1))
        )
        found = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        columns[here, :count], values[here, :count] = (np.take_along_axis(a, order, axis=1) for a in (best, found))
    nothing = np.isneginf(values)
    columns[nothing], values[nothing] = -1, np.nan
    return columns, values


def singular_form(U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``U V^T = S Q^T`` with orthonormal columns Q (n, k), orthogonal columns S (m, k) of length s, and a matrix T.

    Returns S, s, Q and T: a row u of U belongs to the row ``T u`` of S.  In every column of Q the entry of largest magnitude
    is positive.
    """
    k = U.shape[1]
    if not k:
        return U, np.zeros(0), V, np.zeros((0, 0))
    P, D = np.linalg.qr(U)
    Q, C = np.linalg.qr(V)
    W, s, Zt = np.linalg.svd(D.astype(np.float64) @ C.astype(np.float64).T)
    Q = Q @ Zt.T.astype(Q.dtype)
    signs = np.where(np.take_along_axis(Q, np.abs(Q).argmax(axis=0)[None, :], axis=0)[0] < 0, -1.0, 1.0)
    Q *= signs.astype(Q.dtype)
    return P @ (W * (s * signs)).astype(P.dtype), s, Q, signs[:, None] * (Zt @ C)


def with_rows(old: Observed | None, new: Observed, ids: np.ndarray) -> Observed:
    """The observations with the rows `ids` replaced by the rows of `new`, or appended; rows in between are empty."""
    if old is None:
        old = Observed(np.zeros(1), new.indices[:0], new.values[:0], (0, new.shape[1]))
    m = max(old.shape[0], int(ids.max(initial=-1)) + 1)
    first, length = np.zeros(m, np.int64), np.zeros(m, np.int64)
    first[: old.shape[0]], length[: old.shape[0]] = old.indptr[:-1], np.diff(old.indptr)
    first[ids], length[ids] = old.nnz + new.indptr[:-1], np.diff(new.indptr)
    indptr = np.concatenate(([0], np.cumsum(length)))
    take = np.repeat(first - indptr[:-1], length) + np.arange(indptr[-1])
    weights = None
    if old.weights is not None or new.weights is not None:
        parts = [np.ones(o.nnz) if o.weights is None else o.weights for o in (old, new)]
        weights = np.concatenate(parts)[take]
    indices, values = (np.concatenate(pair)[take] for pair in ((old.indices, new.indices), (old.values, new.values)))
    return Observed(indptr, indices, values, (m, new.shape[1]), weights)
