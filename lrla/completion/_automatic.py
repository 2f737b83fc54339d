"""`complete_automatically`: penalty and rank chosen on entries that are held out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from lrla import _validation
from lrla._progress import Callback, Progress
from lrla._random import SAMPLING, Stream, seed_sequence
from lrla.completion import _estimated
from lrla.completion._estimated import STEEP
from lrla.completion._fit import Fit
from lrla.completion._fitted import PATH_DTYPE, Fitted, Settings
from lrla.completion._half_sweep import Factors, pair_products
from lrla.completion._observed import Observed, lines
from lrla.completion._path import Problem
from lrla.linalg._blas_threads import one_blas_thread

LEAST_HELD_OUT, MOST_HELD_OUT = 1_000, 200_000
MANY = 200_000  # entries, below which twice as large a share is held out
DRAWN = 1 << 16  # random numbers at a time
KEPT = 2  # observations of every row and column that are never held out
LEAST_GAIN = 1e-5  # relative, of the error, for a level to count as better
UNSEEN = 0.1  # penalty where nothing can be held out, relative to that where a path starts
# Estimated penalties: sweeps at most while some are held out, and the gain of their error below which they end.
ESTIMATES, ESTIMATE_GAIN = 30, 5e-4
SMALLEST = 1e-9  # penalty that is tried, relative to that where a path starts
# Ranks at gaps of the singular values: the factor that makes a gap, how the penalty falls, and the gain that counts.
LEAST_GAP, RANK_RATIO, RANK_GAIN = 1.2, 1.4, 1e-3
NO_NOISE = 1e-2  # held-out error over the spread of the data, from which on an exact fit is looked for
SUSPICIOUS = 0.6  # ratio of the errors on fitted and on held-out entries below which there may be no noise
LEAST_OVERSAMPLING = 1.15  # observations over degrees of freedom, for an exact fit to mean anything
PATH_DEPTH, LEVELS = 100, 21  # ratio of the penalties at the ends of a path, and how many levels that usually makes
EXACT_WORK = 3e7  # entries times sweeps that the search for an exact fit may take: some seconds


class HeldOut:
    """Entries that are kept back to measure the error on, from their places among all (ascending)."""

    def __init__(self, observed: Observed, places: np.ndarray):
        self.rows, self.columns = observed.rows_of(places), observed.indices[places]
        self.values = observed.values[places]
        self.weights = None if observed.weights is None else observed.weights[places]

    def squared_errors(self, factors: Factors, problem: Problem) -> np.ndarray:
        """Of every entry, times its weight, in the units of the scaled values."""
        predicted = pair_products(self.rows, self.columns, factors.U, factors.V)
        errors = np.square((self.values.astype(np.float64) - problem.mean) / problem.scale - predicted)
        return errors if self.weights is None else errors * self.weights

    def rmse(self, factors: Factors, problem: Problem) -> float:
        """Root mean square error in the units of the data."""
        total = len(self.rows) if self.weights is None else float(self.weights.sum(dtype=np.float64))
        return problem.scale * math.sqrt(float(self.squared_errors(factors, problem).sum()) / max(total, 1e-300))


def hold_out(observed: Observed, fraction: float, seed: int) -> np.ndarray:
    """Places of random entries to be held out, ascending; every row and column keeps `KEPT` observations at least."""
    wanted = int(min(max(fraction * observed.nnz, LEAST_HELD_OUT), MOST_HELD_OUT, observed.nnz // 4))
    places = draw(Stream.from_seed(np.random.SeedSequence(seed), member=1), observed.nnz, wanted)
    for axis, counts in enumerate(lines(observed)):
        index = observed.indices[places] if axis else observed.rows_of(places)
        kept = counts - np.bincount(index, minlength=len(counts))
        places = places[kept[index] >= KEPT]
    return places


def draw(stream: Stream, size: int, count: int) -> np.ndarray:
    """`count` places below `size`, ascending: those with the smallest of as many 64-bit numbers, which are never all there."""
    if not count:
        return np.empty(0, np.int64)
    # First those below a number that more than `count` of them are below, but for a chance of e^-40
    expected = min(float(size), count + 10.0 * math.sqrt(count) + 40.0)
    limit = int(expected / size * 2.0**64) - (1 << 63)
    places, keys = [], []
    for first in range(0, size, DRAWN):
        high, low = stream.words(2, min(DRAWN, size - first), SAMPLING, first=first)
        found = ((high - (1 << 31)) << 32) | low
        small = np.flatnonzero(found < limit) if expected < size else np.arange(len(found))
        places.append(first + small)
        keys.append(found[small])
    where, numbers = np.concatenate(places), np.concatenate(keys)
    return where[numbers <= np.partition(numbers, count - 1)[count - 1]]


def complete_automatically(
    observed: Observed,
    settings: Settings,
    *,
    n_components: int | None = None,
    reg: float | str | None = None,
    max_components: int = 64,
    validation_fraction: float = 0.05,
    n_iter_no_change: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Complete with the penalty and the rank that predict held-out entries best; either may be given.

    Offsets and the mean are used where they lower the held-out error beyond chance.  Then penalties are estimated along with
    the variances of factors and noise (see `_posterior`), from a short path.  That is the result where it predicts better
    than the path and has not just reproduced its entries.  Else a finer path of penalties finds the best one; a gap in the
    singular values there suggests a rank with a smaller penalty.  Where the best fit is far closer to its own entries than to
    the held-out ones, the data may have low rank without noise: then ranks are tried on all entries until one reproduces
    them (see `find_exact`).

    Parameters
    ----------
    observed : Observed, (m, n)
    settings : Settings
    n_components : int or None
        The largest rank; None for `max_components`, and then smaller ranks are tried too.
    reg : float, "bayes" or None
        The penalty, if it is to be this one; "bayes": estimated penalties in any case.
    max_components, validation_fraction, n_iter_no_change
        See `MatrixCompletion`.
    seed : int
    progress : Progress, optional
    """
    progress = Progress("matrix completion", settings.max_iter) if progress is None else progress
    most = min(n_components or max_components, *observed.shape)
    with one_blas_thread:
        places = hold_out(observed, validation_fraction if observed.nnz >= MANY else 2 * validation_fraction, seed)
        estimated = isinstance(reg, str)
        number = None if reg is None or isinstance(reg, str) else reg
        if not len(places):
            fit = Fit(observed, settings, seed, progress)
            if estimated:
                return _estimated.result(fit, _estimated.settle(fit, _estimated.descend(fit, most)))
            return complete_unseen(fit, most, number)
        held_out = HeldOut(observed, places)
        search = Search(
            Fit(observed.without(places), settings, seed, progress, held_out=held_out), most, n_iter_no_change
        )
        search.choose_offsets()
        estimated = number is None and (search.estimate() or estimated)
        if not estimated:
            search.descend(number)
            if number is None:
                search.try_ranks()
            search.restore()
        final = Fit(observed, search.fit.settings, seed, progress, factors=search.best, like=search.fit)
        reg, cap, error = search.reg, search.cap, search.error
        guesses = search.rank_guesses if number is None and search.fits_too_well() else None
        del search  # and with it what is kept of the entries that were fitted
        if estimated:
            return _estimated.result(final, _estimated.settle(final, reg), error)
        if guesses is not None:
            exact = find_exact(final, guesses, most)
            if exact is not None:
                return exact
        return final.result(reg, *final.settle(reg, cap))


