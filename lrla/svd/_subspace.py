"""Methods with a fixed shape of iteration: randomized subspace iteration, and dashSVD with its shifts and its own stop.

`subspace_iteration` follows Halko, Martinsson & Tropp (SIAM Review 53, 2011); `dash` follows Feng, Yu, Xie & Tang (ACM TOMS
50, 2024), with rank-revealing orthonormalisation in place of the division by possibly vanishing eigenvalues.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla.linalg._orthonormalize import gram, orthonormalize
from lrla.svd._rayleigh_ritz import Rows, rayleigh_ritz, rotate


def subspace_iteration(op: Any, k: int, start: Any, *, n_iter: int, normalize: bool = True) -> Rows:
    """The k best triplets within the range of ``(A A^T)^n_iter A Omega``; 2 n_iter + 2 products.

    Parameters
    ----------
    op : Operator of shape (m, n)
    k : int
    start : array of shape (k + oversamples, n)
        Random rows Omega^T.
    n_iter : int
    normalize : bool
        Orthonormalise between products.  Without it the powers soon lose all but the largest singular values.
    """
    X = start
    for _ in range(n_iter):
        X = op.adjoint(orthonormalize(op.forward(X))[0] if normalize else op.forward(X))
        X = orthonormalize(X)[0] if normalize else X
    Q, _ = orthonormalize(op.forward(X))
    B = op.adjoint(Q)  # rows of Q^T A
    V, R = orthonormalize(B)
    F, s, Gt = np.linalg.svd(R, full_matrices=False)
    return rotate(F[:, :k], Q), s[:k], rotate(Gt[:k].T, V)


def dash(op: Any, k: int, start: Any, *, tol: float, max_iter: int, progress: Any) -> tuple[Rows, int, str]:
    """dashSVD: subspace iteration on A^T A with a growing shift alpha, until the singular values settle.

    Stops when ``max_i |lam_i - lam_i'| / lam_{k+1} < tol`` over one step, i <= k, where lam are the eigenvalue estimates of
    A^T A.  Best where a loose tolerance is wanted (1e-2) and rows are very sparse.

    Parameters
    ----------
    op : Operator of shape (m, n)
    k : int
    start : array of shape (l, n)
        Random rows, l > k; k + k/2 of them in the paper.
    tol : float
    max_iter : int
    progress : Progress

    Returns
    -------
    rows, number of products, status
    """
    Q, _ = orthonormalize(start)
    alpha, lam, status, products = 0.0, np.zeros(0), "max_iter", 0
    for _ in range(max_iter):
        W = op.gram(Q)
        products += Q.shape[0]
        theta = np.linalg.eigvalsh(gram(W - alpha * Q))
        sigma = np.sqrt(np.maximum(theta[::-1], 0.0))
        Q, _ = orthonormalize(W - alpha * Q)
        old, lam = lam, sigma + alpha
        change = np.inf
        if len(old) == len(lam) and lam[-1] > 0.0:
            change = float(np.max(np.abs(lam[:k] - old[:k])) / lam[min(k, len(lam) - 1)])
        if progress.step(change=change):
            status = "stopped"
            break
        if change < tol or Q.shape[0] < len(lam) or lam[0] == 0.0:
            status = "converged"
            break
        if sigma[-1] > alpha:
            alpha = (alpha + float(sigma[-1])) / 2.0
    return rayleigh_ritz(op, Q, k), products, status
