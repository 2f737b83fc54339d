"""From a space of right vectors to a finished truncated SVD: the Rayleigh-Ritz step, signs, and padding to full rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import mix
from lrla.linalg._orthonormalize import complete_rows, orthonormalize

Rows = tuple[Any, np.ndarray, Any]  # left vectors as rows (k, m), singular values (k,), right vectors as rows (k, n)


def rayleigh_ritz(op: Any, V: Any, k: int) -> Rows:
    """The k best triplets of A within the row space of V: the SVD of ``A V^T``, by way of its orthonormal factor.

    The singular values have an error quadratic in that of the space.

    Parameters
    ----------
    op : Operator of shape (m, n)
    V : array of shape (j, n)
        Orthonormal rows, j >= k or all that there are.
    k : int

    Returns
    -------
    U : array of shape (min(j, k), m)
    s : ndarray of shape (min(j, k),), descending
    V : array of shape (min(j, k), n)
        Where A V^T lacks rank, U has fewer rows; see `finish`.
    """
    W, lengths = _unit_rows(op.forward(V))
    Q, R = orthonormalize(W)
    if not R.shape[1]:
        return Q, np.zeros(0), V[:0, :]
    F, s, Gt = np.linalg.svd((lengths[:, None] * R).T, full_matrices=False)
    j = min(k, len(s))
    return rotate(F[:, :j], Q), s[:j], rotate(Gt[:j].T, V)


def _unit_rows(W: Any) -> tuple[Any, np.ndarray]:
    """W with rows of length 1, and their lengths: those of Ritz vectors are orthogonal then, and need one pass only.

    Rows that are rounding noise beside the longest one stay so.
    """
    xp = _arrays.namespace(W)
    lengths = _arrays.to_host(xp.sqrt(xp.sum(W * W, axis=1))).astype(np.float64)
    longest = lengths.max(initial=0.0)
    lengths = np.where(lengths > 10.0 * _arrays.eps(W.dtype) * longest, lengths, longest or 1.0)
    inverse = _arrays.from_host((1.0 / lengths).astype(_arrays.real_dtype(W)), W)
    return W * inverse[:, None], lengths


def rotate(F: np.ndarray, Q: Any) -> Any:
    """``F^T Q`` for a small host matrix F and rows Q."""
    return mix(_arrays.from_host(np.ascontiguousarray(F.T).astype(_arrays.real_dtype(Q)), Q), Q)


def finish(
    triplets: Rows, k: int, fresh_left: Callable[[int], Any], fresh_right: Callable[[int], Any]
) -> tuple[Any, ...]:
    """Settle the rank, complete the factors to k orthonormal vectors, and fix the signs.

    Singular values at the level of rounding become exactly zero.  The entry of largest magnitude of every right vector is
    positive.

    Returns
    -------
    U : array of shape (m, k)
    s : ndarray of shape (k,)
    Vt : array of shape (k, n)
    rank : int
    """
    U, s, V = triplets
    eps = _arrays.eps(V.dtype)
    noise = max(U.shape[1], V.shape[1]) * eps * (s[0] if len(s) else 0.0)
    rank = int(np.sum(s > noise)) if len(s) and s[0] > 0.0 else 0
    U = complete_rows(U[:rank, :], k, fresh_left)
    V = complete_rows(V[:rank, :], k, fresh_right)
    s = np.concatenate((s[:rank], np.zeros(k - rank)))
    sign = largest_signs(V)[:, None]
    return (U * sign).T, s, V * sign, rank


def largest_signs(rows: Any) -> Any:
    """The sign (1 or -1) of the entry of largest magnitude of every row."""
    xp = _arrays.namespace(rows)
    at = xp.argmax(xp.abs(rows), axis=1)
    largest = rows[xp.arange(rows.shape[0], device=_arrays.device(rows)), at]
    return xp.where(largest < 0, -xp.ones_like(largest), xp.ones_like(largest))