def complete_unseen(fit: Fit, most: int, reg: float | None) -> Fitted:
    """Where no entry can be spared to judge a penalty: a fixed share of the largest useful one, unless it is given."""
    reg = UNSEEN * fit.largest_reg() if reg is None else reg
    fit.descend(reg, most)
    return fit.result(reg, *fit.settle(reg, most))


class Search:
    """The choice of offsets, penalty and rank on held-out entries; the best factors so far are kept."""

    def __init__(self, fit: Fit, most: int, patience: int):
        self.fit, self.most, self.cap, self.patience = fit, most, most, patience
        self.error, self.train_error, self.reg = math.inf, math.inf, math.inf
        self.rank_guesses: list[int] = []
        self.best = fit.factors.copy()

    def choose_offsets(self) -> None:
        """Leave out the offsets, or the mean too, where they do not help beyond chance (three standard errors)."""
        fit, problem = self.fit, self.fit.problem
        bare = Factors.empty(problem.observed.shape, problem.observed.dtype, False)
        with_offsets = fit.held_out.squared_errors(fit.factors, problem)
        with_mean = fit.held_out.squared_errors(bare, problem)
        if helps(with_mean, with_offsets):
            return
        problem.set_mean(0.0)
        if not fit.settings.center or not helps(fit.held_out.squared_errors(bare, problem), with_mean):
            fit.settings = replace(fit.settings, center=False)
        else:
            problem.set_mean(None)
        fit.settings = replace(fit.settings, fit_bias=False)
        fit.factors = bare

    def estimate(self) -> bool:
        """Estimate penalties along with the factors; whether that predicts better than a short path of single ones.

        If not, all is as it was before.
        """
        fit, start, noise = self.fit, self.fit.factors.copy(), self.fit.problem.noise
        self.reg = largest = reg = fit.largest_reg()
        self.error, self.best = fit.held_out.rmse(fit.factors, fit.problem), start
        while not fit.stopped and reg > SMALLEST * largest:
            reg /= fit.settings.path_ratio**STEEP
            if not self.note(reg, self.most, fit.level(reg, self.most, 1), RANK_GAIN):
                break
        alone, before = self.error, math.inf
        self.restore()
        for _ in range(ESTIMATES if fit.factors.k else 0):
            if fit.stopped:
                break
            error = _estimated.sweep(fit, self.reg)
            self.note(fit.levels[-1][0], self.most, error, 0.0)
            if error > before * (1 - ESTIMATE_GAIN):
                break
            before = error
        if self.error < alone * (1 - RANK_GAIN) and not self.fits_too_well():
            return True
        fit.factors, fit.priors, fit.problem.noise = start.copy(), None, noise
        return False

    def descend(self, reg: float | None) -> None:
        """Smaller and smaller penalties, to `reg` or until the held-out error has not improved for some levels."""
        fit = self.fit
        largest = fit.largest_reg()
        self.reg, self.error, self.best = largest, fit.held_out.rmse(fit.factors, fit.problem), fit.factors.copy()
        current, failures = largest, 0
        while not fit.stopped and current > SMALLEST * largest:
            current = current / fit.settings.path_ratio if reg is None else max(reg, current / fit.settings.path_ratio)
            error = fit.level(current, self.most, fit.settings.sweeps_per_level)
            failures = 0 if self.note(current, self.most, error) else failures + 1
            if current == reg or (reg is None and failures >= self.patience):
                break
        if reg is not None:
            self.reg, self.best = reg, fit.factors.copy()

    def note(self, reg: float, cap: int, error: float, gain: float = LEAST_GAIN) -> bool:
        """Whether the present factors are better than the best so far by a factor 1 - gain; then they are the best."""
        if not error < self.error * (1 - gain):
            return False
        self.error, self.train_error, self.reg, self.cap = error, self.fit.levels[-1][2], reg, cap
        self.best = self.fit.factors.copy()
        return True

    def try_ranks(self) -> None:
        """Cut at gaps of the singular values, then one rank less and one more, as long as the held-out error falls."""
        self.restore()
        sigma = self.fit.problem.balance(self.fit.factors)
        start, reg = self.fit.factors.copy(), self.reg / RANK_RATIO
        self.rank_guesses = gaps(sigma)
        for rank in self.rank_guesses:
            self.try_rank(rank, start, reg)
        if self.cap < self.most:
            for step in (-1, 1):
                while 0 < self.cap + step <= start.k and self.try_rank(self.cap + step, start, self.reg * RANK_RATIO):
                    pass

    def try_rank(self, rank: int, start: Factors, reg: float) -> bool:
        """Let the penalty fall with the leading columns of `start`, as long as the error does; whether it is the least so far."""
        fit = self.fit
        fit.factors = start.copy()
        fit.factors.keep(slice(rank))
        least, better = math.inf, False
        while not fit.stopped and reg > SMALLEST * self.reg:
            error = fit.level(reg, rank, fit.settings.sweeps_per_level)
            better |= self.note(reg, rank, error, LEAST_GAIN if better else RANK_GAIN)
            if error >= least or error < NO_NOISE * fit.problem.scale:
                break
            least, reg = error, reg / RANK_RATIO
        return better

    def restore(self) -> None:
        """Go back to the best factors."""
        self.fit.factors = self.best.copy()

    def fits_too_well(self) -> bool:
        """Whether the entries that were fitted are reproduced far better than those that were not."""
        return self.train_error < SUSPICIOUS * self.error


