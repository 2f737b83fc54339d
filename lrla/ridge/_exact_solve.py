"""Plain ridge regression at a known penalty: directly, or by conjugate gradients preconditioned with sketches.

The iteration solves ``(Z Z^T / W + mu) a = y`` in n dimensions; the coefficients are ``Z^T a / W``.  For sketches Z_k of the
same rows and ``S = [Z_1 ... Z_K] / sqrt(K)``, ``M = S^T S / W``, the preconditioner is the inverse of ``S S^T / W + mu``:

    v  ->  (v - S (M + mu)^-1 S^T v / W) / mu.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.ridge._design import Design

DIRECT_DENSE = 4000  # order up to which the smaller Gram matrix of dense data costs less than an iteration
DIRECT_SPARSE = 1000
SMALLEST = 1e-14  # of the largest eigenvalue: mu is not taken smaller


@dataclass(frozen=True)
class ExactSolution:
    """Coefficients of the (scaled) problem, and how they were found.

    Attributes
    ----------
    beta : array of shape (p, T)
    n_iter : int
        0 for a direct solution.
    residual : ndarray of shape (T,)
        Norm of the residual of the system, relative to the response.
    converged : bool
    method : {"direct", "cg", "sketched cg"}
    """

    beta: Any
    n_iter: int
    residual: np.ndarray
    converged: bool
    method: str


def exact_ridge(
    design: Design, y: Any, mu: np.ndarray, *, top: float, degrees: float, floor: float,
    sketches: Callable[[int], list[Design]], size: int, width: int, tol: float, max_iter: int,
    method: str = "auto",
) -> ExactSolution:  # fmt: skip
    """Coefficients of plain ridge regression.

    Parameters
    ----------
    design : Design
        The centred and weighted data.
    y : array of shape (n, T)
        The response, likewise.
    mu : ndarray of shape (T,)
        A penalty for each target, positive.
    top, degrees, floor : float
        Estimates of the largest eigenvalue and of the degrees of freedom at mu, and the penalty that the sketches imply
        at zero: what they leave of the data has about that norm.
    sketches : callable
        ``sketches(J)`` are the first J sketched designs.
    size, width : int
        How many there are, and their number of columns.
    tol, max_iter : float, int
        Of the iteration.
    method : {"auto", "direct", "cg", "sketched cg"}
    """
    mu = np.maximum(mu, SMALLEST * top if top > 0.0 else 1.0)
    _n, _p = design.shape
    if method == "auto":
        method = _choose(design, float(mu.min()), top, degrees, floor, size, width, tol)
    if method == "direct":
        beta = _direct(design, y, mu)
        return ExactSolution(beta, 0, np.zeros(len(mu)), True, method)
    precondition = None
    if method == "sketched cg":
        precondition = sketch_preconditioner(sketches(min(size, max(1, 1024 // width))), mu)
    a, n_iter, residual = conjugate_gradients(design, y, mu, precondition, tol, max_iter)
    return ExactSolution(design.adjoint(a) / design.total, n_iter, residual, bool(np.all(residual <= tol)), method)


def _choose(
    design: Design, mu: float, top: float, degrees: float, floor: float, size: int, width: int, tol: float
) -> str:
    """The way that is expected to cost least."""
    n, p = design.shape
    if min(n, p) <= (DIRECT_SPARSE if design.is_sparse else DIRECT_DENSE):
        return "direct"
    members = min(size, max(1, 1024 // width))
    if members * width < degrees or members * width > n:
        return "cg"
    decades = math.log(2.0 / tol)
    plain = min(0.5 * math.sqrt(1.0 + top / mu) * decades, 0.6 * degrees + 5.0)
    helped = 0.5 * math.sqrt(1.0 + 4.0 * floor / mu) * decades
    entries = float(design.like.shape[0]) if design.is_sparse else float(n) * p
    return "sketched cg" if helped * (entries + n * members * width) < plain * entries else "cg"


def _direct(design: Design, y: Any, mu: np.ndarray) -> Any:
    """From the smaller Gram matrix: its Cholesky factor for one penalty, its eigenvectors for several."""
    n, p = design.shape
    if p <= n:
        return _shifted_solve(design.gram(), mu)(design.adjoint(y) / design.total)
    return design.adjoint(_shifted_solve(design.kernel(), mu)(y)) / design.total


def _shifted_solve(G: Any, mu: np.ndarray) -> Callable[[Any], Any]:
    """``B -> (G + mu_t)^-1 b_t`` for columns b_t of B."""
    if isinstance(G, np.ndarray) and np.all(mu == mu[0]):
        G[np.diag_indices(len(G))] += mu[0]
        try:
            factor = scipy.linalg.cho_factor(G, lower=True, check_finite=False)
        except np.linalg.LinAlgError:  # mu is rounding noise beside G: eigenvalues can be cut off at zero
            G[np.diag_indices(len(G))] -= mu[0]
        else:
            return lambda B: scipy.linalg.cho_solve(factor, B, check_finite=False)
    with _arrays.device_errors(G):
        e, Q = _arrays.namespace(G).linalg.eigh(G)
    values = _arrays.namespace(e).where(e > 0.0, e, 0.0 * e)
    D = 1.0 / (values[:, None] + _arrays.from_host(mu, Q)[None, :])
    return lambda B: Q @ (D * (Q.T @ B))


def sketch_preconditioner(sketches: list[Design], mu: np.ndarray) -> Callable[[Any], Any]:
    """The inverse of ``S S^T / W + mu`` for the mean of the sketches' kernels."""
    S, total = sketches, sketches[0].total
    xp, K = S[0].xp, len(S)
    blocks = [S[0].gram()] if K == 1 else _cross_grams(S)
    M = blocks[0] if K == 1 else xp.concat(blocks, axis=0)
    solve = _shifted_solve(M / K, mu)
    width, shift = S[0].shape[1], _arrays.from_host(mu, M)
    share = 1.0 / math.sqrt(K)

    def apply(V: Any) -> Any:
        C = [share * one.adjoint(V) / total for one in S]
        C = solve(xp.concat(C, axis=0) if K > 1 else C[0])
        parts = (share * one.forward(C[k * width : (k + 1) * width, :]) for k, one in enumerate(S))
        return (V - sum(parts)) / shift[None, :]

    return apply


