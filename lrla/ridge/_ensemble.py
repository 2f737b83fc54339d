"""Ensembles of ridge regressions on sketches of the features, or on samples of the rows, for all penalties at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import one_blas_thread
from lrla.linalg._exponent import values_of
from lrla.ridge._design import Design, power_of_two, weighted_means
from lrla.ridge._path import (
    SVD_BELOW,
    Decomposition,
    Residuals,
    coefficients,
    corrected_residuals,
    decompose,
    left_vectors,
    projections,
    shrunken,
)
from lrla.ridge._risk import Curves
from lrla.sketch import make_sketch, sketch_all

TARGET_BUDGET = 1 << 27  # residuals (rows x penalties x targets) that are kept at a time
TOGETHER = 1 << 26  # bytes of all sketches that are made at the same time; more where X takes more
KEPT = 1 << 25  # numbers of the vectors of a `KeptPath`
LARGEST = 1e290  # of a penalty inside: beyond it nothing is left to fit anyway


@dataclass(frozen=True)
class Problem:
    """Data, response and weights of a ridge regression, on one device.

    Attributes
    ----------
    X : array or sparse matrix of shape (n, p)
    y : array of shape (n, T), float64
        Divided by `y_scale`, not centred.
    root : array of shape (n,) or None
        Square roots of the weights, all positive.
    total : float
        Sum of the weights.
    intercept : bool
    scale, y_scale : float
        Powers of two: inside, X / scale and y / y_scale are what is computed with.
    """

    X: Any
    y: Any
    root: Any
    total: float
    intercept: bool
    scale: float
    y_scale: float

    @classmethod
    def of(cls, X: Any, y: np.ndarray, weights: np.ndarray | None, intercept: bool) -> Problem:
        like = values_of(X)
        y_scale = power_of_two(y)
        root = None if weights is None else _arrays.from_host(np.sqrt(weights), like)
        total = float(X.shape[0]) if weights is None else float(np.sum(weights))
        return cls(X, _arrays.from_host(y / y_scale, like), root, total, intercept, power_of_two(X), y_scale)

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.X.shape[0]), int(self.X.shape[1])

    def penalties(self, alphas: np.ndarray) -> np.ndarray:
        """scikit-learn's alpha as lambda: per unit of weight, and for the scaled X."""
        with np.errstate(under="ignore", over="ignore"):
            return np.clip(alphas / self.total / self.scale / self.scale, -LARGEST, LARGEST)

    def alphas(self, lambdas: np.ndarray) -> np.ndarray:
        """The inverse of `penalties`."""
        with np.errstate(over="ignore"):  # callers check what they get
            return lambdas * self.total * self.scale * self.scale

    @cached_property
    def center(self) -> Any:
        """Weighted means of the features; None without intercept."""
        return weighted_means(self.X, self.root, self.total) if self.intercept else None

    def design(self, Z: Any = None) -> Design:
        """Rows Z of a sketch of X, or X itself where it is None, centred and weighted."""
        if Z is None:
            return Design(self.X, self.center, self.root, self.total, self.scale)
        mean = weighted_means(Z, self.root, self.total) if self.intercept else None
        return Design(Z, mean, self.root, self.total, self.scale)

    def response(self) -> tuple[Any, Any]:
        """The response as the design is: centred and weighted; and its weighted means."""
        xp = _arrays.namespace(self.y)
        y, means = self.y, xp.zeros(self.y.shape[1], dtype=xp.float64, device=_arrays.device(self.y))
        if self.intercept:
            means = weighted_means(y, self.root, self.total)
            y = y - means[None, :]
        return (y if self.root is None else y * self.root[:, None]), means

    def take(self, rows: np.ndarray) -> Problem:
        """The problem of some of the rows, at the same scales."""
        if _arrays.kind(self.X) in ("sparse", "device_sparse"):
            X = self.X[rows, :]
        else:
            X = take_rows(self.X, rows)
        root = None if self.root is None else take_rows(self.root, rows)
        total = float(len(rows)) if root is None else float(root @ root)
        return replace(self, X=X, y=take_rows(self.y, rows), root=root, total=total)


def take_rows(A: Any, rows: np.ndarray) -> Any:
    """Some rows of a dense array of any namespace."""
    return _arrays.namespace(A).take(A, _arrays.from_host(np.asarray(rows, dtype=np.int64), A), axis=0)


