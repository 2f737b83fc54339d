"""A fit with estimated penalties: a short path as a start, and then sweeps of `_posterior` until they change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lrla._arrays import eps
from lrla.completion import _posterior
from lrla.completion._balance import gram, transforms
from lrla.completion._fitted import Fitted, Posterior
from lrla.completion._path import Penalty

if TYPE_CHECKING:
    from lrla.completion._fit import Fit

# The way to a start: levels this power of the path's ratio apart, with a sweep each, down to about the singular values of
# noise.  The sweeps after it end where one changes the expected loss by less than so many times tol.
STEEP, SLOWER = 4, 300.0
BELOW_NOISE, NEAR = 0.5, 1.1  # share of that singular value where this way ends, and how near to it


def descend(fit: Fit, most: int) -> float:
    """Some levels, down to less than the largest singular value of noise, as a start for `sweep`; the last penalty.

    What counts as noise becomes less as long as there is structure left in it.  Then there are further levels, if
    there are more entries than degrees of freedom: with fewer it would become less in any case.
    """
    ratio = fit.settings.path_ratio**STEEP
    reg, (m, n) = fit.largest_reg(), fit.problem.observed.shape
    while not fit.stopped:
        edge = BELOW_NOISE * noise_edge(fit)
        reg = max(reg / ratio, min(edge, reg))
        fit.level(reg, most, 1)
        if fit.factors.k * (m + n - fit.factors.k) < fit.problem.total:
            edge = NEAR * BELOW_NOISE * noise_edge(fit)
        if reg <= edge:
            break
    return reg


def noise_edge(fit: Fit) -> float:
    """About the largest singular value of noise at the observed entries."""
    m, n = (max(int(np.count_nonzero(side.counts)), 1) for side in (fit.problem.observed, fit.problem.observed.T))
    total = fit.problem.total
    level = fit.problem.scale * fit.problem.noise**0.5 * ((total / m) ** 0.5 + (total / n) ** 0.5)
    return level / (total / m * total / n) ** (fit.settings.reg_scaling / 2)


def sweep(fit: Fit, reg: float) -> float:
    """A sweep with estimated penalties, from factors of the penalty `reg` at first; the error on the held-out entries."""
    if fit.priors is None or fit.factors.spreads is None:
        given = fit.settings.bias_penalties
        fit.priors = _posterior.start(fit.problem, fit.factors, fit.penalty(reg), given)
    loss, fit.objective = _posterior.sweep(fit.problem, fit.factors, fit.priors)
    fit.sweeps += 1
    reg = fit.priors.reg * fit.problem.scale
    fit.stopped = fit.progress.step(reg=reg, n_components=fit.factors.k, train_rmse=fit.rmse(loss))
    return fit.record(reg, loss)


def settle(fit: Fit, reg: float) -> bool:
    """Sweeps with estimated penalties until the expected loss changes no more; whether it does not."""
    before = float("inf")
    for _ in range(0 if fit.stopped else fit.settings.max_iter):
        sweep(fit, reg)
        if fit.stopped:
            break
        assert fit.priors is not None  # `sweep` made them
        settled = abs(before - fit.objective) <= SLOWER * fit.settings.tol * fit.objective
        settled |= fit.objective <= fit.problem.total * eps(fit.factors.U.dtype) ** 2  # nothing is left but rounding
        if settled and not _posterior.drop_falling(fit.factors, fit.priors):
            return True
        before = fit.objective
    return False


def resume(fit: Fit, model: Fitted) -> Fitted:
    """More sweeps for the factors of a model with estimated penalties, which stay; so does its number of components."""
    posterior, scale = model.posterior, fit.problem.scale
    assert posterior is not None
    fit.problem.noise = (posterior.deviation / scale) ** 2
    means = Penalty(model.reg / scale, model.reg_bias)
    fit.priors = _posterior.start(fit.problem, fit.factors, means, model.reg_bias)
    least = np.finfo(np.float64).tiny  # what was too small for the units of the data is zero there
    fit.priors.components = [np.maximum(reg / scale, least) for reg in (posterior.row_reg, posterior.column_reg)]
    fit.priors.fixed = True
    assert fit.factors.spreads is not None
    fit.factors.spreads[1][:, fit.factors.columns] = posterior.column_spread / scale
    converged = settle(fit, model.reg)
    return result(fit, converged, posterior.validation_rmse)


def result(fit: Fit, converged: bool, validation_rmse: float = float("nan")) -> Fitted:
    """What was reached with estimated penalties, in the units of the data; rows are those that `fold_in` gives."""
    assert fit.priors is not None
    priors, factors, scale = fit.priors, fit.factors, fit.problem.scale
    assert factors.spreads is not None
    _posterior.half_sweep(fit.problem, factors, priors, False)
    grams = gram(factors.U, factors.columns), gram(factors.V, factors.columns)
    sigma = transforms(*grams, 0.0)[2] if factors.k else np.zeros(0)
    posterior = Posterior(
        priors.components[0] * scale, priors.components[1] * scale,
        factors.spreads[1][:, factors.columns] * factors.U.dtype.type(scale), scale * fit.problem.noise**0.5,
        validation_rmse,
    )  # fmt: skip
    fit.reg_bias = (priors.bias[0], priors.bias[1])
    return replace(fit.fitted(sigma, priors.reg * scale, converged, float("nan")), posterior=posterior)
