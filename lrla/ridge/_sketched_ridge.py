"""The estimator SketchedRidge: an ensemble of ridge regressions on sketched features, for one penalty, also from a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin

from lrla import _arrays, _validation
from lrla._estimator import all_or_nothing
from lrla.ridge._ensemble import Problem
from lrla.ridge._streaming import StreamingRidgeEstimator
from lrla.ridge._supervised import positive_rows
from lrla.ridge._tuning import tune


class SketchedRidge(MultiOutputMixin, RegressorMixin, StreamingRidgeEstimator):
    """Ridge regression as the mean of several regressions on random sketches of the features.

    Each member solves a problem of `n_components` mixed features, and its coefficients are taken back to all features: a
    prediction costs what it costs with plain ridge.  The error on new rows is estimated from the training rows alone.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty, in the scale of scikit-learn's `Ridge`.  Zero is the minimum-norm solution; with sketches it may be negative,
        down to `alpha_min_`.
    n_components : int or "auto", default="auto"
        Columns of a sketch, or with sketch="rows" rows of a sample.  "auto" is a fifth of the smaller side of X, from 64
        to 2048; where that saves nothing, X itself is used.
    n_estimators : int, default=8
        Members of the ensemble.
    sketch : str or None, default="sparse_stack"
        A kind of `make_sketch`; "rows": each member sees a sample of the rows, and all features; None: plain ridge.
    nnz : int, default=8
        Nonzero entries in a row of "sparse_stack".
    fit_intercept : bool, default=True
    random_state : None, int, RandomState or Generator, default=None
        An int makes `fit` repeatable.
    n_jobs : int or None, default=None
        Members worked on at the same time, with one BLAS thread each; -1 for all processors.  None is one after the other.
    dtype : float32, float64 or None, default=None
        Convert X to this type; None keeps float32 and float64.  Sums are in float64 in any case.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_targets, n_features)
    intercept_ : float or array of shape (n_targets,)
    risk_ensemble_, risk_single_, risk_ridge_ : ndarray of shape (1,) or (1, n_targets)
        Estimated mean squared error on new rows: of this ensemble, of a single member, and of infinitely many members, which
        is that of plain ridge at the penalty `mu_`.  Leave-one-out, or GCV after `partial_fit`.
    risk_se_ : ndarray of shape (1,) or (1, n_targets)
        Standard error of `risk_ensemble_` for light-tailed errors.
    mu_ : ndarray of shape (1,)
        Penalty per unit of weight at which plain ridge does what the sketches do: ``Ridge(alpha=n_samples * mu_[0])``.
    dof_ : ndarray of shape (1,)
        Degrees of freedom of a member, with the intercept.
    alpha_min_ : float
        Every alpha must exceed it if it is negative.
    alphas_ : ndarray of shape (1,)
    eigenvalues_ : ndarray of shape (n_estimators, r)
        Of the covariance of the sketched features, descending.
    loo_residuals_ : array of shape (n_samples,) or (n_samples, n_targets)
        Of the ensemble; zero for rows of weight zero.  Not after `partial_fit`.
    sketch_ : str or None
        What stands in the place of X: a kind of sketch, or None for X itself.
    operators_ : list
        The sketches; empty without any.
    n_components_, n_features_in_, n_samples_seen_ : int

    Notes
    -----
    The residual of member k at row i divided by ``1 - h_i``, averaged over the members, is the leave-one-out residual of the
    ensemble exactly, for the sketches that were drawn.

    `partial_fit` keeps cross-products of all sketched columns, at most 4096, and no rows: the risk then is GCV's.

    References
    ----------
    P. Patil, D. LeJeune, "Asymptotically free sketched ridge ensembles: risks, cross-validation, and tuning", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import SketchedRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 1000)) * np.linspace(1, 0.01, 1000)
    >>> y = X[:, :20].sum(axis=1) + rng.standard_normal(300)
    >>> model = SketchedRidge(alpha=100.0, n_components=100, random_state=0).fit(X, y)
    >>> model.coef_.shape
    (1000,)
    >>> bool(model.risk_ridge_[0] < model.risk_ensemble_[0] < model.risk_single_[0])
    True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        n_components: Any = "auto",
        n_estimators: int = 8,
        sketch: str | None = "sparse_stack",
        nnz: int = 8,
        fit_intercept: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        dtype: Any = None,
    ):
        self.alpha = alpha
        self.n_components = n_components
        self.n_estimators = n_estimators
        self.sketch = sketch
        self.nnz = nnz
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.dtype = dtype

    @property
    def loo_residuals_(self) -> Any:
        """Leave-one-out residuals of the ensemble."""
        if vars(self).get("_residuals") is None:
            raise AttributeError("loo_residuals_ exist after fit only.")
        return self._residuals_of_all()

    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SketchedRidge:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features), n_samples >= 2
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), float or None, default=None

        Returns
        -------
        self
        """
        members = self._check_common()
        alpha = _validation.check_real(self.alpha, "alpha")
        X = self._cast(self._check_rows(X))
        y, flat = self._check_response(X, y)
        rows = int(X.shape[0])
        X, y, w, full = positive_rows(X, y, self._check_weights(X, sample_weight))
        problem = Problem.of(X, y, w, bool(self.fit_intercept))
        size = self._size(problem.shape)
        ensemble = self._ensemble(problem, size, members)
        tuned = tune(
            ensemble, np.array([alpha]), allow_negative=True, criterion="loo", limit=False, per_target=False, folds=None,
            score=None, plain=size is None, keep=False,
        )  # fmt: skip
        self.__dict__.pop("_moments", None)
        self._store(tuned, ensemble, size, flat, full)
        self._set_coef(*ensemble.coef(tuned.lambdas), _arrays.real_dtype(X))
        self.n_samples_seen_ = rows
        return self

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SketchedRidge:
        """Add the rows of a batch.

        All rows since the first call count; those of an earlier `fit` do not, since it keeps no cross-products.

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
            If the sketches have more than 4096 columns in all.
        """
        members = self._check_common()
        alpha = _validation.check_real(self.alpha, "alpha")
        self._stream(X, y, sample_weight, np.array([alpha]), members, None)
        return self

    def _cast(self, X: Any) -> Any:
        if self.dtype is None:
            return X
        if np.dtype(self.dtype) not in _validation.FLOATS:
            raise ValueError(f"dtype must be None, float32 or float64; got {self.dtype!r}.")
        if _arrays.kind(X) == "device":
            return _arrays.astype(X, self.dtype)
        return (
            _validation.cast(X, np.dtype(self.dtype), "X")
            if _arrays.kind(X) != "device_sparse"
            else X.astype(self.dtype)
        )
