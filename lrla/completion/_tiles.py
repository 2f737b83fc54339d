"""The half-sweep in lockstep, for any array namespace: padded tiles of rows, batched products, all rows one step at a time.

Rows are put in the order of their lengths, so that a tile of R rows with L places wastes little: at most half of them,
since lengths in a tile differ by a factor of two at most.  The iterates are those of the compiled kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.completion._half_sweep import NOISE

TILE_BYTES = 1 << 26  # of gathered features at a time


@dataclass(frozen=True)
class Tile:
    """Entries of a few rows, each padded to the same length."""

    rows: Any  # (R,) int64
    columns: Any  # (R, L) int64, any column where there is no entry
    values: Any  # (R, L)
    weights: Any  # (R, L), zero where there is no entry


class RowTiles:
    """Observed entries on any device, arranged by rows.

    Parameters
    ----------
    rows, columns : int arrays of shape (nnz,), distinct pairs in any order
    values : array of shape (nnz,)
    shape : (m, n)
    weights : array of shape (nnz,), optional
    """

    def __init__(self, rows: Any, columns: Any, values: Any, shape: tuple[int, int], weights: Any = None):
        xp = self.xp = _arrays.namespace(values)
        where = _arrays.device(values)
        rows = xp.astype(rows, xp.int64)
        order = xp.argsort(rows, stable=True)
        self.shape = shape
        self.columns, self.values = xp.take(xp.astype(columns, xp.int64), order), xp.take(values, order)
        self.weights = (
            xp.ones_like(values)
            if weights is None
            else xp.take(_arrays.astype(weights, _arrays.real_dtype(values)), order)
        )
        edges = xp.arange(shape[0] + 1, dtype=xp.int64, device=where)
        indptr = xp.searchsorted(xp.take(rows, order), edges)
        self.starts, self.lengths = indptr[:-1], indptr[1:] - indptr[:-1]
        by_length = xp.argsort(self.lengths, descending=True, stable=True)
        self.by_length, self.places = by_length, xp.argsort(by_length)
        self.sizes = _arrays.to_host(xp.take(self.lengths, by_length))

    def tiles(self, width: int) -> Iterator[Tile]:
        """The rows in the order `by_length`, so many at a time that their features fit `TILE_BYTES`; empty rows are last."""
        xp, first = self.xp, 0
        filled = int(np.count_nonzero(self.sizes))
        while first < filled:
            longest = int(self.sizes[first])
            room = max(1, TILE_BYTES // (width * longest * 8))
            halves = first + int(np.count_nonzero(2 * self.sizes[first : first + room] >= longest))
            last = min(first + room, halves, filled)
            rows = self.by_length[first:last]
            offsets = xp.arange(longest, dtype=xp.int64, device=_arrays.device(self.values))[None, :]
            real = offsets < xp.take(self.lengths, rows)[:, None]
            places = xp.where(real, xp.take(self.starts, rows)[:, None] + offsets, 0)
            yield Tile(
                rows,
                self._pick(self.columns, places),
                self._pick(self.values, places),
                xp.where(real, self._pick(self.weights, places), xp.zeros_like(self.weights[:1])),
            )
            first = last

    def _pick(self, array: Any, places: Any) -> Any:
        return self.xp.reshape(self.xp.take(array, self.xp.reshape(places, (-1,))), tuple(places.shape))


def features(tile: Tile, V: Any) -> Any:
    """Rows of V for every place of a tile, (R, L, k)."""
    xp = _arrays.namespace(V)
    return xp.reshape(xp.take(V, xp.reshape(tile.columns, (-1,)), axis=0), (*tile.columns.shape, V.shape[1]))


def half_sweep_tiles(observed: RowTiles, V: Any, U: Any, reg: float, cg_tol: float, cg_max_iter: int) -> Any:
    """What `half_sweep` does, on the device of V; returns new rows (m, k)."""
    xp = observed.xp
    k = V.shape[1]
    d = mean_squares(observed, V)
    parts = [
        _solve(tile, features(tile, V), xp.take(U, tile.rows, axis=0), d, reg, cg_tol, cg_max_iter)
        for tile in observed.tiles(k)
    ]
    done = sum(part.shape[0] for part in parts)
    parts.append(xp.zeros((observed.shape[0] - done, k), dtype=V.dtype, device=_arrays.device(V)))
    return xp.take(xp.concat(parts, axis=0), observed.places, axis=0)


def mean_squares(observed: RowTiles, V: Any) -> Any:
    """Weighted mean over the entries of the squares of their features, (k,)."""
    xp = observed.xp
    total = sum(
        xp.sum(xp.matmul(xp.matrix_transpose(tile.weights[:, :, None]), xp.square(features(tile, V))), axis=(0, 1))
        for tile in observed.tiles(V.shape[1])
    )
    return total / xp.sum(observed.weights)


def _solve(tile: Tile, F: Any, x: Any, d: Any, reg: float, cg_tol: float, cg_max_iter: int) -> Any:
    """Preconditioned conjugate gradients for all rows of a tile at once; a row that is done takes steps of length zero."""
    xp = _arrays.namespace(F)
    Ft = xp.matrix_transpose(F)

    def weighted(t: Any) -> Any:
        return xp.matmul(Ft, (tile.weights * t)[:, :, None])[:, :, 0]

    def products(p: Any) -> Any:
        return xp.matmul(F, p[:, :, None])[:, :, 0]

    curvature = reg + xp.sum(tile.weights, axis=1)[:, None] * d[None, :]
    M = xp.where(
        curvature > 0, 1 / xp.where(curvature > 0, curvature, xp.ones_like(curvature)), xp.zeros_like(curvature)
    )
    r = weighted(tile.values - products(x)) - reg * x
    z = M * r
    p, rho = z, xp.sum(r * z, axis=1)
    noise = (NOISE * _arrays.eps(F.dtype)) ** 2 * (rho + xp.sum(curvature * x * x, axis=1))
    least = xp.maximum(cg_tol * cg_tol * rho, noise)
    zero = xp.zeros_like(rho)
    active = rho > zero
    for _ in range(cg_max_iter):
        active = active & (rho > least) & (rho > zero)
        if not bool(xp.any(active)):
            break
        Ap = reg * p + weighted(products(p))
        s = xp.sum(p * Ap, axis=1)
        active = active & (s > zero)
        alpha = xp.where(active, rho / xp.where(active, s, xp.ones_like(s)), zero)[:, None]
        x, r = x + alpha * p, r - alpha * Ap
        z = M * r
        after = xp.sum(r * z, axis=1)
        beta = xp.where(active, after / xp.where(active, rho, xp.ones_like(rho)), zero)
        p, rho = z + beta[:, None] * p, after
    return x
