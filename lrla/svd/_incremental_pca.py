"""The estimator IncrementalPCA: scikit-learn's, on dense and sparse batches of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from lrla import _validation
from lrla._estimator import all_or_nothing
from lrla.svd._projection import Projection, fitted
from lrla.svd._streams import CenteredModel, centered


class IncrementalPCA(Projection):
    """Principal component analysis of a stream of batches; the cost of a sparse batch follows its stored entries.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of components; None: min(n_samples, n_features) of the first batch.
    whiten : bool, default=False
        Scale the transformed features to unit variance.
    batch_size : int or None, default=None
        Rows that `fit` works in at a time; None: 5 n_features.
    n_oversamples : int or "auto", default="auto"
        Components carried along beyond those shown, which make these more accurate; "auto" is max(10, k // 2), 0 is
        scikit-learn's algorithm.

    Attributes
    ----------
    components_ : array of shape (k, n_features)
        Rows beyond `rank_` are zero; signs never flip from batch to batch.
    explained_variance_, explained_variance_ratio_, singular_values_ : array of shape (k,)
    mean_, var_ : array of shape (n_features,)
    noise_variance_ : float
        Mean variance of the directions left out, of all that were seen.  (scikit-learn averages those that its last small
        SVD happened to hold.)
    reconstruction_error_ : float
        Frobenius norm of what the components leave of the centred data; exact.
    n_components_, n_samples_seen_, batch_size_, rank_, n_iter_, n_features_in_ : int

    Notes
    -----
    A sparse batch with z stored entries on c distinct columns costs O(z k + c k^2) flops besides a small SVD, and never
    touches the other columns.  A batch may have one row, and need not have as many rows as components.

    References
    ----------
    D. Ross, J. Lim, R.-S. Lin, M.-H. Yang, "Incremental learning for robust visual tracking", IJCV 77, 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from lrla import IncrementalPCA
    >>> X = load_digits().data
    >>> pca = IncrementalPCA(5)
    >>> for start in range(0, len(X), 100):
    ...     _ = pca.partial_fit(X[start : start + 100])
    >>> pca.explained_variance_ratio_.round(3)
    array([0.149, 0.136, 0.118, 0.084, 0.058])
    """

    mean_ = fitted("mean", "Means of the features, shape (n_features,).")
    var_ = fitted("var", "Variances of the features, divided by ``n_samples_seen_``, shape (n_features,).")
    noise_variance_ = fitted("noise_variance", "Mean variance of the directions left out.")
    reconstruction_error_ = fitted("reconstruction_error", "What the components leave of the centred data.")
    n_iter_ = fitted("n_iter", "Batches.")

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        batch_size: int | None = None,
        n_oversamples: Any = "auto",
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.batch_size = batch_size
        self.n_oversamples = n_oversamples

    @property
    def n_components_(self) -> int:
        """The number of components."""
        return self._n_features_out

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Start anew and work X in, batch by batch.

        Parameters
        ----------
        X : array-like or sparse of shape (n_samples, n_features)
            On the host.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        vars(self).pop("_model", None)
        X = self._checked(X, first=True)
        if self.n_components is not None:
            hint = f" X has n_samples={X.shape[0]}, n_features={X.shape[1]}."
            _validation.check_integer(self.n_components, "n_components", 1, min(X.shape), hint)
        self.batch_size_ = 5 * X.shape[1] if self.batch_size is None else self.batch_size
        model = self._new_model(X)
        for start in range(0, X.shape[0], self.batch_size_):
            model.add(X[start : start + self.batch_size_])
        self._model = model
        return self

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Add the rows of a batch of any size.

        Parameters
        ----------
        X : array-like or sparse of shape (n_samples, n_features)
            On the host.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        first = not self.__sklearn_is_fitted__()
        X = self._checked(X, first)
        model = self._new_model(X) if first else self._model
        model.add(X)
        self._model = model
        return self

    def _checked(self, X: Any, first: bool) -> Any:
        _validation.check_on_host(X, "X", "IncrementalPCA")
        X = self._check_X(X, reset=first)
        return X.tocsr() if scipy.sparse.issparse(X) else np.ascontiguousarray(X)

    def _new_model(self, X: Any) -> CenteredModel:
        k = min(X.shape) if self.n_components is None else self.n_components
        p = max(10, k // 2) if isinstance(self.n_oversamples, str) else self.n_oversamples
        return centered(k, p, ddof=1)

    def _check_parameters(self) -> None:
        if self.n_components is not None:
            _validation.check_integer(self.n_components, "n_components", 1)
        _validation.check_choice(self.whiten, "whiten", (True, False))
        if self.batch_size is not None:
            _validation.check_integer(self.batch_size, "batch_size", 1)
        if not (isinstance(self.n_oversamples, str) and self.n_oversamples == "auto"):
            _validation.check_integer(self.n_oversamples, "n_oversamples", 0)
