"""Subsampled trigonometric transforms: permute, flip signs, transform, keep n_out of the coefficients.

S = sqrt(P / n_out) Pi D F^T R, restricted to its first n_in rows: Pi a permutation of P coordinates, D signs, F an
orthonormal transform of length P, R a sample of its coefficients without replacement.  Without Pi the signs cancel in
S^T A S for a diagonal A, and what is ordered in A stays in the sketch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from lrla import _arrays
from lrla._random import HASH, PERMUTATION, SAMPLING
from lrla._threads import available_threads, parallel_allowed, share
from lrla.sketch._operator import SketchOperator, remembered

BLOCK_BYTES = 32 * 2**20  # of transformed data held at a time, besides the n_out coefficients that are kept


@dataclass(frozen=True)
class FastTransform(SketchOperator):
    """A subsampled orthonormal transform; `permute=False` leaves the permutation out."""

    permute: bool = True

    @property
    def law(self) -> str:
        """That of an orthogonal matrix."""
        return "orthogonal"

    @property
    def scale(self) -> float:
        """sqrt(P / n_out)."""
        return float((self.padded_size / self.n_out) ** 0.5)

    @remembered
    def permutation(self) -> np.ndarray:
        """Coordinate j of the transform holds input coordinate permutation[j]; int64, shape (P,)."""
        P = self.padded_size
        return self.stream.order(P, PERMUTATION) if self.permute else np.arange(P)

    @remembered
    def signs(self) -> np.ndarray:
        """The diagonal of D, +-1 in int8, shape (P,)."""
        words = self.stream.words(1, self.padded_size, HASH)[0]
        return (1 - 2 * (words & 1)).astype(np.int8)

    @remembered
    def indices(self) -> np.ndarray:
        """The coefficients that are kept, in the order of the columns; int64, shape (n_out,)."""
        return self.stream.order(self.padded_size, SAMPLING)[: self.n_out]

    # Data stand as rows of (n, P) here: `_right` for them, `_left` for the transpose.

    def _right(self, X: Any) -> Any:
        if _arrays.kind(X) in ("sparse", "device_sparse"):
            X = X.tocsr()
        xp = _arrays.namespace(X)
        parts = [self._sketch_rows(_dense(X[i:j, :])) for i, j in self._row_blocks(X.shape[0])]
        if not parts:
            return xp.empty((0, self.n_out), dtype=X.dtype, device=_arrays.device(X))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def _left(self, A: Any) -> Any:
        return self._right(A.T).T

    def _row_blocks(self, n: int) -> list[tuple[int, int]]:
        step = max(1, BLOCK_BYTES // (8 * self.padded_size))
        return [(i, min(i + step, n)) for i in range(0, n, step)]

    def _sketch_rows(self, X: Any) -> Any:
        xp = _arrays.namespace(X)
        Z = xp.take(_padded(X, self.padded_size), _arrays.from_host(self.permutation, X), axis=1)
        Z = Z * self._diagonal(X)
        return xp.take(self._transform(Z), _arrays.from_host(self.indices, X), axis=1) * self.scale

    def _expand(self, W: Any) -> Any:
        xp = _arrays.namespace(W)
        parts = [self._expand_rows(W.T[i:j, :]) for i, j in self._row_blocks(W.shape[1])]
        if not parts:
            return xp.empty((self.n_in, 0), dtype=W.dtype, device=_arrays.device(W))
        return (parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)).T

    def _expand_rows(self, W: Any) -> Any:
        xp, P = _arrays.namespace(W), self.padded_size
        place = np.full(P, self.n_out)
        place[self.indices] = np.arange(self.n_out)
        Z = xp.take(_padded(W, self.n_out + 1), _arrays.from_host(place, W), axis=1)
        Z = self._inverse(Z) * self._diagonal(W) * self.scale
        back = np.argsort(self.permutation)[: self.n_in]
        return xp.take(Z, _arrays.from_host(back, W), axis=1)

    def _diagonal(self, like: Any) -> Any:
        return _arrays.from_host(self.signs.astype(_arrays.real_dtype(like)), like)[None, :]

    def _tile(self, first: int, last: int, like: Any) -> Any:
        position = np.argsort(self.permutation)[first:last]
        entries = self._entries(position, self.indices) * self.signs[position, None] * self.scale
        return _arrays.from_host(entries.astype(_arrays.real_dtype(like)), like)

    def _transform(self, Z: Any) -> Any:
        """Rows of Z times F^T; Z may be overwritten."""
        raise NotImplementedError

    def _inverse(self, Z: Any) -> Any:
        """Rows of Z times F."""
        raise NotImplementedError

    def _entries(self, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        """F[k, j], shape (len(j), len(k))."""
        raise NotImplementedError


@dataclass(frozen=True)
class CosineSketch(FastTransform):
    """F is the orthonormal discrete cosine transform of type II."""

    def _transform(self, Z: Any) -> Any:
        if _arrays.kind(Z) == "host":
            return scipy.fft.dct(Z, norm="ortho", axis=1, overwrite_x=True, workers=_workers())
        return dct(Z)

    def _inverse(self, Z: Any) -> Any:
        if _arrays.kind(Z) == "host":
            return scipy.fft.idct(Z, norm="ortho", axis=1, overwrite_x=True, workers=_workers())
        return idct(Z)

    def _entries(self, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        N = self.n_in
        angle = (2 * j[:, None] + 1) * k[None, :] % (4 * N)  # exact before it is rounded
        return np.cos(math.pi / (2 * N) * angle) * np.where(k == 0, 1.0, math.sqrt(2.0))[None, :] / math.sqrt(N)


@dataclass(frozen=True)
class HadamardSketch(FastTransform):
    """F is the Walsh-Hadamard transform of the next power of two."""

    @property
    def padded_size(self) -> int:
        """The smallest power of two that is not below n_in."""
        return 1 << (self.n_in - 1).bit_length()

    def _transform(self, Z: Any) -> Any:
        scale = self.padded_size**-0.5
        if _arrays.kind(Z) != "host":
            return fwht(Z) * scale
        from lrla.sketch import _kernels

        Z = np.ascontiguousarray(Z)
        factor = Z.dtype.type(scale)
        share(lambda first, last: _kernels.hadamard(Z, first, last, factor), Z.shape[0])
        return Z

    _inverse = _transform

    def _entries(self, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        parity = np.bitwise_count(j[:, None] & k[None, :]) & 1
        return (1.0 - 2.0 * parity) / self.padded_size**0.5


# ---------------------------------------------------------------------------------------------------- transforms


def fwht(Z: Any) -> Any:
    """Walsh-Hadamard transform of the rows of Z, not normalised; their length is a power of two."""
    xp, (n, P) = _arrays.namespace(Z), Z.shape
    h = 1
    while h < P:
        pairs = xp.reshape(Z, (n, P // (2 * h), 2, h))
        a, b = pairs[:, :, 0, :], pairs[:, :, 1, :]
        Z = xp.reshape(xp.stack([a + b, a - b], axis=2), (n, P))
        h *= 2
    return Z


def dct(Z: Any) -> Any:
    """Orthonormal DCT-II of the rows of Z by a complex FFT of the same length (Makhoul, 1980)."""
    xp, N = _arrays.namespace(Z), Z.shape[1]
    order = np.concatenate([np.arange(0, N, 2), np.arange(1, N, 2)[::-1]])
    V = xp.fft.fft(_to_complex(xp.take(Z, _arrays.from_host(order, Z), axis=1)), axis=1)
    scale, c, s = _twiddles(N, Z)
    return (xp.real(V) * c + xp.imag(V) * s) * scale


def idct(Z: Any) -> Any:
    """The inverse of `dct`."""
    xp, N = _arrays.namespace(Z), Z.shape[1]
    scale, c, s = _twiddles(N, Z)
    Y = Z / scale
    mirrored = xp.concat(
        [xp.zeros_like(Y[:, :1]), xp.flip(Y[:, 1:], axis=1)], axis=1
    )  # entry N - k, and none for k = 0
    real, imaginary = (Y * c + mirrored * s), (Y * s - mirrored * c)
    V = _to_complex(real) + _to_complex(imaginary) * 1j
    V = xp.real(xp.fft.ifft(V, axis=1))
    order = np.concatenate([np.arange(0, N, 2), np.arange(1, N, 2)[::-1]])
    return xp.take(V, _arrays.from_host(np.argsort(order), Z), axis=1)


def _twiddles(N: int, like: Any) -> list[Any]:
    k = np.arange(N)
    scale = np.where(k == 0, (1.0 / N) ** 0.5, (2.0 / N) ** 0.5)
    angle = math.pi * k / (2 * N)
    dtype = _arrays.real_dtype(like)
    return [_arrays.from_host(v.astype(dtype), like)[None, :] for v in (scale, np.cos(angle), np.sin(angle))]


def _to_complex(Z: Any) -> Any:
    xp = _arrays.namespace(Z)
    return xp.astype(Z, xp.complex64 if _arrays.real_dtype(Z) == np.float32 else xp.complex128)


def _dense(X: Any) -> Any:
    return X.toarray() if _arrays.kind(X) in ("sparse", "device_sparse") else X


def _padded(X: Any, width: int) -> Any:
    """X with columns of zeros up to a width."""
    if X.shape[1] == width:
        return X
    xp = _arrays.namespace(X)
    zeros = xp.zeros((X.shape[0], width - X.shape[1]), dtype=X.dtype, device=_arrays.device(X))
    return xp.concat([X, zeros], axis=1)


def _workers() -> int:
    return available_threads() if parallel_allowed() else 1
