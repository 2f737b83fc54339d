"""What TruncatedSVD, PCA and IncrementalPCA share: a fitted model of orthonormal components, seen through attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from lrla import _arrays, _validation
from lrla._estimator import Estimator
from lrla._progress import Progress
from lrla._random import Stream, seed_sequence
from lrla.linalg._operator import as_operator
from lrla.linalg._orthonormalize import orthonormalize
from lrla.svd._qb import rand_qb
from lrla.svd._rayleigh_ritz import finish, rayleigh_ritz
from lrla.svd._result import SVDResult
from lrla.svd._truncated import solve, warn


@dataclass(frozen=True)
class BatchModel:
    """Components and what is known of them, as a batch fit leaves them; a stream offers the same names."""

    components: Any  # (k, n)
    singular_values: Any  # (k,)
    explained_variance: Any  # (k,)
    explained_variance_ratio: Any  # (k,)
    mean: Any  # (n,) or None
    sums: np.ndarray  # (n,), of the columns before centring
    energy: float  # squared norm of the data, centred if the components are
    noise_variance: float
    reconstruction_error: float
    residuals: np.ndarray
    rank: int
    n_iter: int
    n_samples_seen: int


def fitted(name: str, description: str) -> property:
    """A fitted attribute that reads `name` from the model; absent before `fit`."""

    def read(self: Any) -> Any:
        model = vars(self).get("_model")
        if model is None or not hasattr(model, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{name}_' (yet); call fit first.")
        return getattr(model, name)

    return property(read, doc=description)


class Projection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """A transformer that projects rows onto orthonormal components."""

    components_ = fitted("components", "Orthonormal rows, shape (k, n_features); zero beyond `rank_` in a stream.")
    singular_values_ = fitted("singular_values", "Shape (k,), descending.")
    explained_variance_ = fitted("explained_variance", "Variance of the transformed training data, shape (k,).")
    explained_variance_ratio_ = fitted("explained_variance_ratio", "The same as share of the variance of all features.")
    rank_ = fitted("rank", "Singular values that are not rounding noise, at most k.")
    n_samples_seen_ = fitted("n_samples_seen", "Rows seen by `fit`, or by all calls of `partial_fit`.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [np.dtype(dtype).name for dtype in _validation.FLOATS]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return vars(self).get("_model") is not None

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def transform(self, X: Any) -> Any:
        """Project rows onto the components.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, k)
            Dense, in the namespace and on the device of X, which must be those of the data in `fit`.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False, operator=True, like=self.components_)
        mean = getattr(self._model, "mean", None)
        mean = None if mean is None else _arrays.astype(mean, np.float64)
        components = self.components_
        if _arrays.kind(X) != "operator":
            values = X.data if _arrays.kind(X) == "device_sparse" else X
            components = _arrays.astype(components, _arrays.real_dtype(values))
        op = as_operator(X, mean)
        Z = op.forward(_contiguous(_arrays.astype(components, op.dtype))).T
        return Z / self._whitening(Z) if getattr(self, "whiten", False) else Z

    def inverse_transform(self, X: Any) -> Any:
        """Rows in feature space from their coefficients: the best approximation of what was transformed.

        Parameters
        ----------
        X : array-like or device array of shape (n_samples, k)

        Returns
        -------
        array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        Z = _validation.check_matrix(X, "X", sparse=False)
        self._check_same_place(Z, _arrays.kind(Z), self.components_, "inverse_transform")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns, but {type(self).__name__} has {self._n_features_out} components."
            )
        if getattr(self, "whiten", False):
            Z = Z * self._whitening(Z)
        dtype = _arrays.real_dtype(Z)
        back = Z @ _arrays.astype(self.components_, dtype)
        mean = getattr(self._model, "mean", None)
        return back if mean is None else back + _arrays.astype(mean, dtype)[None, :]

    def _whitening(self, Z: Any) -> Any:
        """Standard deviations of the components; those without variance are left alone."""
        xp = _arrays.namespace(Z)
        spread = xp.sqrt(_arrays.astype(self.explained_variance_, _arrays.real_dtype(Z)))
        return xp.where(spread > 0, spread, xp.ones_like(spread))[None, :]


def _contiguous(X: Any) -> Any:
    return np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X


def check_n_components(value: Any, shape: tuple[int, int]) -> Any:
    """An int in [1, min(shape)], or a float in (0, 1): a share of the energy."""
    if isinstance(value, (float, np.floating)) and not isinstance(value, bool):
        return _validation.check_real(value, "n_components", 0.0, 1.0, closed=(False, False))
    hint = f" X has n_samples={shape[0]}, n_features={shape[1]}. A float in (0, 1) asks for that share of the energy."
    return _validation.check_integer(value, "n_components", 1, min(shape), hint)


def decompose(
    X: Any, k: Any, *, mean: Any, method: str, tol: float, max_iter: int, n_iter: int | None,
    n_oversamples: int, random_state: Any, verbose: int, energy: float,
) -> SVDResult:  # fmt: skip
    """The SVD behind a batch fit: to a rank, or to a share of the `energy` (squared norm) if k is a float."""
    seed = seed_sequence(random_state)
    if isinstance(k, float):
        result = to_energy(X, k, mean, seed, energy)
        k = len(result.s)
    else:
        with Progress("truncated SVD", max_iter, verbose) as progress:
            result = solve(
                X, k, mean=mean, method=method, tol=tol, max_iter=max_iter, n_iter=n_iter, n_oversamples=n_oversamples,
                seed=seed, progress=progress,
            )  # fmt: skip
    warn(result, k, stacklevel=6)
    return result


def to_energy(X: Any, share: float, mean: Any, seed: np.random.SeedSequence, energy: float) -> SVDResult:
    """The smallest rank found whose triplets hold `share` of the energy (randQB_EI, then the SVD of its small factor)."""
    op = as_operator(X, mean)
    stream = Stream.from_seed(seed)
    _, B, _ = rand_qb(op, float(np.sqrt(1.0 - share)), min(op.shape), 10, 1, stream)
    k = max(1, B.shape[0])
    place = {"xp": op.xp, "device": _arrays.device(op.empty((1, 1))), "dtype": np.dtype(op.dtype).name}
    spare = Stream((stream.key[0] ^ 1, stream.key[1]))
    rows = rayleigh_ritz(op, orthonormalize(B)[0], k)  # so that U diag(s) = A V, as for every other solver
    reached = np.cumsum(rows[1] ** 2) >= share * energy
    r = int(np.argmax(reached)) + 1 if reached.any() else max(1, len(rows[1]))
    rows = (rows[0][:r, :], rows[1][:r], rows[2][:r, :])
    m, n = op.shape
    U, s, Vt, rank = finish(rows, r, lambda j: spare.normal(j, m, **place), lambda j: spare.normal(j, n, **place))
    return SVDResult(U, s, Vt, "qb", "direct", 0, 0, r, np.zeros(r), rank)


def check_energy(energy: float) -> float:
    """A squared norm that is a number: the variances of larger data are none."""
    if not np.isfinite(energy):
        raise ValueError("The squares of X overflow; divide X by a constant, for instance its largest magnitude.")
    return energy


def on_device(a: np.ndarray, like: Any) -> Any:
    """A small host array in the dtype, namespace and device of `like`."""
    return _arrays.from_host(np.asarray(a).astype(_arrays.real_dtype(like)), like)
