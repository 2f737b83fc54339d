"""The columns of a table in units of their own: shift and scale, found without a copy of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrla.completion._observed import Observed

BLOCK_BYTES = 1 << 20  # of float64 numbers worked on at a time


@dataclass(frozen=True)
class Units:
    """Shift and scale of the columns, and which of them take part; a scale of 0 marks a constant column."""

    shift: np.ndarray  # (n,)
    scale: np.ndarray  # (n,)
    seen: np.ndarray  # (n,) bool: columns with an observed entry


def blocks(X: np.ndarray) -> Iterator[slice]:
    """The rows of X, some at a time."""
    step = max(1, BLOCK_BYTES // (8 * X.shape[1]))
    return (slice(first, first + step) for first in range(0, len(X), step))


def empty_rows(X: np.ndarray) -> np.ndarray:
    """(m,) bool: rows without any observed entry."""
    return np.concatenate([np.isnan(X[rows]).all(axis=1) for rows in blocks(X)])


def units_of(X: np.ndarray, weight: np.ndarray, center: bool, scale: bool) -> Units:
    """Mean and standard deviation of every column, free of overflow; block by block, as nothing of the size of X is made."""
    n = X.shape[1]
    counts, low, high = np.zeros(n), np.full(n, np.inf), np.full(n, -np.inf)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in blocks(X):
            w, part = weight[rows], X[rows]
            used = w > 0.0
            yield (w, part) if used.all() else (w[used], part[used])

    for w, part in parts():
        counts += w @ ~np.isnan(part)
        low, high = np.fmin(low, np.fmin.reduce(part, axis=0)), np.fmax(high, np.fmax.reduce(part, axis=0))
    seen = counts > 0.0
    varies = high > low if center else seen & ((low != 0.0) | (high != 0.0))
    counts = np.where(seen, counts, 1.0)
    exponent = np.frexp(np.where(seen, np.maximum(np.abs(low), np.abs(high)), 0.0))[1]

    def deviations(shift: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for w, part in parts():
            D = np.ldexp(part.astype(np.float64), -exponent)
            D -= shift
            np.copyto(D, 0.0, where=np.isnan(D))
            yield w, D

    shift, squares = np.zeros(n), np.zeros(n)
    if center:
        for w, D in deviations(np.zeros(n)):
            shift += w @ D
        shift /= counts
    for w, D in deviations(shift):
        D *= D
        squares += w @ D
    spread = np.where(varies, np.sqrt(squares / counts), 0.0)
    shift, spread = np.ldexp(shift, exponent), np.ldexp(spread, exponent)
    if not scale:
        spread = np.where(spread > 0.0, _common(spread[spread > 0.0]), 0.0)
    return Units(shift, spread, seen)


def _common(spread: np.ndarray) -> float:
    """One scale for all columns: the root mean square of theirs."""
    top = float(spread.max(initial=0.0))
    return top * float(np.sqrt(np.mean((spread / top) ** 2))) if top > 0.0 else 0.0


def in_units(X: np.ndarray, units: Units, weight: np.ndarray | None) -> Observed:
    """The observed entries of columns that vary, in units of the columns, for alternating least squares."""
    shown = ~np.isnan(X) & (units.scale > 0.0)
    counts = shown.sum(axis=1)
    indices = np.broadcast_to(np.arange(X.shape[1], dtype=np.int32), X.shape)[shown]
    values = (X[shown] - units.shift[indices]) / units.scale[indices]
    weights = None if weight is None or np.all(weight == 1.0) else np.repeat(weight, counts)
    return Observed(np.concatenate(([0], np.cumsum(counts))), indices, values, X.shape, weights)
