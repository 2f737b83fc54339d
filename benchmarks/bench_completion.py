"""Matrix completion: time of a half-sweep against rank and entries, whole fits, peak memory, and what is reached."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from lrla.completion import MatrixCompletion, complete_als
from lrla.completion._als import Settings
from lrla.completion._automatic import complete_automatically
from lrla.completion._half_sweep import Solver, aligned_zeros, padded, update_rows
from lrla.completion._observed import Observed
from lrla.datasets import make_ratings

RANKS = (16, 32, 64, 128)
ENTRIES = (125_000, 250_000, 500_000, 1_000_000)


def observed(entries: int, dtype: str) -> Observed:
    """Rows of 50 entries on the average, and 3000 columns."""
    return Observed.from_csr(make_ratings(entries // 50, 3000, entries, test_size=0.01, random_state=0).X.astype(dtype))


class HalfSweep:
    """Three steps for every row: one residual pass and three products, nothing else."""

    params = (RANKS, ENTRIES, ("float32", "float64"))
    param_names = ("rank", "entries", "dtype")
    timeout = 300

    def setup(self, rank, entries, dtype):
        self.prepare(rank, entries, dtype)
        self.time_half_sweep(rank, entries, dtype)

    def prepare(self, rank, entries, dtype):
        self.observed = observed(entries, dtype)
        rng, width = np.random.default_rng(0), padded(rank, np.dtype(dtype))
        self.F, self.X = (aligned_zeros(size, width, np.dtype(dtype)) for size in self.observed.shape[::-1])
        self.F[:, :rank] = rng.standard_normal((len(self.F), rank))
        self.penalty, self.free = (np.zeros(width, dtype) for _ in range(2))
        self.penalty[:rank], self.free[:rank] = 5.0, 1
        self.ones = np.ones(len(self.X), dtype)

    def time_half_sweep(self, rank, entries, dtype):
        self.X[:] = 0
        update_rows(
            self.observed, self.X, self.F, self.penalty, self.free, np.array([1.0, 3.5]), self.ones, Solver(0.0, 3)
        )


class Slope:
    """Log-log slopes of the time of a half-sweep: in the rank from 16 to 128, and in the entries."""

    params = (("float32", "float64"),)
    param_names = ("dtype",)
    timeout = 600

    def seconds(self, rank, entries, dtype):
        case = HalfSweep()
        case.prepare(rank, entries, dtype)
        times = []
        for _ in range(6):
            start = time.process_time()
            case.time_half_sweep(rank, entries, dtype)
            times.append(time.process_time() - start)
        return statistics.median(times[1:])

    def slope(self, sizes, seconds):
        return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])

    def track_slope_in_rank(self, dtype):
        return self.slope(RANKS, [self.seconds(rank, 500_000, dtype) for rank in RANKS])

    def track_slope_in_entries(self, dtype):
        return self.slope(ENTRIES, [self.seconds(64, entries, dtype) for entries in ENTRIES])


class Fit:
    """Whole fits of ratings."""

    params = ((100_000, 1_000_000),)
    param_names = ("entries",)
    timeout = 600

    def setup(self, entries):
        shape = (943, 1682) if entries == 100_000 else (6040, 3706)
        self.ratings = make_ratings(*shape, entries, random_state=0)
        self.given = complete_als(self.ratings.X[:100], 2, 5.0, max_iter=1, tol=0.999, random_state=0)

    def time_complete_als(self, entries):
        complete_als(self.ratings.X, 20, 12.0, fit_bias=True, tol=1e-3, random_state=0)

    def time_automatic(self, entries):
        complete_automatically(Observed.from_csr(self.ratings.X), Settings())

    def track_error_automatic(self, entries):
        """Root mean square error on ratings that were kept back; the noise alone is 0.8."""
        fitted = complete_automatically(Observed.from_csr(self.ratings.X), Settings())
        rows, columns = self.ratings.test_rows, self.ratings.test_columns
        predicted = fitted.mean + fitted.row_bias[rows] + fitted.column_bias[columns]
        predicted = predicted + np.einsum("ij,ij->i", fitted.U[rows], fitted.V[columns])
        return math.sqrt(float(np.mean(np.square(predicted - self.ratings.test_values))))

    track_error_automatic.unit = "rating"


class Memory:
    """Peak memory of fits of one shape and rank: beside the input alone it is that of the factors, however many entries."""

    params = ((2_000_000, 4_000_000),)
    param_names = ("entries",)
    timeout = 600

    def setup_cache(self):
        """Data that another process makes, which takes more memory than a fit."""
        matrices = (
            make_ratings(20_000, 5_000, entries, test_size=0.01, random_state=0).X for entries in self.params[0]
        )
        return dict(zip(self.params[0], matrices, strict=True))

    def setup(self, matrices, entries):
        self.X = matrices[entries]
        matrices.clear()
        complete_als(self.X[:100], 2, 5.0, max_iter=1, tol=0.999, random_state=0)  # compiles

    def peakmem_input(self, matrices, entries):
        """The process with the input alone, to be taken off the others."""

    def peakmem_complete_als(self, matrices, entries):
        complete_als(self.X, 20, 30.0, fit_bias=True, tol=0.1, path_ratio=3.0, random_state=0)

    def peakmem_automatic(self, matrices, entries):
        MatrixCompletion(max_components=20, max_iter=2, tol=0.9, random_state=0).fit(self.X)
