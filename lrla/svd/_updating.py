"""The algebra of updating a truncated SVD: small matrices in, a rotation of the two factors out.

A is known as U diag(s) V^T, with U (m x r) and V (n x r) orthonormal.  None of these functions sees U or V; what they
need of them are the products with the new data.  Symbols:

=========  =====================================================================================================
E (s x n)  new rows;  C = E V (s x r) their part in the span of V, N = E E^T (s x s) their Gram matrix
R^T, B     E - C V^T = R^T Q^T with Q = (E - C V^T)^T B orthonormal (n x q): R^T is called `Rt` (s x q), B is (s x q) and
           known by its products
M          the small matrix whose SVD F S G^T is the update: [[diag(s), 0], [C, R^T]] for new rows
T, H       a factor becomes V T + E^T H, where H = B G_bottom and T = G_top - C^T H
=========  =====================================================================================================

New columns are new rows of A^T: the same function with U and V exchanged.

References
----------
H. Zha, H. D. Simon, "On updating problems in latent semantic indexing", SIAM J. Sci. Comput. 21(2), 1999.
M. Brand, "Fast low-rank modifications of the thin singular value decomposition", Linear Algebra Appl. 415, 2006.
H. Deng, Y. Yang, J. Li, C. Chen, W. Jiang, S. Pu, "Fast updating truncated SVD for representation learning with sparse
matrices", ICLR 2024, arXiv:2401.09703.
M. Ghashami, E. Liberty, J. M. Phillips, D. P. Woodruff, "Frequent directions: simple and deterministic matrix
sketching", SIAM J. Comput. 45(5), 2016, arXiv:1501.01711.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from lrla.linalg._blas_threads import small_blas
from lrla.svd import _kernels

# Ratio of eigenvalues below which the smaller one may be rounding noise.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Truncation:
    """What is kept of a small SVD.

    Attributes
    ----------
    width : int
        The largest rank.
    eps : float
        Rounding unit of the tall factors; singular values below sqrt(eps) of the largest are dropped.
    shrinkage : float
        alpha in [0, 1]: kept squares are reduced by alpha times the largest dropped square (Frequent Directions).
    """

    width: int
    eps: float
    shrinkage: float = 0.0

    @property
    def rank_tol(self) -> float:
        """Below it a direction cannot be told from rounding: the residuals come from Gram matrices."""
        return math.sqrt(self.eps)

    def __call__(self, S: np.ndarray) -> tuple[np.ndarray, float]:
        """The kept values, and the energy (squared Frobenius norm) of what the model loses."""
        kept = S[: self.width]
        if self.shrinkage and len(S) > self.width:
            kept = np.sqrt(np.maximum(kept**2 - self.shrinkage * S[self.width] ** 2, 0.0))
        kept = kept[kept > self.rank_tol * S[0]] if len(S) else kept
        lost, changed = S[len(kept) :], S[: len(kept)] - kept
        return kept, float(lost @ lost + changed @ changed)


class Residual(NamedTuple):
    """An orthonormal basis of E - C V^T, as coefficients.

    Attributes
    ----------
    Rt : ndarray of shape (s, q)
    times_B : callable
        The product of B (s, q) with an array of shape (q, j).
    lengths : ndarray of shape (s,)
        Those of the rows of E.
    pivots : ndarray of shape (q,)
        Square of the length of each direction relative to that of the row it comes from, what the others explain taken
        away.
    smallest : float
        The length that belongs to the smallest pivot.
    lost : float
        Energy of the part that is left out on purpose.
    """

    Rt: np.ndarray
    times_B: Callable[[np.ndarray], np.ndarray]
    lengths: np.ndarray
    pivots: np.ndarray
    smallest: float = 0.0
    lost: float = 0.0


def residual(N: np.ndarray, C: np.ndarray, lengths: np.ndarray, tol: float) -> Residual:
    """Pivoted Cholesky of N - C C^T, the Gram matrix of E - C V^T.

    The rows are first divided by `lengths`, those of E, which keeps small rows beside large ones; pivots up to `tol`
    are rounding.  The pivoting lets B, an inverse, be applied without loss.
    """
    if len(N) == 1:
        return _residual_of_row(N[0, 0] - C[0] @ C[0], lengths, tol)
    scale = np.where(lengths > 0, lengths, 1.0)[:, None]
    with small_blas(len(N)):
        gram = C @ C.T
        np.subtract(N, gram, out=gram)
        gram /= scale
        gram /= scale.T
        some = gram.diagonal().max() > tol  # LAPACK compares only the later pivots with tol
        L, order, q, _ = lapack.dpstrf(gram.T, tol=tol, lower=1, overwrite_a=1)
        q = q if some else 0
        if q == 0:
            return _nothing(lengths)
        Lt, order, Rt = L.T[:q] * _upper(len(N))[:q], order - 1, np.empty((len(N), q))
        scale = scale[order]
        Rt[order] = scale * Lt.T

    def times_B(X: np.ndarray) -> np.ndarray:
        product = np.zeros((len(N), X.shape[1]))
        product[order[:q]] = blas.dtrsm(1.0, Lt[:, :q].T, X.T, side=1, lower=1).T / scale[:q]
        return product

    smallest = Lt[q - 1, q - 1] * scale[q - 1, 0]
    return Residual(Rt, times_B, lengths, Lt.diagonal() ** 2, float(smallest))


@lru_cache(maxsize=8)
def _upper(n: int) -> np.ndarray:
    """Ones in the upper triangle."""
    ones = np.triu(np.ones((n, n)))
    ones.flags.writeable = False
    return ones


def _nothing(lengths: np.ndarray) -> Residual:
    """Of rows that lie in the span of V."""
    count = len(lengths)
    return Residual(np.zeros((count, 0)), lambda X: np.zeros((count, X.shape[1])), lengths, np.zeros(0))


def _residual_of_row(square: float, lengths: np.ndarray, tol: float) -> Residual:
    whole = lengths[0] ** 2
    if not square > tol * whole:
        return _nothing(lengths)
    length = math.sqrt(square)
    return Residual(np.array([[length]]), lambda X: X / length, lengths, np.array([square / whole]), length)


def leading_residual(N: np.ndarray, C: np.ndarray, lengths: np.ndarray, tol: float, rank: int) -> Residual:
    """The same, of the `rank` leading directions of E - C V^T only; the rest of it is given up."""
    with small_blas(len(N)):
        values, vectors = np.linalg.eigh(N - C @ C.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    longest = lengths.max(initial=np.finfo(np.float64).tiny) ** 2
    q = min(rank, np.count_nonzero(values > tol * longest))
    root = np.sqrt(values[:q])
    lost = float(np.maximum(values[q:], 0.0).sum()) if q == rank else 0.0
    basis = vectors[:, :q]
    return Residual(
        basis * root, lambda X: (basis / root) @ X, lengths, values[:q] / longest, float(root[-1:].sum()), lost
    )


class RowUpdate(NamedTuple):
    """[U diag(s) V^T; E] = U2 diag(s2) V2^T with V2 = V T + E^T H and U2 = [U top; bottom].

    Attributes
    ----------
    s : ndarray of shape (r2,)
    T, H : ndarray of shape (r, r2) and (s, r2)
    top, bottom : ndarray of shape (r, r2) and (s, r2)
    lost : float
        Energy of what was cut off.
    noise : float
        Factor by which errors in the orthonormality of V, and rounding, are in V2.
    """

    s: np.ndarray
    T: np.ndarray
    H: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    lost: float
    noise: float


def append_rows(s: np.ndarray, C: np.ndarray, rest: Residual, truncation: Truncation) -> RowUpdate:
    """Update for new rows E, from C = E V and the residual of E."""
    r = len(s)
    with small_blas(r + len(C)):
        F, kept, G, lost = _decomposed_row(s, C[0], rest, truncation) if len(C) == 1 else (None,) * 4
        if F is None:
            rows = (s, C, rest.Rt) if r == truncation.width else None
            F, kept, G, lost = _decomposed(_row_matrix(s, C, rest), truncation, rows)
        F, G = oriented(F, G, r)
        H = rest.times_B(G[r:])
        return RowUpdate(kept, G[:r] - C.T @ H, H, F[:r], F[r:], lost + rest.lost, _noise(rest, H))


def _row_matrix(s: np.ndarray, C: np.ndarray, rest: Residual) -> np.ndarray:
    r = len(s)
    M = np.zeros((r + len(C), r + rest.Rt.shape[1]))
    M.flat[: r * M.shape[1] : M.shape[1] + 1] = s  # the diagonal
    M[r:, :r] = C
    M[r:, r:] = rest.Rt
    return M


class LowRankUpdate(NamedTuple):
    """U diag(s) V^T + D E^T = U2 diag(s2) V2^T with U2 = U left_T + D left_H and V2 = V right_T + E right_H.

    Attributes
    ----------
    s : ndarray of shape (r2,)
    left_T, right_T : ndarray of shape (r, r2)
    left_H, right_H : ndarray of shape (q, r2)
    lost, left_noise, right_noise : float
    """

    s: np.ndarray
    left_T: np.ndarray
    left_H: np.ndarray
    right_T: np.ndarray
    right_H: np.ndarray
    lost: float
    left_noise: float
    right_noise: float


def change_low_rank(
    s: np.ndarray, Cu: np.ndarray, left: Residual, Cv: np.ndarray, right: Residual, truncation: Truncation
) -> LowRankUpdate:
    """Update for A + D E^T, from Cu = D^T U, Cv = E^T V (q x r) and the residuals of D^T and E^T."""
    r = len(s)
    L, P = np.hstack([Cu, left.Rt]), np.hstack([Cv, right.Rt])
    with small_blas(P.shape[1]):
        M = L.T @ P
        M[range(r), range(r)] += s
        F, kept, G, lost = _decomposed(M, truncation)
        F, G = oriented(F, G, r)
        left_H, right_H = left.times_B(F[r:]), right.times_B(G[r:])
        left_T, right_T = F[:r] - Cu.T @ left_H, G[:r] - Cv.T @ right_H
    noise = _noise(left, left_H), _noise(right, right_H)
    return LowRankUpdate(kept, left_T, left_H, right_T, right_H, lost, *noise)


def _noise(rest: Residual, H: np.ndarray) -> float:
    """Largest squared norm of a column of H, for rows of length 1: the residuals are known to eps of that length."""
    weighted = rest.lengths[:, None] * H
    return float((weighted * weighted).sum(axis=0).max(initial=0.0))


class Rotation(NamedTuple):
    """U diag(s) V^T = (U left_T) diag(s2) (V right_T)^T."""

    s: np.ndarray
    left_T: np.ndarray
    right_T: np.ndarray


def rediagonalize(s: np.ndarray, R: np.ndarray, truncation: Truncation) -> Rotation:
    """For a left factor that is Q R (R q x r): the SVD of R diag(s); `left_T` applies to Q."""
    with small_blas(len(s)):
        F, S, Gt = svd(R * s)
    kept, _ = truncation(S)
    F, G = oriented(F[:, : len(kept)], Gt[: len(kept)].T, len(s))
    return Rotation(kept, F, G)


def remove_rows(s: np.ndarray, removed: np.ndarray, truncation: Truncation) -> Rotation | None:
    """Update for the removal of rows of U, given as an array (b x r); `left_T` applies to the rows that stay.

    None if the columns that stay are so dependent (squared singular value below 1e-8) that they must be
    orthonormalized from the rows themselves.
    """
    gram = np.eye(len(s)) - removed.T @ removed
    if np.linalg.eigvalsh(gram).min(initial=1.0) < 1e-8:
        return None
    R = np.linalg.cholesky(gram).T
    turned = rediagonalize(s, R, truncation)
    return Rotation(turned.s, scipy.linalg.solve_triangular(R, turned.left_T), turned.right_T)


def _decomposed(
    M: np.ndarray, truncation: Truncation, rows: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """F, kept, G and the lost energy of a small matrix; `rows` are s, C and R^T where it is that of new rows."""
    if 3 * min(M.shape) >= 5 * truncation.width and not truncation.shrinkage:
        found = _leading(M, truncation.width, _leading_of_rows(*rows) if rows else None)
        if found is not None:
            return found
    F, S, Gt = svd(M)
    kept, lost = truncation(S)
    return F[:, : len(kept)], kept, Gt[: len(kept)].T, lost


def _leading(
    M: np.ndarray, k: int, known: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """The k leading singular triplets, through eigenvectors of M M^T: down to a third of the time of an SVD.

    The eigenvectors span the leading subspace to eps (s_1 / s_k)^2, which costs each value eps s_1^2 / s_k at the most.
    They, and their products with M, are orthogonal to the same degree, and rotations of first order make them so to
    rounding error.  None where that is more than 200 eps s_1, or where values are too close for a small rotation.
    """
    squares, F = known or _leading_eigenvectors(M @ M.T, k)
    if F is None or not squares[0] > 2e-5 * squares[-1]:
        return None
    F = 1.5 * F - F @ (0.5 * (F.T @ F))
    product = F.T @ M
    gram = product @ product.T
    own = gram.diagonal().copy()
    gaps = own[:, None] - own
    np.fill_diagonal(gram, 0.0)
    np.fill_diagonal(gaps, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = gram / gaps
    if not np.abs(turn).max() <= 1e-8 or abs(own.sum() - squares.sum()) > 1e-10 * own.sum():
        return None
    product += turn @ product
    S = np.sqrt((product * product).sum(axis=1))
    F = F + F @ turn.T
    whole = float(np.vdot(M, M))
    lost = whole - float(S @ S)
    if lost < 1e-6 * whole:  # cancelled
        rest = M - F @ product
        lost = float(np.vdot(rest, rest))
    return F, S, product.T / S, lost


def _leading_of_rows(s: np.ndarray, C: np.ndarray, Rt: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """`_leading_eigenvectors` of M M^T for k = r, where the residual of the new rows is smaller than what is known.

    With D = R^T R, diag(s)^2 + C^T C = W diag(a) W^T and Y = C W, the leading space is spanned by [diag(s) W; Y + Z], where
    ``Z diag(a) = D (Y + Z) - Z Y^T Z``: a Riccati equation, solved by fixed-point iteration with the diagonal of D on the
    left.  All but r eigenvalues are at most ||D||, by Weyl's inequality, and r are at least a_r: None unless a_r is larger,
    or where the iteration would be slow, or where a_r may be rounding noise.
    """
    known = np.diag(s * s) + C.T @ C
    least = known.diagonal().min()  # which is at least a_r
    if not np.vdot(Rt, Rt) < len(Rt) * least:
        return None
    D = Rt @ Rt.T
    own, sums = D.diagonal()[:, None].copy(), np.abs(D).sum(axis=1, keepdims=True)
    others = sums.max(initial=0.0)
    if not others < least:
        return None
    a, W = _eigh(known)
    if not max(others, ROUNDING * a[-1]) < a[0] or (4.0 * sums - 3.0 * own).max() > a[0]:
        return None
    Y = C @ W
    Z = _riccati(a, D, own, Y)
    if Z is None:
        return None
    X = np.vstack([s[:, None] * W, Y + Z])
    L, failed = lapack.dpotrf(X.T @ X, lower=1)
    if failed:
        return None
    turned = L.T @ blas.dtrsm(1.0, L, (np.diag(a) + Y.T @ Z), side=1, lower=1, trans_a=1)
    values, V = _eigh((turned + turned.T) / 2.0)
    return (values, X @ blas.dtrsm(1.0, L, V[:, ::-1], lower=1, trans_a=1)) if values[0] > others else None


def _eigh(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`numpy.linalg.eigh` of a small symmetric matrix, in nine tenths of its time."""
    values, vectors, failed = lapack.dsyevd(S.T, lower=1)
    if failed:
        raise np.linalg.LinAlgError("The eigenvalues of an update did not converge.")
    return values, vectors


