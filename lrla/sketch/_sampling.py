"""Uniform sampling of coordinates without replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla._random import SAMPLING
from lrla.sketch._operator import SketchOperator, remembered


@dataclass(frozen=True)
class UniformSampling(SketchOperator):
    """n_out distinct coordinates, times sqrt(n_in / n_out); an order of columns is the order of the draws."""

    @property
    def law(self) -> str:
        """That of an orthogonal matrix, where the data are incoherent with the coordinates."""
        return "orthogonal"

    @remembered
    def indices(self) -> np.ndarray:
        """The sampled coordinates in the order of the columns, int64, shape (n_out,)."""
        return self.stream.order(self.n_in, SAMPLING)[: self.n_out]

    @property
    def scale(self) -> float:
        """What a sampled coordinate is multiplied with."""
        return float((self.n_in / self.n_out) ** 0.5)

    def _take(self, X: Any, axis: int) -> Any:
        kind, indices = _arrays.kind(X), self.indices
        if kind in ("sparse", "device_sparse"):
            X = X.tocsc() if axis else X.tocsr()
            return self.scale * (X[:, indices] if axis else X[indices, :]).toarray()
        return self.scale * _arrays.namespace(X).take(X, _arrays.from_host(indices, X), axis=axis)

    def _right(self, X: Any) -> Any:
        return self._take(X, 1)

    def _left(self, A: Any) -> Any:
        return self._take(A, 0)

    def _add(self, A: Any, offset: int, out: Any) -> None:
        inside = np.flatnonzero((self.indices >= offset) & (self.indices < offset + A.shape[0]))
        if _arrays.kind(A) == "host":
            out[inside] += self.scale * A[self.indices[inside] - offset]
        else:
            super()._add(A, offset, out)

    def _expand(self, W: Any) -> Any:
        place = np.full(self.n_in, self.n_out)
        place[self.indices] = np.arange(self.n_out)
        xp = _arrays.namespace(W)
        nothing = xp.zeros((1, W.shape[1]), dtype=W.dtype, device=_arrays.device(W))
        return xp.take(xp.concat([self.scale * W, nothing], axis=0), _arrays.from_host(place, W), axis=0)

    def _tile(self, first: int, last: int, like: Any) -> Any:
        xp, device = _arrays.namespace(like), _arrays.device(like)
        coordinates = xp.arange(first, last, dtype=xp.int64, device=device)[:, None]
        hit = coordinates == _arrays.from_host(self.indices, like)[None, :]
        return self.scale * _arrays.astype(hit, _arrays.real_dtype(like))
