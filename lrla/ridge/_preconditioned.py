"""A preconditioner from a sketch, or from a Gram matrix: what makes a least-squares problem nearly orthogonal.

D holds the norms of the columns of F (see `_sweeps`).  The SVD ``U diag(sigma) V^T`` of a matrix close to ``F D^-1``, up to a
rotation of its rows, gives ``M = D^-1 V diag(sigma)^-1``, (n, r).  From a sketch ``S^T A`` of d rows, ``F M`` has a condition of
about (1 + s) / (1 - s), s^2 = r / d; from a Gram matrix it is 1 up to what rounding did to that.  Unknowns are ``x = M y``,
y (t, r), and what has the length of y is float64.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.linalg._blas_threads import one_blas_thread
from lrla.ridge._sweeps import Sweep, System, norm_of_rows, ratio

REGULAR = (
    1e-6  # least reciprocal condition (1-norm) of a Gram matrix in float32: a correction then gains two digits or more
)
FEW = 8  # right-hand sides for which a Cholesky factor each costs less than eigenvalues that serve them all


def rows_of(A: Any, b: Any) -> np.ndarray:
    """R of the QR factorization of ``[A, b^T]``, float64 on the host: all that least squares needs of A and b."""
    if _arrays.kind(A) in ("sparse", "device_sparse"):
        A = A.toarray()
    if isinstance(A, np.ndarray):
        return triangle(np.concatenate((A, b.T), axis=1))
    xp = _arrays.namespace(A)
    return _arrays.to_host(xp.linalg.qr(xp.concat((A, b.T), axis=1))[1]).astype(np.float64)


def sketch_of(op: Any, A: Any, b: Any) -> np.ndarray:
    """``[S^T A, S^T b^T]``, float64 on the host."""
    return np.concatenate([_arrays.to_host(op.left(X)).astype(np.float64, copy=False) for X in (A, b.T)], axis=1)


def triangle(B: np.ndarray) -> np.ndarray:
    """R of ``B = Q R`` in float64, min(B.shape) rows."""
    with one_blas_thread if min(B.shape) < 64 else nullcontext():
        R = scipy.linalg.qr(B, mode="r", overwrite_a=True, check_finite=False)[0]
    return np.asarray(R[: min(B.shape)], dtype=np.float64)


@dataclass(frozen=True)
class State:
    """A solution and what is known about it."""

    x: Any  # (t, n) where A is, in its dtype
    y: Any  # (t, r) float64 where A is
    residual: Sweep  # of b - F x
    gradient: Any  # (t, r): (F M)^T (b - F x)
    error: np.ndarray  # (t,) backward error


class Preconditioned:
    """``F M``, nearly orthogonal, with the singular values that M takes out."""

    def __init__(self, system: System, inverse: np.ndarray, V: np.ndarray, sigma: np.ndarray, corner: Any):
        like, M = system.like, inverse[:, None] * (V / sigma)
        self.frobenius = math.sqrt(max(int(np.count_nonzero(inverse)), 1))
        self.corner = corner  # T, U with M = T U and T upper triangular, where that is accurate
        self.system, self.rank, self.V = system, len(sigma), V
        self.M = _arrays.from_host(M.astype(system.dtype), like)
        self.sigma = _arrays.from_host(sigma, like)
        self.left_out = (_arrays.from_host(inverse, like), _arrays.from_host(V, like)) if len(sigma) < len(V) else None

    @cached_property
    def gram_factor(self) -> Any:
        """Cholesky factor of ``(F M)^T (F M)``, on the host."""
        if self.corner is not None and isinstance(self.system.A, np.ndarray):
            T, U = self.corner
            G = U.T @ self.system.triangular_gram(T, np.float32 if self._modest(T) else self.system.dtype) @ U
        else:
            G = _arrays.to_host(self.system.gram(self.M))
        return scipy.linalg.cho_factor(G, check_finite=False)

    def _modest(self, T: np.ndarray) -> bool:
        """Whether float32 does for the Gram matrix, in half the time: each correction then gains three digits or more."""
        return bool(self.sigma[-1] < 1e3 * self.sigma[0]) and 1e-15 < np.abs(np.diag(T)).min() <= np.abs(T).max() < 1e15

    def apply(self, y: Any, top: Any, bottom: Any, factor: Any) -> tuple[Sweep, Any]:
        """``U = y (F M)^T - factor (top, bottom)`` with what a sweep tells, and ``U F M`` (t, r)."""
        done = self.system.sweep(self.expand(y), top, bottom, factor)
        return done, _arrays.astype(done.adjoint @ self.M, np.float64)

    def expand(self, y: Any) -> Any:
        """``M y``."""
        return _arrays.astype(y, self.system.dtype) @ self.M.T

    def state(self, b: Any, x: Any, y: Any) -> State:
        """Residual, gradient and backward error of x, from x itself."""
        xp = self.system.xp
        one = xp.ones((b.shape[0], 1), dtype=xp.float64, device=_arrays.device(b))
        done = self.system.sweep(-x, b, xp.zeros_like(x), -one)
        gradient = _arrays.astype(done.adjoint @ self.M, np.float64)
        error = self.backward_error(gradient, done.norm, y)
        if self.left_out is not None:
            error = xp.sqrt(error**2 + self._missed(done) ** 2)
        return State(x, y, done, gradient, _arrays.to_host(error))

    def _missed(self, done: Sweep) -> Any:
        """The part of the backward error in directions that M has not: above 30 eps, the sketch has overlooked them."""
        assert self.left_out is not None
        inverse, V = self.left_out
        scaled = _arrays.astype(done.adjoint, np.float64) * inverse
        return (
            ratio(self.system.xp, norm_of_rows(self.system.xp, scaled - (scaled @ V) @ V.T), done.norm) / self.frobenius
        )

    def backward_error(self, gradient: Any, norm: Any, y: Any) -> Any:
        """Karlson and Walden's estimate, in which the sketch stands for F: ``(t,)``, relative to ``||F D^-1||_F``.

        ``||sigma g / (||r||^2 + sigma^2 ||D x||^2)^(1/2)||`` where g is the gradient of y: nothing is divided by a residual or
        a solution that may be zero.
        """
        xp = self.system.xp
        size = xp.sum((y / self.sigma) ** 2, axis=1)  # of D x
        under = norm[:, None] ** 2 + self.sigma**2 * size[:, None]
        over = (self.sigma * gradient) ** 2
        parts = over / xp.where(under > 0.0, under, xp.ones_like(under))
        return xp.sqrt(xp.sum(xp.where(under > 0.0, parts, xp.zeros_like(parts)), axis=1)) / self.frobenius


class Orthonormal(Preconditioned):
    """``F M`` with ``M = D^-1 R^-1`` from the Cholesky factor R of ``G = D^-1 F^T F D^-1``: no singular values are known."""

    def __init__(self, system: System, inverse: np.ndarray, G: np.ndarray, R: np.ndarray):
        super().__init__(system, inverse, scipy.linalg.lapack.dtrtri(R)[0], np.ones(len(R)), None)
        self.G, self.R = G, R

    def backward_error(self, gradient: Any, norm: Any, y: Any) -> Any:
        """The same estimate: ``||(||r||^2 + ||D x||^2 G)^(-1/2) R^T g||``, one Cholesky factor for each right-hand side."""
        h = _arrays.to_host(gradient) @ self.R
        sizes = np.linalg.norm(_arrays.to_host(y) @ self.V.T, axis=1)
        found = [self._one_error(*each) for each in zip(h, _arrays.to_host(norm), sizes, strict=True)]
        return _arrays.from_host(np.array(found), gradient)

    def _one_error(self, h: np.ndarray, norm: float, size: float) -> float:
        unit = max(norm, size)
        if unit == 0.0:
            return 0.0
        S = (size / unit) ** 2 * self.G
        S[np.diag_indices(len(S))] += (norm / unit) ** 2
        half = scipy.linalg.lapack.dtrtrs(scipy.linalg.lapack.dpotrf(S)[0], h / unit, trans=1)[0]
        return float(np.linalg.norm(half)) / self.frobenius


def precondition(
    system: System, B: np.ndarray, norms: np.ndarray, *, exact: bool, cut: float = 30.0
) -> tuple[Preconditioned, Any]:
    """M from ``B = [S^T A, S^T b]``, and the solution y (t, r) of the sketched problem.

    Where the sketch is well conditioned its Gram matrix is good enough for M, at a third of the time, and y is a starting point;
    with `exact`, y is the solution to working precision.
    """
    n, inverse = system.shape[1], _inverse(system, norms)
    B[:, :n] *= inverse
    found = None if exact else _from_gram(system, B[:, :n], B[:, n:], inverse)
    V, sigma, y, corner = found or _from_svd(system, B, inverse, cut)
    return Preconditioned(system, inverse, V, sigma, corner), _arrays.from_host(np.ascontiguousarray(y.T), system.like)


def precondition_by_gram(system: System, b: Any, norms: np.ndarray) -> tuple[Preconditioned, Any] | None:
    """M from the Gram matrix of dense A in float32, so that F M is nearly orthonormal, and a first y; None if A is too irregular.

    Some rows tell in advance whether that is likely, so that the Gram matrix is not computed in vain.
    """
    inverse = _inverse(system, norms)
    penalty = np.diag((system.ridge * inverse) ** 2)
    W = system.some_rows(2 * system.shape[1]) * inverse
    if _regular_factor(W.T @ W * (system.shape[0] / len(W)) + penalty) is None:
        return None
    G, c = system.scaled_gram(inverse, b)
    G += penalty
    R = _regular_factor(G)
    if R is None:
        return None
    P: Preconditioned = Orthonormal(system, inverse, G, R)
    if b.shape[0] > FEW:
        squares, V = scipy.linalg.eigh(G, driver="evd", overwrite_a=True, check_finite=False)
        P = Preconditioned(system, inverse, V, np.sqrt(squares), None)
    y = (P.V / _arrays.to_host(P.sigma)).T @ c
    return P, _arrays.from_host(np.ascontiguousarray(y.T), system.like)


def _inverse(system: System, norms: np.ndarray) -> np.ndarray:
    """Reciprocals of the norms of the columns; zero where a coefficient would be no number, which is as good as zero."""
    limits = np.finfo(system.dtype)
    smallest = 1.0 / (float(limits.max) * float(limits.eps))
    return np.divide(1.0, norms, out=np.zeros(len(norms)), where=norms > smallest)


def _regular_factor(G: np.ndarray) -> Any:
    """The Cholesky factor of a Gram matrix; None if its condition, by LAPACK's estimate, is above 1 / REGULAR."""
    R, failed = scipy.linalg.lapack.dpotrf(G)
    if failed or not scipy.linalg.lapack.dpocon(R, float(np.abs(G).sum(axis=0).max()))[0] > REGULAR:
        return None
    return R


