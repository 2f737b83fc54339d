"""Thick-restart block Krylov iterations: on the Gram operator with a basis of one side, and on A with bases of both.

Block Krylov spaces need far fewer products than subspace iteration at the same accuracy (Musco & Musco, NIPS 2015; Tropp &
Webber, arXiv 2306.12418), and a block much narrower than k loses nearly nothing in products (Chen, Epperly, Meyer, Musco &
Rao, arXiv 2508.06486).  Where products are cheap the orthogonalisation is the cost, so `one_sided` keeps the shorter side
only.  Squaring costs precision: it resolves a triplet to relative residual `tol` only while
``tol theta_k > 10 eps theta_1``.  This is checked, and the caller is told ("precision"); `two_sided` has no such limit.

Symbols: P basis (rows), H = P A^T A P^T, theta and Y its eigenvalues and vectors; X, Y bases of both sides (rows),
T = Y A X^T = F diag(s) G^T; R what a block leaves outside the basis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._orthonormalize import gram_eigh, orthonormalize

Fresh = Callable[[int], Any]  # j -> j new random rows (j, n)


@dataclass(frozen=True)
class Ritz:
    """Right Ritz vectors, descending, and how far the iteration came.

    `status` is one of "converged", "max_iter", "stopped" (by the callback), "precision" (the Gram operator cannot resolve
    the request in this precision) and "exhausted" (the basis spans the row space of A; there may be fewer than k vectors).
    """

    V: Any  # (k', n), orthonormal rows
    s: np.ndarray  # (k',), singular values
    residuals: np.ndarray  # (k',), ||A^T u - s v||
    n_products: int  # vectors that A^T A was applied to
    n_converged: int
    status: str


class Schedule:
    """When to decompose the projected matrix next: this costs as much as a product, so not long before the residuals,
    which fall geometrically, can have reached their limits.
    """

    def __init__(self) -> None:
        self.ratio, self.at, self.next = np.inf, 0, 0

    def due(self, step: int) -> bool:
        """Tell whether to look at this step."""
        return step >= self.next

    def checked(self, step: int, residuals: np.ndarray, limits: np.ndarray) -> None:
        """Note the worst residual as a multiple of its limit, and aim at 0.7 of the steps that it seems to need."""
        ratio = float(np.max(np.divide(residuals, limits, out=np.zeros_like(residuals), where=limits > 0.0)))
        wait = 1.0
        if 1.0 < ratio < self.ratio < np.inf:
            rate = np.log(self.ratio / ratio) / (step - self.at)
            wait = 0.7 * np.log(ratio) / rate
        self.ratio, self.at, self.next = ratio, step, step + int(np.clip(wait, 1.0, 8.0))


class RowBasis:
    """Orthonormal rows in preallocated memory; the last `size - last` of them are the block to be multiplied next."""

    def __init__(self, op: Any, rows: int, length: int, start: Any):
        self.P = op.empty((rows, length))
        self.dtype = op.dtype
        self.last = self.size = 0
        self.append(start)

    def append(self, X: Any) -> None:
        """Add rows that are orthonormal and orthogonal to the basis; they are the next block."""
        self.last, self.size = self.size, self.size + X.shape[0]
        self.P[self.last : self.size, :] = X

    @property
    def block(self) -> Any:
        """The rows to be multiplied next."""
        return self.P[self.last : self.size, :]

    def project(self, W: Any) -> tuple[Any, Any]:
        """The part of W orthogonal to the basis, and its coefficients W P^T."""
        P = self.P[: self.size, :]
        c = W @ P.T
        return W - c @ P, c

    def rest(self, W: Any, scale: float) -> tuple[np.ndarray, Any, np.ndarray]:
        """Write ``W = c P + R X`` with new orthonormal rows X, and return c (on the host), X and R.

        One projection leaves eps ||W|| in the basis, and a basis that is not orthogonal to begin with amplifies that from
        step to step, so the block is projected again after its first scaling.
        """
        W, c = self.project(W)
        X, R = orthonormalize(W, scale=scale, project=lambda X, size: self.project(X)[0])
        return _arrays.to_host(c).astype(np.float64), X, R

    def combine(self, Y: np.ndarray) -> Any:
        """The vectors with coefficients Y (size, j), as rows (j, length)."""
        coefficients = np.ascontiguousarray(Y.T).astype(self.dtype)
        return _arrays.from_host(coefficients, self.P) @ self.P[: self.size, :]

    def restart(self, Y: np.ndarray) -> None:
        """Replace the basis by the vectors with coefficients Y."""
        self.P[: Y.shape[1], :] = self.combine(Y)
        self.last, self.size = 0, Y.shape[1]


def one_sided(
    op: Any, k: int, start: Any, *, tol: float, block: int, max_iter: int, fresh: Fresh, progress: Any
) -> Ritz:
    """The k leading right singular vectors by thick-restart block Krylov iteration on A^T A.

    Parameters
    ----------
    op : Operator of shape (m, n)
        n should be the shorter side.
    k : int
    start : array of shape (b0, n)
        Orthonormal rows to start from: random, or Ritz vectors of an earlier run.
    tol : float
        Converged when ``||A^T A v_i - theta_i v_i|| <= max(tol theta_i, 10 eps theta_1)`` for all i <= k.
    block : int
        Rows of a block, b.  The basis holds up to 3 k + 2 b vectors.
    max_iter : int
        Largest number of block products.
    fresh : callable
        ``fresh(j)`` returns j new random rows (j, n).
    progress : Progress

    Returns
    -------
    Ritz
    """
    eps = _arrays.eps(op.dtype)
    capacity = min(max(3 * k + 2 * block, start.shape[0] + block), op.shape[1])
    basis = RowBasis(op, capacity + block + _probe_width(block), op.shape[1], start)
    H = np.zeros((basis.P.shape[0],) * 2)
    n_products, n_converged, status, schedule = 0, 0, "", Schedule()
    while not status:
        new = slice(basis.last, basis.size)
        n_products += basis.size - basis.last
        c, X, R = basis.rest(op.gram(basis.block), float(np.abs(H).max()))
        H[new, : basis.size], H[: basis.size, new] = c, c.T
        full, stop = basis.size + X.shape[0] > capacity, progress.iteration + 1 >= max_iter
        ready = basis.size >= min(k, op.shape[1]) and schedule.due(progress.iteration)
        if full or stop or ready or X.shape[0] == 0:
            theta, Y = _eigh_descending(H[: basis.size, : basis.size])
            residuals = np.linalg.norm(R.T @ Y[new, :k], axis=0)
            limits = np.maximum(tol * theta[:k], 10.0 * eps * theta[0])
            n_converged = int(np.sum(residuals <= limits))
            schedule.checked(progress.iteration, residuals, limits)
            complete = X.shape[0] == 0 or (basis.size >= k and n_converged == k)
            if (complete or basis.size >= 2 * k) and X.shape[0] and tol * theta[k - 1] < 10.0 * eps * theta[0]:
                status = "precision"
            elif complete:
                found, used = probe(op, basis, X, np.sqrt(np.maximum(theta[:k], 0.0)), k, fresh, tol)
                n_products += used
                status = "" if found is not None else "converged" if basis.size >= k else "exhausted"
                X = found
        if progress.step(n_converged=n_converged, residual=schedule.ratio * tol):
            status = status or "stopped"
        status = status or ("max_iter" if stop else "")
        if not status:
            if full:
                kept = min(k + block, basis.size)
                basis.restart(Y[:, :kept])
                H[:] = 0.0
                H[:kept, :kept] = np.diag(theta[:kept])
            basis.append(X)
    if stop or status == "stopped":
        theta, Y = _eigh_descending(H[: basis.size, : basis.size])
        residuals = np.linalg.norm(R.T @ Y[new, :k], axis=0)
    s = np.sqrt(np.maximum(theta[:k], 0.0))
    residuals = np.divide(residuals, s, out=np.zeros_like(s), where=s > 0.0)
    return Ritz(basis.combine(Y[:, :k]), s, residuals, n_products, n_converged, status)


def two_sided(
    op: Any, k: int, start: Any, *, tol: float, block: int, max_iter: int, fresh: Fresh, progress: Any
) -> Ritz:
    """The k leading right singular vectors by thick-restart block Golub-Kahan iteration, down to s_k/s_1 ~ eps.

    Parameters are those of `one_sided`; converged when ``||A^T u_i - s_i v_i|| <= max(tol s_i, 10 eps s_1)``.
    """
    eps = _arrays.eps(op.dtype)
    capacity = min(max(3 * k + 2 * block, start.shape[0] + block), min(op.shape))
    rows = capacity + block + _probe_width(block)
    right = RowBasis(op, rows, op.shape[1], start)
    left = RowBasis(op, rows, op.shape[0], start[:0, : 1] @ op.empty((1, op.shape[0])))
    T = np.zeros((rows, rows))
    n_products, n_converged, status, schedule = 0, 0, "", Schedule()
    while not status:
        new, scale = slice(right.last, right.size), float(np.abs(T).max())
        n_products += right.size - right.last
        c, Y, R = left.rest(op.forward(right.block), scale)
        T[: left.size, new] = c.T
        left.append(Y)
        T[left.last : left.size, new] = R.T
        c, X, R = right.rest(op.adjoint(left.block), float(np.abs(T).max()))
        full, stop = right.size + X.shape[0] > capacity, progress.iteration + 1 >= max_iter
        ready = right.size >= min(k, *op.shape) and schedule.due(progress.iteration)
        if full or stop or ready or X.shape[0] == 0:
            F, s, Gt = np.linalg.svd(T[: left.size, : right.size])
            s = np.pad(s, (0, right.size - len(s)))
            F = np.pad(F, ((0, 0), (0, max(0, right.size - left.size))))
            residuals = np.linalg.norm(R.T @ F[left.last : left.size, :k], axis=0)[:k]
            limits = np.maximum(tol * s[:k], 10.0 * eps * s[0])
            n_converged = int(np.sum(residuals <= limits[: len(residuals)]))
            schedule.checked(progress.iteration, residuals, limits[: len(residuals)])
            if X.shape[0] == 0 or (right.size >= k and n_converged == k):
                found, used = probe(op, right, X, s[:k], k, fresh, tol)
                n_products += used
                status = "" if found is not None else "converged" if right.size >= k else "exhausted"
                X = found
        if progress.step(n_converged=n_converged, residual=schedule.ratio * tol):
            status = status or "stopped"
        status = status or ("max_iter" if stop else "")
        if not status:
            if full:
                kept = min(k + block, left.size, right.size)
                right.restart(Gt[:kept].T)
                left.restart(F[:, :kept])
                T[:] = 0.0
                T[:kept, :kept] = np.diag(s[:kept])
            right.append(X)
    if status == "stopped":
        F, s, Gt = np.linalg.svd(T[: left.size, : right.size])
        s = np.pad(s, (0, right.size - len(s)))
        F = np.pad(F, ((0, 0), (0, max(0, right.size - left.size))))
        residuals = np.linalg.norm(R.T @ F[left.last : left.size, :k], axis=0)[:k]
    return Ritz(right.combine(Gt[:k].T), s[:k], residuals, n_products, n_converged, status)


def probe(
    op: Any, basis: RowBasis, X: Any, s: np.ndarray, k: int, fresh: Fresh, tol: float
) -> tuple[Any | None, int]:
    """Look for what a Krylov space cannot see: copies of a repeated singular value beyond the width of its blocks.

    Random vectors orthogonal to the basis and to the pending block X take two steps of A^T A.

    Returns
    -------
    found : array or None
        None when they see nothing above s_k (or, if the basis is smaller than k, nothing at all); else the pending block
        together with the new directions, to be multiplied next.
    n_products : int
    """
    count = min(_probe_width(max(X.shape[0], 1)), op.shape[1] - basis.size - X.shape[0])
    if count <= 0:
        return None, 0

    def project(Z: Any, size: float = 0.0) -> Any:
        Z = basis.project(Z)[0]
        return Z - (Z @ X.T) @ X

    eps, top, used = _arrays.eps(op.dtype), float(s[0]) if len(s) else 0.0, 0
    Z, scale, seen = project(fresh(count)), 0.0, 0.0
    for _ in range(3):
        Z, _ = orthonormalize(Z, scale=scale, project=project)
        if Z.shape[0] == 0:
            return None, used
        W = op.gram(Z)
        used += Z.shape[0]
        seen = float(np.sqrt(np.sqrt(max(gram_eigh(W)[0][-1], 0.0))))
        Z, scale = project(W), max(top, seen) ** 2
    bar = s[k - 1] * (1.0 + tol) if basis.size >= k else 0.0
    if seen <= max(bar, 10.0 * np.sqrt(op.shape[1] * eps) * top):
        return None, used
    Z, _ = orthonormalize(Z, scale=scale, project=project)
    return (op.xp.concat((X, Z), axis=0) if Z.shape[0] else None), used


def _probe_width(block: int) -> int:
    return max(4, block // 4)


def _eigh_descending(H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    theta, Y = np.linalg.eigh((H + H.T) / 2.0)
    return theta[::-1], Y[:, ::-1]
