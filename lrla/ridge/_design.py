"""A matrix of data as ridge regression sees it: centred, weighted, scaled, in float64, a block of rows at a time.

Nothing is densified or copied as a whole: what is float32 or has to be centred is converted block by block, so that sums of
squares are accumulated in float64 whatever the data is stored in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._exponent import exponent_of, is_within, values_of
from lrla.linalg._operator import as_operator, gram_matrix

BLOCK_BYTES = 1 << 25  # of rows or columns at a time
HARMLESS = 100  # |log2| of a magnitude whose square is no trouble, also summed up


@dataclass(frozen=True)
class Design:
    """``diag(root) (A - 1 mean^T) / scale``.

    Parameters
    ----------
    A : array (any namespace) or sparse matrix of shape (n, q), float32 or float64
    mean : array of shape (q,), float64, where A lives; or None
    root : array of shape (n,), float64, where A lives; or None
        Square roots of the sample weights.
    total : float
        Sum of the sample weights; n without any.
    scale : float
        A power of two about as large as the entries of A, so that no square overflows.
    ready : bool
        Whether A is already all of that: centred, weighted and divided.
    """

    A: Any
    mean: Any
    root: Any
    total: float
    scale: float
    ready: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.A.shape[0]), int(self.A.shape[1])

    @cached_property
    def is_sparse(self) -> bool:
        return _arrays.kind(self.A) in ("sparse", "device_sparse")

    @cached_property
    def like(self) -> Any:
        """A dense array beside A."""
        return values_of(self.A)

    @cached_property
    def xp(self) -> Any:
        return _arrays.namespace(self.A)

    @cached_property
    def _values(self) -> Any:
        """A sparse A in float64, not centred and not weighted, divided by the scale."""
        return self.A.astype(np.float64) * (1.0 / self.scale)

    @cached_property
    def _shift(self) -> Any:
        return None if self.mean is None else self.mean * (1.0 / self.scale)

    @cached_property
    def mean_square(self) -> float:
        """Squared length of the means that are taken off, divided by the scale as A is."""
        return 0.0 if self.mean is None else float(self._shift @ self._shift)

    def slices(self, axis: int) -> Iterator[slice]:
        """Consecutive parts of the rows (axis 0) or columns (axis 1) whose float64 copies are small."""
        step = max(1, BLOCK_BYTES // (8 * self.shape[1 - axis]))
        for start in range(0, self.shape[axis], step):
            yield slice(start, min(start + step, self.shape[axis]))

    def block(self, rows: slice) -> Any:
        """Some rows, dense, centred and weighted in float64."""
        return self._finish(self.A[rows, :], rows, slice(None))

    def _finish(self, part: Any, rows: slice, columns: slice) -> Any:
        part = _arrays.astype(part, np.float64)
        if self.ready:
            return part
        if self.mean is not None:
            part = part - self.mean[columns][None, :]
        if self.scale != 1.0:
            part = part * (1.0 / self.scale)
        return part if self.root is None else part * self.root[rows][:, None]

    def in_place(self) -> Design:
        """The same with its dense float64 A centred, weighted and divided where it stands; other kinds as they are."""
        if self.is_sparse or _arrays.real_dtype(self.A) != np.float64:
            return self
        A = self.A
        if self.mean is not None:
            A -= self.mean[None, :]
        if self.scale != 1.0:
            A *= 1.0 / self.scale
        if self.root is not None:
            A *= self.root[:, None]
        return replace(self, A=A, ready=True)

    # ------------------------------------------------------------------------------------------------ products

    def gram(self) -> Any:
        """``Z^T Z / total``, (q, q)."""
        if self.is_sparse:
            return self._sparse_gram(transposed=False)
        G: Any = 0.0
        for rows in self.slices(0):
            B = self.block(rows)
            G = G + B.T @ B
        return G / self.total

    def kernel(self) -> Any:
        """``Z Z^T / total``, (n, n)."""
        if self.is_sparse:
            return self._sparse_gram(transposed=True)
        K: Any = 0.0
        for columns in self.slices(1):
            B = self._finish(self.A[:, columns], slice(None), columns)
            K = K + B @ B.T
        return K / self.total

    def _sparse_gram(self, transposed: bool) -> Any:
        A = self._weighted_values
        u = self._unit_shift
        if not transposed:
            G = gram_matrix(as_operator(A))
            if self.mean is not None:  # sum of w x = total mean, so the two mixed terms and the square make one
                G = G - self.total * (self._shift[:, None] * self._shift[None, :])
            return G / self.total
        K = gram_matrix(as_operator(A).T)
        if self.mean is not None:
            t = A @ self._shift
            K = K - t[:, None] * u[None, :] - u[:, None] * t[None, :]
            K = K + float(self._shift @ self._shift) * (u[:, None] * u[None, :])
        return K / self.total

    @cached_property
    def _weighted_values(self) -> Any:
        return self._values if self.root is None else self._values.multiply(self.root[:, None]).asformat(self.A.format)

    @cached_property
    def _unit_shift(self) -> Any:
        """What stands beside the mean in ``A - u mean^T``: ones, or the roots of the weights."""
        if self.root is not None:
            return self.root
        return self.xp.ones(self.shape[0], dtype=self.xp.float64, device=_arrays.device(self.like))

    def times(self, V: Any) -> Iterator[tuple[slice, Any]]:
        """Blocks of rows of ``Z V`` for V (q, r), with the rows that they are."""
        if not self.is_sparse:
            for rows in self.slices(0):
                yield rows, self.block(rows) @ V
            return
        step = max(1, BLOCK_BYTES // (8 * max(1, int(V.shape[1]))))  # nothing is left of constant columns
        shift = None if self.mean is None else self._shift @ V
        for start in range(0, self.shape[0], step):
            rows = slice(start, min(start + step, self.shape[0]))
            P = self._values[rows, :] @ V
            P = P if shift is None else P - shift[None, :]
            yield rows, P if self.root is None else P * self.root[rows][:, None]

    def forward(self, B: Any) -> Any:
        """``Z B`` (n, t) for few columns B (q, t); the mean is taken off the product, not the matrix."""
        if self.is_sparse:
            Y = self._values @ B
        else:
            parts = [_arrays.astype(self.A[rows, :], np.float64) @ B for rows in self.slices(0)]
            Y = self.xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]
            if self.ready:
                return Y
            Y = Y * (1.0 / self.scale)
        if self.mean is not None:
            Y = Y - (self._shift @ B)[None, :]
        return Y if self.root is None else Y * self.root[:, None]

    def adjoint(self, Y: Any) -> Any:
        """``Z^T Y`` (q, t) for few columns Y (n, t)."""
        if self.root is not None and not self.ready:
            Y = Y * self.root[:, None]
        if self.is_sparse:
            B = self._values.T @ Y
        else:
            B = sum(_arrays.astype(self.A[rows, :], np.float64).T @ Y[rows, :] for rows in self.slices(0))
            if self.ready:
                return B
            B = B * (1.0 / self.scale)
        if self.mean is not None:
            B = B - self._shift[:, None] * self.xp.sum(Y, axis=0)[None, :]
        return B

    def dense(self) -> Any:
        """All rows at once."""
        parts = [self._densified(rows) for rows in self.slices(0)]
        return self.xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    def _densified(self, rows: slice) -> Any:
        part = self.A[rows, :]
        return self._finish(part.toarray() if self.is_sparse else part, rows, slice(None))


def weighted_means(A: Any, root: Any, total: float) -> Any:
    """Weighted means of the columns of a dense or sparse matrix in float64, where it lives."""
    if _arrays.kind(A) == "sparse":
        w = np.ones(A.shape[0]) if root is None else root * root
        return np.asarray(A.astype(np.float64).T @ w).ravel() / total
    xp = _arrays.namespace(A)
    like = A.data if _arrays.kind(A) == "device_sparse" else A
    w = xp.ones(A.shape[0], dtype=xp.float64, device=_arrays.device(like)) if root is None else root * root
    if like is not A:
        return (A.astype("float64").T @ w) / total
    step = max(1, BLOCK_BYTES // (8 * int(A.shape[1])))
    sums: Any = 0.0
    for start in range(0, int(A.shape[0]), step):
        rows = slice(start, min(start + step, int(A.shape[0])))
        sums = sums + w[rows] @ _arrays.astype(A[rows, :], np.float64)
    return sums / total


def power_of_two(A: Any) -> float:
    """The power of two next to the largest magnitude in A; 1 for zeros, and for sizes whose squares do no harm."""
    if is_within(A, -HARMLESS, HARMLESS):
        return 1.0
    exponent = exponent_of(A)
    return 1.0 if abs(exponent) < HARMLESS else 2.0 ** min(max(exponent, -1000), 1000)
