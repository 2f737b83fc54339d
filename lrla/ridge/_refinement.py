"""Solvers of a preconditioned least-squares problem: corrections, each found from a residual that is computed anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.ridge._preconditioned import Preconditioned, State
from lrla.ridge._sweeps import norm_of_rows, ratio, unit_rows

GROWTH = 2.0  # a correction that lowers the backward error by less is the last one


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


def direct(P: Preconditioned, state: State, target: float, rate: float, budget: int) -> tuple[Any, int]:
    """The correction where F M has nearly orthonormal columns."""
    return state.gradient, 1


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
    V, alfa = unit_rows(xp, ratio(xp, state.gradient, beta[:, None]))
    W, dy = V, xp.zeros_like(V)
    phi_bar, rho_bar = beta, alfa
    cap = min(budget, iterations(rate, _arrays.eps(P.system.dtype)))
    for count in range(1, cap + 1):  # noqa: B007 (returned)
        done, h = P.apply(V, top, bottom, ratio(xp, alfa, beta)[:, None])
        top, bottom, beta = done.top, done.bottom, done.norm
        V, alfa = unit_rows(xp, ratio(xp, h, beta[:, None]) - beta[:, None] * V)
        rho = xp.sqrt(rho_bar**2 + beta**2)
        c, s = ratio(xp, rho_bar, rho), ratio(xp, beta, rho)
        step = ratio(xp, c * phi_bar, rho)
        dy = dy + step[:, None] * W
        update = xp.abs(step) * norm_of_rows(xp, W)
        W = V - ratio(xp, s * alfa, rho)[:, None] * W
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
        if _all_done(P, error, norm_of_rows(xp, dy - before), dy, target):
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
    return bool(xp.all((error <= target) | (update <= _arrays.eps(P.system.dtype) * norm_of_rows(xp, dy))))
