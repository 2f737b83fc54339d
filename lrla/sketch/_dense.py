"""Dense sketches: independent entries, or orthonormal columns.  S is made in tiles, and multiplied by GEMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla._random import RADEMACHER
from lrla.sketch._operator import SketchOperator, remembered


@dataclass(frozen=True)
class Gaussian(SketchOperator):
    """Entries N(0, 1 / n_out)."""

    @property
    def law(self) -> str:
        """That of a Gaussian matrix."""
        return "gaussian"

    def _tile(self, first: int, last: int, like: Any) -> Any:
        place = {"xp": _arrays.namespace(like), "device": _arrays.device(like)}
        dtype = _arrays.real_dtype(like).name
        return self.stream.normal(self.n_out, last - first, first=first, dtype=dtype, **place).T / self.n_out**0.5


@dataclass(frozen=True)
class Rademacher(SketchOperator):
    """Entries +-1 / sqrt(n_out): one bit each, equal on every device."""

    @property
    def law(self) -> str:
        """That of a Gaussian matrix."""
        return "gaussian"

    def _tile(self, first: int, last: int, like: Any) -> Any:
        xp, device, d = _arrays.namespace(like), _arrays.device(like), self.n_out
        words = self.stream.words(-(-d // 32), last - first, RADEMACHER, xp=xp, device=device, first=first)
        bits = (words.T[:, :, None] >> xp.arange(32, dtype=xp.int64, device=device)[None, None, :]) & 1
        signs = xp.reshape(bits, (last - first, 32 * words.shape[0]))[:, :d]
        return _arrays.astype(1 - 2 * signs, _arrays.real_dtype(like)) / d**0.5


@dataclass(frozen=True)
class Orthogonal(SketchOperator):
    """sqrt(n_in / n_out) Q, Q the orthonormal factor of a Gaussian matrix; in memory as a whole."""

    @property
    def law(self) -> str:
        """That of the columns of a uniformly distributed orthogonal matrix."""
        return "orthogonal"

    @remembered
    def _matrix(self) -> np.ndarray:
        Q = np.linalg.qr(self.stream.normal(self.n_out, self.n_in).T)[0]
        return (self.n_in / self.n_out) ** 0.5 * Q

    def _tile(self, first: int, last: int, like: Any) -> Any:
        tile = self._matrix[first:last].astype(_arrays.real_dtype(like))
        return _arrays.from_host(tile, like)
