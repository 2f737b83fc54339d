"""The estimator SketchedRidgeClassifierCV: ridge regression on labels coded as -1 and 1, tuned on sketches."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from lrla import _arrays
from lrla._estimator import all_or_nothing
from lrla.ridge._sketched_ridge_cv import SketchedRidgeCV, scorer_weights
from lrla.ridge._supervised import as_host_vector, check_lengths


class SketchedRidgeClassifierCV(ClassifierMixin, SketchedRidgeCV):
    """Classification by ridge regression on -1 and 1, with the penalty tuned on sketches.

    As scikit-learn's `RidgeClassifierCV`; several classes are several targets with one penalty, and the class with the
    largest prediction wins.

    Parameters
    ----------
    alphas, n_components, n_estimators, sketch, nnz, criterion, refit, allow_negative, scoring, cv, fit_intercept, \
store_cv_results, store_residuals, decomposition, tol, max_iter, random_state, n_jobs : see `SketchedRidgeCV`
        As in `SketchedRidgeCV`.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied with the sample weights.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
    intercept_ : array of shape (1,) or (n_classes,)
    alpha_, alpha_sketch_, alphas_, mu_, dof_, best_score_, alpha_min_, mu_at_boundary_, eigenvalues_, sketch_, \
operators_, n_iter_, n_components_, n_features_in_ : see `SketchedRidgeCV`
        As in `SketchedRidgeCV`.
    risk_ensemble_, risk_single_, risk_ridge_, risk_se_ : ndarray of shape (n_alphas, n_targets)
        Mean squared error of the predictions of -1 and 1.
    loo_residuals_, cv_results_ : array
        As in `SketchedRidgeCV`, with a target for each class, or one for two classes.

    Notes
    -----
    `predict_interval` gives intervals of the decision function's targets, -1 and 1.

    References
    ----------
    See `SketchedRidgeCV`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from lrla import SketchedRidgeClassifierCV
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SketchedRidgeClassifierCV(random_state=0).fit(X[:1500], y[:1500])
    >>> bool(model.score(X[1500:], y[1500:]) > 0.85)
    True
    """

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
        class_weight: Any = None,
    ):
        super().__init__(
            alphas, n_components=n_components, n_estimators=n_estimators, sketch=sketch, nnz=nnz, criterion=criterion,
            refit=refit, allow_negative=allow_negative, scoring=scoring, cv=cv, fit_intercept=fit_intercept,
            store_cv_results=store_cv_results, store_residuals=store_residuals, decomposition=decomposition, tol=tol,
            max_iter=max_iter, random_state=random_state, n_jobs=n_jobs,
        )  # fmt: skip
        self.class_weight = class_weight

    alpha_per_target = False
    partial_fit = available_if(lambda self: False)(SketchedRidgeCV.fit)

    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SketchedRidgeClassifierCV:
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features), n_samples >= 2
        y : array-like of shape (n_samples,)
            Labels; or (n_samples, n_labels) of zeros and ones, several of which may be one.
        sample_weight : array-like of shape (n_samples,), float or None, default=None

        Returns
        -------
        self
        """
        self._check_there(y)
        X = self._check_rows(X)
        y = check_array(as_host_vector(y, "y", X), ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        check_lengths(X, y)
        coder = LabelBinarizer(pos_label=1, neg_label=-1).fit(y)
        if not coder.y_type_.startswith("multilabel"):
            y = column_or_1d(y, warn=True)
            if len(coder.classes_) < 2:
                raise ValueError(
                    f"y must have at least 2 classes; got 1 class: {coder.classes_[0]!r}. The number of classes has to be "
                    "greater than one."
                )
        Y = np.asarray(coder.transform(y), dtype=np.float64)
        w = self._check_weights(X, sample_weight)
        if self.class_weight is not None:
            share = compute_sample_weight(self.class_weight, y)
            w = share if w is None else w * share
        self._coder, self.classes_ = coder, coder.classes_
        self._fit(X, Y, False, w, y)
        return self

    def _score_of(self, labels: np.ndarray, weights: np.ndarray | None) -> Any:
        if self.scoring is None:
            return None
        known, told = _Known(self._coder), scorer_weights(weights)
        scorer = check_scoring(known, scoring=self.scoring)
        return lambda predicted, truth: scorer(known, predicted, labels, **told)

    def decision_function(self, X: Any) -> Any:
        """Predict the coded labels.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_classes)
        """
        scores = self._predict(X, "decision_function")
        return scores[:, 0] if int(scores.shape[1]) == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_labels) for several labels
        """
        check_is_fitted(self, "coef_")
        return _Known(self._coder).predict(_arrays.to_host(self.decision_function(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        tags.classifier_tags.multi_label = True
        tags.regressor_tags = None
        return tags


class _Known(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is what it is given as X."""

    def __init__(self, coder: Any):
        self.coder = coder
        self.classes_ = coder.classes_

    def fit(self, X: Any, y: Any) -> _Known:
        return self

    def decision_function(self, X: Any) -> Any:
        return X

    def predict(self, X: Any) -> np.ndarray:
        if self.coder.y_type_.startswith("multilabel"):
            return (np.asarray(X) > 0).astype(int)
        return self.classes_[X.argmax(axis=1) if X.ndim == 2 else (X > 0).astype(int)]
