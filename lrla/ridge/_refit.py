"""The exact solution at the penalty that sketches chose, and what it says about their risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.ridge._cost import Shape
from lrla.ridge._ensemble import Ensemble, RowEnsemble, in_units
from lrla.ridge._exact_solve import ExactSolution, Spectrum, exact_ridge
from lrla.ridge._path import SINGULAR
from lrla.ridge._risk import implicit_penalty
from lrla.ridge._tuning import Tuned

FEW = 8  # steps of conjugate gradients at the least
BASES_BYTES = 1 << 28  # of the left singular vectors of all members, or half of X's where that is more


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


def preconditioning_members(ensemble: Ensemble) -> int:
    """How many members' left singular vectors may be kept for the exact solution, in float32."""
    if isinstance(ensemble, RowEnsemble) or ensemble.operators[0] is None:
        return 0
    shape = Shape.of(ensemble.problem.X, 1, 1, ensemble.size)
    held = 12 * shape.stored if shape.sparse else _arrays.real_dtype(ensemble.problem.X).itemsize * shape.stored
    each = 4 * shape.n * min(shape.n, ensemble.operators[0].n_out)
    return min(ensemble.size, max(BASES_BYTES, held // 2) // each)


def kept_members(ensemble: Ensemble) -> int:
    """How many of them the choice of the penalty is to leave, since they will be wanted."""
    shape = Shape.of(ensemble.problem.X, 1, int(ensemble.problem.y.shape[1]), ensemble.size)
    wanted = not shape.sparse and shape.direct() > FEW * shape.step()
    return preconditioning_members(ensemble) if wanted else 0


def refit(ensemble: Ensemble, tuned: Tuned, tol: float, max_iter: int, method: str = "auto") -> Refit:
    """Plain ridge at the implicit penalties of the chosen ones."""
    problem, found = ensemble.problem, ensemble.decompositions()
    y, means = problem.response()
    design = problem.design()
    known = Spectrum(
        top=max((float(one.e[-1]) for one in found if len(one.e)), default=0.0),
        degrees=float(tuned.degrees[tuned.index].max()),
        floor=float(implicit_penalty(found, np.zeros(1), ensemble.law, ensemble.law_size)[0]),
        members=preconditioning_members(ensemble), rank=max(len(one.e) for one in found),
    )  # fmt: skip
    solution = exact_ridge(
        design, y, tuned.mu[tuned.index], known=known, bases=lambda J: [ensemble.basis(k) for k in range(J)], tol=tol,
        max_iter=max_iter, method=method,
    )  # fmt: skip
    xp = _arrays.namespace(y)
    left = 1.0 - tuned.leverage
    residual = solution.left / xp.where(xp.abs(left) > SINGULAR, left, xp.ones_like(left))
    residual = residual if problem.root is None else residual / problem.root[:, None]
    squares = _arrays.to_host(xp.sum(ensemble.shares()[:, None] * residual * residual, axis=0))
    return Refit(
        *in_units(problem, problem.center, solution.beta, means), residual, squares * problem.y_scale**2, solution
    )
