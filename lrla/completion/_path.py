"""The problem as alternating minimisation sees it: offsets, sweeps, growth of the rank, and the certificate.

    minimise  sum (x_ij - mean - b_i - c_j - u_i v_j)^2 + reg (sum w_i |u_i|^2 + sum z_j |v_j|^2)
                                                        + reg_bias (sum w_i b_i^2 + sum z_j c_j^2)

with w_i = n_i^alpha, z_j = n_j^alpha for n observations in a row or column.  Inside, values are scaled by a power of two to
about 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla._progress import Progress
from lrla._random import Stream
from lrla.completion._balance import balance
from lrla.completion._half_sweep import Factors, Solver, Sums, padded, update_rows
from lrla.completion._observed import Observed
from lrla.completion._residual import Residual
from lrla.svd import _truncated as svd

OFFSET_ROUNDS, OFFSETS_SETTLED = 5, 0.01  # rounds at most, and the change of the penalties in one that ends them
OFFSET_DAMPING = 5.0  # penalty of the offsets in the first round
LEAST_OFFSETS = 1e-3  # variance of the offsets over that of the values, below which they count as this large
GROWTH = 10  # columns that a level may add
BLOCK = 16  # vectors of the residual's subspace iteration
# Singular values of the residual above the penalty that call for a column: relative, along the path and at its end.
PATH_EXCESS, EXCESS = 0.02, 5e-4
STEP = 0.5  # share of its best size that a new column is given
# Growth of a column in a sweep that is slow, and the factor of its size that is foretold at most.
SLOW, FARTHEST = 0.05, 4.0
# Residual of a singular triplet, as a rule and roughly: values are accurate to 3 or 4 times its square (measured).
TOLERANCE, ROUGH_TOLERANCE, KRYLOV_STEPS = 5e-3, 3e-2, 100
FAR = 1.1  # a certificate above it is known roughly
# Shorter side up to which the residual is decomposed as a dense array, if that takes no more numbers than its square, or
# than so many times the entries and so many copies of the factors.
SMALL, FULL = 300, 4


@dataclass(frozen=True)
class Penalty:
    """Of factors and of offsets, in the units of the scaled values."""

    reg: float
    bias: tuple[float, float]  # of rows, of columns


class Problem:
    """Observations with the weights of the penalty; its methods change a `Factors` in place."""

    def __init__(self, observed: Observed, alpha: float, solver: Solver, seed: int, mean: float | None = None):
        self.observed, self.solver = observed, solver
        self.row_weights, self.column_weights = (side.counts**alpha for side in (observed, observed.T))
        for weights, side in ((self.row_weights, observed), (self.column_weights, observed.T)):
            weights[side.counts <= 0] = 1.0
        self.weighted = alpha != 0
        self.center, self.scale = location_and_scale(observed)
        self.set_mean(mean)
        self.total = max(float(observed.counts.sum()), np.finfo(np.float64).tiny)
        self.noise, self.offset_spread = 1.0, [1.0, 1.0]
        self.seed = np.random.SeedSequence(seed)
        self.stream = Stream.from_seed(self.seed)
        self._found: tuple[np.ndarray, np.ndarray] | None = None
        self.sigma = np.zeros(0)  # of the last sweep

    def set_mean(self, mean: float | None) -> None:
        """Take off this number (None: the mean of the observations)."""
        self.mean = self.center if mean is None else mean
        self.numbers = np.array([1 / self.scale, self.mean / self.scale], self.observed.dtype)

    def start(self, offsets: bool) -> Factors:
        """No columns; shrunken row and column means as offsets, and the variances of noise and offsets from them.

        The penalty of an offset that is right for Gaussian noise and offsets is the ratio of their variances.
        """
        factors = Factors.empty(self.observed.shape, self.observed.dtype, offsets)
        damping = [OFFSET_DAMPING, OFFSET_DAMPING]
        for _ in range(OFFSET_ROUNDS if offsets else 0):
            before = damping.copy()
            for flipped, side in ((True, self.observed.T), (False, self.observed)):
                penalty = Penalty(0.0, (damping[0], damping[1]))
                sums = self.half_sweep(factors.T if flipped else factors, penalty, flipped)
                self.noise = (sums.loss + sums.ridge - sums.gain) / self.total
                seen = side.counts > 0
                found = (factors.V[:, 1] if flipped else factors.U[:, 0]).astype(np.float64)[seen]
                unsure = self.noise / (side.counts[seen] + damping[flipped])
                spread = max(float(np.mean(np.square(found) + unsure)), LEAST_OFFSETS)
                damping[flipped] = self.noise / spread
                weights = (self.column_weights if flipped else self.row_weights)[seen]
                self.offset_spread[flipped] = spread * float(weights.mean())
            if np.allclose(damping, before, OFFSETS_SETTLED, 0.0):
                break
        return factors

    def offset_penalties(self) -> tuple[float, float]:
        """Variance of the noise over those of the offsets of rows and of columns."""
        return self.noise / self.offset_spread[0], self.noise / self.offset_spread[1]

    def half_sweep(self, factors: Factors, penalty: Penalty, flipped: bool) -> Sums:
        """Update the left side of `factors`; flipped: they are those of the transpose."""
        observed = self.observed.T if flipped else self.observed
        weights = self.column_weights if flipped else self.row_weights
        dtype, width = observed.dtype, factors.U.shape[1]
        reg, free = np.zeros(width, dtype), np.zeros(width, dtype)
        reg[factors.columns], free[factors.columns] = penalty.reg, 1
        if factors.shift:
            reg[int(flipped)], free[int(flipped)] = penalty.bias[flipped], 1
        return update_rows(observed, factors.U, factors.V, reg, free, self.numbers, weights.astype(dtype), self.solver)

    def sweep(self, factors: Factors, penalty: Penalty) -> tuple[float, float]:
        """Balance, update U, balance, update V; the loss between the two half-sweeps, and the objective at the end."""
        self.balance(factors)
        self.half_sweep(factors, penalty, flipped=False)
        sigma = self.balance(factors)
        sums = self.half_sweep(factors.T, penalty, flipped=True)
        self.sigma = sigma
        ridge = penalty.reg * sigma.sum()
        if factors.shift:
            ridge += penalty.bias[0] * float(self.row_weights @ np.square(factors.U[:, 0].astype(np.float64)))
        self.noise = sums.loss / self.total
        return sums.loss, sums.loss + sums.ridge + ridge - sums.gain

    def balance(self, factors: Factors) -> np.ndarray:
        """Balance in place; sigma (k,)."""
        return balance(factors, *((self.row_weights, self.column_weights) if self.weighted else (None, None)))

    def residual(self, factors: Factors) -> Residual:
        """The residual of the scaled values, times their weights, over the roots of the penalty's weights."""
        scales = (weights**-0.5 for weights in (self.row_weights, self.column_weights)) if self.weighted else ()
        return Residual(
            self.observed, factors.U, factors.V, self.numbers, *(scale.astype(factors.U.dtype) for scale in scales)
        )

    def leading(self, residual: Residual) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rough leading singular triplets P (m, b), s (b,), Q (n, b), from where the last level left the subspace."""
        if self._found is None:
            steps, count = 4, min(BLOCK, *residual.shape)
            Z = self.stream.normal(count, residual.shape[1], dtype=residual.dtype.name).T
        else:
            steps, Z = 2, self._found[1]
        for _ in range(steps):
            Y, Z = residual.image_and_gram(np.linalg.qr(Z)[0])
        P, s, right = np.linalg.svd(Y, full_matrices=False)
        info = np.finfo(s.dtype)
        s = np.maximum(s, max(np.sqrt(info.eps) * s[0], info.tiny))  # below, Z is rounding noise
        Q, s, left = np.linalg.svd(Z @ (right.T / s), full_matrices=False)  # of the residual's transpose times P
        self._found = P @ left.T, Q
        return self._found[0], s, Q

    def leading_to_tolerance(
        self, residual: Residual, k: int, tol: float = TOLERANCE, *known: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leading singular triplets P (m, k), s (k,), Q (n, k); `known`: left and right vectors that are nearly right."""
        dense = self.is_small(residual)
        matrix, options = (residual.toarray(), {}) if dense else (residual, self._krylov_options(residual, *known))
        with Progress("residual", KRYLOV_STEPS) as progress:
            found = svd.solve(
                matrix, k, mean=None, seed=self.seed, progress=progress, tol=tol, max_iter=KRYLOV_STEPS, **options
            )
        return found.U, found.s, found.Vt.T

    def is_small(self, residual: Residual) -> bool:
        """Whether it is decomposed as a dense array, and so to rounding."""
        m, n = residual.shape
        most = FULL * min(self.observed.nnz, (m + n) * residual.factors[0].shape[1])
        return min(m, n) <= SMALL and m * n <= max(SMALL**2, most)

    def _krylov_options(self, residual: Residual, *known: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Blocks of a cache line: half of the first one from where the last level left the subspace, the rest random."""
        m, n = residual.shape
        width = min(padded(1, residual.dtype), m, n)
        sources = [*known, *(() if self._found is None else (self._found,))]
        if not sources:
            return {"block_size": width}
        start = np.hstack([pair[1 if m >= n else 0] for pair in sources]).T[: width // 2]  # of the shorter side
        return {"block_size": width - len(start), "v0": start}

    def largest(self, factors: Factors, reg: float = math.inf) -> float:
        """The largest singular value of the residual: roughly, to a hundredth, and well where it is near `reg` or below."""
        residual = self.residual(factors)
        P, s, Q = self.leading_to_tolerance(residual, 1, ROUGH_TOLERANCE)
        if s[0] <= FAR * reg < math.inf and not self.is_small(residual):
            s = self.leading_to_tolerance(residual, 1, TOLERANCE, (P, Q))[1]
        return float(s[0])

    def grow(self, factors: Factors, penalty: Penalty, most: int, *, thorough: bool = False) -> int:
        """Append columns along the residual's directions whose singular values exceed the penalty; returns how many."""
        room = max(0, min(GROWTH, most - factors.k))
        if not room:
            return 0
        residual = self.residual(factors)
        P, s, Q = self.leading_to_tolerance(residual, room) if thorough else self.leading(residual)
        excess = EXCESS if thorough else PATH_EXCESS
        new = int(np.count_nonzero(s[:room] > (1 + excess) * penalty.reg))
        if new:
            P, Q = P[:, :new] * self.row_weights[:, None] ** -0.5, Q[:, :new] * self.column_weights[:, None] ** -0.5
            # Along one direction the best size is (s - reg) / (sum over the entries of p_i^2 q_j^2); the sum is that of
            # entries spread as the counts of rows and columns say.
            seen = (self.observed.counts @ np.square(P)) * (self.observed.T.counts @ np.square(Q)) / self.total
            root = np.sqrt(STEP * (s[:new] - penalty.reg) / seen)
            factors.append(P * root, Q * root)
        return new


class Trend:
    """Columns that grow or shrink slowly are given the sizes that three sweeps foretell, as long as that lowers the objective."""

    def __init__(self) -> None:
        self.sizes: list[np.ndarray] = []
        self.least = math.inf  # objective at the last stretch

    def follow(self, factors: Factors, sigma: np.ndarray, objective: float) -> bool:
        """Note the sizes of a sweep and the objective at its end, and stretch the factors where it is time; whether they were."""
        if len(sigma) != factors.k or (self.sizes and len(sigma) != len(self.sizes[0])):
            self.sizes = []
            return False
        self.sizes = [*self.sizes[-2:], sigma]
        if len(self.sizes) < 3 or not objective < self.least:
            return False
        ratios, self.sizes = limits(*self.sizes), []
        if np.all(ratios == 1):
            return False
        self.least = objective
        factors.stretch(ratios)
        return True


def limits(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Where three successive sizes of columns (k,) lead, over the third; 1 where they move fast or at random.

    A column whose singular value is little above the penalty grows (or shrinks) like s' = s (a - b s), which takes the more
    sweeps the smaller a is; its limit is a / b.
    """
    ratio = np.ones(len(third))
    one, two = np.log(second / first), np.log(third / second)  # growth at first and at second
    slow = (one * two > 0) & (np.abs(two) < np.abs(one)) & (np.abs(one) < SLOW)
    limit = (second + (second - first) * two / np.where(slow, one - two, 1)) / third
    ratio[slow] = np.clip(limit[slow], 1 / FARTHEST, FARTHEST)
    return ratio


def location_and_scale(observed: Observed) -> tuple[float, float]:
    """The (weighted) mean of the values, and a power of two near their spread around it."""
    largest = max(abs(float(observed.values.max())), abs(float(observed.values.min()))) or 1.0
    least = 2.0**-120 if observed.dtype == np.float32 else 2.0**-1000  # whose reciprocal is a number
    unit = max(2.0 ** round(math.log2(largest)), least)
    total = float(observed.counts.sum())

    def mean(center: float, power: int) -> float:
        found = 0.0
        for values, weights in observed.chunks():
            differences = (values.astype(np.float64) / unit - center) ** power
            found += float(differences.sum() if weights is None else differences @ weights.astype(np.float64))
        return found / total

    center = mean(0.0, 1)
    spread = math.sqrt(mean(center, 2))
    exponent = round(math.log2(spread)) if spread > 1e-7 * max(1.0, abs(center)) else 0
    return center * unit, max(unit * 2.0**exponent, least)
