"""`Fit`: a completion under way, at one penalty after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lrla._progress import Progress
from lrla.completion._fitted import PATH_DTYPE, Fitted, Settings
from lrla.completion._half_sweep import Factors, Solver
from lrla.completion._observed import Observed
from lrla.completion._path import Penalty, Problem, Trend

if TYPE_CHECKING:
    from lrla.completion._posterior import Priors

SMALLEST = 1e-9  # penalty on a path to zero, relative to the largest
# A path to penalty zero: its levels, the sweeps at its end at most, and the error over the spread that counts as none.
EXACT_RATIO, EXACT_SWEEPS, EXACT_LAST, SETTLED = 1.25, 2, 100, 1e-4
RESTING = 5  # levels of such a path over which the error does not fall, for a rank that is too small


class Fit:
    """A fit under way: factors, the problem they belong to, and the record of the levels.

    With estimated penalties (see `_estimated`) it has `priors` besides.
    """

    def __init__(
        self,
        observed: Observed,
        settings: Settings,
        seed: int,
        progress: Progress,
        *,
        mean: float | None = None,
        held_out: Any = None,
        factors: Factors | None = None,
        like: Fit | None = None,
    ):
        self.settings, self.seed, self.progress, self.held_out = settings, seed, progress, held_out
        mean = mean if settings.center else 0.0
        self.problem = Problem(
            observed, settings.reg_scaling, Solver(settings.cg_tol, settings.cg_max_iter), seed, mean
        )
        self.sweeps, self.stopped, self.objective = 0, False, float("nan")
        self.levels: list[tuple[float, int, float, float, float]] = []
        self.began = time.perf_counter()
        self.reg_bias = (0.0, 0.0)
        self.priors: Priors | None = None
        if like is not None:  # goes on where another fit, perhaps of fewer entries, has come to
            self.problem.scale, self.sweeps, self.levels, self.began = (
                like.problem.scale,
                like.sweeps,
                list(like.levels),
                like.began,
            )
            self.stopped, self.objective = like.stopped, like.objective
            self.problem.set_mean(mean)
            self.problem.noise, self.problem.offset_spread = like.problem.noise, list(like.problem.offset_spread)
            self.priors = like.priors
        self.factors = self.problem.start(settings.fit_bias) if factors is None else factors

    def penalty(self, reg: float) -> Penalty:
        """The penalties for a `reg` in the units of the data; those of the offsets as the noise is now, unless they are given."""
        self.reg_bias = self.settings.bias_penalties or self.problem.offset_penalties()
        return Penalty(reg / self.problem.scale, self.reg_bias)

    def largest_reg(self) -> float:
        """Roughly the penalty from which on there is no column."""
        return self.problem.largest(self.factors) * self.problem.scale

    def level(self, reg: float, most: int, sweeps: int) -> float:
        """Grow, sweep, record; returns the error on the held-out entries (NaN without)."""
        penalty = self.penalty(reg)
        self.problem.grow(self.factors, penalty, most)
        loss = self.sweep(penalty, sweeps)
        return self.record(reg, loss)

    def sweep(self, penalty: Penalty, sweeps: int) -> float:
        """Some sweeps at one penalty; returns the last loss."""
        loss = float("nan")
        for _ in range(sweeps):
            loss, self.objective = self.problem.sweep(self.factors, penalty)
            self.sweeps += 1
            self.stopped = self.progress.step(
                reg=penalty.reg * self.problem.scale, n_components=self.factors.k, train_rmse=self.rmse(loss)
            )
            if self.stopped:
                break
        return loss

    def rmse(self, loss: float) -> float:
        """Root mean square error in the units of the data."""
        return self.problem.scale * (loss / max(float(self.problem.observed.counts.sum()), 1e-300)) ** 0.5

    def record(self, reg: float, loss: float) -> float:
        """Note a level; returns its error on the held-out entries."""
        error = float("nan") if self.held_out is None else self.held_out.rmse(self.factors, self.problem)
        self.levels.append((reg, self.factors.k, self.rmse(loss), error, time.perf_counter() - self.began))
        return error

    def descend(self, reg: float, most: int) -> None:
        """Levels from the largest penalty down to the one above `reg`."""
        largest = self.largest_reg()
        current = largest / self.settings.path_ratio
        while current > max(reg * 1.0001, SMALLEST * largest) and not self.stopped:
            self.level(current, most, self.settings.sweeps_per_level)
            current /= self.settings.path_ratio

    def settle(self, reg: float, most: int) -> tuple[bool, float]:
        """Sweeps at the last penalty until neither sweeps nor further columns gain anything; whether, and the certificate."""
        penalty = self.penalty(reg)
        before, loss = float("inf"), float("nan")
        growing, converged = True, False
        trend = Trend()
        for _ in range(0 if self.stopped else self.settings.max_iter):
            if growing:
                growing = self.problem.grow(self.factors, penalty, most) > 0
            loss = self.sweep(penalty, 1)
            if self.stopped:
                break
            settled = not growing and before - self.objective <= self.settings.tol * abs(self.objective)
            before = self.objective
            if settled:
                growing = self.problem.grow(self.factors, penalty, most, thorough=True) > 0
                if not growing:
                    converged = True
                    break
            elif not growing and trend.follow(self.factors, self.problem.sigma, self.objective):
                before = float("inf")  # the next sweep is compared with none
        self.record(reg, loss)
        return converged, self.certificate(reg)

    def certificate(self, reg: float) -> float:
        """Largest singular value of the residual over the penalty, to a hundredth where it is far above 1."""
        top = self.problem.largest(self.factors, reg / self.problem.scale) * self.problem.scale
        return top / reg if reg > 0 else float("inf") if top > 0 else 0.0

    def descend_to_zero(self, rank: int) -> tuple[str, float]:
        """Let the penalty of a fit of this rank fall until it plays no part; what the error does, and the last penalty.

        "exact": it falls to rounding noise; "rest": it comes to rest above zero; "slow": neither.
        """
        largest = current = self.largest_reg()
        floor = 1e-6 if self.factors.U.dtype == np.float32 else SMALLEST
        before, resting = float("inf"), 0
        while current > floor * largest and not self.stopped:
            current /= EXACT_RATIO
            self.level(current, rank, EXACT_SWEEPS)
            error = self.levels[-1][2]
            resting = resting + 1 if error > 0.98 * before else 0
            if resting >= RESTING:
                return "rest", current
            before = error
        if before > SETTLED * self.problem.scale:
            return "slow", current
        for _ in range(EXACT_LAST):
            error = self.rmse(self.sweep(self.penalty(current), 1))
            if self.stopped or error > 0.98 * before:
                break
            before = error
        return "exact", current

    def result(self, reg: float, converged: bool, optimality: float) -> Fitted:
        """What was reached, in the units of the data."""
        return self.fitted(self.problem.balance(self.factors), reg, converged, optimality)

    def fitted(self, sigma: np.ndarray, reg: float, converged: bool, optimality: float) -> Fitted:
        """The factors as they are, which have these singular values, in the units of the data."""
        factors, scale = self.factors, self.problem.scale
        root = scale**0.5
        m, n = self.problem.observed.shape
        dtype = factors.U.dtype
        bias = bool(factors.shift)
        U, V = (np.ascontiguousarray(X[:, factors.columns]) * dtype.type(root) for X in (factors.U, factors.V))
        return Fitted(
            U, V,
            factors.U[:, 0] * dtype.type(scale) if bias else np.zeros(m, dtype),
            factors.V[:, 1] * dtype.type(scale) if bias else np.zeros(n, dtype),
            self.problem.mean, sigma * scale, reg, self.reg_bias, optimality, self.objective * scale**2,
            self.sweeps, converged, np.array(self.levels, PATH_DTYPE), self.stopped,
            offsets=bias, centered=self.settings.center,
        )  # fmt: skip
