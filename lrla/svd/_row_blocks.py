"""A few new rows on their way into an updating SVD: sparse or dense, always float64, with the same few operations.

An update needs nothing of its rows E (s x n) but ``E @ W``, ``E @ E.T``, ``W += E.T @ Y`` and their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from lrla.svd import _kernels


class SparseRows:
    """CSR rows with int64 indices and float64 values, so that each kernel is compiled for one type of rows only."""

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, n_columns: int):
        self.indptr, self.indices, self.data = indptr, indices, data
        self.shape = (len(indptr) - 1, n_columns)

    @property
    def touches_most(self) -> bool:
        """Whether rewriting all of a tall factor costs less than going to the named rows one by one."""
        return 2 * len(self.indices) > self.shape[1]

    @property
    def touched(self) -> Any:
        """The rows of W that `add_to` writes."""
        return self.indices

    def times(self, W: np.ndarray) -> np.ndarray:
        """E @ W, for W with at least n rows."""
        return _kernels.product(self.indptr, self.indices, self.data, W)

    def add_to(self, W: np.ndarray, Y: np.ndarray) -> None:
        """W[:n, :Y.shape[1]] += E.T @ Y, in place."""
        _kernels.add_transposed(self.indptr, self.indices, self.data, np.ascontiguousarray(Y), W)

    def gram(self) -> np.ndarray:
        """E @ E.T."""
        if len(self) == 1:
            return np.dot(self.data, self.data).reshape(1, 1)
        rows = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        return _kernels.gram(np.argsort(self.indices), rows, self.indices, self.data, len(self))

    def by_columns(self) -> Callable[[slice], np.ndarray]:
        """A function that gives a range of columns as a dense array."""
        E = scipy.sparse.csr_array((self.data, self.indices, self.indptr), shape=self.shape).tocsc()
        return lambda part: E[:, part].toarray()

    def column_sums(self) -> np.ndarray:
        """1^T E."""
        return np.bincount(self.indices, self.data, self.shape[1])

    def largest(self) -> float:
        """max |E|."""
        return float(np.abs(self.data).max(initial=0.0))

    def scaled(self, weights: Any) -> SparseRows:
        """The rows times a number, or each row times its own."""
        if np.ndim(weights):
            weights = np.repeat(weights, np.diff(self.indptr))
        return SparseRows(self.indptr, self.indices, self.data * weights, self.shape[1])

    def in_units_of(self, exponent: int) -> SparseRows:
        """The rows times 2^-exponent."""
        return SparseRows(self.indptr, self.indices, np.ldexp(self.data, -exponent), self.shape[1])

    def widened(self, n_columns: int) -> SparseRows:
        """The same rows with zero columns appended."""
        return SparseRows(self.indptr, self.indices, self.data, n_columns)

    def __len__(self) -> int:
        return self.shape[0]


class DenseRows:
    """Rows of an array."""

    touches_most = True
    touched = slice(None)

    def __init__(self, X: np.ndarray):
        self.X, self.shape = X, X.shape

    def times(self, W: np.ndarray) -> np.ndarray:
        """E @ W, for W with at least n rows."""
        return self.X @ W[: self.shape[1]]

    def add_to(self, W: np.ndarray, Y: np.ndarray) -> None:
        """W[:n, :Y.shape[1]] += E.T @ Y, in place."""
        W[: self.shape[1], : Y.shape[1]] += self.X.T @ Y

    def gram(self) -> np.ndarray:
        """E @ E.T."""
        return self.X @ self.X.T

    def by_columns(self) -> Callable[[slice], np.ndarray]:
        """A function that gives a range of columns as a dense array."""
        return lambda part: self.X[:, part]

    def column_sums(self) -> np.ndarray:
        """1^T E."""
        return self.X.sum(axis=0)

    def largest(self) -> float:
        """max |E|."""
        return float(np.abs(self.X).max(initial=0.0))

    def scaled(self, weights: Any) -> DenseRows:
        """The rows times a number, or each row times its own."""
        return DenseRows(self.X * (weights[:, None] if np.ndim(weights) else weights))

    def in_units_of(self, exponent: int) -> DenseRows:
        """The rows times 2^-exponent."""
        return DenseRows(np.ldexp(self.X, -exponent))

    def widened(self, n_columns: int) -> DenseRows:
        """The same rows with zero columns appended."""
        return DenseRows(np.pad(self.X, ((0, 0), (0, n_columns - self.shape[1]))))

    def __len__(self) -> int:
        return self.shape[0]


Rows = SparseRows | DenseRows


def rows_of(X: Any, start: int = 0, stop: int | None = None) -> Rows:
    """Rows start to stop of an ndarray or a CSR matrix, as a copy: the caller's array may be read-only, or change."""
    stop = X.shape[0] if stop is None else stop
    if isinstance(X, np.ndarray):
        return DenseRows(np.array(X[start:stop], dtype=np.float64, order="C"))
    first, last = X.indptr[start], X.indptr[stop]
    return SparseRows(
        X.indptr[start : stop + 1].astype(np.int64) - first,
        X.indices[first:last].astype(np.int64),
        X.data[first:last].astype(np.float64),
        X.shape[1],
    )


def cut(X: Any, size: int) -> Iterator[Rows]:
    """The rows of a matrix in blocks of nearly equal length, none longer than `size`, converted one at a time."""
    m = X.shape[0]
    count = -(-m // size)
    return (rows_of(X, i * m // count, (i + 1) * m // count) for i in range(count))


class Buffer(NamedTuple):
    """Blocks of one kind that wait to be worked in together; side "left" for rows, "right" for columns."""

    side: str = "left"
    blocks: tuple[Rows, ...] = ()

    def takes(self, block: Rows, side: str) -> bool:
        """Whether a block can wait together with those that are here."""
        return not self.blocks or (side == self.side and type(block) is type(self.blocks[0]))

    def plus(self, block: Rows, side: str) -> Buffer:
        """With another block."""
        return Buffer(side, (*self.blocks, block))

    def stacked(self, size: int, forget: float) -> Iterator[Rows]:
        """The blocks put together, as long as `size` allows; older ones weigh less by `forget` a block."""
        group: list[Rows] = []
        for age, block in zip(range(len(self.blocks) - 1, -1, -1), self.blocks, strict=True):
            block = block.scaled(forget**age) if forget < 1 else block
            if group and sum(map(len, group)) + len(block) > size:
                yield _stack(group)
                group = []
            group.append(block)
        if group:
            yield _stack(group)

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.blocks))


def _stack(blocks: Sequence[Rows]) -> Rows:
    """Blocks of one kind and width under one another."""
    if len(blocks) == 1:
        return blocks[0]
    if isinstance(blocks[0], DenseRows):
        return DenseRows(np.concatenate([block.X for block in blocks]))
    offsets = np.cumsum([0] + [len(block.indices) for block in blocks])
    indptr = [block.indptr[1:] + offset for block, offset in zip(blocks, offsets[:-1], strict=True)]
    return SparseRows(
        np.concatenate([[0], *indptr]),
        np.concatenate([block.indices for block in blocks]),
        np.concatenate([block.data for block in blocks]),
        blocks[0].shape[1],
    )
