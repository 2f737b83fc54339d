"""The door for y and sample weights: checked, in float64 on the host; and rows of weight zero, taken out and put back."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length

from lrla import _arrays, _validation
from lrla._estimator import Estimator
from lrla.linalg._exponent import values_of


class SupervisedEstimator(Estimator):
    """Base of estimators that are fitted to a response, with weights of the rows."""

    def _check_rows(self, X: Any) -> Any:
        """The X of `fit`; a copy where it is not aligned, so that this changes no bit of the result."""
        X = self._check_X(X, reset=True, min_samples=2)
        return np.require(X, requirements="A") if isinstance(X, np.ndarray) else X

    def _check_there(self, y: Any) -> None:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")

    def _check_response(self, X: Any, y: Any) -> tuple[np.ndarray, bool]:
        """The response as (n, T) float64, and whether it came with one dimension."""
        self._check_there(y)
        y = check_array(as_host_vector(y, "y", X), ensure_2d=False, dtype=np.float64, input_name="y")
        if y.ndim not in (1, 2):
            raise ValueError(f"y must have shape (n_samples,) or (n_samples, n_targets); got {y.shape}.")
        check_lengths(X, y)
        if float(np.abs(y).max()) > 1e153:
            raise ValueError("y is too large for its squares to be numbers: rescale y.")
        return y.reshape(len(y), -1), y.ndim == 1

    def _check_weights(self, X: Any, sample_weight: Any, positive: int = 2) -> np.ndarray | None:
        """Sample weights as (n,) float64, none negative and at least so many positive; None for none."""
        if sample_weight is None:
            return None
        n = int(X.shape[0])
        if isinstance(sample_weight, Real) or getattr(sample_weight, "shape", None) == ():
            sample_weight = np.full(n, float(sample_weight))
        w = as_host_vector(sample_weight, "sample_weight", X)
        w = check_array(w, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
        if w.shape != (n,):
            raise ValueError(f"sample_weight must have shape ({n},), one for each row of X; got {w.shape}.")
        if np.any(w < 0.0):
            raise ValueError(f"sample_weight must not be negative; found {w.min():g}.")
        if np.count_nonzero(w) < positive:
            rows = f"{positive} row{'s' if positive > 1 else ''}"
            raise ValueError(
                f"sample_weight must be positive for at least {rows}; {np.count_nonzero(w)} are, the other weights are zero."
            )
        with np.errstate(over="ignore"):
            if not np.isfinite(np.sum(w)):
                raise ValueError("sample_weight is too large for its sum to be a number: rescale it.")
        return w


def as_host_vector(v: Any, name: str, X: Any) -> Any:
    """A response or weights on the host; on a device it must be that of X."""
    _validation.refuse_unsupported(v, name)
    if _arrays.kind(v) != "device":
        return v
    like = values_of(X)
    if _arrays.kind(X) in ("device", "device_sparse") and _arrays.describe(v) != _arrays.describe(like):
        raise ValueError(f"{name} is on {_arrays.describe(v)}, but X on {_arrays.describe(like)}; move one of them.")
    return _arrays.to_host(v)


def check_lengths(X: Any, y: np.ndarray) -> None:
    """Refuse a y with another number of rows than X."""
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


def among_all(values: Any, full: np.ndarray | None) -> Any:
    """Rows put back among those of weight zero, which get zeros; the inverse of `positive_rows`."""
    if full is None:
        return values
    xp = _arrays.namespace(values)
    place = np.where(full, np.cumsum(full) - 1, 0)
    inside = _arrays.from_host(full, values)
    taken = xp.take(values, _arrays.from_host(place, values), axis=0)
    inside = xp.reshape(inside, (-1, *(1,) * (len(values.shape) - 1)))
    return xp.where(inside, taken, xp.zeros_like(taken))
