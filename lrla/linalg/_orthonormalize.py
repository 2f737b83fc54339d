"""Rank-revealing orthonormalisation of a block of row vectors by iterated Gram decompositions (CholeskyQR2's cost)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import mix, overlap

MAX_PASSES = 6


def orthonormalize(
    W: Any, *, scale: float = 0.0, project: Callable[[Any, float], Any] | None = None
) -> tuple[Any, np.ndarray]:
    """Factor ``W = R Q`` with orthonormal rows in Q; directions that are only rounding noise are dropped.

    Each pass scales the eigenvectors of the Gram matrix ``W W^T``: two passes give orthonormality to rounding for a block
    whose condition is below ``eps**-0.5``, as in CholeskyQR2 (Yamamoto et al., ETNA 44, 2015), and more passes follow for
    worse blocks, the eigenvalues being held above the noise of the Gram matrix as in shifted CholeskyQR3 (Fukaya et al.,
    SISC 42, 2020).  Where the Gram matrix is ``I + E`` with a small E, the last pass takes ``I - E/2`` for its inverse root.
    There is no Householder QR: its cost is five times higher, and on a rank-deficient block it returns noise as if it were
    data.

    Parameters
    ----------
    W : array of shape (b, n)
        Block vectors as rows.  Overwritten contents are never returned; W itself is not modified.
    scale : float
        Size of the operator that made W: directions below ``10 sqrt(n) eps scale`` are rounding noise.  The norm of W
        counts as well, so 0 means: relative to W itself.
    project : callable, optional
        ``project(Q, size)`` takes Q (b', n) to its part orthogonal to an existing basis; called before every pass but
        the first.  `size` is the norm that the smallest direction of Q had in W: what has shrunk most is polluted most.

    Returns
    -------
    Q : array of shape (b', n)
        Orthonormal rows, b' <= b, in the namespace, device and dtype of W.
    R : ndarray of shape (b, b'), float64
    """
    b, n = W.shape
    if b == 0:
        return W, np.zeros((0, 0))
    eps = _arrays.eps(W.dtype)
    R: Any = None  # before the first pass the identity, and its columns of length 1
    Q, sizes, cut = W, 1.0, 0.0
    for i in range(MAX_PASSES):
        G = gram(Q)
        squares = np.maximum(G.diagonal(), 0.0)
        if i == 0:
            cut = 10.0 * eps * (np.sqrt(n) * scale if scale else np.sqrt(b * squares.sum()))
        # the norm that each direction has in W; what is noise goes before it mixes with the rest
        keep = sizes * np.sqrt(squares) > cut
        if not keep.all():
            Q, R, G = _rows(Q, keep), (np.eye(b) if R is None else R)[:, keep], G[np.ix_(keep, keep)]
        if not keep.any():
            return Q, R
        # rows of length 1 that are much shorter once projected have as much more left in the basis: once more
        last = project is None if i == 0 else bool(G.diagonal().min() > 0.1)
        root, inverse, finished = _root(G, eps, polish=last)
        R = root if R is None else R @ root
        Q = mix(_arrays.from_host(inverse.astype(_arrays.real_dtype(W), order="C"), Q), Q)
        if finished:
            break
        sizes = np.sqrt(np.einsum("ij,ij->j", R, R))
        if project is not None:
            Q = project(Q, float(sizes.min()))
    return Q, R


def _root(G: np.ndarray, eps: float, polish: bool) -> tuple[np.ndarray, np.ndarray, bool]:
    """S and its inverse with ``S S^T = G``, the eigenvalues being held above the noise of G, and whether S is the last one.

    It is if nothing is left to do but to `polish`; then S is symmetric and leaves the directions where they are.
    """
    if polish:
        one = np.eye(len(G))
        E = G - one
        if np.vdot(E, E) < eps:  # the next term would be below it
            return one + 0.5 * E, one - 0.5 * E, True
    lam, V = np.linalg.eigh(G)
    held = np.sqrt(np.maximum(lam, 10.0 * len(G) * eps * lam[-1]))
    if polish and lam[0] > 0.5 * lam[-1]:
        return (V * held) @ V.T, (V / held) @ V.T, True
    return V * held, (V / held).T, False


def gram(W: Any) -> np.ndarray:
    """``W W^T`` in float64 on the host: one transfer of b x b numbers."""
    G = _arrays.to_host(overlap(W, W)).astype(np.float64)
    return (G + G.T) / 2.0


def _rows(Q: Any, keep: np.ndarray) -> Any:
    xp = _arrays.namespace(Q)
    return xp.take(Q, xp.asarray(np.flatnonzero(keep).tolist(), dtype=xp.int64, device=_arrays.device(Q)), axis=0)


def complete_rows(Q: Any, count: int, fresh: Callable[[int], Any]) -> Any:
    """Append rows to orthonormal rows Q (j, n) until there are `count` <= n of them, all orthonormal.

    ``fresh(i)`` returns i random rows (i, n), from which the new directions are made.
    """
    xp = _arrays.namespace(Q)
    while Q.shape[0] < count:

        def project(Z: Any, size: float = 0.0, basis: Any = Q) -> Any:
            return Z - (Z @ basis.T) @ basis

        extra, _ = orthonormalize(project(fresh(count - Q.shape[0])), project=project)
        Q = xp.concat((Q, extra), axis=0)
    return Q