@dataclass
class Ensemble:
    """Members of a sketched ridge regression, decomposed when they are first asked for.

    Parameters
    ----------
    problem : Problem
    operators : list
        A feature sketch for each member; None stands for the data themselves.
    method : {"auto", "eigh", "svd"}
    workers : int
        Members worked on at the same time.
    """

    problem: Problem
    operators: list[Any]
    method: str = "auto"
    workers: int = 1
    known: dict[int, tuple[Decomposition, Any]] = field(default_factory=dict)  # and the response in each
    kept: int = 0  # members whose left singular vectors a sweep leaves for the exact solution
    bases: dict[int, Any] = field(default_factory=dict)
    made: dict[int, Design] = field(default_factory=dict)  # designs that will be asked for

    @property
    def size(self) -> int:
        return len(self.operators)

    @property
    def law(self) -> str | None:
        return None if self.operators[0] is None else self.operators[0].law

    @property
    def law_size(self) -> int:
        """The dimension that the spectral law of the sketches refers to."""
        return self.problem.shape[1] if self.operators[0] is None else int(self.operators[0].padded_size)

    # ------------------------------------------------------------------------------------------------ members

    def design(self, k: int) -> Design:
        op = self.operators[k]
        if op is None:
            return self.problem.design()
        if k not in self.made:
            self._sketch(k)
        return self.made.pop(k)

    def _sketch(self, k: int) -> None:
        """Make the design of a member, and where there is room those of all, which reads X once."""
        members = list(range(self.size)) if self.together else [k]
        for j, Z in zip(members, sketch_all(self.problem.X, [self.operators[j] for j in members]), strict=True):
            self.made[j] = self.problem.design(Z).in_place()

    @cached_property
    def together(self) -> bool:
        """Whether the sketches of all members take little memory beside a dense X on the host."""
        X, n = self.problem.X, self.problem.shape[0]
        if self.workers > 1 or not isinstance(X, np.ndarray) or any(op is None for op in self.operators):
            return False
        return X.itemsize * n * sum(op.n_out for op in self.operators) <= max(TOGETHER, X.nbytes // 2)

    def known_of(self, k: int, design: Design | None = None) -> tuple[Decomposition, Any]:
        """The decomposition of a member, and the response in it, (r, T)."""
        if k not in self.known:
            if design is None:
                design = self.design(k)
                if self.operators[k] is not None and (self.together or not self.made):
                    self.made[k] = design
            method = "svd" if self.method == "svd" else "eigh"
            found = decompose(design, method, self.problem.intercept)
            self.known[k] = found, projections(design, found, self.member(k).response()[0])
        return self.known[k]

    def member(self, k: int) -> Problem:
        """The rows that a member sees."""
        return self.problem

    def weight(self, k: int) -> float:
        """Sum of the weights of the rows that a member sees."""
        return self.problem.total

    def take(self, rows: np.ndarray) -> Ensemble:
        """The members fitted to some of the rows, by the same sketches."""
        return Ensemble(self.problem.take(rows), self.operators, self.method)

    def decompositions(self) -> list[Decomposition]:
        return [self.known_of(k)[0] for k in range(self.size)]

    def refine(self, lambdas: np.ndarray) -> None:
        """With method "auto", give up Gram matrices where a penalty is too small for them."""
        positive = np.abs(lambdas[lambdas != 0.0])
        if self.method != "auto" or not len(positive):
            return
        e = self.known_of(0)[0].e
        if len(e) and positive.min() < SVD_BELOW * e[-1]:
            self.method = "svd"
            self.known.clear()

    def residuals(self, k: int, lambdas: np.ndarray, targets: slice, criterion: str) -> Residuals:
        """Corrected residuals of one member, in units of y_scale."""
        design = self.design(k)
        found, c = self.known_of(k, design)
        y = self.problem.response()[0][:, targets]
        basis = k < self.kept and k not in self.bases
        swept = corrected_residuals(
            design, found, c[:, targets], y, lambdas, criterion, self.problem.intercept, basis=basis
        )
        if basis:
            self.bases[k] = swept.basis
        return swept

    def basis(self, k: int) -> tuple[Any, np.ndarray]:
        """Left singular vectors (n, r) of a member, and its eigenvalues."""
        if k not in self.bases:
            design = self.design(k)
            self.bases[k] = left_vectors(design, self.known_of(k, design)[0])
        return self.bases[k], self.known_of(k)[0].e

    def predictions(self, k: int, lambdas: np.ndarray, targets: slice, other: Problem) -> Any:
        """Predictions of one member for the rows of another problem at the same scales, (n', L, T)."""
        design = self.design(k)
        found, c = self.known_of(k, design)
        W = coefficients(design, found, shrunken(c[:, targets], found.shrinkage(lambdas)))
        op = self.operators[k]
        Z = other.X if op is None else op.right(other.X)
        fitted = replace(design, A=Z, root=None, ready=False).forward(W)
        means = self.member(k).response()[1]
        return design.xp.reshape(fitted, (other.shape[0], len(lambdas), -1)) + means[None, None, targets]

    # ------------------------------------------------------------------------------------------------ the whole

    def sweep(self, lambdas: np.ndarray, targets: slice, criterion: str) -> Sweep:
        """Mean corrected residuals over the members, mean leverages, and the risk of each member."""
        xp = _arrays.namespace(self.problem.y)
        weights = self.shares()
        total: Any = 0.0
        leverage: Any = 0.0
        members = []
        defined = np.ones(len(lambdas), dtype=bool)
        for one in self._each(lambda k: self.residuals(k, lambdas, targets, criterion)):
            total, leverage = total + one.values / self.size, leverage + one.leverage / self.size
            members.append(_arrays.to_host(xp.sum(weights[:, None, None] * one.values * one.values, axis=0)))
            defined &= one.defined
        return Sweep(total, leverage, np.stack(members), defined)

    def shares(self) -> Any:
        """Weights of the rows that sum to 1, (n,)."""
        root, y = self.problem.root, self.problem.y
        xp = _arrays.namespace(y)
        if root is None:
            return xp.full((int(y.shape[0]),), 1.0 / int(y.shape[0]), dtype=xp.float64, device=_arrays.device(y))
        return root * root / self.problem.total

    def _each(self, task: Callable[[int], Any]) -> Iterator[Any]:
        """The task for every member, in order; some at a time in threads of their own with one BLAS thread each."""
        if self.workers == 1 or self.size == 1:
            yield from map(task, range(self.size))
            return
        with one_blas_thread, ThreadPoolExecutor(self.workers) as pool:
            for first in range(0, self.size, self.workers):
                yield from pool.map(task, range(first, min(first + self.workers, self.size)))

    def curves_of(self, swept: Sweep) -> Curves:
        """Risk curves (L, T), in units of y_scale."""
        xp = _arrays.namespace(swept.values)
        squares = xp.sum(self.shares()[:, None, None] * swept.values * swept.values, axis=0)
        ensemble = np.array(_arrays.to_host(squares))
        members = swept.members.copy()
        ensemble[~swept.defined], members[:, ~swept.defined] = np.inf, np.inf
        return Curves(ensemble, members)

    def target_groups(self, L: int) -> list[slice]:
        """Targets whose residuals are worth keeping at the same time."""
        n, T = (int(size) for size in self.problem.y.shape)
        step = max(1, TARGET_BUDGET // (n * L))
        return [slice(start, min(start + step, T)) for start in range(0, T, step)]

    def coef(self, lambdas: np.ndarray) -> tuple[Any, np.ndarray]:
        """Coefficients (p, T) and intercepts (T,) of the ensemble in the units of the data, on the host.

        `lambdas` has one penalty, or one for each target.
        """
        y, means = self.problem.response()

        def one_of(k: int) -> Any:
            found, c = self.known_of(k)
            D = _arrays.from_host(found.shrinkage(lambdas), y)  # one column, or one for each target
            W = found.V @ (c * D) if found.V is not None else coefficients(self.design(k), found, c * D)
            return W if self.operators[k] is None else self.operators[k].expand(W)

        beta: Any = 0.0
        for one in self._each(one_of):
            beta = beta + one / self.size
        return in_units(self.problem, self.problem.center, beta, means)


@dataclass(frozen=True)
class Sweep:
    """What `Ensemble.sweep` found: residuals (n, L, T) and leverages (n, L), means over members; risks of members (K, L, T)."""

    values: Any
    leverage: Any
    members: np.ndarray
    defined: np.ndarray


def in_units(problem: Problem, center: Any, beta: Any, means: Any) -> tuple[Any, np.ndarray]:
    """Coefficients and intercepts of the scaled problem, whose features have the means `center`, in the units of the data."""
    shift = means if center is None else means - (center / problem.scale) @ beta
    return beta * (problem.y_scale / problem.scale), _arrays.to_host(shift * problem.y_scale)


@dataclass(frozen=True)
class KeptPath:
    """What the coefficients of an ensemble at any penalty need, without its data."""

    operators: tuple[Any, ...]
    found: tuple[Decomposition, ...]
    c: tuple[Any, ...]
    problem: Problem  # without data
    center: Any  # means of the features
    means: Any  # of the response

    @classmethod
    def of(cls, ensemble: Ensemble) -> KeptPath | None:
        """None for samples of rows, for members without vectors of features, and where these are many."""
        found = ensemble.decompositions()
        if isinstance(ensemble, RowEnsemble) or any(one.V is None for one in found):
            return None
        if sum(int(one.V.shape[0]) * int(one.V.shape[1]) for one in found) > KEPT:
            return None
        problem = ensemble.problem
        center = problem.center
        c = tuple(ensemble.known_of(k)[1] for k in range(ensemble.size))
        without_data = replace(problem, X=None, y=None, root=None)
        return cls(tuple(ensemble.operators), tuple(found), c, without_data, center, problem.response()[1])

    def coef(self, alpha: float) -> tuple[Any, Any]:
        """Coefficients (T, p) and intercepts (T,) in the units of the data."""
        lambdas = self.problem.penalties(np.array([alpha]))
        beta: Any = 0.0
        for op, one, c in zip(self.operators, self.found, self.c, strict=True):
            W = one.V @ (c * _arrays.from_host(one.shrinkage(lambdas), c))
            beta = beta + (W if op is None else op.expand(W)) / len(self.found)
        beta, shift = in_units(self.problem, self.center, beta, self.means)
        return beta.T, _arrays.from_host(shift, beta)


# ---------------------------------------------------------------------------------------------------- rows


def row_sample(n: int, size: int, seed: Any, member: int) -> np.ndarray:
    """Rows drawn without replacement, in order."""
    op: Any = make_sketch(n, size, "uniform", random_state=seed, member=member)
    return np.sort(op.indices)


@dataclass
class RowEnsemble(Ensemble):
    """Members that see a sample of the rows each, drawn without replacement, and all of the features.

    The residual of a member at a row that it has not seen needs no correction, so the leave-one-out residuals of the
    ensemble are exact (Du, Patil and Kuchibhotla, 2023, have the generalised cross-validation of such ensembles).
    """

    samples: list[np.ndarray] = field(default_factory=list)

    @property
    def law(self) -> str | None:
        return "orthogonal"

    @property
    def law_size(self) -> int:
        return self.problem.shape[0]

    def member(self, k: int) -> Problem:
        return self.problem.take(self.samples[k])

    def design(self, k: int) -> Design:
        part = self.member(k)
        return part.design()

    def known_of(self, k: int, design: Design | None = None) -> tuple[Decomposition, Any]:
        found, c = super().known_of(k, design)
        return replace(found, size=len(self.samples[k])), c

    def weight(self, k: int) -> float:
        root = self.problem.root
        return float(len(self.samples[k]) if root is None else np.sum(_arrays.to_host(root)[self.samples[k]] ** 2))

    def take(self, rows: np.ndarray) -> RowEnsemble:
        """Every member keeps those rows of its sample that are among the given ones."""
        place = np.full(self.problem.shape[0], -1)
        place[rows] = np.arange(len(rows))
        samples = [place[sample][place[sample] >= 0] for sample in self.samples]
        if min(map(len, samples)) < 2:
            raise ValueError(
                "cv leaves a sample of sketch='rows' with fewer than 2 rows to fit to: take larger n_components, or more folds."
            )
        return RowEnsemble(self.problem.take(rows), self.operators, self.method, samples=samples)

    def alone(self, k: int) -> Ensemble:
        """A member as an ensemble of its own, on its rows."""
        return Ensemble(self.member(k), [None], self.method, known={0: self.known_of(k)})

    def residuals(self, k: int, lambdas: np.ndarray, targets: slice, criterion: str) -> Residuals:
        rows, n = self.samples[k], self.problem.shape[0]
        alone = self.alone(k)
        seen = alone.residuals(0, lambdas, targets, criterion)
        xp = _arrays.namespace(self.problem.y)
        plain = self.problem.y[:, None, targets] - alone.predictions(0, lambdas, targets, self.problem)
        place, inside = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        place[rows], inside[rows] = np.arange(len(rows)), True
        here = _arrays.from_host(inside, self.problem.y)
        values = xp.where(here[:, None, None], take_rows(seen.values, place), plain)
        leverage = take_rows(seen.leverage, place)
        return Residuals(values, xp.where(here[:, None], leverage, xp.zeros_like(leverage)), seen.defined)

    def coef(self, lambdas: np.ndarray) -> tuple[Any, np.ndarray]:
        beta: Any = 0.0
        shift: Any = 0.0
        for k in range(self.size):
            one, at = self.alone(k).coef(lambdas)
            beta, shift = beta + one / self.size, shift + at / self.size
        return beta, shift
