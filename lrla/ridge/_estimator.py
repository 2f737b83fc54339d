"""What the ridge estimators share: their parameters, the door for y and weights, prediction, intervals, risk curves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from lrla import _arrays, _validation
from lrla._estimator import Estimator
from lrla._random import seed_sequence
from lrla._threads import available_threads
from lrla.ridge._design import weighted_means
from lrla.ridge._ensemble import Ensemble, Problem, RowEnsemble, in_units
from lrla.ridge._exact_solve import exact_ridge
from lrla.ridge._path import Decomposition
from lrla.ridge._risk import best, implicit_penalty, relative_error
from lrla.ridge._stream import CANCELLED, WIDEST, Moments
from lrla.ridge._tuning import Tuned, lowest
from lrla.sketch import make_sketch

SKETCHES = (
    "sparse_stack", "countsketch", "gaussian", "rademacher", "orthogonal", "srdct", "srht", "uniform", "sparse_iid", "rows",
    None,
)  # fmt: skip
STREAMED = 512  # columns of a sketch in a stream, whose length nobody knows
KEPT_NAMES = ("n_features_in_", "feature_names_in_")  # by a stream that starts after fit
KEPT = 1 << 25  # numbers of the vectors that `path_coef` needs


@dataclass(frozen=True)
class Path:
    """What the coefficients of the ensemble at any penalty need: eigenvalues, vectors and projections of each member."""

    operators: tuple[Any, ...]
    found: tuple[Decomposition, ...]
    c: tuple[Any, ...]
    problem: Problem  # without its data
    center: Any  # means of the features
    y_mean: Any


class RidgeEstimator(Estimator):
    """Base of the ridge estimators."""

    # ------------------------------------------------------------------------------------------------ the door

    def _check_common(self) -> int:
        """Check the parameters that all share; returns the number of members."""
        _validation.check_choice(self.sketch, "sketch", SKETCHES)
        _validation.check_integer(self.nnz, "nnz", 1)
        _validation.check_choice(self.fit_intercept, "fit_intercept", (True, False))
        members = _validation.check_integer(self.n_estimators, "n_estimators", 1)
        if not (isinstance(self.n_components, str) and self.n_components == "auto"):
            _validation.check_integer(self.n_components, "n_components", 1, hint=" Or pass 'auto'.")
        if self.n_jobs is not None and (
            isinstance(self.n_jobs, bool) or not isinstance(self.n_jobs, (int, np.integer)) or self.n_jobs == 0
        ):
            raise ValueError(f"n_jobs must be None, -1 or a positive integer; got {self.n_jobs!r}.")
        seed_sequence(self.random_state)
        return members

    def _workers(self) -> int:
        if self.n_jobs is None:
            return 1
        return int(self.n_jobs) if self.n_jobs > 0 else max(1, available_threads() + 1 + int(self.n_jobs))

    def _check_y(self, X: Any, y: Any) -> tuple[np.ndarray, bool]:
        """The response as (n, T) float64 on the host, and whether it came with one dimension."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        y = as_host_vector(y, "y", X)
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        if y.ndim not in (1, 2):
            raise ValueError(f"y must have shape (n_samples,) or (n_samples, n_targets); got {y.shape}.")
        _check_lengths(X, y, "y")
        if float(np.abs(y).max()) > 1e153:
            raise ValueError("y is too large for its squares to be numbers: rescale y.")
        return y.reshape(len(y), -1), y.ndim == 1

    def _check_weights(self, X: Any, sample_weight: Any) -> np.ndarray | None:
        """Positive sample weights as (n,) float64; None for none."""
        if sample_weight is None:
            return None
        if isinstance(sample_weight, Real):
            sample_weight = np.full(int(X.shape[0]), sample_weight, dtype=np.float64)
        w = as_host_vector(sample_weight, "sample_weight", X)
        w = check_array(w, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
        if w.shape != (int(X.shape[0]),):
            raise ValueError(f"sample_weight must have shape ({X.shape[0]},), one for each row of X; got {w.shape}.")
        if np.any(w < 0.0):
            raise ValueError(f"sample_weight must not be negative; found {w.min():g}.")
        if np.count_nonzero(w) < 2:
            raise ValueError(
                f"sample_weight must be positive for at least 2 rows; {np.count_nonzero(w)} are, the other weights are zero."
            )
        return w

    # ------------------------------------------------------------------------------------------------ members

    def _size(self, shape: tuple[int, int]) -> int | None:
        """Columns (or rows) of a sketch; None where the data themselves are no larger than an automatic one."""
        n, p = shape
        if self.sketch is None:
            return None
        if isinstance(self.n_components, str):
            if self.sketch == "rows":
                q = min(n, max(64, math.ceil(n / 5)), 2048)
                return None if q >= n else q
            q = min(p, max(64, math.ceil(min(n, p) / 5)), 2048)
            return None if q >= min(n, p) else q
        if self.sketch == "rows":
            return _validation.check_integer(
                self.n_components, "n_components", 2, n, hint=" With sketch='rows' it is a number of rows of X."
            )
        return int(self.n_components)

    def _ensemble(self, problem: Problem, size: int | None, members: int, method: str = "auto") -> Ensemble:
        if size is None:
            return Ensemble(problem, [None], method)
        n, p = problem.shape
        seed = seed_sequence(self.random_state)
        _validation.check_memory(
            8.0 * (n * size + size * min(n, size) + 4 * p) + 4.0 * members * min(self.nnz, size) * p,
            "Sketched regressions",
        )
        if self.sketch == "rows":
            samples = [
                np.sort(make_sketch(n, size, "uniform", random_state=seed, member=k).indices) for k in range(members)
            ]
            return RowEnsemble(problem, [None] * members, method, self._workers(), samples=samples)
        return Ensemble(problem, self._operators(p, size, members, seed, problem.X), method, self._workers())

    def _operators(self, p: int, size: int, members: int, seed: Any, X: Any) -> list[Any]:
        dtype = _arrays.real_dtype(X.data if _arrays.kind(X) in ("sparse", "device_sparse") else X)
        return [
            make_sketch(p, size, self.sketch, nnz=self.nnz, random_state=seed, member=k, dtype=dtype)
            for k in range(members)
        ]

    # ------------------------------------------------------------------------------------------------ commit

    def _store(self, tuned: Tuned, ensemble: Ensemble, size: int | None, flat: bool, full: np.ndarray | None) -> None:
        """Fitted attributes that a choice of the penalty leaves; `full` tells rows of positive weight among all."""
        problem = ensemble.problem
        unit = problem.scale**2
        self.n_components_ = problem.shape[1] if size is None else size
        self.operators_ = [] if ensemble.operators[0] is None else list(ensemble.operators)
        self.eigenvalues_ = _stacked([one.e * unit for one in ensemble.decompositions()])
        self._store_curves(tuned, tuned.mu * unit, flat)
        self._residuals = _spread(tuned.residual * problem.y_scale, full)
        self._keep_path(ensemble)

    def _store_curves(self, tuned: Tuned, mu: np.ndarray, flat: bool) -> None:
        self._curves, self._flat = tuned.curves, flat
        self.alphas_, self.alpha_min_, self.mu_, self.dof_ = tuned.alphas, tuned.lowest, mu, tuned.degrees
        self.risk_ensemble_ = self._shown(tuned.curves.ensemble)
        self.risk_single_ = self._shown(tuned.curves.single)
        self.risk_ridge_ = self._shown(tuned.curves.of_size(np.inf))
        with np.errstate(invalid="ignore"):
            error = tuned.relative_error[:, None] * tuned.curves.ensemble
        self.risk_se_ = self._shown(np.where(np.isfinite(error), error, np.inf))

    def _shown(self, curve: np.ndarray) -> Any:
        return curve[:, 0].copy() if self._flat else curve

    def _keep_path(self, ensemble: Ensemble) -> None:
        """Keep what `path_coef` needs, unless it is as large as the data."""
        found = ensemble.decompositions()
        self._path = None
        if isinstance(ensemble, RowEnsemble) or any(one.V is None for one in found):
            return
        if sum(int(one.V.shape[0]) * int(one.V.shape[1]) for one in found) > KEPT:
            return
        problem = ensemble.problem
        c = tuple(ensemble.known_of(k)[1] for k in range(ensemble.size))
        center = None
        if problem.intercept:
            center = weighted_means(problem.X, problem.root, problem.total)
        self._path = Path(
            tuple(ensemble.operators), tuple(found), c, _without_data(problem), center, problem.response()[1]
        )  # fmt: skip

    def _set_coef(self, beta: Any, intercept: np.ndarray, dtype: Any) -> None:
        """`coef_` (p,) or (T, p) in the dtype of X, and `intercept_`, a number or (T,)."""
        coef = _arrays.astype(beta, dtype).T
        self.coef_ = coef[0, :] if self._flat else coef
        if isinstance(self.coef_, np.ndarray):
            self.coef_ = np.ascontiguousarray(self.coef_)
        self.intercept_ = float(intercept[0]) if self._flat else _arrays.from_host(intercept, beta)

    def _solve_exactly(self, ensemble: Ensemble, tuned: Tuned, tol: float, max_iter: int) -> tuple[Any, np.ndarray]:
        """Plain ridge at the implicit penalties of the chosen ones; returns coefficients and intercepts."""
        problem = ensemble.problem
        y, means = problem.response()
        design = problem.design(problem.X)
        found = ensemble.decompositions()
        solution = exact_ridge(
            design, y, tuned.mu[tuned.index], top=max((float(one.e[-1]) for one in found if len(one.e)), default=0.0),
            degrees=float(tuned.degrees[tuned.index].max()),
            floor=float(implicit_penalty(found, np.zeros(1), ensemble.law, ensemble.law_size)[0]),
            sketches=lambda J: [ensemble.design(k) for k in range(J)],
            size=0 if isinstance(ensemble, RowEnsemble) else ensemble.size, width=found[0].size, tol=tol,
            max_iter=max_iter, method=self._solver(),
        )  # fmt: skip
        self.n_iter_ = max(1, solution.n_iter)
        if not solution.converged:
            warnings.warn(
                f"The exact solution stopped after max_iter={max_iter} steps with a relative residual of "
                f"{float(solution.residual.max()):.1e}, above tol={tol:g}: increase max_iter, or tol.",
                ConvergenceWarning, stacklevel=6,
            )  # fmt: skip
        xp = _arrays.namespace(y)
        residual = y - design.forward(solution.beta)
        left = 1.0 - tuned.leverage
        residual = residual / xp.where(xp.abs(left) > 1e-10, left, xp.ones_like(left))
        self._exact_residual = residual if problem.root is None else residual / problem.root[:, None]
        return in_units(problem, solution.beta, means)

    def _solver(self) -> str:
        return "auto"

    # ------------------------------------------------------------------------------------------------ streams

    def _stream(
        self, X: Any, y: Any, sample_weight: Any, alphas: np.ndarray | None, members: int, limit_low: Any
    ) -> None:
        """Add the rows of a batch, and set the fitted attributes from all rows seen."""
        first = not hasattr(self, "_moments")
        fresh = not hasattr(self, "coef_")
        if first:
            for name in [name for name in vars(self) if name.endswith("_") and name not in KEPT_NAMES]:
                delattr(self, name)
        _validation.refuse_unsupported(X, "X")
        X = self._check_X(
            X, reset=fresh, like=None if first else getattr(self, "coef_", None), method="partial_fit"
        )  # fmt: skip
        y, flat = self._check_y(X, y)
        w = self._check_batch_weights(X, sample_weight)
        if first:
            self._operators_of_stream(X, members)
        elif flat != self._flat or y.shape[1] != len(self._moments.y):
            raise ValueError(
                f"y has {y.shape[1]} target(s), but the rows seen before had {len(self._moments.y)}; pass the same targets."
            )
        like = X.data if _arrays.kind(X) in ("sparse", "device_sparse") else X
        Z = self._sketched_rows(X)
        batch = Moments.of(
            _arrays.astype(Z, np.float64), _arrays.from_host(y, like),
            None if w is None else _arrays.from_host(w, like), bool(self.fit_intercept),
        )  # fmt: skip
        if not np.all(np.isfinite(batch.M)):
            raise ValueError("X is too large for its squares to be numbers: rescale X.")
        self._flat = flat
        self._moments = batch if first else self._moments.merge(batch, bool(self.fit_intercept))
        self.n_samples_seen_ = int(X.shape[0]) + (0 if first else self.n_samples_seen_)
        self._from_moments(alphas, limit_low, like)

    def _check_batch_weights(self, X: Any, sample_weight: Any) -> np.ndarray | None:
        if sample_weight is None:
            return None
        w = check_array(as_host_vector(sample_weight, "sample_weight", X), ensure_2d=False, dtype=np.float64)
        if w.shape != (int(X.shape[0]),) or np.any(w < 0.0) or not np.any(w > 0.0):
            raise ValueError(
                f"sample_weight must have shape ({X.shape[0]},), no negative and some positive values; got {w.shape}."
            )
        return w

    def _operators_of_stream(self, X: Any, members: int) -> None:
        p = int(X.shape[1])
        if self.sketch == "rows":
            raise ValueError("sketch='rows' needs all rows at once: use fit, or another sketch.")
        q: int | None = None if self.sketch is None else self.n_components
        if isinstance(q, str):
            q = min(STREAMED, max(64, math.ceil(p / 5)), WIDEST // members)
            q = None if q >= p else q
        members = 1 if q is None else members
        if members * (q or p) > WIDEST:
            raise ValueError(
                f"partial_fit keeps the products of all columns of the sketches: n_estimators * n_components = "
                f"{members * (q or p)} must be at most {WIDEST}. Take fewer of one of them."
            )
        self.operators_ = [] if q is None else self._operators(p, q, members, seed_sequence(self.random_state), X)
        self.n_components_ = p if q is None else q

    def _sketched_rows(self, X: Any) -> Any:
        if not self.operators_:
            return X.toarray() if _arrays.kind(X) in ("sparse", "device_sparse") else X
        parts = [op.right(X) for op in self.operators_]
        return _arrays.namespace(parts[0]).concat(parts, axis=1)

    def _from_moments(self, alphas: np.ndarray | None, limit_low: Any, like: Any) -> None:
        """Everything fitted, from the cross-products."""
        seen = self._moments
        found = seen.decompose(self.n_components_)
        tuned, lambdas = _tune_stream(seen, found, alphas, bool(self.fit_intercept), self.operators_, limit_low)
        self.eigenvalues_ = _stacked([one.e for one in found])
        self._store_curves(tuned, tuned.mu, self._flat)
        chosen = lambdas[tuned.index[:1]]
        W = seen.coefficients(found, chosen)[:, 0, :]
        width, K = self.n_components_, len(found)
        parts = [_arrays.from_host(W[k * width : (k + 1) * width], like) for k in range(K)]
        beta = sum(
            part if op is None else op.expand(part) for part, op in zip(parts, self.operators_ or [None], strict=True)
        )
        intercept = seen.y - (seen.z @ W) / K if self.fit_intercept else np.zeros(len(seen.y))
        self._set_coef(beta / K, intercept, _arrays.real_dtype(like))
        self._path, self._residuals = None, None
        self._chosen_by(tuned)

    def _chosen_by(self, tuned: Tuned) -> None:
        """What the choice of the penalty leaves in the attributes of the class."""

    # ------------------------------------------------------------------------------------------------ use

    def predict(self, X: Any) -> Any:
        """Predict the response.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_targets)
        """
        return self._predict(X, "predict")

    def _predict(self, X: Any, method: str) -> Any:
        check_is_fitted(self, "coef_")
        X = self._check_X(X, reset=False, like=self.coef_, method=method)
        coef = self.coef_ if self._flat else self.coef_.T
        if _arrays.kind(X) not in ("sparse", "device_sparse"):
            dtype = max(_arrays.real_dtype(X), _arrays.real_dtype(coef))
            X, coef = _arrays.astype(X, dtype), _arrays.astype(coef, dtype)
        fitted = X @ coef
        intercept = self.intercept_
        if not isinstance(intercept, float):
            intercept = _arrays.astype(intercept, _arrays.real_dtype(fitted))
        return fitted + intercept

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[Any, Any]:
        """Intervals that hold a new response with a given probability.

        Quantiles of the leave-one-out residuals are added to the predictions; they assume that new rows come from where
        the rows of `fit` came from.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)
        coverage : float in (0, 1), default=0.9

        Returns
        -------
        lower, upper : arrays of shape (n_samples,) or (n_samples, n_targets)

        Raises
        ------
        AttributeError
            After `partial_fit`, which keeps no residuals.
        """
        coverage = _validation.check_real(coverage, "coverage", 0.0, 1.0, closed=(False, False))
        predicted = self._predict(X, "predict_interval")
        if self._residuals is None:
            raise AttributeError("After partial_fit there are no residuals for intervals: use fit.")
        tail = (1.0 - coverage) / 2.0
        ends = np.quantile(_arrays.to_host(self._residuals), [tail, 1.0 - tail], axis=0)
        if self._flat:
            return predicted + float(ends[0, 0]), predicted + float(ends[1, 0])
        low, high = (_arrays.astype(_arrays.from_host(end, predicted), _arrays.real_dtype(predicted)) for end in ends)
        return predicted + low, predicted + high

    def risk(self, n_estimators: float = np.inf) -> np.ndarray:
        """Estimated mean squared error on new rows of an ensemble of any size, along `alphas_`.

        Parameters
        ----------
        n_estimators : int or numpy.inf, default=numpy.inf
            Members of the ensemble; infinitely many are plain ridge regression at the penalties `mu_`.

        Returns
        -------
        ndarray of shape (n_alphas,) or (n_alphas, n_targets)

        Raises
        ------
        ValueError
            If only one member was fitted, which tells nothing of others.
        """
        check_is_fitted(self, "coef_")
        if n_estimators != np.inf:
            n_estimators = _validation.check_integer(n_estimators, "n_estimators", 1)
        if self._curves.size == 1 and n_estimators != 1 and self.operators_:
            raise ValueError("One member does not tell the risk of more: fit with n_estimators >= 2.")
        return self._shown(self._curves.of_size(n_estimators))

    def path_coef(self, alpha: float) -> tuple[Any, Any]:
        """Coefficients of the ensemble at another penalty, without fitting again.

        Parameters
        ----------
        alpha : float
            Penalty of the sketched regressions, larger than `alpha_min_`.

        Returns
        -------
        coef : array of shape (n_features,) or (n_targets, n_features)
        intercept : float, or array of shape (n_targets,)

        Raises
        ------
        ValueError
            If the vectors were not kept: after `partial_fit`, for samples of rows, where the vectors are larger than 256 MB,
            and where there are fewer rows than columns.
        """
        check_is_fitted(self, "coef_")
        path = getattr(self, "_path", None)
        if path is None:
            raise ValueError(
                "The vectors that path_coef needs were not kept (see its docstring): fit SketchedRidge(alpha=...) instead."
            )
        alpha = _validation.check_real(alpha, "alpha")
        if alpha < 0.0 and alpha <= self.alpha_min_:
            raise ValueError(f"alpha must be > {self.alpha_min_:.6g} (alpha_min_); got {alpha:g}.")
        lam = path.problem.penalties(np.array([alpha]))
        beta: Any = 0.0
        for op, one, c in zip(path.operators, path.found, path.c, strict=True):
            W = one.V @ (c * _arrays.from_host(one.shrinkage(lam), c))
            beta = beta + (W if op is None else op.expand(W)) / len(path.found)
        scale, unit = path.problem.scale, path.problem.y_scale
        shift = path.y_mean if path.center is None else path.y_mean - (path.center / scale) @ beta
        coef, intercept = (beta * (unit / scale)).T, shift * unit
        return (coef[0, :], float(intercept[0])) if self._flat else (coef, intercept)

    def _check_rows(self, X: Any) -> Any:
        """The X of `fit`; a copy where it is not aligned, so that this changes no bit of the result."""
        X = self._check_X(X, reset=True, min_samples=2)
        return np.require(X, requirements="A") if isinstance(X, np.ndarray) else X

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")


# ---------------------------------------------------------------------------------------------------- small parts


def as_host_vector(v: Any, name: str, X: Any) -> Any:
    """A response or weights on the host; on a device it must be that of X."""
    _validation.refuse_unsupported(v, name)
    if _arrays.kind(v) != "device":
        return v
    like = X.data if _arrays.kind(X) in ("sparse", "device_sparse") else X
    if _arrays.kind(X) in ("device", "device_sparse") and _arrays.describe(v) != _arrays.describe(like):
        raise ValueError(f"{name} is on {_arrays.describe(v)}, but X on {_arrays.describe(like)}; move one of them.")
    return _arrays.to_host(v)


def _check_lengths(X: Any, y: np.ndarray, name: str) -> None:
    if len(y) != int(X.shape[0]):
        check_consistent_length(np.empty(int(X.shape[0])), y)


def positive_rows(
    X: Any, y: np.ndarray, w: np.ndarray | None
) -> tuple[Any, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Leave out the rows of weight zero; the last value tells which remain, None for all."""
    if w is None or np.all(w > 0.0):
        return X, y, w, None
    rows = np.flatnonzero(w > 0.0)
    if _arrays.kind(X) in ("sparse", "device_sparse"):
        return X[rows, :], y[rows], w[rows], w > 0.0
    X = _arrays.namespace(X).take(X, _arrays.from_host(rows, X), axis=0)
    return X, y[rows], w[rows], w > 0.0


def _spread(values: Any, full: np.ndarray | None) -> Any:
    """Rows put back among those of weight zero, which get zeros."""
    if full is None:
        return values
    xp = _arrays.namespace(values)
    place = np.where(full, np.cumsum(full) - 1, 0)
    inside = _arrays.from_host(full, values)
    taken = xp.take(values, _arrays.from_host(place, values), axis=0)
    inside = xp.reshape(inside, (-1, *(1,) * (len(values.shape) - 1)))
    return xp.where(inside, taken, xp.zeros_like(taken))


def _stacked(eigenvalues: list[np.ndarray]) -> np.ndarray:
    """Eigenvalues of the members as rows, descending, with zeros at the end."""
    longest = max(len(e) for e in eigenvalues)
    return np.stack([np.pad(e[::-1], (0, longest - len(e))) for e in eigenvalues])


def _without_data(problem: Problem) -> Problem:
    return Problem(None, None, None, problem.total, problem.intercept, problem.scale, problem.y_scale)


def _tune_stream(
    seen: Moments, found: list[Decomposition], alphas: np.ndarray | None, intercept: bool, operators: list[Any],
    limit_low: Callable[[list[Decomposition]], np.ndarray],
) -> tuple[Tuned, np.ndarray]:  # fmt: skip
    """The choice of a penalty by GCV from cross-products."""
    lambdas = limit_low(found) if alphas is None else alphas / seen.total
    low = 0.0 if not operators else lowest(found)
    if lambdas.min() < 0.0 and lambdas.min() <= low:
        raise ValueError(
            f"alpha must be > {low * seen.total:.6g} (alpha_min_, minus the least nonzero eigenvalue of the sketched data); "
            f"got {lambdas.min() * seen.total:g}. Take a larger alpha."
        )
    curves, lost = seen.curves(found, lambdas, intercept)
    if lost and len(lambdas) == 1:
        warnings.warn(
            f"Residuals below {CANCELLED:g} of the response have lost their digits in the cross-products of partial_fit: "
            "their risk is not exact. Use fit for data that is fitted exactly.",
            RuntimeWarning, stacklevel=6,
        )  # fmt: skip
    law = operators[0].law if operators else None
    size = int(operators[0].padded_size) if operators else found[0].size
    mu = implicit_penalty(found, lambdas, law, size) if operators else np.maximum(lambdas, 0.0)
    index = best(curves.ensemble.mean(axis=1, keepdims=True), lambdas)
    degrees = np.mean([one.degrees(lambdas) for one in found], axis=0) + intercept
    tuned = Tuned(
        lambdas * seen.total, lambdas, mu, degrees, relative_error(found, lambdas, seen.rows - int(intercept)),
        low * seen.total, curves, np.broadcast_to(index, (len(seen.y),)),
        -curves.ensemble.mean(axis=1)[index], None, None, None,
    )  # fmt: skip
    return tuned, lambdas