def helps(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether squared errors fell by more than three standard errors of their mean difference."""
    gain = before - after
    return bool(gain.mean() > 3 * gain.std() / math.sqrt(len(gain)))


def gaps(sigma: np.ndarray) -> list[int]:
    """Positions of the three largest gaps of descending numbers, those by a factor of `LEAST_GAP` at least."""
    sigma = sigma[sigma > 1e-3 * sigma[:1].sum()]
    ratios = sigma[:-1] / sigma[1:]
    return [int(place) + 1 for place in np.argsort(-ratios, kind="stable")[:3] if ratios[place] > LEAST_GAP]


def find_exact(final: Fit, guesses: list[int], most: int) -> Fitted | None:
    """Look for a rank that reproduces all entries although it has fewer free numbers than there are entries.

    For a rank that is too small the error comes to rest above zero while the penalty falls; for the right one it falls
    with the penalty.  Guesses come first, and say from where on the ranks are tried one by one.

    Returns
    -------
    Fitted or None
        None if no rank does, or the work allowed for the search is used up.
    """
    observed = final.problem.observed
    m, n = observed.shape
    ranks = [r for r in range(1, min(most, m, n) + 1) if r * (m + n - r) * LEAST_OVERSAMPLING < observed.nnz]
    too_small, work = 0, 0.0
    for rank in [*sorted(r for r in guesses if r in ranks), *ranks]:
        if rank <= too_small or work > EXACT_WORK:
            continue
        trial = Fit(observed, final.settings, final.seed, final.progress, like=final)
        outcome, reg = trial.descend_to_zero(rank)
        work += float(trial.sweeps - final.sweeps) * observed.nnz
        final.sweeps = trial.sweeps
        if trial.stopped:
            return None
        if outcome == "exact":
            return trial.result(reg, True, trial.certificate(reg))
        if outcome == "rest":
            too_small = rank
    return None


def completion_path(
    X: Any,
    regs: Any = None,
    *,
    n_components: int = 64,
    shape: tuple[int, int] | None = None,
    sample_weight: Any = None,
    missing_values: float = math.nan,
    reg_scaling: float = 0.0,
    reg_bias: float | None = None,
    fit_bias: bool = True,
    validation_fraction: float = 0.05,
    path_ratio: float = 1.25,
    sweeps_per_level: int = 2,
    random_state: Any = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> np.ndarray:
    """Errors and ranks along a path of penalties, each level starting from the one before.

    Parameters
    ----------
    X : sparse matrix, array with NaN, masked array, or tuple (values, (rows, columns)), (m, n)
        The observed entries; stored zeros are observed.
    regs : array-like, optional
        Penalties, taken in descending order.  None: from the largest that has a column, falling by `path_ratio`, to a
        hundredth of it.
    n_components : int, default 64
        The largest rank.
    shape, sample_weight, missing_values, reg_scaling, reg_bias, fit_bias
        As in `complete_als`.
    validation_fraction : float in [0, 1), default 0.05
        Share of the entries that are held out and measure `validation_rmse`; with 0 it is NaN.
    path_ratio, sweeps_per_level : float, int
        Ratio of successive penalties where `regs` is None, and sweeps at each.
    random_state : None, int, RandomState or Generator
        Chooses the held-out entries.
    verbose : int, default 0
        1 shows a progress bar.
    callback : callable, optional
        Called with a dict after every sweep; a true return value ends the path there.

    Returns
    -------
    path : structured ndarray
        A record for every level: reg, n_components, train_rmse, validation_rmse, seconds.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Notes
    -----
    The first level is just below the penalty from which on all factors vanish.  With offsets these are fitted first, and go
    along.

    References
    ----------
    T. Hastie, R. Mazumder, J. Lee, R. Zadeh, "Matrix completion and low-rank SVD via fast alternating least squares",
    JMLR 16, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla.completion import completion_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    >>> X[rng.random(X.shape) < 0.5] = np.nan
    >>> path = completion_path(X, [20.0, 5.0, 1.0], fit_bias=False, random_state=0)
    >>> path["reg"].tolist(), bool(np.all(np.diff(path["train_rmse"]) < 0))
    ([20.0, 5.0, 1.0], True)
    """
    from lrla.completion._input import read_observed

    observed = read_observed(X, "X", shape=shape, sample_weight=sample_weight, missing_values=missing_values)
    most = min(_validation.check_integer(n_components, "n_components", 1), *observed.shape)
    fraction = _validation.check_real(validation_fraction, "validation_fraction", 0.0, 1.0, closed=(True, False))
    settings = Settings(
        reg_scaling=_validation.check_real(reg_scaling, "reg_scaling", 0.0, 1.0),
        reg_bias=None if reg_bias is None else _validation.check_real(reg_bias, "reg_bias", 0.0),
        fit_bias=bool(fit_bias),
        center=bool(fit_bias),
        path_ratio=_validation.check_real(path_ratio, "path_ratio", 1.0, closed=(False, True)),
        sweeps_per_level=_validation.check_integer(sweeps_per_level, "sweeps_per_level", 1),
    )
    levels = None if regs is None else _penalties(regs)
    seed = int(seed_sequence(random_state).generate_state(1)[0])
    held_out = None
    if fraction > 0:
        places = hold_out(observed, fraction, seed)
        held_out, observed = HeldOut(observed, places), observed.without(places)
    total = settings.sweeps_per_level * (LEVELS if levels is None else len(levels))
    with one_blas_thread, Progress("completion path", total, verbose, callback) as progress:
        fit = Fit(observed, settings, seed, progress, held_out=held_out)
        if levels is None:
            count = 1 + int(math.log(PATH_DEPTH) / math.log(settings.path_ratio))
            levels = fit.largest_reg() / settings.path_ratio ** np.arange(1, count + 1)
        for reg in levels:
            fit.level(float(reg), most, settings.sweeps_per_level)
            if fit.stopped:
                break
    return np.array(fit.levels, PATH_DTYPE)


def _penalties(regs: Any) -> np.ndarray:
    found = np.asarray(regs, dtype=np.float64)
    if found.ndim != 1 or not found.size or not np.all(np.isfinite(found)) or found.min() < 0:
        raise ValueError(f"regs must be a list of finite penalties, none negative; got {regs!r}.")
    return np.sort(found)[::-1]
