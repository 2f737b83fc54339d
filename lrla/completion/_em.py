"""Maximum likelihood of a factor model from a table with holes: EM with an expanded parameter.

A row is ``x = mean + W z + e`` with ``z ~ N(0, I_k)`` and independent ``e_j ~ N(0, psi_j)``; entries that are missing are
integrated out.  Each column has a noise variance of its own, so a column that the others explain badly does not spoil them.

Symbols of the papers: W (n, k) loadings, psi noise variances, z factors; E[.] given the observed entries of a row.
Rubin and Thayer, "EM algorithms for ML factor analysis", Psychometrika 47, 1982; Tipping and Bishop, "Probabilistic
principal component analysis", JRSS B 61, 1999; Liu, Rubin and Wu, "Parameter expansion to accelerate EM: the PX-EM
algorithm", Biometrika 85, 1998.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.sparse

from lrla import _threads
from lrla._jit import frozen
from lrla._progress import Progress
from lrla.completion._em_kernels import LANES, expectation, mark_patterns, posterior, start_of_row
from lrla.completion._moments import cross_product
from lrla.svd._truncated import solve

ACCUMULATORS = 1 << 24  # numbers in the accumulators of all blocks together
ENTRY_WORK = 20  # of an entry besides its k x k matrix, in numbers of that
BLOCK_WORK = 400_000  # numbers of a block, about 0.3 ms: less is not worth a thread
PRIOR_ROWS = 5.0  # rows that the pooled noise variance counts for in that of every column
RIDGE = 15.0  # prior precision of a loading, in units of the standard deviation of its column
FLOOR = 1e-6  # least noise variance, as a share of the variance of the column


@dataclass(frozen=True)
class Table:
    """The observed entries of a table, by rows; rows that miss the same entries follow one another in `order`."""

    indptr: np.ndarray  # (m + 1,) int64
    indices: np.ndarray  # (nnz,) int32, ascending within a row
    values: np.ndarray  # (nnz,) float64
    n: int
    weight: np.ndarray  # (m,) float64

    @classmethod
    def of(cls, indptr: Any, indices: Any, values: Any, n: int, weight: Any = None) -> Table:
        """The arrays in the one layout that the kernels are compiled for."""
        m = len(indptr) - 1
        weight = np.ones(m) if weight is None else weight
        arrays = (
            np.asarray(array, dtype=dtype)
            for array, dtype in ((indptr, np.int64), (indices, np.int32), (values, np.float64))
        )
        return cls(*map(frozen, arrays), n, frozen(np.asarray(weight, dtype=np.float64)))

    @property
    def m(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @cached_property
    def rows(self) -> np.ndarray:
        """(nnz,), the row of every entry."""
        return np.repeat(np.arange(self.m), np.diff(self.indptr))

    @cached_property
    def entry_weight(self) -> np.ndarray:
        """(nnz,), the weight of its row for every entry."""
        return np.repeat(self.weight, np.diff(self.indptr))

    @cached_property
    def counts(self) -> np.ndarray:
        """(n,), weight of the entries of every column."""
        return np.bincount(self.indices, self.entry_weight, self.n)

    def column_sums(self, numbers: np.ndarray) -> np.ndarray:
        """(n,), sums of a number for each entry over the columns, weighted."""
        return np.bincount(self.indices, self.entry_weight * numbers, self.n)

    def select(self, keep: np.ndarray) -> Table:
        """The table with the entries of a mask only."""
        indptr = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))[self.indptr]
        return Table.of(indptr, self.indices[keep], self.values[keep], self.n, self.weight)

    @cached_property
    def patterns(self) -> tuple[np.ndarray, np.ndarray]:
        """(order, first): rows with equal sets of columns side by side, and where a new set begins.

        Rows are sorted by a hash of their set; what is equal is then decided by comparison.
        """
        order, first = np.arange(self.m), np.ones(self.m, dtype=np.bool_)
        keys = np.random.SeedSequence(0).generate_state(self.n, np.uint64)
        total = np.concatenate(([0], np.bitwise_xor.accumulate(keys[self.indices]))).astype(np.uint64)
        by_hash = np.argsort(total[self.indptr[1:]] ^ total[self.indptr[:-1]], kind="stable")
        found = first.copy()
        mark_patterns(self.indptr, self.indices, frozen(by_hash), found)
        if found.sum() < 0.9 * self.m:  # else nothing is won that the jumps in memory would not cost
            order, first = by_hash, found
        return frozen(order.astype(np.int64)), frozen(first)

    def bounds(self, k: int) -> np.ndarray:
        """First place in the order of every block of rows, and m: blocks of about as many entries, by the table alone."""
        size = k * (k + 1) // 2
        memory = ACCUMULATORS // (self.n * (size + 2 * k) + 1)
        work = len(self.values) * (size + ENTRY_WORK) // BLOCK_WORK
        blocks = int(np.clip(min(memory, work), 1, 16))
        steps = np.linspace(0, self.entries_before[-1], blocks + 1)
        return frozen(np.searchsorted(self.entries_before, steps).astype(np.int64))

    @cached_property
    def entries_before(self) -> np.ndarray:
        """(m + 1,), entries of the rows before each place of the order, and one for each row."""
        return np.concatenate(([0], np.cumsum(np.diff(self.indptr)[self.patterns[0]] + 1)))


@dataclass(frozen=True)
class FactorModel:
    """The model, and how it was found."""

    mean: np.ndarray  # (n,)
    W: np.ndarray  # (n, k)
    psi: np.ndarray  # (n,)
    inflation: np.ndarray | float = 1.0  # (n,), of psi for new entries, as mean, W and psi themselves are estimates
    loglik: float = -math.inf  # of the observed entries, at the last parameters but one
    n_iter: int = 0
    converged: bool = False

    @property
    def k(self) -> int:
        """Number of factors."""
        return self.W.shape[1]

    @cached_property
    def kernel_arguments(self) -> tuple[Any, ...]:
        """k, mean, W, psi, 1 / psi, log psi and W_j W_j^T / psi_j, padded and flat as the kernels take them."""
        n, (a, b, place, width, size) = len(self.mean), layout(self.k)
        outer, W = np.zeros((n, size)), np.zeros((n, width))
        outer[:, place] = self.W[:, a] * self.W[:, b] / self.psi[:, None]
        W[:, : self.k] = self.W
        flat = (self.mean, W.ravel(), self.psi, 1.0 / self.psi, np.log(self.psi), outer.ravel())
        return self.k, *map(frozen, flat)


@dataclass(frozen=True)
class Statistics:
    """What a pass over the rows finds out: expected sums, see the kernel `expectation`."""

    A: np.ndarray  # (n, k, k)
    B: np.ndarray  # (n, k)
    T: np.ndarray  # (n, k)
    weight: np.ndarray  # (n,)
    first: np.ndarray  # (n,)
    second: np.ndarray  # (n,)
    SS: np.ndarray  # (k, k)
    z: np.ndarray  # (k,)
    rows: float  # weight of all rows
    loglik: float
    Z: np.ndarray  # (m, k), E[z] of every row


@dataclass(frozen=True)
class Options:
    """How a factor model is fitted.

    equal_noise: one psi for all columns; fit_mean: or leave it at zero.  ridge and prior_rows, see `RIDGE` and
    `PRIOR_ROWS`, steady what few rows determine; with both at 0 the iteration finds the maximum of the likelihood, which
    then never decreases.
    """

    equal_noise: bool = False
    fit_mean: bool = True
    max_iter: int = 100
    tol: float = 1e-4
    ridge: float = RIDGE
    prior_rows: float = PRIOR_ROWS


def fit_factor_model(table: Table, start: FactorModel, options: Options, progress: Progress) -> FactorModel:
    """Iterate EM from `start` until the log-likelihood per observed entry gains less than `tol`."""
    model = start
    for _, _, model in iterate(table, start, options):
        if progress.step(loglik=model.loglik, n_components=model.k):
            break
    return model


def iterate(
    table: Table, start: FactorModel, options: Options
) -> Iterator[tuple[FactorModel, np.ndarray, FactorModel]]:
    """Yield (model, its E[z] of every row, next model) for up to `max_iter` EM steps.

    The last model says whether the iteration converged.
    """
    entries, model, before = float(table.counts.sum()), start, -math.inf
    variance = column_variance(table)
    variance = np.where(variance > 0.0, variance, variance.mean() or 1.0)
    for n_iter in range(1, options.max_iter + 1):
        statistics = expect(table, model)
        loglik = statistics.loglik
        converged = loglik - before <= options.tol * entries
        better = maximize(statistics, model, options, variance)
        better = replace(better, loglik=loglik, n_iter=n_iter, converged=converged)
        yield model, statistics.Z, better
        model = better
        if converged:
            return
        before = loglik


def expect(table: Table, model: FactorModel) -> Statistics:
    """The E step: one pass over the rows, shared among threads; sums are added in the order of the blocks."""
    k, n = model.k, table.n
    *_, width, size = layout(k)
    bounds = table.bounds(k)
    blocks = len(bounds) - 1
    A, B, T = (np.empty((blocks, n * length)) for length in (size, width, width))
    sums, SS, loglik = np.empty((blocks, 3, n)), np.empty((blocks, size + width)), np.empty(blocks)
    Z = np.empty((table.m, width))
    order, first = table.patterns
    arguments = model.kernel_arguments

    def task(begin: int, end: int) -> None:
        expectation(
            table.indptr, table.indices, table.values, table.weight, order, first, *arguments, bounds, (begin, end),
            A, B, T, sums, SS, loglik, Z,
        )  # fmt: skip

    _threads.share(task, blocks)
    total = SS.sum(axis=0)
    B, T = (part.sum(axis=0).reshape(n, width)[:, :k] for part in (B, T))
    return Statistics(
        unpack(A.sum(axis=0).reshape(n, size), k), B, T, *sums.sum(axis=0), unpack(total[:size], k),
        total[size : size + k], float(table.weight.sum()), float(loglik.sum()), Z[:, :k],
    )  # fmt: skip


@cache
def layout(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Rows, columns and places of the lower triangle in the kernels' layout; the lengths of a vector and of a matrix."""
    a, b = np.tril_indices(k)
    starts = np.array([start_of_row(row) for row in range(k + 1)])
    return a, b, starts[a] + b, -(-k // LANES) * LANES, int(starts[k])


def unpack(packed: np.ndarray, k: int) -> np.ndarray:
    """Symmetric matrices (..., k, k) from the kernels' layout."""
    full = np.empty((*packed.shape[:-1], k, k))
    a, b, place, _, _ = layout(k)
    full[..., a, b] = packed[..., place]
    full[..., b, a] = packed[..., place]
    return full


def maximize(statistics: Statistics, model: FactorModel, options: Options, variance: np.ndarray) -> FactorModel:
    """The M step: a least-squares problem for each column, its noise, and the expanded parameters put back."""
    s, k = statistics, model.k
    seen = s.weight > 0.0
    G = np.zeros((len(seen), k + 1, k + 1))
    G[:, :k, :k], G[:, k, :k], G[:, :k, k], G[:, k, k] = s.A, s.T, s.T, s.weight
    G[:, :k, :k] += (options.ridge * model.psi / variance)[:, None, None] * np.eye(k)
    G[~seen] = np.eye(k + 1)
    right = np.concatenate([s.B, s.first[:, None]], axis=1)
    right[~seen] = 0.0
    if not options.fit_mean:
        G[:, k, :k] = G[:, :k, k] = right[:, k] = 0.0
    inverse = np.linalg.inv(G)
    solution = np.einsum("jab,jb->ja", inverse, right)
    W, shift = solution[:, :k], solution[:, k]
    left = np.maximum(s.second - np.sum(solution * right, axis=1), 0.0)
    tiny = np.finfo(np.float64).tiny
    pooled = left.sum() / max(s.weight.sum(), tiny)
    psi = np.where(seen, (left + options.prior_rows * pooled) / np.maximum(s.weight + options.prior_rows, tiny), pooled)
    psi = np.maximum(np.full_like(psi, pooled) if options.equal_noise else psi, FLOOR * variance)
    # the factors' own mean and covariance, which the model fixes at 0 and I, go into the mean and W
    alpha = s.z / s.rows if options.fit_mean else np.zeros(k)
    L = np.linalg.cholesky(s.SS / s.rows - np.outer(alpha, alpha))
    # parameters that a column's entries determine: all but what the ridge holds
    fitted = (
        k + options.fit_mean - options.ridge * model.psi / variance * np.trace(inverse[:, :k, :k], axis1=1, axis2=2)
    )
    fitted = np.clip(fitted, 0.0, 0.5 * s.weight)
    inflation = (s.weight + fitted) / np.maximum(s.weight - fitted, tiny)
    return FactorModel(model.mean + shift + W @ alpha, W @ L, psi, np.where(seen, inflation, 1.0))


def column_variance(table: Table) -> np.ndarray:
    """(n,), variance of the entries of every column about their mean; 0 where there are none."""
    counts = np.maximum(table.counts, np.finfo(np.float64).tiny)
    means = table.column_sums(table.values) / counts
    return table.column_sums((table.values - means[table.indices]) ** 2) / counts


# ---------------------------------------------------------------------------------------------------- start

GRAM = 1024  # columns up to which the directions of a start come from the n x n matrix of products


def start_model(table: Table, k: int, options: Options, seed: np.random.SeedSequence) -> FactorModel:
    """Column means, half the variance as noise, and the k leading directions of the table with means in its holes."""
    counts = np.maximum(table.counts, np.finfo(np.float64).tiny)
    mean = table.column_sums(table.values) / counts if options.fit_mean else np.zeros(table.n)
    variance = table.column_sums((table.values - mean[table.indices]) ** 2) / counts
    psi = np.where(variance > 0.0, 0.5 * variance, 0.5 * (variance.mean() or 1.0))
    empty = FactorModel(mean, np.zeros((table.n, 0)), psi)
    return widen(table, empty, k, seed)


def widen(
    table: Table, model: FactorModel, k: int, seed: np.random.SeedSequence, Z: np.ndarray | None = None
) -> FactorModel:
    """The model with k factors: new ones along the leading directions of what its means leave of the entries."""
    residual = table.values - model.mean[table.indices]
    if model.k:
        Z = explain(table, model).Z if Z is None else Z
        residual -= np.einsum("pk,pk->p", Z[table.rows], model.W[table.indices])
    rows = max(table.counts.sum() / table.n, np.finfo(np.float64).tiny)  # that many show a column
    residual *= np.sqrt(table.entry_weight)
    matrix = scipy.sparse.csr_array((residual, table.indices, table.indptr), shape=(table.m, table.n))
    s, V = _directions(matrix, k - model.k, seed)
    W = V.T * (s / math.sqrt(rows))
    return replace(model, W=np.concatenate([model.W, W], axis=1))


def _directions(matrix: Any, k: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
    """The k leading singular values and right vectors; more of them than the matrix has are zero."""
    found = min(k, *matrix.shape)
    if matrix.shape[1] <= GRAM:
        values, vectors = np.linalg.eigh(cross_product(matrix, matrix).toarray())
        s, V = np.sqrt(np.maximum(values[::-1][:found], 0.0)), vectors.T[::-1][:found]
    else:
        result = solve(matrix, found, mean=None, seed=seed, progress=Progress("start", 1), tol=1e-2)
        s, V = result.s, result.Vt
    return np.pad(s, (0, k - found)), np.pad(V, ((0, k - found), (0, 0)))


# ---------------------------------------------------------------------------------------------------- posterior


@dataclass(frozen=True)
class Posterior:
    """What a model says about the rows of a table."""

    Z: np.ndarray  # (m, k), posterior means of the factors, or draws
    variance: np.ndarray  # (m, n), of every entry given the row's observed ones, psi inflated; or (0, n)
    loglik: np.ndarray  # (m,), log-likelihood of the row's observed entries


def explain(table: Table, model: FactorModel, *, variance: bool = False, noise: np.ndarray | None = None) -> Posterior:
    """Posterior means of the factors of every row, or draws from the posterior made of standard normal `noise` (m, k)."""
    m, k = table.m, model.k
    Z, length, logdet = np.empty((m, -(-k // LANES) * LANES)), np.empty(m), np.empty(m)
    spread = np.empty((m if variance else 0, table.n))
    normal = frozen(np.empty((0, k)) if noise is None else noise)
    order, first = table.patterns
    bounds, arguments = table.bounds(k), model.kernel_arguments

    def task(begin: int, end: int) -> None:
        posterior(
            table.indptr, table.indices, table.values, order, first, *arguments, bounds, (begin, end),
            normal, Z, spread, length, logdet,
        )  # fmt: skip

    _threads.share(task, len(bounds) - 1)
    loglik = -0.5 * (np.diff(table.indptr) * math.log(2.0 * math.pi) + logdet + length)
    spread += model.psi * (model.inflation - 1.0)
    return Posterior(Z[:, :k], spread, loglik)


# ---------------------------------------------------------------------------------------------------- number of factors

ENOUGH = 2000  # held-out entries that tell two numbers of factors apart; smaller tables are split several times
MOST_SPLITS = 5
CLEARLY = 1.005  # times the least error: so much worse, that more factors are not tried
PATIENCE, STALL = (
    2,
    0.002,
)  # a trial ends when its squared error has fallen by less than this share in so many iterations


def choose_components(
    table: Table, uniform: np.ndarray, most: int, fraction: float, options: Options, seed: Any, progress: Progress
) -> tuple[FactorModel, float]:
    """A model of as many factors as predict held-out entries best, from the first split, and its root mean square error.

    Tried are 2, 4, 8, ..., each begun from the one before, until the error has grown twice, or clearly; then the numbers
    half way to the neighbours of the best, above it unless that is clearly worse.

    Parameters
    ----------
    table : Table
    uniform : (nnz,), a number in [0, 1) for each entry, which decides the split that holds it out
    most : int, the largest number to try
    fraction : float, share of the entries that a split holds out
    """
    splits = int(np.clip(ENOUGH / (fraction * len(table.values)), 1, min(MOST_SPLITS, 1 / fraction)))
    trials = [Trial.of(table, uniform, split * fraction, (split + 1) * fraction) for split in range(splits)]
    errors: dict[int, float] = {}

    def error(k: int) -> float:
        sums = np.sum([trial.error(k, options, seed, progress) for trial in trials], axis=0)
        errors[k] = math.sqrt(sums[0] / sums[1]) if sums[1] > 0.0 else 0.0
        return errors[k]

    k, best, failures = min(2, most), math.inf, 0
    while True:
        now = error(k)
        failures += (now >= best) + (now > CLEARLY * best)
        best = min(now, best)
        if failures >= 2 or k == most:
            break
        k = min(2 * k, most)
    middle = min(errors, key=errors.__getitem__)
    above = 3 * middle // 2 if errors.get(2 * middle, best) <= CLEARLY * best else middle
    for k in (max(1, 3 * middle // 4), above):
        if k not in errors and 0 < k <= most:
            error(k)
    chosen = min(errors, key=errors.__getitem__)
    return trials[0].models[chosen], errors[chosen]


@dataclass(frozen=True)
class Trial:
    """A table without some entries, which are predicted, and the models fitted to it so far, by number of factors."""

    table: Table
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    models: dict[int, FactorModel]
    scores: dict[int, np.ndarray]  # E[z] of every row, by the model of the step before

    @classmethod
    def of(cls, table: Table, uniform: np.ndarray, low: float, high: float) -> Trial:
        """Hold out the entries whose number is in [low, high), but in columns that would lose more than half of theirs."""
        out = (uniform >= low) & (uniform < high)
        lost = np.bincount(table.indices, table.entry_weight * out, table.n)
        out &= (2.0 * lost <= table.counts)[table.indices]
        return cls(
            table.select(~out), table.rows[out], table.indices[out], table.values[out], table.entry_weight[out], {}, {}
        )

    def error(self, k: int, options: Options, seed: Any, progress: Progress) -> tuple[float, float]:
        """Squared errors of k factors on the held-out entries, summed, and the sum of the weights."""
        below = max((before for before in self.models if before < k), default=0)
        if below:
            start = widen(self.table, self.models[below], k, seed, self.scores[below])
        else:
            start = start_model(self.table, k, options, seed)
        errors: list[float] = []
        for model, Z, better in iterate(self.table, start, options):
            predicted = model.mean[self.columns] + np.einsum("pk,pk->p", Z[self.rows], model.W[self.columns])
            errors.append(float(self.weights @ (self.values - predicted) ** 2))
            self.models[k], self.scores[k] = better, Z
            stalls = len(errors) > PATIENCE and errors[-1] > (1.0 - STALL) * errors[-1 - PATIENCE]
            if progress.step(loglik=better.loglik, n_components=k) or stalls:
                break
        return errors[-1], float(self.weights.sum())


def uniform_numbers(values: np.ndarray, table: Table, seed: np.random.SeedSequence) -> np.ndarray:
    """(nnz,), a number in [0, 1) for each entry: a hash of the seed, its column and the values of its row.

    So the order of the rows has no influence, and a row given twice counts like one of weight two.
    """
    keys = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 7)).generate_state(2 * table.n, np.uint64)
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
    mixed = np.concatenate((np.zeros(1, np.uint64), np.bitwise_xor.accumulate(_mix(bits ^ keys[table.indices]))))
    row = mixed[table.indptr[1:]] ^ mixed[table.indptr[:-1]]
    return (_mix(row[table.rows] ^ keys[table.n + table.indices]) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
