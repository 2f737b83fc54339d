"""Maximum likelihood of a factor model from a table with holes: EM with an expanded parameter.

A row is ``x = mean + W z + e`` with ``z ~ N(0, I_k)`` and independent ``e_j ~ N(0, psi_j)``; entries that are missing are
integrated out.  Each column has a noise variance of its own, so a column that the others explain badly does not spoil them.

Symbols of the papers: W (n, k) loadings, psi noise variances, z factors; E[.] given the observed entries of a row.
Rubin and Thayer, "EM algorithms for ML factor analysis", Psychometrika 47, 1982; Tipping and Bishop, "Probabilistic
principal component analysis", JRSS B 61, 1999; Liu, Rubin and Wu, "Parameter expansion to accelerate EM: the PX-EM
algorithm", Biometrika 85, 1998.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lrla._progress import Progress
from lrla.completion._table_kernels import STRIP, solve_all

if TYPE_CHECKING:
    from lrla.completion._table import Table

PRIOR_ROWS = 5.0  # rows that the pooled noise variance counts for in that of every column
RIDGE = 15.0  # prior precision of a loading, in units of the standard deviation of its column
FLOOR = 1e-6  # least noise variance, as a share of the variance of the column


class Rows(Protocol):
    """What the iteration asks of data: see `_table.Table` and `_sparse_table.SparseTable`."""

    @property
    def counts(self) -> np.ndarray:
        """(n,), weight of the entries of every column."""

    def variance(self, center: bool) -> np.ndarray:
        """(n,), of the entries of every column about their mean, or about zero; 0 where there are none."""

    def expect(self, model: FactorModel) -> Statistics:
        """The E step."""


@dataclass(frozen=True)
class FactorModel:
    """The model, and how it was found."""

    mean: np.ndarray  # (n,)
    W: np.ndarray  # (n, k)
    psi: np.ndarray  # (n,)
    inflation: np.ndarray | float = 1.0  # (n,), of psi for new entries, as mean, W and psi themselves are estimates
    loglik: float = -math.inf  # of the observed entries, at the last parameters but one
    n_iter: int = 0
    converged: bool = False

    @property
    def k(self) -> int:
        """Number of factors."""
        return self.W.shape[1]


@dataclass(frozen=True)
class Statistics:
    """What a pass over the rows finds out: sums of expected products of (z, 1), for each column over the rows that show it.

    Symmetric matrices of order k + 1 are packed: their lower triangles row by row, see `packed_place`.
    """

    G: np.ndarray  # ((k + 1) (k + 2) / 2, n), sums of E[(z, 1) (z, 1)^T]
    right: np.ndarray  # (k + 1, n), sums of E[(z, 1)] times the deviation of the entry from the mean
    second: np.ndarray  # (n,), sums of squared deviations
    total: np.ndarray  # ((k + 1) (k + 2) / 2,), sum of E[(z, 1) (z, 1)^T] over all rows
    loglik: float
    Z: np.ndarray  # (m, k), E[z] of every row
    hidden_error: float = 0.0  # of hidden entries the squared errors, and their weight
    hidden_weight: float = 0.0


@dataclass(frozen=True)
class Options:
    """How a factor model is fitted.

    equal_noise: one psi for all columns; fit_mean: or leave it at zero.  ridge and prior_rows, see `RIDGE` and
    `PRIOR_ROWS`, steady what few rows determine; with both at 0 the iteration finds the maximum of the likelihood, which
    then never decreases.
    """

    equal_noise: bool = False
    fit_mean: bool = True
    max_iter: int = 100
    tol: float = 1e-4
    ridge: float = RIDGE
    prior_rows: float = PRIOR_ROWS


# ---------------------------------------------------------------------------------------------------- packed matrices


@cache
def pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lower triangle of a k x k matrix, row by row."""
    return np.tril_indices(k)


def packed_place(a: Any, b: Any) -> Any:
    """Where entry (a, b), b <= a, of a packed symmetric matrix is."""
    return a * (a + 1) // 2 + b


def strips(array: np.ndarray) -> np.ndarray:
    """The last axis, a multiple of STRIP, cut into strips."""
    return array.reshape(*array.shape[:-1], -1, STRIP)