def _from_gram(system: System, B: np.ndarray, c: np.ndarray, inverse: np.ndarray) -> Any:
    """V, sigma, y (r, t), and (T, U) with ``T U = M`` and T triangular; None if the condition is above 1e5."""
    K = B.T @ B + np.diag((system.ridge * inverse) ** 2)
    squares, V = scipy.linalg.eigh(K, check_finite=False)
    if not squares[0] > 1e-10 * squares[-1]:
        return None
    sigma = np.sqrt(squares)
    R = scipy.linalg.cholesky(K, check_finite=False)
    T = inverse[:, None] * scipy.linalg.lapack.dtrtri(R)[0]
    return V, sigma, (V / sigma).T @ (B.T @ c), (T, R @ (V / sigma))


def _from_svd(system: System, B: np.ndarray, inverse: np.ndarray, cut: float) -> Any:
    """The same from the SVD; directions below `cut` eps are left out."""
    n = system.shape[1]
    B = triangle(B)
    if system.ridge:
        penalty = np.concatenate((np.diag(system.ridge * inverse), np.zeros((n, B.shape[1] - n))), axis=1)
        B = triangle(np.concatenate((B, penalty)))
    U, sigma, Vt = scipy.linalg.svd(B[:n, :n], full_matrices=False, check_finite=False)
    keep = sigma > cut * _arrays.eps(system.dtype) * sigma[0]
    return Vt[keep].T, sigma[keep], U[:, keep].T @ B[:n, n:], None
