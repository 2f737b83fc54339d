"""The exact solution at the penalty that sketches chose, and what it says about their risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.ridge._ensemble import Ensemble, RowEnsemble, in_units
from lrla.ridge._exact_solve import ExactSolution, exact_ridge
from lrla.ridge._path import SINGULAR
from lrla.ridge._risk import implicit_penalty
from lrla.ridge._tuning import Tuned


@dataclass(frozen=True)
class Refit:
    """Plain ridge at the chosen penalties.

    Attributes
    ----------
    beta : array of shape (p, T)
    intercept : ndarray of shape (T,)
        Both in the units of the data.
    residual : array of shape (n, T)
        Leave-one-out, with the leverages that the sketches estimate; in units of y_scale.
    risk : ndarray of shape (T,)
        Their weighted mean square, in the units of y.
    solution : ExactSolution
    """

    beta: Any
    intercept: np.ndarray
    residual: Any
    risk: np.ndarray
    solution: ExactSolution


def refit(ensemble: Ensemble, tuned: Tuned, tol: float, max_iter: int, method: str = "auto") -> Refit:
    """Plain ridge at the implicit penalties of the chosen ones."""
    problem, found = ensemble.problem, ensemble.decompositions()
    y, means = problem.response()
    design = problem.design(problem.X)
    solution = exact_ridge(
        design, y, tuned.mu[tuned.index], top=max((float(one.e[-1]) for one in found if len(one.e)), default=0.0),
        degrees=float(tuned.degrees[tuned.index].max()),
        floor=float(implicit_penalty(found, np.zeros(1), ensemble.law, ensemble.law_size)[0]),
        sketches=lambda J: [ensemble.design(k) for k in range(J)],
        size=0 if isinstance(ensemble, RowEnsemble) else ensemble.size, width=found[0].size, tol=tol,
        max_iter=max_iter, method=method,
    )  # fmt: skip
    xp = _arrays.namespace(y)
    left = 1.0 - tuned.leverage
    residual = (y - design.forward(solution.beta)) / xp.where(xp.abs(left) > SINGULAR, left, xp.ones_like(left))
    residual = residual if problem.root is None else residual / problem.root[:, None]
    squares = _arrays.to_host(xp.sum(ensemble.shares()[:, None] * residual * residual, axis=0))
    return Refit(*in_units(problem, solution.beta, means), residual, squares * problem.y_scale**2, solution)