def solve_columns(G: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverses of n positive definite matrices, packed, (size, n), and solutions (k, n)."""
    k, n = right.shape
    width = -(-n // STRIP) * STRIP
    inverse, solution = np.zeros((len(G), width)), np.zeros((k, width))
    inverse[packed_place(np.arange(k), np.arange(k))] = 1.0
    inverse[:, :n], solution[:, :n] = G, right
    solve_all(strips(inverse), strips(solution), strips(np.empty(width)))
    return inverse[:, :n], solution[:, :n]


# ---------------------------------------------------------------------------------------------------- iteration


def fit_factor_model(table: Rows, start: FactorModel, options: Options, progress: Progress) -> FactorModel:
    """Iterate EM from `start` until the log-likelihood per observed entry gains less than `tol`."""
    model = start
    for _, _, model in iterate(table, start, options):
        if progress.step(loglik=model.loglik, n_components=model.k):
            break
    return model


def iterate(table: Rows, start: FactorModel, options: Options) -> Iterator[tuple[FactorModel, Statistics, FactorModel]]:
    """Yield (model, what a pass says about it, next model) for up to `max_iter` EM steps.

    The last model says whether the iteration converged.
    """
    entries, model, before = float(table.counts.sum()), start, -math.inf
    variance = table.variance(options.fit_mean)
    variance = np.where(variance > 0.0, variance, variance.mean() or 1.0)
    for n_iter in range(1, options.max_iter + 1):
        statistics = table.expect(model)
        loglik = statistics.loglik
        converged = loglik - before <= options.tol * entries
        better = maximize(statistics, model, options, variance)
        better = replace(better, loglik=loglik, n_iter=n_iter, converged=converged)
        yield model, statistics, better
        model = better
        if converged:
            return
        before = loglik


def maximize(statistics: Statistics, model: FactorModel, options: Options, variance: np.ndarray) -> FactorModel:
    """The M step: a least-squares problem for each column, its noise, and the expanded parameters put back."""
    s, k = statistics, model.k
    G, right, weight = s.G, s.right, s.G[-1].copy()
    diagonal, last = packed_place(np.arange(k + 1), np.arange(k + 1)), packed_place(k, np.arange(k))
    ridge = options.ridge * model.psi / variance
    G[diagonal[:-1]] += ridge
    seen = weight > 0.0
    if not seen.all():
        G[:, ~seen], right[:, ~seen] = 0.0, 0.0
        G[diagonal[:, None], ~seen] = 1.0
    if not options.fit_mean:
        G[last] = right[k] = 0.0
    inverse, solution = solve_columns(G, right)
    W, shift = solution[:k].T, solution[k]
    left = np.maximum(s.second - np.sum(solution * right, axis=0), 0.0)
    tiny = np.finfo(np.float64).tiny
    pooled = left.sum() / max(weight.sum(), tiny)
    psi = np.where(seen, (left + options.prior_rows * pooled) / np.maximum(weight + options.prior_rows, tiny), pooled)
    psi = np.maximum(np.full_like(psi, pooled) if options.equal_noise else psi, FLOOR * variance)
    # the factors' own mean and covariance, which the model fixes at 0 and I, go into the mean and W
    rows = s.total[-1]
    a, b = pairs(k)
    moment = np.zeros((k, k))
    moment[a, b] = moment[b, a] = s.total[: len(a)] / rows
    alpha = s.total[last] / rows if options.fit_mean else np.zeros(k)
    L = np.linalg.cholesky(moment - np.outer(alpha, alpha))
    # parameters that a column's entries determine: all but what the ridge holds
    fitted = k + options.fit_mean - ridge * inverse[diagonal[:-1]].sum(axis=0)
    fitted = np.clip(fitted, 0.0, 0.5 * weight)
    inflation = (weight + fitted) / np.maximum(weight - fitted, tiny)
    return FactorModel(model.mean + shift + W @ alpha, W @ L, psi, np.where(seen, inflation, 1.0))


# ---------------------------------------------------------------------------------------------------- start


def start_model(table: Table, k: int, options: Options, seed: np.random.SeedSequence) -> FactorModel:
    """Column means, half the variance as noise, and the k leading directions of the table with means in its holes."""
    mean = table.means() if options.fit_mean else np.zeros(table.n)
    variance = table.variance(options.fit_mean)
    psi = np.where(variance > 0.0, 0.5 * variance, 0.5 * (variance.mean() or 1.0))
    empty = FactorModel(mean, np.zeros((table.n, 0)), psi)
    return widen(table, empty, k, seed, np.zeros((table.m, 0)))


def widen(table: Table, model: FactorModel, k: int, seed: np.random.SeedSequence, Z: np.ndarray) -> FactorModel:
    """The model with k factors: new ones along the leading directions of what its means (m, model.k) leave of the entries."""
    rows = max(table.counts.sum() / table.n, np.finfo(np.float64).tiny)  # that many show a column
    W = table.directions(model, Z, k - model.k, seed) / math.sqrt(rows)
    return replace(model, W=np.concatenate([model.W, W], axis=1))


# ---------------------------------------------------------------------------------------------------- number of factors

ENOUGH = 2000  # held-out entries that tell two numbers of factors apart; smaller tables are split several times
MOST_SPLITS = 5
CLEARLY = 1.005  # times the least error: so much worse, that what lies between is not tried
# A trial ends when its squared error has fallen by less than the share STALL in PATIENCE iterations.
PATIENCE, STALL = 2, 0.002


def choose_components(
    table: Table, most: int, fraction: float, options: Options, seed: np.random.SeedSequence, progress: Progress
) -> tuple[FactorModel, float]:
    """A model of as many factors as predict held-out entries best, from the first split, and its root mean square error.

    Tried are 2, 4, 8, ..., each begun from the one before, until the error has grown: in small tables, whose errors are
    less certain, clearly or twice.  Then the numbers half way to the neighbours of the best, above it unless twice the number
    is clearly worse.

    Parameters
    ----------
    table : Table
    most : int, the largest number to try
    fraction : float, share of the entries that a split holds out
    """
    splits = int(np.clip(ENOUGH / (fraction * table.counts.sum()), 1, min(MOST_SPLITS, 1 / fraction)))
    trials = [Trial(table.hide(split * fraction, (split + 1) * fraction, seed)) for split in range(splits)]
    errors: dict[int, float] = {}

    def error(k: int) -> float:
        sums = np.sum([trial.error(k, options, seed, progress) for trial in trials], axis=0)
        errors[k] = math.sqrt(sums[0] / sums[1]) if sums[1] > 0.0 else 0.0
        return errors[k]

    k, best, failures = min(2, most), math.inf, 0
    while True:
        now = error(k)
        failures += (now >= best) * (1 + (splits == 1 or now > CLEARLY * best))
        best = min(now, best)
        if failures >= 2 or k == most:
            break
        k = min(2 * k, most)
    middle = min(errors, key=errors.__getitem__)
    above = 3 * middle // 2 if errors.get(2 * middle, 0.0) <= CLEARLY * errors[middle] else middle
    for k in (max(1, 3 * middle // 4), above):
        if k not in errors and 0 < k <= most:
            error(k)
    chosen = min(errors, key=errors.__getitem__)
    return trials[0].models[chosen], errors[chosen]


class Trial:
    """A table of which some entries are hidden, and the models fitted to it so far, by number of factors."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.models: dict[int, FactorModel] = {}
        self.scores: dict[int, np.ndarray] = {}  # E[z] of every row, by the model of the step before

    def error(self, k: int, options: Options, seed: np.random.SeedSequence, progress: Progress) -> tuple[float, float]:
        """Squared errors of k factors on the hidden entries, summed, and the sum of the weights."""
        below = max((before for before in self.models if before < k), default=0)
        if below:
            start = widen(self.table, self.models[below], k, seed, self.scores[below])
        else:
            start = start_model(self.table, k, options, seed)
        errors: list[float] = []
        for _, statistics, better in iterate(self.table, start, options):
            errors.append(statistics.hidden_error)
            self.models[k], self.scores[k] = better, statistics.Z
            stalls = len(errors) > PATIENCE and errors[-1] > (1.0 - STALL) * errors[-1 - PATIENCE]
            if progress.step(loglik=better.loglik, n_components=k) or stalls:
                break
        return errors[-1], statistics.hidden_weight
