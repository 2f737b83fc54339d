"""Thick-restart block Krylov iteration on the Gram operator A^T A, with a basis of the shorter side only.

Block Krylov spaces need far fewer products than subspace iteration at the same accuracy (Musco & Musco, NIPS 2015; Tropp &
Webber, arXiv 2306.12418), and a block much narrower than k loses nearly nothing in products (Chen, Epperly, Meyer, Musco &
Rao, arXiv 2508.06486).  Where products are cheap the orthogonalisation is the cost, so only one side is kept.

Squaring costs precision: a triplet is found to relative residual `tol` only while ``tol theta_k > 10 eps theta_1``.  This is
checked as soon as there are k Ritz values, and the caller is told ("precision").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._orthonormalize import gram_eigh, orthonormalize


MODE='full'
@dataclass(frozen=True)
class Ritz:
    """Ritz vectors of A^T A as rows, descending, and how far the iteration came.

    `status` is one of "converged", "max_iter", "stopped" (by the callback), "precision" (the Gram operator cannot resolve
    the request in this precision) and "exhausted" (the basis spans the whole row space; there may be fewer than k vectors).
    """

    V: Any  # (k', n), orthonormal rows
    theta: np.ndarray  # (k',), eigenvalues of A^T A
    residuals: np.ndarray  # (k',), ||A^T A v - theta v||
    n_iter: int
    n_converged: int
    status: str


class Basis:
    """The Krylov basis P (rows), the projected operator H = P A^T A P^T, and the block that is to be multiplied next."""

    def __init__(self, op: Any, k: int, block: int, capacity: int, start: Any):
        self.op, self.k, self.block, self.capacity = op, k, block, capacity
        rows = max(capacity, start.shape[0]) + block + max(4, block // 4)
        self.P = op.empty((rows, op.shape[1]))
        self.H = np.zeros((rows, rows))
        self.size, self.last = 0, 0
        self.n_products = 0
        self.append(start)

    def append(self, X: Any) -> None:
        """Add orthonormal rows, orthogonal to the basis; they are the next block."""
        self.last, self.size = self.size, self.size + X.shape[0]
        self.P[self.last : self.size, :] = X

    def project(self, W: Any) -> tuple[Any, Any]:
        """The part of W orthogonal to the basis, and its coefficients W P^T."""
        P = self.P[: self.size, :]
        c = W @ P.T
        return W - c @ P, c

    def multiply(self) -> Any:
        """Apply A^T A to the last block, extend H, and return what is left of it outside the basis."""
        W, c = self.project(self.op.gram(self.P[self.last : self.size, :]))
        c = _arrays.to_host(c).astype(np.float64)
        self.H[self.last : self.size, : self.size] = c
        self.H[: self.size, self.last : self.size] = c.T
        self.n_products += self.size - self.last
        return W

    def next_block(self, W: Any, tol: float, eps: float) -> tuple[Any, np.ndarray]:
        """Orthonormalise W = R X for the next step."""
        top = float(np.abs(self.H[: self.size, : self.size]).max())

        def project(X: Any, size: float) -> Any:
            mode = MODE
            if mode == "full": return self.project(X)[0]
            if mode == "none": return X
            lo = max(0, self.last - 2*self.block)
            if mode == "local":
                P = self.P[lo:self.size]
                return X - (X @ P.T) @ P
            if mode == "cond":
                return self.project(X)[0] if size < 0.02*top else X

        return orthonormalize(W, scale=top, project=project)

    def probe(self, X: Any, theta: np.ndarray, fresh: Callable[[int], Any], tol: float, eps: float) -> Any | None:
        """Look for what the Krylov space cannot see: copies of a repeated singular value beyond the width of a block.

        Random vectors orthogonal to the basis and to the pending block X take two steps of A^T A.  Returns None when they
        find nothing above theta_k, else the pending block with the new directions.
        """
        room = self.op.shape[1] - self.size - X.shape[0]
        if room <= 0:
            return None
        Z = fresh(min(max(4, self.block // 4), room))
        size, top = np.inf, 0.0

        def project(Z: Any, size: float = 0.0) -> Any:
            Z = self.project(self.project(Z)[0])[0]
            return Z - (Z @ X.T) @ X if X.shape[0] else Z

        for _ in range(3):
            Z, _ = orthonormalize(project(Z), scale=size if np.isfinite(size) else 0.0, project=project)
            if Z.shape[0] == 0:
                return None
            W = self.op.gram(Z)
            self.n_products += Z.shape[0]
            top = float(np.sqrt(np.max(gram_eigh(W)[0])))
            Z, size = W, max(float(theta[0]), 0.0)
        bar = theta[self.k - 1] * (1.0 + tol) ** 2 if len(theta) >= self.k else 10.0 * eps * max(float(theta[0]), 0.0)
        if top <= bar:
            return None
        Z, _ = orthonormalize(project(Z), scale=size, project=project)
        return self.op.xp.concat((X, Z), axis=0) if X.shape[0] else Z

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of H, descending, and eigenvectors."""
        H = self.H[: self.size, : self.size]
        theta, Y = np.linalg.eigh((H + H.T) / 2.0)
        return theta[::-1], Y[:, ::-1]

    def vectors(self, Y: np.ndarray) -> Any:
        """The vectors with coefficients Y (size, j), as rows (j, n)."""
        coefficients = np.ascontiguousarray(Y.T).astype(self.op.dtype)
        return _arrays.from_host(coefficients, self.P) @ self.P[: self.size, :]

    def restart(self, theta: np.ndarray, Y: np.ndarray) -> None:
        """Keep the k + block best Ritz vectors; the coupling to the next block enters H with its product."""
        kept = min(self.k + self.block, self.size)
        self.P[:kept, :] = self.vectors(Y[:, :kept])
        self.H[:] = 0.0
        self.H[:kept, :kept] = np.diag(theta[:kept])
        self.last, self.size = 0, kept


