"""What every estimator shares: the input door of `fit` and `transform`, all-or-nothing methods, the way to the host."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from lrla import _arrays, _validation


def all_or_nothing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate `fit` or `partial_fit`: whatever it raises, the estimator is left with the attributes it had before.

    Holds as long as the method replaces attributes instead of writing into them.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return guarded


class Estimator(BaseEstimator):
    """Base of lrla's estimators.  The type of X decides where the work is done, and fitted arrays stay there."""

    def _check_X(
        self, X: Any, *, reset: bool, operator: bool = False, like: Any = None, method: str = "transform",
        min_samples: int = 1,
    ) -> Any:  # fmt: skip
        """Check the X of `fit` (reset=True) or of a method of the fitted estimator (`like`: a fitted array).

        Returns an ndarray, CSR or CSC, device array or LinearOperator of float32 or float64.
        """
        _validation.refuse_unsupported(X, "X")
        kind = _arrays.kind(X)
        if like is not None:
            self._check_same_place(X, kind, like, method)
        if kind == "operator" and operator:
            X = _validation.check_operator(X, "X")
        elif kind in ("device", "device_sparse"):
            X = _validation.check_device(X, "X")
        else:
            if kind == "sparse":
                X = _validation.check_sparse(X, "X")
            with np.errstate(over="ignore"):  # a longdouble beyond float64 is refused as infinite: no warning besides
                X = validate_data(
                    self, X, reset=reset, accept_sparse=["csr", "csc"], dtype=list(_validation.FLOATS),
                    ensure_min_samples=min_samples,
                )  # fmt: skip
            return _validation.contiguous(X)
        if X.shape[0] < min_samples:
            raise ValueError(f"Found array with n_samples={X.shape[0]}, while a minimum of {min_samples} is required.")
        self._check_n_features(X, reset)
        return X

    def _check_n_features(self, X: Any, reset: bool) -> None:
        """For inputs that scikit-learn does not read: what `validate_data` does for the others."""
        if reset:
            self.n_features_in_ = int(X.shape[1])
            self.__dict__.pop("feature_names_in_", None)
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input."
            )

    def _check_same_place(self, X: Any, kind: str, like: Any, method: str) -> None:
        here, there = _arrays.describe(like), _arrays.describe(X) if kind in ("device", "device_sparse") else "numpy"
        here = here.replace("cupyx", "cupy")
        if here != there.replace("cupyx", "cupy"):
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace and the same device as "
                f"those passed to fit(). Array namespaces used during fit ({here}) and {method} ({there}) differ. "
                "Move X there, or bring the estimator to the host with to_host()."
            )

    def to_host(self) -> Any:
        """A copy of this estimator whose fitted arrays are NumPy arrays.

        Returns
        -------
        estimator : the same class
            Fitted attributes on a device are copied to the host; everything else is shared.
        """
        home = copy.copy(self)
        home.__dict__.update({name: _at_home(value) for name, value in vars(self).items()})
        return home

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _at_home(value: Any) -> Any:
    """The value with its device arrays, or those of a dataclass, on the host."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: _at_home(getattr(value, f.name)) for f in dataclasses.fields(value)}
        )
    return _arrays.to_host(value) if _arrays.kind(value) == "device" else value
