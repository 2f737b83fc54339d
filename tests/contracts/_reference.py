"""A small correct estimator, and what goes wrong in others: the contracts accept the first and catch its variants."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from lrla import _arrays, _random, _validation
from lrla._estimator import Estimator, all_or_nothing


class Reference(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """PCA of all rows seen, from one dense SVD of the running triangular factor [diag(s) Vt; new rows]."""

    def __init__(self, n_components=2, *, random_state=None):
        self.n_components = n_components
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X, y=None):
        X = self._check_X(X, reset=True)
        _validation.check_rank(self.n_components, X.shape, "n_components")
        return self._update(X, None)

    @all_or_nothing
    def partial_fit(self, X, y=None):
        old = getattr(self, "_rows", None)
        return self._update(self._check_X(X, reset=old is None, like=old), old)

    def _update(self, X, old):
        _random.seed_sequence(self.random_state)
        k = _validation.check_integer(self.n_components, "n_components", 1)
        _validation.check_memory(8.0 * (k + X.shape[0]) * X.shape[1], "The dense matrix")
        X = _dense(X)
        xp = _arrays.namespace(X)
        rows = xp.concat([X] if old is None else [old, X], axis=0)  # a copy in C order
        mean = xp.mean(rows, axis=0)
        s, V = self._svd(rows - mean)
        if not float(s[0]) < 1e153:
            raise ValueError("X is too large for its variance to be a number; rescale it.")
        missing = max(0, k - s.shape[0])
        self._rows, self.mean_ = rows, mean
        self.singular_values_ = xp.concat([s[:k], xp.zeros(missing, dtype=s.dtype, device=_arrays.device(s))])
        padding = xp.zeros((missing, V.shape[1]), dtype=V.dtype, device=_arrays.device(V))
        self.components_ = xp.concat([V[:k, :], padding], axis=0)
        self.explained_variance_ = (self.singular_values_ / max(1, rows.shape[0] - 1) ** 0.5) ** 2
        return self

    def _svd(self, Z):
        xp = _arrays.namespace(Z)
        if _arrays.kind(Z) == "host":
            _, s, Vt = np.linalg.svd(Z, full_matrices=False)
        else:
            _, s, Vt = xp.linalg.svd(Z, full_matrices=False)
        top = xp.argmax(xp.abs(Vt), axis=1)
        sign = xp.sign(xp.stack([Vt[i, int(top[i])] for i in range(Vt.shape[0])]))
        return s, Vt * sign[:, None]

    def transform(self, X):
        X = _dense(self._check_X(X, reset=False, like=self._fitted("components_")))
        Z = X - self.mean_
        return (np.ascontiguousarray(Z) if isinstance(Z, np.ndarray) else Z) @ self.components_.T

    def _fitted(self, name):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, name)
        return getattr(self, name)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _dense(X):
    return X.toarray() if sp.issparse(X) else X


class HalfFitted(Reference):
    """Records the names and the mean of X, and fails afterwards."""

    def fit(self, X, y=None):
        return self._update(self._check_X(X, reset=True), None)

    def _svd(self, Z):
        self.mean_ = Z[0, :]
        return super()._svd(Z)


class WritesIntoState(Reference):
    """Changes its arrays in place, where the decorator cannot restore them."""

    def _svd(self, Z):
        if hasattr(self, "mean_"):
            self.mean_ *= 2
        return super()._svd(Z)


class ChangesInput(Reference):
    """Centres X in place."""

    def _update(self, X, old):
        if _arrays.kind(X) == "host":
            X -= X.mean(axis=0)
        return super()._update(X, old)


class KeepsInput(Reference):
    """Its fitted mean is a view of X."""

    def _update(self, X, old):
        super()._update(X, old)
        self.mean_ = X[0, :] if not sp.issparse(X) else self.mean_
        return self


class Upcasts(Reference):
    """Returns float64 for float32."""

    def _svd(self, Z):
        return super()._svd(_arrays.astype(Z, "float64"))


class AbsoluteTolerance(Reference):
    """Takes small values for zero."""

    def _svd(self, Z):
        s, V = super()._svd(Z)
        return _arrays.namespace(s).where(s < 1e-9, 0 * s, s), V


class Squares(Reference):
    """Works on the Gram matrix, which overflows."""

    def _svd(self, Z):
        theta, V = np.linalg.eigh(Z.T @ Z)
        return np.sqrt(np.maximum(theta[::-1], 0)), V[:, ::-1].T.copy()


class Unseeded(Reference):
    """Draws numbers of its own."""

    def _svd(self, Z):
        return super()._svd(Z + 1e-13 * np.random.default_rng().standard_normal(Z.shape))


class LayoutDependent(Reference):
    """Takes another way, with other rounding, where rows lie backwards in memory."""

    def _check_X(self, X, **options):
        if isinstance(X, np.ndarray) and X.strides[0] < 0:
            X = (3 * X) / 3
        return super()._check_X(X, **options)


class DropsStored(Reference):
    """Reads the stored values of a sparse matrix wrongly: the last one is lost."""

    def _update(self, X, old):
        if sp.issparse(X):
            X = X.copy()
            X.data[-1] = 0
        return super()._update(X, old)


class ComesHome(Reference):
    """Fitted attributes leave the device."""

    def _update(self, X, old):
        super()._update(X, old)
        self.components_ = _arrays.to_host(self.components_)
        return self


class CopiesEverything(Reference):
    """Computes on the host, whatever X is."""

    def _svd(self, Z):
        s, V = super()._svd(_arrays.to_host(Z))
        return _arrays.from_host(s, Z), _arrays.from_host(V, Z)


class Unpicklable(Reference):
    """Holds a function."""

    def _update(self, X, old):
        self._hook = lambda: None
        return super()._update(X, old)


class ForgetsStream(Reference):
    """Loses its stream in a pickle."""

    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "_rows"}


class NoNamesOut(Reference):
    """Names of the wrong number of columns."""

    @property
    def _n_features_out(self):
        return self.components_.shape[0] + 1


class FillsNaN(Reference):
    """Takes what is not a number for zero."""

    def _check_X(self, X, **options):
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            X = np.nan_to_num(X)
        return super()._check_X(X, **options)
