"""Streams under the estimators: the models that `partial_fit` keeps, with the names of a batch model.

What costs O(n k), such as the components, is multiplied out when it is read, and kept until the next batch.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from lrla import _validation
from lrla.linalg._operator import column_means, squared_norm
from lrla.svd._centered_updating import CenteredStream
from lrla.svd._projection import check_energy
from lrla.svd._updatable_svd import UpdatableSVD


def raw(k: int, p: int) -> RawModel:
    """A new stream of rows as they are: k components, p more carried along."""
    return RawModel(UpdatableSVD(k, n_oversamples=p, left=False))


def resumed(k: int, p: int, r: int, model: Any) -> RawModel:
    """A stream that goes on from the first r components of a batch model."""
    stream = UpdatableSVD.from_svd(
        None, model.singular_values[:r], model.components[:r], n_components=k, n_oversamples=p,
        error=model.reconstruction_error,
    )  # fmt: skip
    return RawModel(stream, model.sums, model.energy, model.n_samples_seen)


def centered(k: int, p: int, ddof: int) -> CenteredModel:
    """A new stream of rows centred on their running mean."""
    return CenteredModel(CenteredStream(k, p), ddof)


def _check(X: Any, k: int) -> float:
    """The squared norm of a batch that can be worked in."""
    _validation.check_memory(8.0 * X.shape[1] * k, f"{k} components of {X.shape[1]} features")
    return check_energy(squared_norm(X.data if scipy.sparse.issparse(X) else X))


class RawModel:
    """Rows as they are: an `UpdatableSVD`, with the column sums that the explained variance needs."""

    mean = None

    def __init__(self, stream: UpdatableSVD, sums: np.ndarray | None = None, energy: float = 0.0, n_samples: int = 0):
        self.stream = stream
        self.sums = np.zeros(0) if sums is None else sums  # of columns
        self.energy, self.n_samples_seen, self.n_iter = energy, n_samples, 0

    def add(self, X: Any) -> None:
        """Work in a checked batch; columns beyond those known are new ones."""
        energy = _check(X, self.stream.n_components)
        known = self.stream.shape[1] if len(self.sums) else X.shape[1]
        if X.shape[1] > known:
            self.stream.add_zero_columns(X.shape[1] - known)
        sums = column_means(X) * X.shape[0]
        self.stream.add_rows(X)
        sums[: len(self.sums)] += self.sums
        self.sums = sums
        self.energy += energy
        self.n_samples_seen += X.shape[0]
        self.n_iter += 1
        vars(self).pop("explained_variance", None)

    @property
    def components(self) -> np.ndarray:
        """(k, n)."""
        return self.stream.Vt

    @property
    def singular_values(self) -> np.ndarray:
        """(k,)."""
        return self.stream.singular_values_

    @cached_property
    def explained_variance(self) -> np.ndarray:
        """(k,): ``s^2 / N - (mean . v)^2``."""
        s = self.singular_values.astype(np.float64)
        shift = self.components.astype(np.float64) @ (self.sums / self.n_samples_seen)
        return np.maximum(s**2 / self.n_samples_seen - shift**2, 0.0).astype(self.components.dtype)

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """(k,)."""
        N = self.n_samples_seen
        total = self.energy / N - float((self.sums / N) @ (self.sums / N))
        return self.explained_variance / total if total > 0.0 else np.zeros_like(self.explained_variance)

    @property
    def reconstruction_error(self) -> float:
        """Frobenius error of U diag(s) V^T."""
        return self.stream.reconstruction_error_

    @property
    def rank(self) -> int:
        """Components that are there."""
        return self.stream.rank_


class CenteredModel:
    """Rows centred on their running mean: a `CenteredStream`; `ddof` is what variances take off the number of rows."""

    def __init__(self, stream: CenteredStream, ddof: int):
        self.stream, self.ddof, self.n_iter = stream, ddof, 0
        self._shown: dict[str, tuple[int, np.ndarray]] = {}  # name -> (rows seen then, value)

    def add(self, X: Any) -> None:
        """Work in a checked batch; interrupted, it is counted if and only if the stream has it."""
        _check(X, self.stream.n_components)
        before = self.n_samples_seen
        self.n_iter += 1
        try:
            self.stream.partial_fit(X)
        except BaseException:
            self.n_iter -= self.n_samples_seen == before
            raise

    def _show(self, name: str) -> np.ndarray:
        seen, value = self._shown.get(name, (-1, None))
        if seen != self.n_samples_seen:
            value = getattr(self.stream, name)
            self._shown = {**self._shown, name: (self.n_samples_seen, value)}
        return value

    @property
    def n_samples_seen(self) -> int:
        """Rows so far."""
        return self.stream.n_seen

    @property
    def components(self) -> np.ndarray:
        """(k, n)."""
        return self._show("components")

    @property
    def singular_values(self) -> np.ndarray:
        """(k,)."""
        return self._show("singular_values")

    @property
    def mean(self) -> np.ndarray:
        """(n,)."""
        return self._show("mean").astype(self.components.dtype)

    @property
    def var(self) -> np.ndarray:
        """(n,)."""
        return self._show("var")

    @property
    def explained_variance(self) -> np.ndarray:
        """(k,)."""
        s = self.singular_values.astype(np.float64)
        return (s**2 / max(self.n_samples_seen - self.ddof, 1)).astype(self.components.dtype)

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """(k,)."""
        total = self._energy
        s = self.singular_values.astype(np.float64)
        return (s**2 / total if total > 0.0 else np.zeros_like(s)).astype(self.components.dtype)

    @property
    def _energy(self) -> float:
        return float(self.var.sum()) * self.n_samples_seen

    @property
    def reconstruction_error(self) -> float:
        """Frobenius error of U diag(s) V^T for the centred rows."""
        s = self.singular_values.astype(np.float64)
        return float(np.sqrt(max(self._energy - float(s @ s), 0.0)))

    @property
    def noise_variance(self) -> float:
        """Mean variance of the directions left out, as in probabilistic PCA."""
        n = self.components.shape[1]
        left = min(n, self.n_samples_seen) - self.components.shape[0]
        if left <= 0:
            return 0.0
        return self.reconstruction_error**2 / max(self.n_samples_seen - self.ddof, 1) / left

    @property
    def rank(self) -> int:
        """Components that are there."""
        return self.stream.rank
