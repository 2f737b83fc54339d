"""The estimator SketchedRidgeCV: tune the penalty on sketches, then solve one exact ridge problem."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.metaestimators import available_if

from lrla import _arrays, _validation
from lrla._estimator import all_or_nothing
from lrla.exceptions import SketchBoundaryWarning
from lrla.linalg._exponent import values_of
from lrla.ridge._cost import Shape, automatic_sizes
from lrla.ridge._ensemble import Ensemble, Problem
from lrla.ridge._estimator import SKETCHES
from lrla.ridge._refit import Refit, kept_members, refit
from lrla.ridge._streaming import StreamingRidgeEstimator
from lrla.ridge._supervised import among_all, positive_rows
from lrla.ridge._tuning import DEFAULT_PENALTIES, Tuned, grid, tune


def _streamable(self: Any) -> bool:
    if self.criterion == "gcv" and self.refit == "ensemble":
        return True
    raise AttributeError(
        "partial_fit keeps no rows, and so has neither leave-one-out nor an exact solution: it is there with "
        "criterion='gcv' and refit='ensemble'."
    )


class SketchedRidgeCV(MultiOutputMixin, RegressorMixin, StreamingRidgeEstimator):
    """Ridge regression with its penalty tuned on sketches, at a fraction of the cost of `RidgeCV`.

    A few regressions on random sketches of the features give, from one decomposition each, the leave-one-out error of plain
    ridge along its whole path.  One exact solution at the best penalty follows.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,) or None, default=None
        Penalties of the sketched regressions, in the scale of scikit-learn's `Ridge`; zero is allowed, and with sketches
        negative ones above `alpha_min_`.  None: zero, and 40 from 1e-6 to 1e3 times the mean eigenvalue.
    n_components : int or "auto", default="auto"
        Columns of a sketch, or with sketch="rows" rows of a sample.  "auto" is a fifth to a tenth of the smaller side of X,
        from 64 to 2048: as many as keep the whole fit to about a tenth of what X itself would cost.  Where the best penalty
        is the smallest they are doubled, up to twice, as long as the fit keeps to that and to four times the first sketches.
    n_estimators : int, default=4
        Members of the ensemble.
    sketch : str or None, default="auto"
        "auto": "sparse_stack", and with n_components="auto" X itself where that takes a few seconds, or less than three
        times what sketches would (`sketch_` tells); a kind of `make_sketch`, which is taken in any case; "rows": each member
        sees a sample of the rows, and all features; None: X itself, which is an exact and fast `RidgeCV`.
    nnz : int, default=8
        Nonzero entries in a row of "sparse_stack".
    criterion : {"loo", "gcv"}, default="loo"
        Leave-one-out, exact for the ensemble; or generalised cross-validation, which leverages that differ among rows
        bias downwards.
    refit : {"exact", "ensemble"}, default="exact"
        Plain ridge at the penalty that the best sketches imply; or the ensemble with the least risk.
    allow_negative : bool, default=False
        Put negative penalties into the default grid.
    alpha_per_target : bool, default=False
        A penalty for each target.
    scoring : str, callable or None, default=None
        Choose by a score of the ensemble's predictions for rows left out, instead of by the risk.  A scorer is given the
        sample weights, if there are any.
    cv : int, splitter, iterable or None, default=None
        Leave out the rows of folds instead of single rows, each row once: where rows are grouped or depend on time.  A score
        is that of all rows together, and not a mean over folds.
    fit_intercept : bool, default=True
    store_cv_results : bool, default=False
        Keep `cv_results_`.
    store_residuals : bool, default=False
        Keep `loo_residuals_`; without it, only what `predict_interval` needs.
    decomposition : {"auto", "eigh", "svd"}, default="auto"
        Of Gram matrices, or of the sketched data themselves, where penalties are below 1e-12 of the largest eigenvalue;
        "auto" decides by that.
    tol : float, default=1e-6
        Relative residual of the iterative exact solution.
    max_iter : int, default=200
        Its largest number of steps.
    random_state : None, int, RandomState or Generator, default=None
        An int makes `fit` repeatable.
    n_jobs : int or None, default=None
        Members worked on at the same time, with one BLAS thread each; -1 for all processors.  None is one after the other.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_targets, n_features)
    intercept_ : float or array of shape (n_targets,)
    alpha_ : float or ndarray of shape (n_targets,)
        ``Ridge(alpha=model.alpha_)`` gives these coefficients, with refit="exact"; else the penalty of the ensemble.
    alpha_sketch_ : float or ndarray of shape (n_targets,)
        The entry of `alphas_` that was chosen.
    alphas_ : ndarray of shape (n_alphas,)
    mu_ : ndarray of shape (n_alphas,)
        Penalty per unit of weight at which plain ridge does what the sketches do: ``alpha_`` is that at the choice times the
        sum of the weights, n_samples without any.
    risk_ensemble_, risk_single_, risk_ridge_ : ndarray of shape (n_alphas,) or (n_alphas, n_targets)
        Estimated mean squared error on new rows: of this ensemble, of a single member, and of plain ridge at `mu_`.  With
        refit="exact" and leave-one-out, the last one is corrected by what the exact solution shows at the choice.
    risk_se_ : ndarray of shape (n_alphas,) or (n_alphas, n_targets)
        Standard error of `risk_ensemble_` for light-tailed errors.
    dof_ : ndarray of shape (n_alphas,)
        Degrees of freedom of a member, with the intercept.
    best_score_ : float or ndarray of shape (n_targets,)
        Negative risk of what was chosen, or its score.
    alpha_min_ : float
        Every alpha must exceed it if it is negative.
    mu_at_boundary_ : bool
        Whether the best penalty is within 1 % of the least that was tried, seen as that of plain ridge, so that a smaller one
        may be better: there is a warning with refit="exact".
    eigenvalues_ : ndarray of shape (n_estimators, r)
        Of the covariance of the sketched features, descending.
    sketch_ : str or None
        What the penalty was tuned on: a kind of sketch, or None for X itself.
    operators_ : list
        The sketches; empty without any.
    n_iter_ : int
        Steps of the iterative exact solution; 1 for a direct one.
    loo_residuals_ : array of shape (n_samples,) or (n_samples, n_targets)
        Leave-one-out residuals at the choice; zero for rows of weight zero.  With refit="exact" those of the exact solution
        with the leverages that the sketches estimate.
    cv_results_ : array of shape (n_samples, n_alphas) or (n_samples, n_targets, n_alphas)
        Squared residuals of the ensemble at rows left out; with `scoring`, predictions.
    n_components_, n_features_in_ : int

    Notes
    -----
    Sketching regularises by itself: `mu_` at alpha zero is the least penalty of plain ridge that the sketches can judge.  If
    the best one is smaller there is a `SketchBoundaryWarning`, which tells what larger `n_components`, or sketch=None, would
    cost.  Large data never end with X itself unasked: a fit that takes ten times as long is worse than a warning.

    References
    ----------
    P. Patil, D. LeJeune, "Asymptotically free sketched ridge ensembles: risks, cross-validation, and tuning", ICLR 2024.

    J.-H. Du, P. Patil, A. Kuchibhotla, "Subsample ridge ensembles: equivalences and generalized cross-validation", ICML 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import SketchedRidgeCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 800)) * np.linspace(1, 0.01, 800) ** 2
    >>> y = X[:, :100].sum(axis=1) + 10 * rng.standard_normal(500)
    >>> model = SketchedRidgeCV(n_components=200, random_state=0).fit(X, y)
    >>> model.coef_.shape, model.mu_at_boundary_
    ((800,), False)
    >>> low, high = model.predict_interval(X[:3], coverage=0.9)
    >>> bool((low < high).all())
    True
    """

    _choices = ("auto", *SKETCHES)

    def __init__(
        self,
        alphas: Any = None,
        *,
        n_components: Any = "auto",
        n_estimators: int = 4,
        sketch: str | None = "auto",
        nnz: int = 8,
        criterion: str = "loo",
        refit: str = "exact",
        allow_negative: bool = False,
        alpha_per_target: bool = False,
        scoring: Any = None,
        cv: Any = None,
        fit_intercept: bool = True,
        store_cv_results: bool = False,
        store_residuals: bool = False,
        decomposition: str = "auto",
        tol: float = 1e-6,
        max_iter: int = 200,
        random_state: Any = None,
        n_jobs: int | None = None,
    ):
        self.alphas = alphas
        self.n_components = n_components
        self.n_estimators = n_estimators
        self.sketch = sketch
        self.nnz = nnz
        self.criterion = criterion
        self.refit = refit
        self.allow_negative = allow_negative
        self.alpha_per_target = alpha_per_target
        self.scoring = scoring
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.store_cv_results = store_cv_results
        self.store_residuals = store_residuals
        self.decomposition = decomposition
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs

    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SketchedRidgeCV:
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features), n_samples >= 2
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), float or None, default=None

        Returns
        -------
        self
        """
        X = self._check_rows(X)
        y, flat = self._check_response(X, y)
        self._fit(X, y, flat, self._check_weights(X, sample_weight), y[:, 0] if flat else y)
        return self

    def _fit(self, X: Any, y: np.ndarray, flat: bool, w: np.ndarray | None, labels: np.ndarray) -> None:
        members, alphas = self._check_tuning(), self._check_alphas()
        folds = None
        if self.cv is not None:
            splitter = check_cv(self.cv, labels, classifier=_is_classifier(self))
            split = splitter.split(np.zeros(len(y)), labels)
            folds = [(_as_numbers(fit, len(y)), _as_numbers(judge, len(y))) for fit, judge in split]
        X, y, w, full = positive_rows(X, y, w)
        if full is not None:
            labels = labels[full]
            folds = None if folds is None else [(_among(full, fit), _among(full, judge)) for fit, judge in folds]
        problem = Problem.of(X, y, w, bool(self.fit_intercept))
        shape = self._shape(problem, alphas, members)
        for size in self._sizes(shape):
            ensemble = self._ensemble(problem, size, members, self.decomposition)
            ensemble.kept = kept_members(ensemble) if self.refit == "exact" else 0
            tuned = tune(
                ensemble, alphas, allow_negative=bool(self.allow_negative), criterion=self.criterion,
                limit=self.refit == "exact", per_target=bool(self.alpha_per_target), folds=folds,
                score=self._score_of(labels, w), plain=size is None, keep=bool(self.store_cv_results),
            )  # fmt: skip
            if size is None or not tuned.at_boundary:
                break
        self._commit(tuned, ensemble, size, flat, full)
        if self.mu_at_boundary_ and size is not None:
            self._warn_at_boundary(size, shape)

    def _shape(self, problem: Problem, alphas: np.ndarray | None, members: int) -> Shape:
        penalties = DEFAULT_PENALTIES if alphas is None else len(alphas)
        return Shape.of(problem.X, penalties, int(problem.y.shape[1]), members)

    def _sizes(self, shape: Shape) -> list[int | None]:
        """Sizes of sketches to try, one after the other; None for X itself."""
        kind = self._kind()
        if kind is None or not self._is_automatic():
            return [self._size((shape.n, shape.p))]
        alphas = self._check_alphas()  # plain ridge has no negative ones
        negative = self.allow_negative if alphas is None else bool(np.any(alphas < 0.0))
        return automatic_sizes(
            shape, kind, self.nnz, refit=self.refit == "exact", may_be_exact=self.sketch == "auto" and not negative
        )

    def _commit(self, tuned: Tuned, ensemble: Ensemble, size: int | None, flat: bool, full: np.ndarray | None) -> None:
        problem = ensemble.problem
        for name in ("_moments", "cv_results_", "loo_residuals_", "n_samples_seen_"):
            self.__dict__.pop(name, None)
        exact = self._refit(ensemble, tuned) if self.refit == "exact" and size is not None else None
        if exact is not None and self.criterion == "loo" and self.cv is None:
            tuned = tuned.anchored(exact.risk, score=self.scoring is None)
        self._store(tuned, ensemble, size, flat, full)
        self._chosen_by(tuned)
        dtype = _arrays.real_dtype(values_of(problem.X))
        self.n_iter_ = 1
        if exact is not None:
            self.n_iter_ = max(1, exact.solution.n_iter)
            self._set_coef(exact.beta, exact.intercept, dtype)
            self._residuals = exact.residual * problem.y_scale
            self.alpha_ = self._per_target(problem.alphas(tuned.mu[tuned.index]))
        else:
            chosen = tuned.lambdas[tuned.index]
            self._set_coef(*ensemble.coef(chosen if self.alpha_per_target else chosen[:1]), dtype)
        if self.store_residuals:
            self.loo_residuals_ = self._residuals_of_all()
        if self.store_cv_results:
            self.cv_results_ = self._cv_results(tuned, problem, full)

    def _refit(self, ensemble: Ensemble, tuned: Tuned) -> Refit:
        exact = refit(ensemble, tuned, self.tol, self.max_iter, self._solver())
        if not exact.solution.converged:
            _validation.warn_not_converged(
                f"The exact solution stopped after max_iter={self.max_iter} steps with a relative residual of "
                f"{float(exact.solution.residual.max()):.1e}, above tol={self.tol:g}: increase max_iter, or tol.",
                stacklevel=7,
            )
        return exact

    def _solver(self) -> str:
        """How the exact solution is found; see `exact_ridge`."""
        return "auto"

    def _warn_at_boundary(self, size: int, shape: Shape) -> None:
        if self.refit != "exact":
            return
        now = shape.sketched(size, str(self._kind()), self.nnz, True)
        more, itself = shape.sketched(2 * size, str(self._kind()), self.nnz, True) / now, shape.exact() / now
        warnings.warn(
            f"The smallest penalty was the best: plain ridge with a smaller one than alpha={np.min(self.alpha_):.3g} may "
            f"predict better than sketches of {size} can tell. Take larger n_components ({2 * size}: about "
            f"{more:.2g} times the work), or sketch=None "
            f"({f'about {itself:.2g} times' if itself < np.inf else 'which may need more memory than there is'}).",
            SketchBoundaryWarning, stacklevel=5,
        )  # fmt: skip

    def _chosen_by(self, tuned: Tuned) -> None:
        self.alpha_sketch_ = self._per_target(tuned.alphas[tuned.index])
        self.alpha_ = self.alpha_sketch_
        self.best_score_ = tuned.score if self.alpha_per_target and not self._flat else float(tuned.score[0])
        self.mu_at_boundary_ = self.sketch_ is not None and tuned.at_boundary

    def _per_target(self, values: np.ndarray) -> Any:
        return np.array(values) if self.alpha_per_target and not self._flat else float(values[0])

    def _cv_results(self, tuned: Tuned, problem: Problem, full: np.ndarray | None) -> Any:
        """As RidgeCV's: the penalties last; squared residuals, or with a scorer predictions."""
        E = tuned.values
        shown = E * E * problem.y_scale**2 if self.scoring is None else (problem.y[:, None, :] - E) * problem.y_scale
        shown = _arrays.namespace(E).permute_dims(among_all(shown, full), (0, 2, 1))
        return shown[:, 0, :] if self._flat else shown

    # ------------------------------------------------------------------------------------------------ parameters

    def _check_tuning(self) -> int:
        members = self._check_common()
        _validation.check_choice(self.criterion, "criterion", ("loo", "gcv"))
        _validation.check_choice(self.refit, "refit", ("exact", "ensemble"))
        _validation.check_choice(self.decomposition, "decomposition", ("auto", "eigh", "svd"))
        for name in ("allow_negative", "alpha_per_target", "store_cv_results", "store_residuals"):
            _validation.check_choice(getattr(self, name), name, (True, False))
        _validation.check_real(self.tol, "tol", 0.0, 1.0, closed=(False, False))
        _validation.check_integer(self.max_iter, "max_iter", 1)
        if members == 1 and self.refit == "exact" and self.sketch is not None:
            raise ValueError(
                "n_estimators must be >= 2 with refit='exact': the risk of plain ridge comes from the differences between "
                "members."
            )
        if self.alpha_per_target and self.cv is not None:
            raise ValueError("alpha_per_target=True needs cv=None, as in RidgeCV.")
        return members

    def _check_alphas(self) -> np.ndarray | None:
        if self.alphas is None:
            return None
        try:
            alphas = np.atleast_1d(np.asarray(self.alphas, dtype=np.float64))
        except (TypeError, ValueError):
            alphas = np.empty(0)
        if alphas.ndim != 1 or not len(alphas) or not np.all(np.isfinite(alphas)):
            raise ValueError(f"alphas must be finite numbers of shape (n_alphas,); got {self.alphas!r}.")
        return alphas

    def _score_of(self, labels: np.ndarray, weights: np.ndarray | None) -> Any:
        if self.scoring is None:
            return None
        scorer, known = check_scoring(_Identity(), scoring=self.scoring), scorer_weights(weights)
        return lambda predicted, truth: scorer(_Identity(), predicted, truth, **known)

    @available_if(_streamable)
    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SketchedRidgeCV:
        """Add the rows of a batch.

        All rows since the first call count; those of an earlier `fit` do not, since it keeps no cross-products.
        There with criterion="gcv" and refit="ensemble", and `scoring` and `cv` None.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,) or None, default=None

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the sketches have more than 4096 columns in all, or something is asked for that needs the rows.
        """
        members, alphas = self._check_tuning(), self._check_alphas()
        needs_rows = {
            "scoring": self.scoring is not None, "cv": self.cv is not None, "alpha_per_target": self.alpha_per_target,
            "store_cv_results": self.store_cv_results, "store_residuals": self.store_residuals,
        }  # fmt: skip
        if any(needs_rows.values()):
            names = ", ".join(name for name, asked in needs_rows.items() if asked)
            raise ValueError(f"partial_fit keeps no rows, which {names} would need: leave the default, or use fit.")
        self._stream(
            X,
            y,
            sample_weight,
            alphas,
            members,
            lambda found: grid(found, bool(self.allow_negative and self.operators_)),
        )
        return self


class _Identity(RegressorMixin, BaseEstimator):
    """What a scorer gets in place of the model: its predictions are what it is given as X."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any) -> _Identity:
        return self

    def predict(self, X: Any) -> Any:
        return X


def scorer_weights(weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """What a scorer is told of the weights of the rows, as RidgeCV does."""
    return {} if weights is None else {"sample_weight": weights}


def _as_numbers(rows: Any, n: int) -> np.ndarray:
    """Row numbers in [0, n), also from a mask, and from negative ones that count from the end."""
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (len(rows) and (rows.dtype.kind not in "iu" or rows.min() < -n or rows.max() >= n)):
        raise ValueError(f"cv must give numbers of rows below {n}, or masks of that length; got {rows!r}.")
    return rows.astype(np.int64) % n


def _among(full: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Numbers of some rows among those of positive weight, without the others."""
    return (np.cumsum(full) - 1)[rows[full[rows]]]


def _is_classifier(estimator: Any) -> bool:
    return hasattr(estimator, "decision_function")