def _cross_grams(sketches: list[Design]) -> list[Any]:
    """Rows of blocks of ``[Z_1 ... Z_K]^T [Z_1 ... Z_K] / W``, accumulated in float64 by blocks of rows."""
    first = sketches[0]
    xp, total = first.xp, first.total
    G: Any = 0.0
    for rows in first.slices(0):
        B = xp.concat([one.block(rows) for one in sketches], axis=1)
        G = G + B.T @ B
    return [G / total]


def conjugate_gradients(
    design: Design, y: Any, mu: np.ndarray, precondition: Callable[[Any], Any] | None, tol: float, max_iter: int
) -> tuple[Any, int, np.ndarray]:
    """Solve ``(Z Z^T / W + mu_t) a_t = y_t`` for every target, sharing the products.

    Returns
    -------
    a : array of shape (n, T)
    n_iter : int
    residual : ndarray of shape (T,)
        ``||residual|| / ||y||``, at most `tol` where it converged.
    """
    xp = design.xp
    shift = _arrays.from_host(mu, y)[None, :]
    goal = xp.sqrt(xp.sum(y * y, axis=0))
    goal = xp.where(goal > 0.0, goal, xp.ones_like(goal))
    a, r = xp.zeros_like(y), y
    z = r if precondition is None else precondition(r)
    d, rho = z, xp.sum(r * z, axis=0)
    one = xp.ones_like(rho)
    for step in range(max_iter + 1):
        reached = _arrays.to_host(xp.sqrt(xp.sum(r * r, axis=0)) / goal)
        if step == max_iter or np.all(reached <= tol):
            return a, step, reached
        image = design.forward(design.adjoint(d)) / design.total + shift * d
        curvature = xp.sum(d * image, axis=0)
        going = (curvature > 0.0) & (rho > 0.0)  # a target that is solved exactly stands still
        length = xp.where(going, rho / xp.where(going, curvature, one), xp.zeros_like(rho))
        a, r = a + length[None, :] * d, r - length[None, :] * image
        z = r if precondition is None else precondition(r)
        new = xp.sum(r * z, axis=0)
        d = z + xp.where(going, new / xp.where(going, rho, one), xp.zeros_like(rho))[None, :] * d
        rho = new
    raise AssertionError("unreachable")
