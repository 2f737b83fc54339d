"""Factors as distributions: variational Bayes, in which noise and penalties are estimated and not chosen.

The entries of u_i and v_j are taken to be Gaussian with means and variances of their own.  What the variances of one side
change for the other is a further penalty: the sum of the variances of those that a row has met.  The penalty of component a
is the variance of the noise over the mean square of u_a (of v_a), so that components which only fit noise vanish.  The
variances are those of the preconditioner of the half-sweep: noise / (penalty + n_i d_a).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from lrla.completion._half_sweep import Factors, Sums, mean_squares, sum_over_rows, update_rows
from lrla.completion._observed import Columns, Observed
from lrla.completion._path import Penalty, Problem

LEAST = 1e-30  # sum of squares or variances by which one may divide
# Squares over variances below which a column has vanished.  Those of the weakest components of ratings rest near 0.4.
VANISHED = 0.1
FALLING = 0.95  # ratio of the same from half-sweep to half-sweep below which a column is about to vanish


@dataclass
class Priors:
    """Penalties of the components and of the offsets, for rows and for columns, in the units of the scaled values."""

    components: list[np.ndarray]  # (k,), (k,)
    bias: list[float]
    given_bias: tuple[float, float] | None = None  # the offsets' where the user has set them
    fixed: bool = False
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0))  # squares over variances of the components
    before: np.ndarray = field(default_factory=lambda: np.zeros(0))  # the same half a sweep earlier

    @property
    def reg(self) -> float:
        """The geometric mean over components and sides, which does not depend on how a product is split."""
        return math.exp(float(np.mean(np.log(self.components)))) if len(self.components[0]) else 0.0


def start(problem: Problem, factors: Factors, penalty: Penalty, given_bias: tuple[float, float] | None) -> Priors:
    """Give the factors of a fit with this penalty the variances that go with it."""
    factors.spread()
    assert factors.spreads is not None
    for flipped, (X, other) in enumerate(((factors.spreads[0], factors.V), (factors.spreads[1], factors.U))):
        side, weights = _side(problem, bool(flipped))
        curvature = side.counts[:, None] * mean_squares(other, side.T.counts)
        curvature[:, factors.columns] += (penalty.reg * weights)[:, None]
        free = _free(factors, bool(flipped))
        if factors.shift:
            curvature[:, flipped] += penalty.bias[flipped] * weights
        found = (side.counts > 0)[:, None] & free & (curvature > 0)
        X[:] = np.where(found, problem.noise / np.where(found, curvature, 1), 0)
    return Priors([np.full(factors.k, penalty.reg)] * 2, list(penalty.bias), given_bias)


def sweep(problem: Problem, factors: Factors, priors: Priors) -> tuple[float, float]:
    """Update U, V, and unless they are fixed the noise and the penalties; the loss between, and the expected loss at the end."""
    prepare(problem, factors, priors)
    half_sweep(problem, factors, priors, False)
    prepare(problem, factors, priors)
    sums, reg = half_sweep(problem, factors, priors, True)
    # the loss of the means, plus what the variances of either side add to it
    side, weights = _side(problem, True)
    squares, variances = moments(factors, True, weights * (side.counts > 0))
    room = np.count_nonzero(side.counts > 0) * np.count_nonzero(_free(factors, True))
    expected = sums.loss + sums.ridge - sums.gain - float(reg @ squares)
    expected += problem.noise * room - float(reg @ variances)
    if not priors.fixed:
        problem.noise = max(expected, np.finfo(np.float64).tiny) / problem.total
        estimate(problem, factors, priors)
    return sums.loss, expected


def prepare(problem: Problem, factors: Factors, priors: Priors) -> None:
    """Balance, drop the columns that have vanished, and bring the penalties up to date."""
    if priors.fixed or not factors.k:
        return
    problem.balance(factors)
    shares = np.ones(factors.k)
    for flipped in (False, True):
        side, weights = _side(problem, flipped)
        squares, variances = moments(factors, flipped, weights * (side.counts > 0))
        shares *= (np.sqrt(squares / np.maximum(variances, LEAST)))[factors.columns]
    kept = shares > VANISHED
    if not kept.all():
        factors.keep(kept)
    priors.before, priors.shares = priors.shares, shares[kept]
    estimate(problem, factors, priors)


def drop_falling(factors: Factors, priors: Priors) -> bool:
    """Drop the columns that are about to vanish, which would take many sweeps; whether there are any."""
    if priors.fixed or len(priors.before) < factors.k or len(priors.shares) != factors.k:
        return False
    falling = priors.shares < np.minimum(1, FALLING * priors.before[: factors.k])
    if falling.any():
        factors.keep(~falling)
        priors.shares = priors.shares[~falling]
        priors.components = [reg[~falling] for reg in priors.components]
    return bool(falling.any())


def half_sweep(problem: Problem, factors: Factors, priors: Priors, flipped: bool) -> tuple[Sums, np.ndarray]:
    """Update one side; what was seen, and the penalties (width,)."""
    side, weights = _side(problem, flipped)
    free, dtype = _free(factors, flipped), side.dtype
    reg = np.zeros(len(free))
    reg[factors.columns] = priors.components[flipped]
    if factors.shift:
        reg[int(flipped)] = priors.bias[flipped]
    mine = factors.T if flipped else factors
    sums = update_rows(
        side, mine.U, mine.V, reg.astype(dtype), free.astype(dtype), problem.numbers, weights.astype(dtype),
        problem.solver, mine.spreads, problem.noise,
    )  # fmt: skip
    return sums, reg


def estimate(problem: Problem, factors: Factors, priors: Priors) -> None:
    """Penalties of both sides: the noise over the mean square of the entries, variances included."""
    for flipped in (False, True):
        side, weights = _side(problem, flipped)
        seen = side.counts > 0
        squares, variances = moments(factors, flipped, weights * seen)
        reg = problem.noise * np.count_nonzero(seen) / np.maximum(squares + variances, LEAST)
        priors.components[flipped] = reg[factors.columns]
        if factors.shift:
            given = priors.given_bias
            priors.bias[flipped] = reg[int(flipped)] if given is None else given[flipped]


def moments(factors: Factors, flipped: bool, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums over the rows of one side of the squares and of the variances of every coordinate, (width,) each."""
    assert factors.spreads is not None
    X, S = (factors.V, factors.spreads[1]) if flipped else (factors.U, factors.spreads[0])
    variances = sum_over_rows(len(S), lambda rows: weights[rows] @ S[rows].astype(np.float64))
    return mean_squares(X, weights) * max(weights.sum(), np.finfo(np.float64).tiny), variances


def _side(problem: Problem, flipped: bool) -> tuple[Observed | Columns, np.ndarray]:
    if flipped:
        return problem.observed.T, problem.column_weights
    return problem.observed, problem.row_weights


def _free(factors: Factors, flipped: bool) -> np.ndarray:
    """Which coordinates of a side may change."""
    free = np.zeros(factors.U.shape[1], bool)
    free[factors.columns] = True
    if factors.shift:
        free[int(flipped)] = True
    return free
