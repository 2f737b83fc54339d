"""Plain ridge regression at a known penalty: directly, or by conjugate gradients preconditioned with sketches.

The iteration solves ``(Z Z^T / W + mu) a = y`` in n dimensions; the coefficients are ``Z^T a / W``.  For sketches Z_k of the
same rows, with left singular vectors U_k and eigenvalues e_k, the preconditioner is the mean of the inverses of
``Z_k Z_k^T / W + mu``:

    v  ->  mean_k (v - U_k diag(e_k / (e_k + mu)) U_k^T v) / mu.

Where sketches know no more than their floor, mu(0), 1, 2 and 4 of them need 23, 16 and 13 steps to 1e-6 (measured: power law,
1250 x 5000, 250 columns), where the mean kernel's inverse needs as many and a Cholesky factor of order K q, and none needs 27.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.ridge._cost import Shape
from lrla.ridge._design import Design

SMALLEST = 1e-14  # of the largest eigenvalue: mu is not taken smaller
SINGULAR, MODERATE = 1e-9, 4000  # of it, where an order is moderate: eigenvalues are cut off instead of iterating


@dataclass(frozen=True)
class ExactSolution:
    """Coefficients of the (scaled) problem, and how they were found.

    Attributes
    ----------
    beta : array of shape (p, T)
    left : array of shape (n, T)
        What it leaves of the response.
    n_iter : int
        0 for a direct solution.
    residual : ndarray of shape (T,)
        Norm of the residual of the system, relative to the response.
    converged : bool
    method : {"direct", "cg", "sketched cg"}
    """

    beta: Any
    left: Any
    n_iter: int
    residual: np.ndarray
    converged: bool
    method: str


@dataclass(frozen=True)
class Spectrum:
    """What sketches tell about the data.

    Attributes
    ----------
    top, degrees : float
        Estimates of the largest eigenvalue, and of the degrees of freedom at the penalty.
    floor : float
        The penalty that the sketches imply at zero: what they leave of the data has about that norm.
    members, rank : int
        How many sketches there are for a preconditioner, and their columns.
    """

    top: float
    degrees: float
    floor: float
    members: int
    rank: int


def exact_ridge(
    design: Design, y: Any, mu: np.ndarray, *, known: Spectrum, bases: Callable[[int], Sequence[tuple[Any, np.ndarray]]],
    tol: float, max_iter: int, method: str = "auto",
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
    known : Spectrum
    bases : callable
        ``bases(J)`` are left singular vectors (n, r) and eigenvalues (r,) of the first J sketches.
    tol, max_iter : float, int
        Of the iteration.
    method : {"auto", "direct", "cg", "sketched cg"}
    """
    if known.top == 0.0:  # nothing varies, or no more than rounding makes it
        beta = design.xp.zeros((design.shape[1], len(mu)), dtype=design.xp.float64, device=_arrays.device(y))
        return ExactSolution(beta, y, 0, np.zeros(len(mu)), True, "direct")
    mu = np.maximum(mu, SMALLEST * known.top)
    if method == "auto":
        method = _choose(Shape.of(design.A, 1, len(mu), known.members), float(mu.min()), known, tol)
    if method == "direct":
        beta = _direct(design, y, mu)
        return ExactSolution(beta, y - design.forward(beta), 0, np.zeros(len(mu)), True, method)
    precondition = sketch_preconditioner(bases(known.members), mu) if method == "sketched cg" else None
    found = conjugate_gradients(design, y, mu, precondition, tol, max_iter)
    left = found.r + _arrays.from_host(mu, y)[None, :] * found.a  # r is y - (Z Z^T / W + mu) a
    converged = bool(np.all(found.residual <= tol))
    return ExactSolution(found.beta, left, found.n_iter, found.residual, converged, method)


def _choose(shape: Shape, mu: float, known: Spectrum, tol: float) -> str:
    """The way that is expected to cost least.

    A penalty of nearly nothing, where data have less than full rank, leaves the iteration with large numbers that cancel.
    """
    if mu < SINGULAR * known.top and shape.side <= MODERATE:
        return "direct"
    decades = math.log(2.0 / tol)
    plain = min(0.25 * math.sqrt(1.0 + known.top / mu) * decades, 0.6 * known.degrees + 5.0)
    costs = {"direct": shape.direct(), "cg": plain * shape.step()}
    if known.members:
        helped = 0.5 * math.sqrt(1.0 + 9.0 / known.members * known.floor / mu) * decades
        costs["sketched cg"] = min(helped, plain) * (shape.step() + shape.preconditioning(known.rank))
    return min(costs, key=costs.__getitem__)


def _direct(design: Design, y: Any, mu: np.ndarray) -> Any:
    """From the smaller Gram matrix: its Cholesky factor for one penalty, its eigenvectors for several."""
    n, p = design.shape
    if p <= n:
        return _shifted_solve(design.gram(), mu)(design.adjoint(y) / design.total)
    return design.adjoint(_shifted_solve(design.kernel(), mu)(y)) / design.total


