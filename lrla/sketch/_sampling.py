"""Sampling of coordinates: uniform without replacement, or independent with probabilities that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import SAMPLING, Stream
from lrla.sketch._operator import SketchOperator, remembered

BLOCK_NUMBERS = 1 << 18  # of uniform numbers at a time


@dataclass(frozen=True)
class CoordinateSampling(SketchOperator):
    """Distinct coordinates, each times a number of its own: one entry in every column."""

    @property
    def indices(self) -> np.ndarray:
        """The sampled coordinates in the order of the columns, int64, shape (n_out,)."""
        raise NotImplementedError

    @property
    def scales(self) -> np.ndarray:
        """What each is multiplied with, float64, shape (n_out,)."""
        raise NotImplementedError

    def _scales(self, like: Any) -> Any:
        return _arrays.from_host(self.scales.astype(_arrays.real_dtype(like)), like)

    def _take(self, X: Any, axis: int) -> Any:
        kind, indices = _arrays.kind(X), self.indices
        if kind in ("sparse", "device_sparse"):
            X = X.tocsc() if axis else X.tocsr()
            Z = (X[:, indices] if axis else X[indices, :]).toarray()
        else:
            Z = _arrays.namespace(X).take(X, _arrays.from_host(indices, X), axis=axis)
        scales = self._scales(Z)
        return Z * (scales[None, :] if axis else scales[:, None])

    def _right(self, X: Any) -> Any:
        return self._take(X, 1)

    def _left(self, A: Any) -> Any:
        return self._take(A, 0)

    def _add(self, A: Any, offset: int, out: Any) -> None:
        inside = np.flatnonzero((self.indices >= offset) & (self.indices < offset + A.shape[0]))
        if _arrays.kind(A) == "host":
            out[inside] += self._scales(A)[inside, None] * A[self.indices[inside] - offset]
        else:
            super()._add(A, offset, out)

    def _expand(self, W: Any) -> Any:
        place = np.full(self.n_in, self.n_out)
        place[self.indices] = np.arange(self.n_out)
        xp = _arrays.namespace(W)
        nothing = xp.zeros((1, W.shape[1]), dtype=W.dtype, device=_arrays.device(W))
        return xp.take(xp.concat([self._scales(W)[:, None] * W, nothing], axis=0), _arrays.from_host(place, W), axis=0)

    def _tile(self, first: int, last: int, like: Any) -> Any:
        xp, device = _arrays.namespace(like), _arrays.device(like)
        coordinates = xp.arange(first, last, dtype=xp.int64, device=device)[:, None]
        hit = coordinates == _arrays.from_host(self.indices, like)[None, :]
        return self._scales(like)[None, :] * _arrays.astype(hit, _arrays.real_dtype(like))


@dataclass(frozen=True)
class UniformSampling(CoordinateSampling):
    """n_out coordinates, times sqrt(n_in / n_out); the order of columns is the order of the draws."""

    @property
    def law(self) -> str:
        """That of an orthogonal matrix, where the data are incoherent with the coordinates."""
        return "orthogonal"

    @remembered
    def indices(self) -> np.ndarray:
        """The sampled coordinates in the order of the columns, int64, shape (n_out,)."""
        return self.stream.order(self.n_in, SAMPLING)[: self.n_out]

    @property
    def scales(self) -> np.ndarray:
        """What each is multiplied with, float64, shape (n_out,)."""
        return np.full(self.n_out, (self.n_in / self.n_out) ** 0.5)


@dataclass(frozen=True)
class WeightedSampling(CoordinateSampling):
    """Every coordinate with its own probability p, times p^-1/2; n_out is how many came.

    Parameters
    ----------
    probabilities : bytes
        Those of all coordinates, float64; as bytes they are a value, which can be compared and hashed.
    """

    probabilities: bytes

    @remembered
    def indices(self) -> np.ndarray:
        """The sampled coordinates in ascending order, int64, shape (n_out,)."""
        return bernoulli(np.frombuffer(self.probabilities), self.stream)

    @remembered
    def scales(self) -> np.ndarray:
        """What each is multiplied with, float64, shape (n_out,)."""
        return np.frombuffer(self.probabilities)[self.indices] ** -0.5

    def prefix(self, n_out: int) -> Any:
        """Refused: the first of the coordinates are no sample of all."""
        raise ValueError("A sketch of kind='leverage' has no prefixes: make a smaller one.")


def check_probabilities(given: Any, size: int, like: Any) -> np.ndarray:
    """What probabilities are to be proportional to, (size,) float64 on the host; on a device it must be that of `like`."""
    q = _validation.check_vector(given, size, "probabilities", like)
    if q.min() < 0.0 or q.max() == 0.0:
        raise ValueError(f"probabilities must be >= 0 and not all zero; found {q.min():.3g} to {q.max():.3g}.")
    return q


def capped_probabilities(q: np.ndarray, expected: int) -> np.ndarray:
    """``min(1, c q)`` with the c for which they sum to `expected`; 1 for all q > 0 where these are fewer."""
    q = q / q.max()
    if np.count_nonzero(q) <= expected:
        return (q > 0.0).astype(np.float64)
    order = np.sort(q)[::-1]
    rest = np.cumsum(order[::-1])[::-1]  # rest[k]: the sum without the k largest, which are held at 1
    room = expected - np.arange(expected)
    c = room / rest[:expected]
    held = int(np.argmax(c * order[:expected] <= 1.0)) if np.any(c * order[:expected] <= 1.0) else expected - 1
    return np.minimum(1.0, c[held] * q)


def bernoulli(p: np.ndarray, stream: Stream, first: int = 0) -> np.ndarray:
    """Indices i of p at which an event of probability p[i] occurs, where i + `first` is the index in all of the data."""
    found = []
    for start in range(0, len(p), BLOCK_NUMBERS):
        part = p[start : start + BLOCK_NUMBERS]  # uniform numbers are in (0, 1): p = 1 is certain, and p = 0 never
        found.append(start + np.flatnonzero(stream.uniform(len(part), first=first + start) < part))
    return np.concatenate(found)
