"""What the ridge estimators share: parameters, members, fitted attributes, prediction, intervals, risk curves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from lrla import _arrays, _validation
from lrla._random import seed_sequence
from lrla._threads import available_threads
from lrla.linalg._exponent import values_of
from lrla.ridge._cost import automatic_size
from lrla.ridge._ensemble import Ensemble, KeptPath, Problem, RowEnsemble, row_sample
from lrla.ridge._risk import Curves
from lrla.ridge._supervised import SupervisedEstimator, among_all
from lrla.ridge._tuning import Tuned
from lrla.sketch._make_sketch import LIMITED, build, warn_of

SKETCHES = (
    "sparse_stack", "countsketch", "gaussian", "rademacher", "orthogonal", "srdct", "srht", "uniform", "sparse_iid", "rows",
    None,
)  # fmt: skip


class RidgeEstimator(SupervisedEstimator):
    """Base of the ridge estimators."""

    _choices: ClassVar[tuple[str | None, ...]] = SKETCHES
    _curves: Curves
    _flat: bool
    _residuals: Any  # of the rows of positive weight
    _rows: np.ndarray | None  # which these are among all; None for all
    _weights: np.ndarray | None
    _path: KeptPath | None

    # ------------------------------------------------------------------------------------------------ parameters

    def _check_common(self) -> int:
        """Check the parameters that all share; returns the number of members."""
        _validation.check_choice(self.sketch, "sketch", self._choices)
        _validation.check_integer(self.nnz, "nnz", 1)
        _validation.check_choice(self.fit_intercept, "fit_intercept", (True, False))
        members = _validation.check_integer(self.n_estimators, "n_estimators", 1)
        if not self._is_automatic():
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

    # ------------------------------------------------------------------------------------------------ members

    def _is_automatic(self) -> bool:
        return isinstance(self.n_components, str) and self.n_components == "auto"

    def _kind(self) -> str | None:
        """The sketch that is taken if one is."""
        return "sparse_stack" if self.sketch == "auto" else self.sketch

    def _size(self, shape: tuple[int, int]) -> int | None:
        """Columns (or rows) of a sketch; None for the data themselves."""
        kind = self._kind()
        if kind is None:
            return None
        if self._is_automatic():
            return automatic_size(kind, *shape)
        if kind == "rows":
            return _validation.check_integer(
                self.n_components, "n_components", 2, shape[0], hint=" With sketch='rows' it is a number of rows of X."
            )
        most = {"srht": 1 << (shape[1] - 1).bit_length()}.get(str(kind), shape[1]) if kind in LIMITED else None
        return _validation.check_integer(
            self.n_components, "n_components", 1, most, hint=f" sketch={kind!r} has no more columns for this X."
        )

    def _ensemble(self, problem: Problem, size: int | None, members: int, method: str = "auto") -> Ensemble:
        if size is None:
            return Ensemble(problem, [None], method)
        n, p = problem.shape
        seed = seed_sequence(self.random_state)
        _validation.check_memory(
            8.0 * (n * size + size * min(n, size) + 4 * p) + 4.0 * members * min(self.nnz, size) * p,
            "Sketched regressions",
        )
        if self._kind() == "rows":
            samples = [row_sample(n, size, seed, k) for k in range(members)]
            return RowEnsemble(problem, [None] * members, method, self._workers(), samples=samples)
        return Ensemble(problem, self._operators(p, size, members, seed, problem.X), method, self._workers())

    def _operators(self, p: int, size: int, members: int, seed: Any, X: Any) -> list[Any]:
        dtype = _arrays.real_dtype(values_of(X))
        ops = [build(p, size, self._kind(), self.nnz, None, True, seed, k, dtype) for k in range(members)]
        warn_of(ops[0], "n_components", "n_features")
        return ops

    # ------------------------------------------------------------------------------------------------ commit

    def _store(self, tuned: Tuned, ensemble: Ensemble, size: int | None, flat: bool, full: np.ndarray | None) -> None:
        """Fitted attributes that a choice of the penalty leaves; `full` tells rows of positive weight among all."""
        problem = ensemble.problem
        unit = problem.scale * problem.scale
        self.n_components_ = problem.shape[1] if size is None else size
        self.sketch_ = None if size is None else self._kind()
        self.operators_ = [] if ensemble.operators[0] is None else list(ensemble.operators)
        with np.errstate(over="ignore", invalid="ignore"):
            self.eigenvalues_, mu = stacked([one.e * unit for one in ensemble.decompositions()]), tuned.mu * unit
        if not np.all(np.isfinite(self.eigenvalues_)):
            raise ValueError("X is too large for its squares to be numbers: rescale X.")
        self._store_curves(tuned, mu, flat)
        self._residuals, self._rows = tuned.residual * problem.y_scale, full
        self._weights = None if problem.root is None else _arrays.to_host(problem.root) ** 2
        self._path = KeptPath.of(ensemble)

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

    def _residuals_of_all(self) -> Any:
        """Leave-one-out residuals as `loo_residuals_` has them: zero for rows of weight zero."""
        residuals = among_all(self._residuals, self._rows)
        return residuals[:, 0] if self._flat else residuals

    def _set_coef(self, beta: Any, intercept: np.ndarray, dtype: Any) -> None:
        """`coef_` (p,) or (T, p) in the dtype of X, and `intercept_`, a number or (T,)."""
        with np.errstate(over="ignore"):
            coef = _arrays.astype(beta, dtype).T
        xp = _arrays.namespace(coef)
        if not bool(xp.all(xp.isfinite(coef))):
            raise ValueError(f"The coefficients are too large for {np.dtype(dtype).name}: rescale X or y.")
        self.coef_ = coef[0, :] if self._flat else coef
        if isinstance(self.coef_, np.ndarray):
            self.coef_ = np.ascontiguousarray(self.coef_)
        self.intercept_ = float(intercept[0]) if self._flat else _arrays.from_host(intercept, beta)

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

        Quantiles of the leave-one-out residuals, weighted as the rows are, are added to the predictions; they assume that
        new rows come from where the rows of `fit` came from.

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
        residuals = _arrays.to_host(self._residuals)
        ends = np.quantile(residuals, [tail, 1.0 - tail], axis=0, weights=self._weights, method="inverted_cdf")
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
        coef, intercept = path.coef(alpha)
        return (coef[0, :], float(intercept[0])) if self._flat else (coef, intercept)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")


# ---------------------------------------------------------------------------------------------------- small parts


def stacked(eigenvalues: list[np.ndarray]) -> np.ndarray:
    """Eigenvalues of the members as rows, descending, with zeros at the end."""
    longest = max(len(e) for e in eigenvalues)
    return np.stack([np.pad(e[::-1], (0, longest - len(e))) for e in eigenvalues])