def _riccati(a: np.ndarray, D: np.ndarray, own: np.ndarray, Y: np.ndarray) -> np.ndarray | None:
    """Z of `_leading_of_rows`, `own` being the diagonal of D; None where the iteration does not contract."""
    np.fill_diagonal(D, 0.0)
    inverse, fixed = 1.0 / (a - own), D @ Y + own * Y
    Z, before, limit = fixed * inverse, math.inf, float(np.finfo(np.float64).eps) * math.sqrt(a[0])
    while True:
        new = D @ Z
        new += fixed
        new -= Z @ (Y.T @ Z)
        new *= inverse
        change = float(np.abs(new - Z).max())
        if change > 0.5 * before:  # rounding, or no contraction after all
            return new if change <= 100.0 * limit else None
        if change * min(change / before, 0.5) <= limit if before < math.inf else change == 0.0:  # the next change
            return new
        Z, before = new, change


def _leading_eigenvectors(G: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The k largest eigenvalues of a symmetric matrix, ascending, and their eigenvectors, largest first.

    Tridiagonal form, all values, k vectors by inverse iteration: faster than LAPACK's drivers as long as k is less than
    some 60 % of the order.  None for the vectors if the iteration fails.
    """
    n = len(G)
    reflectors, diagonal, beside, tau, _ = lapack.dsytrd(G.T, lower=1, lwork=32 * n)
    values, failed = lapack.dsterf(diagonal, beside)
    if failed:
        return values, None
    one_block = np.full(n, n, dtype=np.int32)
    vectors, failed = lapack.dstein(diagonal, beside, values[-k:], np.ones(n, dtype=np.int32), one_block)
    if failed:
        return values, None
    vectors = vectors[:, ::-1].copy(order="F")
    vectors[1:] = lapack.dormqr("L", "N", reflectors[1:, :-1], tau, vectors[1:], lwork=32 * n)[0]
    return values[-k:], vectors


def _decomposed_row(
    s: np.ndarray, c: np.ndarray, rest: Residual, truncation: Truncation
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, float | None]:
    """The same for a single new row, where M is an arrow; None where its values are too close to one another."""
    r, q = len(s), rest.Rt.shape[1]
    F, G = np.zeros((2, r + 1, r + 1))
    S, work = np.empty(r + 1), np.empty((r + 5, r + 1))
    if not r or not _kernels.arrow_svd(s, c, rest.Rt[0, 0] if q else 0.0, F, S, G, work):
        return None, None, None, None
    order = np.argsort(-S)
    kept, lost = truncation(S[order])
    order = order[: len(kept)]
    return F[:, order], kept, G[: r + q, order], lost


def svd(M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin SVD of a small matrix; divide and conquer, or QR iteration where that does not converge."""
    try:
        return np.linalg.svd(M, full_matrices=False)
    except np.linalg.LinAlgError:
        return scipy.linalg.svd(M, full_matrices=False, lapack_driver="gesvd")


def oriented(F: np.ndarray, G: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs that keep <v_new_i, v_old_i> = G_ii >= 0 for the r old components.

    New ones have the largest entry of F positive: unlike G it does not depend on the basis chosen for the residual.
    """
    lead = G.diagonal()[:r]
    if G.shape[1] > r:
        new = F[:, r:]
        lead = np.concatenate([lead, new[np.abs(new).argmax(axis=0), np.arange(new.shape[1])]])
    signs = np.where(lead < 0, -1.0, 1.0)
    return F * signs, G * signs