def one_sided(
    op: Any,
    k: int,
    start: Any,
    *,
    tol: float,
    block: int,
    max_iter: int,
    fresh: Callable[[int], Any],
    progress: Any,
) -> Ritz:
    """The k leading eigenpairs of A^T A by thick-restart block Krylov iteration.

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
    basis = Basis(op, k, block, min(3 * k + 2 * block, op.shape[1]), start)
    n_converged, status = 0, "max_iter"
    schedule = Schedule()
    while True:
        W = basis.multiply()
        X, R = basis.next_block(W, tol, eps)
        full = basis.size + X.shape[0] > basis.capacity
        last_step = progress.iteration + 1 >= max_iter
        if full or last_step or X.shape[0] == 0 or (basis.size >= k and schedule.due(progress.iteration)):
            theta, Y = basis.ritz()
            residuals = np.linalg.norm(R.T @ Y[basis.last : basis.size, :k], axis=0)
            limits = np.maximum(tol * theta[:k], 10.0 * eps * theta[0])
            n_converged = int(np.sum(residuals <= limits))
            schedule.checked(progress.iteration, _worst(residuals, limits))
            complete = X.shape[0] == 0 or (basis.size >= k and n_converged == k)
            if (complete or basis.size >= 2 * k) and X.shape[0] and tol * theta[k - 1] < 10.0 * eps * theta[0]:
                status = "precision"
                break
            if complete:
                missed = basis.probe(X, theta, fresh, tol, eps)
                if missed is None:
                    status = "converged" if basis.size >= k else "exhausted"
                    break
                X = missed
        stop = progress.step(n_converged=n_converged, residual=schedule.ratio * tol)
        if stop or last_step:
            status = "stopped" if stop else "max_iter"
            break
        if full:
            basis.restart(theta, Y)
        basis.append(X)
    V = basis.vectors(Y[:, :k])
    return Ritz(V, theta[:k], residuals, basis.n_products, n_converged, status)


class Schedule:
    """When to look at the Ritz values next: their decomposition costs as much as a product, so they are not looked at
    long before the residuals, which fall geometrically, can have reached their limits.
    """

    def __init__(self) -> None:
        self.ratio, self.at, self.next = np.inf, 0, 0

    def due(self, step: int) -> bool:
        return step >= self.next

    def checked(self, step: int, ratio: float) -> None:
        """Note the worst residual as a multiple of its limit, and aim at 0.7 of the steps that it seems to need."""
        wait = 1.0
        if ratio > 1.0 and np.isfinite(self.ratio) and ratio < self.ratio:
            rate = np.log(self.ratio / ratio) / (step - self.at)
            wait = 0.7 * np.log(ratio) / rate
        self.ratio, self.at, self.next = ratio, step, step + int(np.clip(wait, 1.0, 8.0))


def _worst(residuals: np.ndarray, limits: np.ndarray) -> float:
    """The largest residual as a multiple of its limit; 0 for a zero matrix."""
    return float(np.max(np.divide(residuals, limits, out=np.zeros_like(residuals), where=limits > 0.0)))
