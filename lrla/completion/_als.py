"""`complete`: alternating least squares to a given penalty and rank, along a path of penalties from the largest useful one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from lrla import _validation
from lrla._progress import Callback, Progress
from lrla._random import seed_sequence
from lrla.completion import _posterior
from lrla.completion._balance import gram, transforms
from lrla.completion._half_sweep import Factors, Solver, padded, update_rows
from lrla.completion._observed import Observed
from lrla.completion._path import Penalty, Problem, Trend
from lrla.linalg._blas_threads import one_blas_thread

SMALLEST = 1e-9  # penalty on a path to zero, relative to the largest
# A path to penalty zero: its levels, the sweeps at its end at most, and the error over the spread that counts as none.
EXACT_RATIO, EXACT_SWEEPS, EXACT_LAST, SETTLED = 1.25, 2, 100, 1e-4
BAYES = "bayes"  # in place of a penalty: penalties are estimated
# The way to a start for estimated penalties: levels this power of the path's ratio apart, with a sweep each, down to
# about the singular values of noise.  Their sweeps end where one lowers the expected loss by less than so many times tol.
STEEP, SLOWER = 4, 300.0
BELOW_NOISE = 0.5  # share of that singular value where this way ends
RESTING = 5  # levels of such a path over which the error does not fall, for a rank that is too small
PATH_DTYPE = np.dtype(
    [("reg", "f8"), ("n_components", "i8"), ("train_rmse", "f8"), ("validation_rmse", "f8"), ("seconds", "f8")]
)


@dataclass(frozen=True)
class Settings:
    """What the user chose besides penalty and rank; see `MatrixCompletion`."""

    reg_scaling: float = 0.0
    reg_bias: float | tuple[float, float] | None = None
    fit_bias: bool = True
    center: bool = True
    max_iter: int = 100
    tol: float = 1e-5
    cg_tol: float = 0.1
    cg_max_iter: int = 8
    path_ratio: float = 1.25
    sweeps_per_level: int = 2

    @property
    def bias_penalties(self) -> tuple[float, float] | None:
        """`reg_bias` for rows and for columns; None where it is estimated."""
        given = self.reg_bias
        return (given, given) if isinstance(given, float) else given


@dataclass(frozen=True)
class Fitted:
    """A completed matrix ``mean + b_i + c_j + u_i v_j`` and what is known about it.

    Attributes
    ----------
    U, V : (m, k), (n, k)
        Balanced: both (weighted) Gram matrices are diag(sigma).
    row_bias, column_bias : (m,), (n,)
    mean : float
    sigma : (k,)
        Singular values of U V^T, with the weights of the penalty if there are some.
    reg : float
    reg_bias : (float, float)
        Penalties of the offsets of rows and of columns.
    optimality : float
        Largest singular value of the (weighted) residual over the penalty: at most 1 at the optimum.
    objective : float
    n_iter : int
        Sweeps, those along the path included.
    converged, stopped : bool
        Whether the last sweeps gained less than the tolerance; whether a callback ended them.
    posterior : Posterior or None
        Where the penalties were estimated; then `reg` is their geometric mean, `optimality` NaN and `objective` the expected
        sum of squared errors.
    path : structured array
        For every level reg, n_components, train_rmse, validation_rmse (NaN without validation), and seconds since the start.
    """

    U: np.ndarray
    V: np.ndarray
    row_bias: np.ndarray
    column_bias: np.ndarray
    mean: float
    sigma: np.ndarray
    reg: float
    reg_bias: tuple[float, float]
    optimality: float
    objective: float
    n_iter: int
    converged: bool
    path: np.ndarray
    stopped: bool = False
    posterior: Posterior | None = None


@dataclass(frozen=True)
class Posterior:
    """What estimated penalties leave besides means, in the units of the data.

    Attributes
    ----------
    row_reg, column_reg : (k,)
        Penalties of the components.
    column_spread : (n, k)
        Variances of V.
    noise : float
        Variance of the noise.
    validation_rmse : float
        Error on the held-out entries (NaN without).
    """

    row_reg: np.ndarray
    column_reg: np.ndarray
    column_spread: np.ndarray
    noise: float
    validation_rmse: float = float("nan")


class Fit:
    """A fit under way: factors, the problem they belong to, and the record of the levels."""

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
        self.priors: _posterior.Priors | None = None
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
        """The penalty from which on there is no column."""
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

    # ---------------------------------------------------------------------------------- estimated penalties

    def descend_steeply(self, most: int) -> float:
        """A few levels, down to less than the largest singular value of noise, as a start for `estimate`; the last penalty."""
        ratio = self.settings.path_ratio**STEEP
        reg = self.largest_reg()
        while not self.stopped and self.factors.k < most:
            edge = BELOW_NOISE * self.noise_edge()
            reg = max(reg / ratio, min(edge, reg))
            self.level(reg, most, 1)
            if reg <= edge:
                break
        return reg

    def noise_edge(self) -> float:
        """About the largest singular value of noise at the observed entries."""
        m, n = (int(np.count_nonzero(side.counts)) for side in (self.problem.observed, self.problem.observed.T))
        total = self.problem.total
        level = self.problem.scale * self.problem.noise**0.5 * ((total / max(m, 1)) ** 0.5 + (total / max(n, 1)) ** 0.5)
        mean = (total / max(m, 1)) ** (self.settings.reg_scaling / 2) * (total / max(n, 1)) ** (
            self.settings.reg_scaling / 2
        )
        return level / mean

    def estimate(self, reg: float) -> float:
        """A sweep with estimated penalties, from factors of the penalty `reg` at first; the error on the held-out entries."""
        if self.priors is None or self.factors.spreads is None:
            given = self.settings.bias_penalties
            self.priors = _posterior.start(self.problem, self.factors, self.penalty(reg), given)
        loss, self.objective = _posterior.sweep(self.problem, self.factors, self.priors)
        self.sweeps += 1
        reg = self.priors.reg * self.problem.scale
        self.stopped = self.progress.step(reg=reg, n_components=self.factors.k, train_rmse=self.rmse(loss))
        return self.record(reg, loss)

    def settle_estimated(self, reg: float) -> bool:
        """Sweeps with estimated penalties until the expected loss changes no more; whether it does not."""
        before = float("inf")
        for _ in range(0 if self.stopped else self.settings.max_iter):
            self.estimate(reg)
            if self.stopped:
                break
            assert self.priors is not None  # `estimate` made them
            settled = abs(before - self.objective) <= SLOWER * self.settings.tol * self.objective
            if settled and not _posterior.drop_falling(self.factors, self.priors):
                return True
            before = self.objective
        return False

    def resume(self, model: Fitted) -> Fitted:
        """More sweeps for the factors of a model with estimated penalties, which stay; so does its number of components."""
        posterior, scale = model.posterior, self.problem.scale
        assert posterior is not None
        self.problem.noise = posterior.noise / scale**2
        means = Penalty(model.reg / scale, model.reg_bias)
        self.priors = _posterior.start(self.problem, self.factors, means, model.reg_bias)
        self.priors.components = [posterior.row_reg / scale, posterior.column_reg / scale]
        self.priors.fixed = True
        assert self.factors.spreads is not None
        self.factors.spreads[1][:, self.factors.columns] = posterior.column_spread / scale
        converged = self.settle_estimated(model.reg)
        return self.estimated_result(converged, posterior.validation_rmse)

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
        """Largest singular value of the residual over the penalty."""
        top = self.problem.largest(self.factors) * self.problem.scale
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

    def estimated_result(self, converged: bool, validation_rmse: float = float("nan")) -> Fitted:
        """What was reached with estimated penalties, in the units of the data; rows are those that `fold_in` gives."""
        assert self.priors is not None
        priors, factors, scale = self.priors, self.factors, self.problem.scale
        assert factors.spreads is not None
        _posterior.half_sweep(self.problem, factors, priors, False)
        grams = gram(factors.U, factors.columns), gram(factors.V, factors.columns)
        sigma = transforms(*grams, 0.0)[2] if factors.k else np.zeros(0)
        posterior = Posterior(
            priors.components[0] * scale, priors.components[1] * scale,
            factors.spreads[1][:, factors.columns] * factors.U.dtype.type(scale), self.problem.noise * scale**2,
            validation_rmse,
        )  # fmt: skip
        self.reg_bias = (priors.bias[0], priors.bias[1])
        return replace(self._result(sigma, priors.reg * scale, converged, float("nan")), posterior=posterior)

    def result(self, reg: float, converged: bool, optimality: float) -> Fitted:
        """What was reached, in the units of the data."""
        return self._result(self.problem.balance(self.factors), reg, converged, optimality)

    def _result(self, sigma: np.ndarray, reg: float, converged: bool, optimality: float) -> Fitted:
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
        )  # fmt: skip


def complete_als(
    X: Any,
    n_components: int,
    reg: float | str,
    *,
    shape: tuple[int, int] | None = None,
    sample_weight: Any = None,
    missing_values: float = math.nan,
    reg_scaling: float = 0.0,
    reg_bias: float | None = None,
    fit_bias: bool = False,
    max_iter: int = 100,
    tol: float = 1e-5,
    cg_tol: float = 0.1,
    cg_max_iter: int = 8,
    path_ratio: float = 1.25,
    sweeps_per_level: int = 2,
    random_state: Any = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Fitted]:
    """Complete a matrix from some of its entries by alternating least squares, to a given rank and penalty.

    It minimises ``sum (x_ij - u_i v_j)^2 + reg (sum |u_i|^2 + sum |v_j|^2)`` over the observed entries.  With as many
    columns as it asks for, that is the nuclear-norm problem ``min |P(X - Z)|_F^2 + 2 reg |Z|_*``, and `info.optimality`
    certifies its solution.

    Parameters
    ----------
    X : sparse matrix, array with NaN, masked array, or tuple (values, (rows, columns)), (m, n)
        The observed entries; stored zeros are observed.
    n_components : int
        The largest rank; more than min(m, n) counts as that.
    reg : float or "bayes"
        The penalty, in the units of X.  "bayes": a penalty for each component of either side, estimated together with the
        variances of factors and noise; see Notes.
    shape : (m, n), optional
        Of triplets.
    sample_weight : array-like, optional
        Weights of the squared errors of the observed entries.
    missing_values : float, default NaN
        Marks a hole in an array.
    reg_scaling : float in [0, 1], default 0
        The penalty of a row or column is multiplied by the number of its entries to this power.
    reg_bias : float, optional
        Penalty of the offsets; None estimates the ratio of the variances of noise and offsets.
    fit_bias : bool, default False
        Whether to take off a mean, and offsets of rows and columns: then X is about ``info.mean + info.row_bias[:, None] +
        info.column_bias + U * s @ Vt``.
    max_iter, tol : int, float
        At the last penalty, sweeps at most, and the relative decrease of the objective over a sweep that ends them.
    cg_tol, cg_max_iter : float, int
        A row is done when its residual has fallen by this factor, or after so many steps.
    path_ratio, sweeps_per_level : float, int
        The path of penalties falls by this factor from level to level, with so many sweeps at each.
    random_state : None, int, RandomState or Generator
        For the start of singular value computations.
    verbose : int, default 0
        1 shows a progress bar.
    callback : callable, optional
        Called with a dict after every sweep; a true return value stops, and what is there is returned.

    Returns
    -------
    U : ndarray of shape (m, k)
        Orthonormal columns; k <= n_components.
    s : ndarray of shape (k,)
        Descending.
    Vt : ndarray of shape (k, n)
        Orthonormal rows.
    info : Fitted
        Offsets, objective, certificate, path, number of sweeps.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` is reached; the result is returned all the same.

    Notes
    -----
    With ``reg="bayes"`` the factors are distributions (variational Bayes, with a variance for every entry), and the penalties
    follow from them: the variance of the noise over the mean square of a component.  Components that only fit noise
    vanish.  The error on new entries is usually smaller than with the best single penalty, and nothing is held out.
    `info.posterior` has the penalties; there is no certificate.  Not for data without noise.  Sweeps end where one changes
    the expected squared error by less than 300 `tol`.

    The penalty falls from the largest that has a column, and columns join where the residual has a singular value above it:
    a fit from a random start at a small penalty often ends in a poor minimum.  A sweep costs about ``12 nnz k + 4 (m + n) k**2``
    flops, and the memory is that of the entries, twice, and of the factors.

    References
    ----------
    T. Hastie, R. Mazumder, J. Lee, R. Zadeh, "Matrix completion and low-rank SVD via fast alternating least squares",
    JMLR 16, 2015.

    Y. Gu, Z. Song, J. Yin, L. Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear
    time", ICLR 2024, arXiv:2302.11068.

    Y. J. Lim, Y. W. Teh, "Variational Bayesian approach to movie rating prediction", KDD Cup and Workshop, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla.completion import complete_als
    >>> X = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> X[1, 2] = X[3, 0] = np.nan
    >>> U, s, Vt, info = complete_als(X, 1, 1e-6, random_state=0)
    >>> np.round(U * s @ Vt, 3)[[1, 3], [2, 0]]
    array([4., 4.])
    """
    from lrla.completion._input import read_observed

    observed = read_observed(X, "X", shape=shape, sample_weight=sample_weight, missing_values=missing_values)
    n_components = _validation.check_integer(n_components, "n_components", 1)
    estimated = check_reg(reg) == BAYES
    penalty = None if estimated else float(reg)
    settings = Settings(
        reg_scaling=_validation.check_real(reg_scaling, "reg_scaling", 0.0, 1.0),
        reg_bias=None if reg_bias is None else _validation.check_real(reg_bias, "reg_bias", 0.0),
        fit_bias=bool(fit_bias),
        center=bool(fit_bias),
        max_iter=_validation.check_integer(max_iter, "max_iter", 1),
        tol=_validation.check_real(tol, "tol", 0.0, 1.0, closed=(True, False)),
        cg_tol=_validation.check_real(cg_tol, "cg_tol", 0.0, 1.0, closed=(True, False)),
        cg_max_iter=_validation.check_integer(cg_max_iter, "cg_max_iter", 1),
        path_ratio=_validation.check_real(path_ratio, "path_ratio", 1.0, closed=(False, True)),
        sweeps_per_level=_validation.check_integer(sweeps_per_level, "sweeps_per_level", 1),
    )
    seed = int(seed_sequence(random_state).generate_state(1)[0])
    with Progress("matrix completion", max_iter, verbose, callback) as progress:
        fitted = complete(observed, n_components, penalty, settings, seed=seed, progress=progress)
    if not fitted.converged and not fitted.stopped:
        _validation.warn_not_converged(
            f"complete_als stopped after max_iter={max_iter} sweeps at reg={reg}, before the objective fell by less than "
            f"{SLOWER * tol if estimated else tol:g} of itself in a sweep"
            + ("" if estimated else f" (certificate {fitted.optimality:.4f}, 1 at the optimum)")
            + ". Raise max_iter or tol."
        )
    return (*factored(fitted), fitted)


def check_reg(reg: Any, *others: str) -> float | str:
    """A penalty, "bayes" or one of some other words; or TypeError or ValueError."""
    words = (BAYES, *others)
    if isinstance(reg, str):
        _validation.check_choice(reg, "reg", words)
        return reg
    if not isinstance(reg, Real):
        listed = ", ".join(f'"{word}"' for word in words)
        raise TypeError(f"reg must be a number >= 0 or {listed}; got {reg!r} of type {type(reg).__name__}.")
    return _validation.check_real(reg, "reg", 0.0)


def factored(fitted: Fitted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The singular value decomposition of U V^T."""
    everything = slice(0, fitted.U.shape[1])
    dtype = fitted.U.dtype
    if not fitted.U.shape[1]:
        return fitted.U, np.zeros(0, dtype), fitted.V.T
    T, S, s = transforms(gram(fitted.U, everything), gram(fitted.V, everything), 0.0)
    root = np.sqrt(s)
    return fitted.U @ (T / root).astype(dtype), s.astype(dtype), (fitted.V @ (S / root).astype(dtype)).T


def complete(
    observed: Observed,
    n_components: int,
    reg: float | None,
    settings: Settings,
    *,
    start: Fitted | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Complete to rank `n_components` at most with penalty `reg`.

    Parameters
    ----------
    observed : Observed, (m, n)
    n_components : int
    reg : float or None
        None: the penalties are estimated (see `_posterior`).
    settings : Settings
    start : Fitted, optional
        Factors to start from, of the same shape; there is no path then, and estimated penalties stay.
    seed : int
    progress : Progress, optional
    """
    progress = Progress("matrix completion", settings.max_iter) if progress is None else progress
    n_components = min(n_components, *observed.shape)
    with one_blas_thread:
        fit = Fit(observed, settings, seed, progress, mean=None if start is None else start.mean)
        if start is not None:
            fit.settings = replace(
                settings, reg_bias=start.reg_bias if settings.reg_bias is None else settings.reg_bias
            )
            fit.factors = factors_of(start, fit.problem.scale, settings.fit_bias, observed.dtype)
        if start is not None and start.posterior is not None:
            return fit.resume(start)
        if reg is None:
            return fit.estimated_result(fit.settle_estimated(fit.descend_steeply(n_components)))
        if start is None:
            fit.descend(reg, n_components)
        return fit.result(reg, *fit.settle(reg, n_components))


def factors_of(fitted: Fitted, scale: float, offsets: bool, dtype: np.dtype) -> Factors:
    """The factors of a result, in the units of a problem."""
    factors = Factors.empty((len(fitted.U), len(fitted.V)), dtype, offsets)
    if offsets:
        factors.U[:, 0], factors.V[:, 1] = fitted.row_bias / scale, fitted.column_bias / scale
    factors.replace(fitted.U / scale**0.5, fitted.V / scale**0.5)
    return factors


def fold_in(
    observed_rows: Observed, fitted: Fitted, settings: Settings, cg_tol: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Factors (m', k) and offsets (m',) of new rows over the same columns, with V and the columns' offsets fixed."""
    dtype, k = observed_rows.dtype, fitted.V.shape[1]
    scale = float(np.abs(observed_rows.values).max(initial=0.0)) or 1.0
    scale = 2.0 ** max(round(np.log2(scale)), -120 if dtype == np.float32 else -1000)
    offsets = settings.fit_bias
    rows = replace(
        fitted,
        U=np.zeros((observed_rows.shape[0], k), dtype),
        row_bias=np.zeros(observed_rows.shape[0], dtype),
    )
    factors = factors_of(rows, scale, offsets, dtype)
    penalty, free = np.zeros(factors.U.shape[1], dtype), np.zeros(factors.U.shape[1], dtype)
    posterior, spreads = fitted.posterior, None
    penalty[factors.columns] = (fitted.reg if posterior is None else posterior.row_reg) / scale
    free[factors.columns] = 1
    if offsets:
        penalty[0], free[0] = fitted.reg_bias[0], 1
    if posterior is not None:
        factors.spread()
        spreads = factors.spreads
        assert spreads is not None
        spreads[1][:, factors.columns] = posterior.column_spread / scale
    weights = np.where(observed_rows.counts > 0, observed_rows.counts, 1.0) ** settings.reg_scaling
    update_rows(
        observed_rows, factors.U, factors.V, penalty, free, np.array([1 / scale, fitted.mean / scale], dtype),
        weights.astype(dtype), Solver(cg_tol, 4 * padded(factors.k + 2, dtype)), spreads,
    )  # fmt: skip
    U = factors.U[:, factors.columns] * dtype.type(scale**0.5)
    return U, (factors.U[:, 0] * dtype.type(scale) if offsets else np.zeros(len(U), dtype))
