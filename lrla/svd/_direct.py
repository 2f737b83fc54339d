"""Direct decompositions: LAPACK's SVD of everything, and the eigenvectors of a small Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, svds

from lrla import _arrays
from lrla.linalg._operator import gram_matrix
from lrla.linalg._orthonormalize import orthonormalize
from lrla.svd._rayleigh_ritz import Rows, rayleigh_ritz


def lapack(A: Any, k: int) -> Rows:
    """The k leading triplets of a dense matrix from its full SVD (LAPACK's gesdd on the host).

    Parameters
    ----------
    A : array of shape (m, n), any namespace
    k : int
    """
    xp = _arrays.namespace(A)
    with _arrays.device_errors(A):
        U, s, Vt = xp.linalg.svd(A, full_matrices=False)
    return U[:, :k].T, _arrays.to_host(s).astype(np.float64)[:k], Vt[:k, :]


def gram(op: Any, k: int) -> Rows | None:
    """The k leading triplets from the eigenvectors of A^T A, for a matrix that is much taller than wide.

    k + 10 eigenvectors make one half-step ``A^T (A V)`` with an orthonormal basis between, which repairs what squaring
    lost: measured relative errors of s_k stay below 1e-12 for s_k/s_1 >= 1e-6 and 1e-10 for 1e-7.

    Returns
    -------
    rows or None
        None where ``theta_k < 1e-14 theta_1`` while the matrix goes on below: the Gram matrix cannot resolve s_k.
    """
    G = gram_matrix(op)
    kept = min(k + 10, op.shape[1])
    with _arrays.device_errors(G):
        theta, Y = op.xp.linalg.eigh(G)
    theta = _arrays.to_host(theta[op.shape[1] - kept :])[::-1]
    if theta[0] > 0.0 and theta[k - 1] < 1e-14 * theta[0]:
        return None
    V = _arrays.astype(Y[:, op.shape[1] - kept :].T, op.dtype)
    Q, _ = orthonormalize(op.forward(V))
    Z, _ = orthonormalize(op.adjoint(Q))
    return rayleigh_ritz(op, Z, k)


def arpack(A: Any, op: Any, k: int, tol: float, fresh: Any) -> Rows:
    """The k leading triplets by SciPy's `svds`, one vector at a time; for compatibility.

    Parameters
    ----------
    A : host array, sparse matrix or LinearOperator of shape (m, n)
    op : Operator
        The same, centred if wanted.
    k : int below min(m, n)
    tol : float
        ARPACK's own tolerance.
    fresh : callable
        ``fresh(j, op)`` returns random rows.
    """
    if _arrays.kind(A) in ("device", "device_sparse"):
        raise TypeError('"arpack" works on the host; choose another method for data on a device.')
    if k >= min(op.shape):
        raise ValueError(f'"arpack" finds fewer than min{tuple(op.shape)} components; got {k}. Choose "lapack".')
    matrix = LinearOperator(
        op.shape,
        matvec=lambda x: op.forward(np.ascontiguousarray(x.reshape(1, -1), dtype=op.dtype))[0],
        rmatvec=lambda y: op.adjoint(np.ascontiguousarray(y.reshape(1, -1), dtype=op.dtype))[0],
        dtype=op.dtype,
    )
    side = op if op.shape[0] >= op.shape[1] else op.T
    U, s, Vt = svds(matrix, k, tol=tol, v0=fresh(1, side)[0])
    order = np.argsort(s)[::-1]
    return np.ascontiguousarray(U.T[order]), s[order].astype(np.float64), np.ascontiguousarray(Vt[order])
