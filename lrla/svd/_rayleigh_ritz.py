"""From a space of right vectors to a finished truncated SVD: the Rayleigh-Ritz step, signs, and padding to full rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import mix
from lrla.linalg._orthonormalize import complete_rows, gram, orthonormalize

Rows = tuple[Any, np.ndarray, Any]  # left vectors as rows (k, m), singular values (k,), right vectors as rows (k, n)


def rayleigh_ritz(op: Any, V: Any, k: int, images: Any = None) -> Rows:
    """The k best triplets of A within the row space of V: the SVD of ``A V^T``, by way of its orthonormal factor.

    The singular values have an error quadratic in that of the space.  Signs are those that `finish` gives.

    Parameters
    ----------
    op : Operator of shape (m, n)
    V : array of shape (j, n)
        Nearly orthonormal rows, j >= k or all that there are.
    k : int
    images : array of shape (j, m), optional
        ``A V^T`` as rows, if it is known.

    Returns
    -------
    U : array of shape (min(j, k), m)
    s : ndarray of shape (min(j, k),), descending
    V : array of shape (min(j, k), n)
        Where A V^T lacks rank, U has fewer rows; see `finish`.
    """
    Q, C, R = _factor(op.forward(V) if images is None else images)
    if not R.shape[1]:
        return Q, np.zeros(0), V[:0, :]
    upright = _inverse_root(gram(V))  # times V: the orthonormal rows next to those of V
    F, s, Gt = np.linalg.svd((upright @ R).T, full_matrices=False)
    j = min(k, len(s))
    V = rotate((Gt[:j] @ upright).T, V)
    sign = largest_signs(V)[:, None]
    V *= sign
    return rotate(C.T @ F[:, :j] * _arrays.to_host(sign).ravel(), Q), s[:j], V


def _inverse_root(S: np.ndarray) -> np.ndarray:
    """S^-1/2 for S next to the identity: two steps of Newton's iteration, whose error is the fourth power of theirs."""
    X = 1.5 * np.eye(len(S)) - 0.5 * S
    return X @ (1.5 * np.eye(len(S)) - 0.5 * (X @ S @ X))


def _factor(W: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Q, C, R with ``W = R C Q`` and orthonormal rows in C Q, fewer than W has where W lacks rank.

    The rows of W are images of Ritz vectors: scaled to length 1 they are nearly orthogonal, so that one Gram matrix tells
    C, and Q is W itself.  Otherwise C is the identity.
    """
    G = gram(W)
    lengths = np.sqrt(np.maximum(np.diag(G), 0.0))
    longest = lengths.max(initial=0.0)
    lengths = np.where(lengths > 10.0 * _arrays.eps(W.dtype) * longest, lengths, longest or 1.0)  # noise stays so
    lam, E = np.linalg.eigh(G / lengths / lengths[:, None])
    if len(lam) and lam[0] > 0.5 * lam[-1]:
        root = np.sqrt(lam)
        return W, (E / root).T / lengths, lengths[:, None] * E * root
    inverse = _arrays.from_host((1.0 / lengths).astype(_arrays.real_dtype(W)), W)
    Q, R = orthonormalize(W * inverse[:, None])
    return Q, np.eye(R.shape[1]), lengths[:, None] * R


def rotate(F: np.ndarray, Q: Any) -> Any:
    """``F^T Q`` for a small host matrix F and rows Q."""
    return mix(_arrays.from_host(np.ascontiguousarray(F.T).astype(_arrays.real_dtype(Q)), Q), Q)


def finish(
    triplets: Rows, k: int, fresh_left: Callable[[int], Any], fresh_right: Callable[[int], Any], signed: bool = False
) -> tuple[Any, ...]:
    """Settle the rank, complete the factors to k orthonormal vectors, and fix the signs.

    Singular values at the level of rounding become exactly zero.  The entry of largest magnitude of every right vector is
    positive; `signed` says that it is so already.

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
    if not signed or rank < k:
        sign = largest_signs(V)[:, None]
        U, V = U * sign, V * sign
    return U.T, s, V, rank


def largest_signs(rows: Any) -> Any:
    """The sign (1 or -1) of the entry of largest magnitude of every row; 1 where two of either sign are equal."""
    xp = _arrays.namespace(rows)
    top = xp.max(rows, axis=1)
    return xp.where(top >= -xp.min(rows, axis=1), xp.ones_like(top), -xp.ones_like(top))
