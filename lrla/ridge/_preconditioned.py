"""Least squares by a sketched preconditioner: sweeps over A, the preconditioner, and the solvers that it makes quick.

The problem is ``min ||F x - b||`` with ``F = [A; ridge I]``, A (m, n).  D holds the norms of the columns of F.  The sketch
``S^T A`` gives the SVD ``U diag(sigma) V^T`` of a matrix close to ``F D^-1``, up to a rotation of its rows, and with
``M = D^-1 V diag(sigma)^-1``, (n, r), ``F M`` has a condition of about (1 + s) / (1 - s), s^2 = r / d for a sketch of d rows.
Unknowns are ``x = M y``.  Several right-hand sides are rows: b (t, m), x (t, n), y (t, r).

Vectors of length m and products with A and M are in the dtype of A; what has the length of y is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from lrla import _arrays
from lrla._threads import share
from lrla.linalg._blas_threads import one_blas_thread
from lrla.linalg._operator import as_operator

BLOCK_BYTES = 1 << 20  # of rows of A that are multiplied twice while they are in cache
PARTS = 16  # of a sweep, each with sums of its own: how many threads there are makes no difference
GROWTH = 2.0  # a correction that lowers the backward error by less is the last one


# ---------------------------------------------------------------------------------------------------- sweeps


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
        self.like = A.data if _arrays.kind(A) in ("sparse", "device_sparse") else A
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
        for rows in self._tall_blocks():
            W = A[rows, :] @ M
            G = G + _arrays.astype(W.T @ W, np.float64)
        return G

    def triangular_gram(self, T: np.ndarray, dtype: Any) -> np.ndarray:
        """The same for dense A on the host and upper triangular T, with products in `dtype`: two thirds of the flops."""
        T = np.asfortranarray(T, dtype=dtype)
        trmm, syrk = scipy.linalg.get_blas_funcs(("trmm", "syrk"), (T,))
        W = self.ridge * T
        G = (W.T @ W).astype(np.float64)
        for rows in self._tall_blocks():
            G += syrk(1.0, trmm(1.0, T, self.A[rows].astype(dtype, copy=False).T, trans_a=1))
        return np.triu(G) + np.triu(G, 1).T

    def _tall_blocks(self) -> Iterator[slice]:
        m, n = self.shape
        step = max(512, BLOCK_BYTES // (8 * n))
        return (slice(start, min(start + step, m)) for start in range(0, m, step))


def without_exponent(A: Any, limit: int) -> tuple[Any, int]:
    """``(A 2^-e, e)`` with the largest entry near 1, or A itself if that is between ``2^-limit`` and ``2^limit``."""
    values = A.data if _arrays.kind(A) in ("sparse", "device_sparse") else A
    if 0 in values.shape:
        return A, 0
    xp = _arrays.namespace(values)
    top = max(-float(xp.min(values)), float(xp.max(values)))
    exponent = int(np.frexp(top)[1]) if top > 0.0 else 0
    if abs(exponent) <= limit:
        return A, 0
    exponent = max(exponent, -1000 if _arrays.real_dtype(values) == np.float64 else -120)  # 2^-e must be a number
    return A * 2.0**-exponent, exponent


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


# ---------------------------------------------------------------------------------------------------- preconditioner


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
        self.frobenius = math.sqrt(max(np.count_nonzero(inverse), 1))
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
        inverse, V = self.left_out
        scaled = _arrays.astype(done.adjoint, np.float64) * inverse
        return _ratio(self.system.xp, _norm(self.system.xp, scaled - (scaled @ V) @ V.T), done.norm) / self.frobenius

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


def precondition(
    system: System, B: np.ndarray, norms: np.ndarray, *, exact: bool, cut: float = 30.0
) -> tuple[Preconditioned, Any]:
    """M from ``B = [S^T A, S^T b]``, and the solution y (t, r) of the sketched problem.

    Where the sketch is well conditioned its Gram matrix is good enough for M, at a third of the time, and y is a starting point;
    with `exact`, y is the solution to working precision.
    """
    n, limits = system.shape[1], np.finfo(system.dtype)
    smallest = 1.0 / (float(limits.max) * float(limits.eps))  # below, a coefficient would be no number: as good as zero
    inverse = np.divide(1.0, norms, out=np.zeros(n), where=norms > smallest)
    B[:, :n] *= inverse
    found = None if exact else _from_gram(system, B[:, :n], B[:, n:], inverse)
    V, sigma, y, corner = found or _from_svd(system, B, inverse, cut)
    return Preconditioned(system, inverse, V, sigma, corner), _arrays.from_host(np.ascontiguousarray(y.T), system.like)


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


# ---------------------------------------------------------------------------------------------------- solvers


def refine(
    P: Preconditioned,
    inner: Callable[..., tuple[Any, int]],
    b: Any,
    state: State,
    target: float,
    rate: float,
    budget: int,
) -> tuple[State, int]:
    """Correct x until its backward error is below the target or falls no more; the number of iterations as well.

    Every correction is found from a residual that is computed anew, which is what makes the result backward stable.
    """
    count = 0
    while np.any(state.error > target) and count < budget:
        dy, steps = inner(P, state, target, rate, budget - count)
        count += steps
        better = P.state(b, state.x + P.expand(dy), state.y + dy)
        gain = np.max(better.error) < np.max(state.error)
        last = not np.max(better.error) * GROWTH < np.max(state.error)
        state = better if gain else state
        if last:
            break
    return state, count


def cholesky(P: Preconditioned, state: State, target: float, rate: float, budget: int) -> tuple[Any, int]:
    """The correction from the Gram matrix of F M, which is formed once: its condition is small."""
    C = P.gram_factor
    dy = scipy.linalg.cho_solve(C, _arrays.to_host(state.gradient).T, check_finite=False).T
    return _arrays.from_host(np.ascontiguousarray(dy), state.gradient), 1


def lsqr(P: Preconditioned, state: State, target: float, rate: float, budget: int) -> tuple[Any, int]:
    """LSQR (Paige and Saunders) from zero for the correction, one sweep a step.

    The left vectors u are kept unnormalised, u = U / beta, so that normalising them takes no pass of its own.
    """
    xp = P.system.xp
    top, bottom, beta = state.residual.top, state.residual.bottom, state.residual.norm
    V, alfa = _unit(xp, _ratio(xp, state.gradient, beta[:, None]))
    W, dy = V, xp.zeros_like(V)
    phi_bar, rho_bar = beta, alfa
    cap = min(budget, iterations(rate, _arrays.eps(P.system.dtype)))
    for count in range(1, cap + 1):  # noqa: B007 (returned)
        done, h = P.apply(V, top, bottom, _ratio(xp, alfa, beta)[:, None])
        top, bottom, beta = done.top, done.bottom, done.norm
        V, alfa = _unit(xp, _ratio(xp, h, beta[:, None]) - beta[:, None] * V)
        rho = xp.sqrt(rho_bar**2 + beta**2)
        c, s = _ratio(xp, rho_bar, rho), _ratio(xp, beta, rho)
        step = _ratio(xp, c * phi_bar, rho)
        dy = dy + step[:, None] * W
        update = xp.abs(step) * _norm(xp, W)
        W = V - _ratio(xp, s * alfa, rho)[:, None] * W
        rho_bar, phi_bar = -c * alfa, s * phi_bar
        error = P.backward_error((phi_bar * alfa * xp.abs(c))[:, None] * V, phi_bar, state.y + dy)
        if _all_done(P, error, update, dy, target):
            break
    return dy, count


def polyak(P: Preconditioned, state: State, target: float, rate: float, budget: int) -> tuple[Any, int]:
    """Heavy-ball iteration for the correction: no inner product decides what it does.

    The gradient at zero is computed once.  Were the residual part of every sweep, so would be its rounding errors, and they
    would not shrink with the correction.
    """
    xp = P.system.xp
    none = xp.zeros((state.gradient.shape[0], 1), dtype=xp.float64, device=_arrays.device(state.gradient))
    momentum = rate**2
    dy = before = xp.zeros_like(state.gradient)
    gradient = state.gradient
    cap = min(budget, iterations(rate, _arrays.eps(P.system.dtype)))
    for count in range(1, cap + 1):  # noqa: B007 (returned)
        dy, before = dy + (1.0 - momentum) ** 2 * gradient + momentum * (dy - before), dy
        gradient = state.gradient - P.apply(dy, None, None, none)[1]
        error = P.backward_error(gradient, state.residual.norm, state.y + dy)
        if _all_done(P, error, _norm(xp, dy - before), dy, target):
            break
    return dy, count


def iterations(rate: float, eps: float) -> int:
    """Steps after which a method that gains a factor `rate` a step has reached eps."""
    return math.ceil(math.log(2.0 / eps) / -math.log(min(rate, 0.95))) + 5


def _all_done(P: Preconditioned, error: Any, update: Any, dy: Any, target: float) -> bool:
    """Whether every right-hand side is as good as asked for, or moves no more: one transfer to the host.

    The backward error decides, and not the size of the update, which directions of small singular values make up: these may be
    done, and those that count not.
    """
    xp = P.system.xp
    return bool(xp.all((error <= target) | (update <= _arrays.eps(P.system.dtype) * _norm(xp, dy))))


def _norm(xp: Any, X: Any) -> Any:
    return xp.sqrt(xp.sum(X**2, axis=1))


def _unit(xp: Any, X: Any) -> tuple[Any, Any]:
    size = _norm(xp, X)
    return _ratio(xp, X, size[:, None]), size


def _ratio(xp: Any, over: Any, under: Any) -> Any:
    """The quotient, or zero where nothing is left to divide by."""
    return xp.where(under > 0.0, over / xp.where(under > 0.0, under, xp.ones_like(under)), xp.zeros_like(over))
