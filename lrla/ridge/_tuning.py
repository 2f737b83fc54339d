"""Which penalty: the grid, the curves over it, and the choice by risk, by a scorer, or by folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.ridge._ensemble import Ensemble, Sweep, take_rows
from lrla.ridge._path import Decomposition
from lrla.ridge._risk import Curves, best, implicit_penalty, relative_error

GRID = np.logspace(-6, 3, 40)  # of lambda, in units of the mean eigenvalue
DEFAULT_PENALTIES = 1 + len(GRID)
NEGATIVE = np.array([0.9, 0.7, 0.5, 0.3])  # of the lowest lambda allowed
NEAR = 0.01  # relative distance of an implicit penalty from the least one that makes no difference

Scorer = Callable[[np.ndarray, np.ndarray], float]  # (predictions, response) -> the larger the better


@dataclass(frozen=True)
class Tuned:
    """Curves over L penalties for T targets, and the penalty chosen for each target.

    Attributes
    ----------
    alphas, lambdas, mu, degrees, relative_error : ndarray of shape (L,)
        `lambdas` and `mu` for the scaled data, per unit of weight; `degrees` with the intercept.
    lowest : float
        The alpha that every penalty must exceed.
    curves : Curves
    index : ndarray of shape (T,)
    score : ndarray of shape (T,)
        Of the chosen penalties: the negative risk, or the scorer's.
    residual, leverage : arrays of shape (n, T)
        At the chosen penalties, of the ensemble.
    values : array of shape (n, L, T) or None
        Residuals for all penalties, where they were kept.
    """

    alphas: np.ndarray
    lambdas: np.ndarray
    mu: np.ndarray
    degrees: np.ndarray
    relative_error: np.ndarray
    lowest: float
    curves: Curves
    index: np.ndarray
    score: np.ndarray
    residual: Any
    leverage: Any
    values: Any

    @property
    def at_boundary(self) -> bool:
        """Whether for some target the choice implies no more than the least penalty that the sketches can tell."""
        return bool(np.any(self.mu[self.index] <= (1.0 + NEAR) * self.mu.min()))

    def anchored(self, risk: np.ndarray, score: bool) -> Tuned:
        """The same with the curves corrected by the known risk (T,) of plain ridge at the choice; `score` says it too."""
        curves = self.curves.anchored(self.index, risk)
        risk = curves.of_size(np.inf)[self.index, np.arange(len(risk))]
        found = -risk if len(self.score) > 1 else -risk.mean(keepdims=True)
        return replace(self, curves=curves, score=found if score else self.score)


def grid(found: Sequence[Decomposition], allow_negative: bool) -> np.ndarray:
    """Default penalties: zero, 40 from 1e-6 to 1e3 times the mean eigenvalue, and some negative ones."""
    mean = float(found[0].e.sum()) / found[0].size
    lambdas = np.concatenate([[0.0], GRID * (mean or 1.0)])
    low = lowest(found)
    return np.concatenate([low * NEGATIVE, lambdas]) if allow_negative and low < 0.0 else lambdas


def lowest(found: Sequence[Decomposition]) -> float:
    """The lambda at which the first member becomes singular."""
    return -min((float(one.e[0]) for one in found if len(one.e)), default=0.0)


def tune(
    ensemble: Ensemble, alphas: np.ndarray | None, *, allow_negative: bool, criterion: str, limit: bool,
    per_target: bool, folds: Sequence[tuple[np.ndarray, np.ndarray]] | None, score: Scorer | None,
    plain: bool, keep: bool,
) -> Tuned:  # fmt: skip
    """Curves over the penalties, and the choice.

    Parameters
    ----------
    ensemble : Ensemble
    alphas : ndarray of shape (L,) or None
        In scikit-learn's scale; None for the default grid.
    allow_negative : bool
        Of the default grid.
    criterion : {"loo", "gcv"}
    limit : bool
        Choose by the risk of infinitely many members, not by that of this ensemble.
    per_target : bool
    folds : pairs of row numbers (fit, judge), or None
        Residuals of the rows judged replace those of leave-one-out.
    score : callable or None
    plain : bool
        Whether the data themselves stand in the place of a sketch; then penalties are not negative.
    keep : bool
        Keep the residuals of all penalties, whatever memory they take.
    """
    problem = ensemble.problem
    if alphas is None:
        found = ensemble.decompositions() if allow_negative else [ensemble.known_of(0)[0]]
        lambdas = grid(found, allow_negative and not plain)
        alphas = problem.alphas(lambdas)
        if not np.all(np.isfinite(alphas)):
            raise ValueError("X is too large for its squares to be numbers: rescale X.")
    else:
        lambdas = problem.penalties(alphas)
    _check_lowest(ensemble, alphas, lambdas, plain)
    ensemble.refine(lambdas)
    curves, swept = _curves(ensemble, lambdas, criterion, folds, keep or score is not None)
    if score is None:
        curve = curves.of_size(np.inf) if limit else curves.ensemble
        index, reached = _least(curve, lambdas, per_target)
    else:
        assert swept is not None
        index, reached = _highest(_scores(problem, swept.values, score, per_target), lambdas)
    unit = problem.y_scale * problem.y_scale
    curves, reached = curves.times(unit), reached * unit if score is None else reached
    index = np.broadcast_to(index, (int(problem.y.shape[1]),))
    residual, leverage = _at_chosen(ensemble, lambdas, index, criterion, folds, swept)
    found = ensemble.decompositions()
    degrees = np.mean([one.degrees(lambdas) for one in found], axis=0)
    mu = np.maximum(lambdas, 0.0) if plain else implicit_penalty(found, lambdas, ensemble.law, ensemble.law_size)
    n = problem.shape[0] - int(problem.intercept)
    return Tuned(
        alphas, lambdas, mu, degrees + problem.intercept, relative_error(found, lambdas, n),
        0.0 if plain else float(problem.alphas(np.array([lowest(found)]))[0]), curves, np.array(index), reached,
        residual, leverage, None if swept is None else swept.values,
    )  # fmt: skip


def _check_lowest(ensemble: Ensemble, alphas: np.ndarray, lambdas: np.ndarray, plain: bool) -> None:
    if np.all(lambdas >= 0.0):
        return
    if plain:
        raise ValueError(
            f"alpha must be >= 0 for plain ridge regression; got {alphas.min():g}. Sketches allow negative penalties."
        )
    low = lowest(ensemble.decompositions())
    if lambdas.min() <= low:
        bound = float(ensemble.problem.alphas(np.array([low]))[0])
        raise ValueError(
            f"alpha must be > {bound:.6g} (alpha_min_, minus the least nonzero eigenvalue of the sketched data); got "
            f"{alphas.min():g}. Take a larger alpha."
        )


def _curves(
    ensemble: Ensemble, lambdas: np.ndarray, criterion: str, folds: Any, keep: bool
) -> tuple[Curves, Sweep | None]:
    groups = [slice(None)] if keep else ensemble.target_groups(len(lambdas))
    parts = []
    for targets in groups:
        swept = sweep(ensemble, lambdas, targets, criterion, folds)
        parts.append(ensemble.curves_of(swept))
    merged = Curves(
        np.concatenate([part.ensemble for part in parts], axis=1),
        np.concatenate([part.members for part in parts], axis=2),
    )
    return merged, swept if len(groups) == 1 else None


def _at_chosen(
    ensemble: Ensemble, lambdas: np.ndarray, index: np.ndarray, criterion: str, folds: Any, swept: Sweep | None
) -> tuple[Any, Any]:
    """Residuals and leverages (n, T) at the chosen penalties; computed again where there were too many to keep."""
    xp = _arrays.namespace(ensemble.problem.y)
    residual, leverage = [None] * len(index), [None] * len(index)
    for at in np.unique(index):
        one = swept or sweep(ensemble, lambdas[at : at + 1], slice(None), criterion, folds)
        place = int(at) if swept else 0
        for t in np.flatnonzero(index == at):
            residual[t], leverage[t] = one.values[:, place, int(t)], one.leverage[:, place]
    return xp.stack(residual, axis=1), xp.stack(leverage, axis=1)


def sweep(ensemble: Ensemble, lambdas: np.ndarray, targets: slice, criterion: str, folds: Any) -> Sweep:
    """Residuals of every row by the members that did not see it: corrected ones, or those of folds."""
    return ensemble.sweep(lambdas, targets, criterion) if folds is None else _folded(ensemble, lambdas, targets, folds)


def _folded(ensemble: Ensemble, lambdas: np.ndarray, targets: slice, folds: Any) -> Sweep:
    problem = ensemble.problem
    xp, n = _arrays.namespace(problem.y), problem.shape[0]
    place, seen = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    members: list[list[Any]] = [[] for _ in range(ensemble.size)]
    count = 0
    for fit, judge in folds:
        if not len(judge):
            continue
        if not len(fit):
            raise ValueError("cv leaves no rows of positive weight to fit to in one of the folds: take more folds.")
        alone, other = ensemble.take(fit), problem.take(judge)
        place[judge], seen[judge], count = np.arange(count, count + len(judge)), seen[judge] + 1, count + len(judge)
        for k in range(ensemble.size):
            scaled = lambdas * (ensemble.weight(k) / alone.weight(k))  # the same alpha
            members[k].append(other.y[:, None, targets] - alone.predictions(k, scaled, targets, other))
    if np.any(seen != 1):
        raise ValueError("cv must put every row into exactly one test fold, e.g. KFold; or leave cv=None.")
    weights, risks = ensemble.shares(), []
    values: Any = 0.0
    for parts in members:
        one = take_rows(xp.concat(parts, axis=0), place)
        values = values + one / ensemble.size
        risks.append(_arrays.to_host(xp.sum(weights[:, None, None] * one * one, axis=0)))
    leverage = xp.zeros((n, len(lambdas)), dtype=xp.float64, device=_arrays.device(problem.y))
    return Sweep(values, leverage, np.stack(risks), np.ones(len(lambdas), dtype=bool))


def _least(curve: np.ndarray, lambdas: np.ndarray, per_target: bool) -> tuple[np.ndarray, np.ndarray]:
    curve = curve if per_target else curve.mean(axis=1, keepdims=True)
    index = best(curve, lambdas)
    return index, -curve[index, np.arange(curve.shape[1])]


def _highest(scores: np.ndarray, lambdas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index = best(-scores, lambdas)
    return index, scores[index, np.arange(scores.shape[1])]


def _scores(problem: Any, values: Any, score: Scorer, per_target: bool) -> np.ndarray:
    """Scores (L, T) of predictions for rows not seen; (L, 1) for all targets together."""
    y = _arrays.to_host(problem.y)
    found = []
    for at in range(int(values.shape[1])):
        truth = y * problem.y_scale
        predicted = (y - _arrays.to_host(values[:, at, :])) * problem.y_scale
        if per_target:
            found.append([score(predicted[:, t], truth[:, t]) for t in range(y.shape[1])])
        else:
            alone = y.shape[1] == 1
            found.append([score(predicted[:, 0] if alone else predicted, truth[:, 0] if alone else truth)])
    return np.array(found, dtype=np.float64)