def _shifted_solve(G: Any, mu: np.ndarray) -> Callable[[Any], Any]:
    """``B -> (G + mu_t)^-1 b_t`` for columns b_t of B; where G is singular to rounding they have nothing, and get nothing."""
    if isinstance(G, np.ndarray) and np.all(mu == mu[0]) and mu[0] > SINGULAR * float(np.max(np.diagonal(G))):
        G[np.diag_indices(len(G))] += mu[0]
        try:
            factor = scipy.linalg.cho_factor(G, lower=True, check_finite=False)
        except np.linalg.LinAlgError:  # mu is rounding noise beside G: eigenvalues can be cut off at zero
            G[np.diag_indices(len(G))] -= mu[0]
        else:
            return lambda B: scipy.linalg.cho_solve(factor, B, check_finite=False)
    with _arrays.device_errors(G):
        e, Q = _arrays.namespace(G).linalg.eigh(G)
    xp, shift = _arrays.namespace(e), _arrays.from_host(mu, Q)
    held = (e > int(e.shape[0]) * _arrays.eps(np.float64) * xp.max(e))[:, None]
    D = xp.where(
        held, 1.0 / xp.where(held, e[:, None] + shift[None, :], xp.ones_like(shift)[None, :]), 0.0 * shift[None, :]
    )
    return lambda B: Q @ (D * (Q.T @ B))


def sketch_preconditioner(bases: Sequence[tuple[Any, np.ndarray]], mu: np.ndarray) -> Callable[[Any], Any]:
    """The mean of the inverses of the sketches' kernels, from their left singular vectors and eigenvalues."""
    U, K = [vectors for vectors, _ in bases], len(bases)
    xp = _arrays.namespace(U[0])
    shares = [
        _arrays.astype(_arrays.from_host(e[:, None] / (e[:, None] + mu[None, :]), one), _arrays.real_dtype(one))
        for one, e in bases
    ]
    shift = _arrays.from_host(mu, U[0])[None, :]

    def apply(V: Any) -> Any:
        size = xp.sqrt(xp.sum(V * V, axis=0))[None, :]
        size = xp.where(size > 0.0, size, xp.ones_like(size))
        part: Any = 0.0
        for one, share in zip(U, shares, strict=True):
            unit = _arrays.astype(V / size, _arrays.real_dtype(one))  # no number leaves the range of float32
            part = part + _arrays.astype(one @ (share * (one.T @ unit)), np.float64)
        return (V - (size / K) * part) / shift

    return apply


@dataclass(frozen=True)
class Iterated:
    """What conjugate gradients found.

    Attributes
    ----------
    a, r : arrays of shape (n, T)
        The solution and its residual.
    beta : array of shape (p, T)
        ``Z^T a / W``, added up from the products that every step needs.
    n_iter : int
    residual : ndarray of shape (T,)
        ``||r|| / ||y||``, at most the tolerance where it converged.
    """

    a: Any
    r: Any
    beta: Any
    n_iter: int
    residual: np.ndarray


def conjugate_gradients(
    design: Design, y: Any, mu: np.ndarray, precondition: Callable[[Any], Any] | None, tol: float, max_iter: int
) -> Iterated:
    """Solve ``(Z Z^T / W + mu_t) a_t = y_t`` for every target, sharing the products: two with Z a step, and no more."""
    xp = design.xp
    shift = _arrays.from_host(mu, y)[None, :]
    goal = xp.sqrt(xp.sum(y * y, axis=0))
    goal = xp.where(goal > 0.0, goal, xp.ones_like(goal))
    a, r = xp.zeros_like(y), y
    beta = xp.zeros((design.shape[1], int(y.shape[1])), dtype=xp.float64, device=_arrays.device(y))
    z = r if precondition is None else precondition(r)
    d, rho = z, xp.sum(r * z, axis=0)
    one = xp.ones_like(rho)
    for step in range(max_iter + 1):
        reached = _arrays.to_host(xp.sqrt(xp.sum(r * r, axis=0)) / goal)
        if step == max_iter or np.all(reached <= tol):
            return Iterated(a, r, beta, step, reached)
        way = design.adjoint(d) / design.total
        image = design.forward(way) + shift * d
        curvature = xp.sum(d * image, axis=0)
        going = (curvature > 0.0) & (rho > 0.0)  # a target that is solved exactly stands still
        length = xp.where(going, rho / xp.where(going, curvature, one), xp.zeros_like(rho))
        a, r, beta = a + length[None, :] * d, r - length[None, :] * image, beta + length[None, :] * way
        z = r if precondition is None else precondition(r)
        new = xp.sum(r * z, axis=0)
        d = z + xp.where(going, new / xp.where(going, rho, one), xp.zeros_like(rho))[None, :] * d
        rho = new
    raise AssertionError("unreachable")
