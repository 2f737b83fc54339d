"""Tables of which some entries are observed, for the factor model: passes over blocks of rows.

In a block of rows everything but the inverses is a matrix product: with M the 0/1 matrix of what is observed, the sums of
W_j W_j^T / psi_j over what each row shows are ``M P`` for the packed products P of the columns, and the sums of E[z z^T] over
the rows that show a column are ``S M``.  So M may be dense, and then holes neither cost nor save anything, or sparse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lrla import _threads
from lrla._jit import frozen
from lrla.completion._em import FactorModel, Statistics, packed_place, pairs, strips
from lrla.completion._table_kernels import STRIP, factor_all, load, second_moments, solve_all

BLOCK_NUMBERS = 1 << 17  # of the largest array of a block: 1 MB
MOST_ROWS = 256  # of a block
GROUP_WORK = 4e6  # multiplications of a group of blocks, about 1 ms: less is not worth a thread
GROUPS = 8  # each has sums of its own, by columns ...
SHARE = 4  # ... which together take at most this part of the table, if there are more than two
GRAM = 1024  # columns up to which directions come from the n x n matrix of products
ROUNDS, EXTRA = 8, 10  # beyond that: rounds of subspace iteration, and directions besides those wanted


class Entries(NamedTuple):
    """The entries of some rows, padded by rows that show nothing to a multiple of STRIP."""

    M: Any  # (b, n) array or CSR, 1 where an entry is shown
    D: Any  # (b, n) array or CSR, entries less the mean, in units of the columns; 0 where nothing is shown
    places: np.ndarray  # (hidden,), where hidden entries are in the b n entries
    held: np.ndarray  # (hidden,), those entries less the mean


class Block(NamedTuple):
    """Some rows, padded as `Entries`, and what a model says about them."""

    rows: slice
    entries: Entries
    squares: Any  # (b, n), of the entries less the mean
    C: np.ndarray  # (size + k + 1, b), posterior covariances of the factors, packed; the last k + 1 rows are free
    Z: np.ndarray  # (k, b), posterior means
    loglik: np.ndarray  # (rows,), not padded


class Passes:
    """What a table can tell by passes over its rows."""

    weight: np.ndarray  # (m,); 0 for rows that take no part

    @property
    def m(self) -> int:
        """Number of rows."""
        return len(self.weight)

    @property
    def n(self) -> int:
        """Number of columns."""
        raise NotImplementedError

    def extent(self, k: int) -> tuple[float, int]:
        """Numbers in the table, and rows of a block, by the shape of the table alone."""
        raise NotImplementedError

    def entries(self, rows: slice, mean: np.ndarray | float = 0.0) -> Entries:
        """The entries of some rows, less the mean."""
        raise NotImplementedError

    def groups(self, k: int) -> tuple[np.ndarray, int]:
        """First rows of the groups of blocks, and m; rows of a block."""
        size, (numbers, rows) = (k + 1) * (k + 2) // 2, self.extent(k)
        work = (2.0 * numbers * size + float(self.m) * k**3) / GROUP_WORK
        memory = max(2.0, numbers / (SHARE * size * self.n))
        groups = int(np.clip(min(work, memory, self.m / rows), 1, GROUPS))
        blocks = -(-self.m // rows)
        return np.minimum(blocks * np.arange(groups + 1) // groups * rows, self.m), rows

    def _blocks(self, model: FactorModel, first: int, last: int, step: int) -> Iterator[Block]:
        """The rows from first to last, block by block."""
        k, (a, b) = model.k, pairs(model.k)
        products = np.ascontiguousarray((model.W[:, a] * model.W[:, b] / model.psi[:, None]).T)
        over_noise, precision, log_psi = (model.W / model.psi[:, None]).T, 1.0 / model.psi, np.log(model.psi)
        log_psi += math.log(2.0 * math.pi)
        diagonal = packed_place(np.arange(k), np.arange(k))
        for begin in range(first, last, step):
            rows = slice(begin, min(begin + step, last))
            count, entries = rows.stop - begin, self.entries(rows, model.mean)
            M, D, *_ = entries
            C, logdet = np.empty((len(products) + k + 1, M.shape[0])), np.empty(M.shape[0])
            C[: len(products)] = products @ M.T
            C[diagonal] += 1.0
            right, squares = over_noise @ D.T, D * D
            Z = right.copy()
            solve_all(strips(C[: len(products)]), strips(Z), strips(logdet))
            loglik = M @ log_psi + squares @ precision + logdet - np.sum(right * Z, axis=0)
            yield Block(rows, entries, squares, C, Z, -0.5 * loglik[:count])

    def visit(self, model: FactorModel, use: Callable[[Block], None]) -> None:
        """Call `use` for every block of rows; blocks are shared among threads."""
        bounds, step = self.groups(model.k)

        def task(begin: int, end: int) -> None:
            for block in self._blocks(model, int(bounds[begin]), int(bounds[end]), step):
                use(block)

        _threads.share(task, len(bounds) - 1)

    def expect(self, model: FactorModel) -> Statistics:
        """The E step: one pass over the rows, shared among threads; sums are added in the order of the groups."""
        k, n = model.k, self.n
        bounds, step = self.groups(k)
        groups, size, below = len(bounds) - 1, (k + 1) * (k + 2) // 2, k * (k + 1) // 2
        G, right = np.zeros((groups, size, n)), np.zeros((groups, k + 1, n))
        second, total, numbers = np.zeros((groups, n)), np.zeros((groups, size)), np.zeros((groups, 3))
        scores = np.empty((self.m, k))

        def add(group: int, block: Block) -> None:
            (M, D, places, held), S = block.entries, block.C
            weight = self.weight[block.rows]
            count = len(weight)
            padded = np.zeros(M.shape[0])
            padded[:count] = weight
            second_moments(strips(S), strips(block.Z), strips(padded))
            G[group] += S @ M
            right[group] += S[below:] @ D
            second[group] += padded @ block.squares
            total[group] += S.sum(axis=1)
            numbers[group, 0] += weight @ block.loglik
            Z = scores[block.rows] = np.ascontiguousarray(block.Z[:, :count].T)
            if len(places):
                row, column = np.divmod(places, n)
                w, error = weight[row], held - np.einsum("pk,pk->p", Z[row], model.W[column])
                numbers[group, 1:] += w @ (error * error), w.sum()

        def task(begin: int, end: int) -> None:
            for group in range(begin, end):
                for block in self._blocks(model, int(bounds[group]), int(bounds[group + 1]), step):
                    add(group, block)

        _threads.share(task, groups)
        for group in range(1, groups):
            G[0] += G[group]
        loglik, error, held = numbers.sum(axis=0)
        return Statistics(
            G[0], right.sum(axis=0), second.sum(axis=0), total.sum(axis=0), float(loglik), scores, float(error), float(held)
        )  # fmt: skip


@dataclass(frozen=True)
class Table(Passes):
    """Rows with NaN in their holes, read in units of the columns; entries that are hidden are holes besides."""

    X: np.ndarray  # (m, n) float32 or float64
    shift: np.ndarray  # (n,)
    scale: np.ndarray  # (n,); 0 for columns that take no part
    weight: np.ndarray  # (m,); 0 for rows that take no part
    hidden: np.ndarray | None = None  # (m, ceil(n / 8)) uint8, packed bits

    @property
    def n(self) -> int:
        """Number of columns."""
        return self.X.shape[1]

    # ------------------------------------------------------------------------------------------------ rows

    def extent(self, k: int) -> tuple[float, int]:
        """See `Passes`."""
        size = (k + 1) * (k + 2) // 2
        rows = BLOCK_NUMBERS // max(size, self.n) // STRIP * STRIP
        return float(self.m) * self.n, int(np.clip(rows, STRIP, MOST_ROWS))

    def parts(self) -> Iterator[slice]:
        """All rows, in blocks."""
        step = max(1, BLOCK_NUMBERS // self.n)
        return (slice(first, min(first + step, self.m)) for first in range(0, self.m, step))

    def entries(self, rows: slice, mean: np.ndarray | float = 0.0) -> Entries:
        """The entries of some rows, less the mean."""
        count, n = rows.stop - rows.start, self.n
        width = -(-count // STRIP) * STRIP
        M, D = np.empty((width, n)), np.empty((width, n))
        M[count:] = D[count:] = 0.0
        bits = np.empty((0, 0), np.uint8) if self.hidden is None else self.hidden[rows]
        places = np.empty(0 if self.hidden is None else count * n, np.int64)
        held = np.empty(len(places))
        center = self.shift + self.scale * mean
        found = load(frozen(self.X[rows]), frozen(bits), center, frozen(self.scale), M, D, places, held)
        return Entries(M, D, places[:found], held[:found])

    @cached_property
    def sums(self) -> np.ndarray:
        """(3, n): weight, sum and sum of squares of the entries of every column."""
        total = np.zeros((3, self.n))
        for rows in self.parts():
            weight, (M, D, _, _) = self.weight[rows], self.entries(rows)
            M, D = M[: len(weight)], D[: len(weight)]
            total += [weight @ M, weight @ D, weight @ (D * D)]
        return total

    @property
    def counts(self) -> np.ndarray:
        """(n,), weight of the entries of every column."""
        return self.sums[0]

    def means(self) -> np.ndarray:
        """(n,), of the entries of every column; 0 where there are none."""
        return self.sums[1] / np.maximum(self.counts, np.finfo(np.float64).tiny)

    def variance(self, center: bool = True) -> np.ndarray:
        """(n,), of the entries of every column about their mean, or about zero; 0 where there are none."""
        mean_square = self.sums[2] / np.maximum(self.counts, np.finfo(np.float64).tiny)
        return np.maximum(mean_square - self.means() ** 2, 0.0) if center else mean_square

    # ------------------------------------------------------------------------------------------------ directions

    def directions(self, model: FactorModel, Z: np.ndarray, k: int, seed: np.random.SeedSequence) -> np.ndarray:
        """(n, k): leading right singular vectors times singular values of what a model's means leave of the entries.

        Z (m, model.k) are the means of the factors.  More directions than the table has are zero.
        """
        found = min(k, self.m, self.n)
        if self.n <= GRAM:
            gram = np.zeros((self.n, self.n))
            for R, weighted in self._residuals(model, Z):
                gram += R.T @ weighted
            squares, V = np.linalg.eigh(gram)
        else:
            rng = np.random.default_rng(seed)
            V = rng.standard_normal((self.n, min(found + EXTRA, self.n)))
            for _ in range(ROUNDS):
                V = np.linalg.qr(V)[0]
                V = self._gram_times(model, Z, V)
            V = np.linalg.qr(V)[0]
            squares, turn = np.linalg.eigh(V.T @ self._gram_times(model, Z, V))
            V = V @ turn
        s = np.sqrt(np.maximum(squares[::-1][:found], 0.0))
        return np.pad(V[:, ::-1][:, :found] * s, ((0, 0), (0, k - found)))

    def _gram_times(self, model: FactorModel, Z: np.ndarray, V: np.ndarray) -> np.ndarray:
        product = np.zeros_like(V)
        for R, weighted in self._residuals(model, Z):
            product += R.T @ (weighted @ V)
        return product

    def _residuals(self, model: FactorModel, Z: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of what the means leave of the entries, and the same times the weights of the rows."""
        for rows in self.parts():
            weight, (M, R, _, _) = self.weight[rows, None], self.entries(rows, model.mean)
            M, R = M[: len(weight)], R[: len(weight)]
            if model.k:
                R -= Z[rows] @ model.W.T
                R *= M
            yield R, weight * R

    # ------------------------------------------------------------------------------------------------ hidden entries

    def hide(self, low: float, high: float, seed: np.random.SeedSequence) -> Table:
        """Hide the entries whose number is in [low, high), but not in columns that would lose more than half of theirs."""
        bits = np.empty((self.m, -(-self.n // 8)), np.uint8)
        lost = np.zeros(self.n)
        for rows, uniform, shown in self.uniform(seed):
            out = (uniform >= low) & (uniform < high) & shown
            lost += self.weight[rows] @ out
            bits[rows] = np.packbits(out, axis=1)
        bits &= np.packbits(2.0 * lost <= self.counts)
        return replace(self, hidden=bits)

    def uniform(self, seed: np.random.SeedSequence) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield (rows, a number in [0, 1) for each entry, what is shown): a hash of the seed, the column, and the row's values.

        So the order of the rows has no influence, and a row given twice counts like one of weight two.
        """
        keys = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 7)).generate_state(
            2 * self.n, np.uint64
        )
        for rows in self.parts():
            shown = self.entries(rows).M[: rows.stop - rows.start] > 0.0
            bits = (self.X[rows].astype(np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
            mixed = np.where(shown, _mix(bits ^ keys[: self.n]), np.uint64(0))
            row = np.bitwise_xor.reduce(mixed, axis=1)
            yield rows, (_mix(row[:, None] ^ keys[self.n :]) >> np.uint64(11)) * 2.0**-53, shown


def draw_factors(block: Block, rng: np.random.Generator) -> np.ndarray:
    """(k, rows), draws from the posterior of the factors of every row; the block's covariances are overwritten."""
    k, count = len(block.Z), len(block.loglik)
    normal, drawn = rng.standard_normal((k, count)), block.Z[:, :count].copy()
    factor_all(k, strips(block.C))
    for place, (a, b) in enumerate(zip(*pairs(k), strict=True)):
        drawn[a] += block.C[place, :count] * normal[b]
    return drawn


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
