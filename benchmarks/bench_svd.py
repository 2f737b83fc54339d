"""Truncated SVD: time, peak memory and error with the same parameters; updates; the cost of import and first call."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import tracemalloc

import numpy as np
import scipy.sparse

import lrla

K = 20
SIZES = ((2_000, 1_000), (6_000, 3_000))


def dense_matrix(m: int, n: int) -> np.ndarray:
    """A known spectrum, s_i = 1 / sqrt(i), up to the rank 200."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((size, 200)))[0] for size in (m, n))
    return (U / np.sqrt(np.arange(1, 201))) @ V.T


def sparse_matrix(m: int, n: int) -> scipy.sparse.csr_array:
    """Ten entries a row on average, columns by a power law."""
    rng = np.random.default_rng(0)
    p = np.arange(1, n + 1) ** -0.9
    rows, columns = rng.integers(0, m, 10 * m), rng.choice(n, 10 * m, p=p / p.sum())
    return scipy.sparse.csr_array((np.ones(10 * m), (rows, columns)), shape=(m, n))


class Batch:
    """`truncated_svd` to a tolerance."""

    params = (("dense", "sparse"), SIZES, (1e-1, 1e-3, 1e-6))
    param_names = ("kind", "size", "tol")
    timeout = 300

    def setup_cache(self):
        """Make the matrices once, and compile and load the kernels."""
        data = {}
        for size in SIZES:
            A, S = dense_matrix(*size), sparse_matrix(*size)
            exact = scipy.sparse.linalg.svds(S, K, tol=0, return_singular_vectors=False)
            data["dense", size] = A, 1 / np.sqrt(np.arange(1, K + 1))
            data["sparse", size] = S, np.sort(exact)[::-1]
        for A, _ in data.values():
            lrla.truncated_svd(A, K, random_state=0)
        return data

    def setup(self, data, kind, size, tol):
        self.A, self.exact = data[kind, tuple(size)]
        lrla.truncated_svd(self.A, K, tol=tol, random_state=0)

    def time_truncated_svd(self, data, kind, size, tol):
        lrla.truncated_svd(self.A, K, tol=tol, random_state=0)

    def track_error(self, data, kind, size, tol):
        """Largest relative error of the singular values."""
        s = lrla.truncated_svd(self.A, K, tol=tol, random_state=0)[1]
        return float(np.max(np.abs(s / self.exact - 1)))

    track_error.unit = "relative"

    def track_iterations(self, data, kind, size, tol):
        return lrla.TruncatedSVD(K, tol=tol, random_state=0).fit(self.A).n_iter_

    track_iterations.unit = "block steps"


class Memory:
    """Memory is the input plus O((m + n) k): `track_work` is about the same number at both sizes."""

    params = (("dense", "sparse"), SIZES)
    param_names = ("kind", "size")

    def setup(self, kind, size):
        rng = np.random.default_rng(0)
        self.A = sparse_matrix(*size) if kind == "sparse" else rng.standard_normal(size)
        lrla.truncated_svd(self.A[:200, :200], 3, random_state=0)

    def peakmem_input(self, kind, size):
        """The process with the input alone, to be taken off the next one."""

    def peakmem_truncated_svd(self, kind, size):
        lrla.truncated_svd(self.A, K, random_state=0)

    def track_work(self, kind, size):
        """Peak of what Python and NumPy allocate during the call, in units of the two factors."""
        tracemalloc.start()
        lrla.truncated_svd(self.A, K, random_state=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / (8 * K * sum(size))

    track_work.unit = "x 8 (m + n) k bytes"


class Updates:
    """Rows added to a sparse model with n columns: the time should not depend on n or on what was seen before."""

    params = ((10_000, 100_000), (1, 100))
    param_names = ("rows and columns", "rows added")
    number, repeat, warmup_time = 1, (20, 100, 10.0), 0

    def setup(self, size, s):
        rng = np.random.default_rng(0)
        factors = [np.linalg.qr(rng.standard_normal((size, K)))[0] for _ in range(2)]
        start = factors[0], np.linspace(2, 1, K) * 100, factors[1].T
        self.svd = lrla.UpdatableSVD.from_svd(*start, buffer_size=0)
        self.E = scipy.sparse.random_array((s, size), density=20 / size, format="csr", rng=rng)
        self.svd.add_rows(self.E)

    def time_add_rows(self, size, s):
        self.svd.add_rows(self.E)


class Stream:
    """`partial_fit` against `fit` of the same rows."""

    params = ("TruncatedSVD", "IncrementalPCA")
    param_names = ("estimator",)

    def setup(self, name):
        self.A = sparse_matrix(4_000, 2_000)
        self.make = {
            "TruncatedSVD": lambda: lrla.TruncatedSVD(K, random_state=0),
            "IncrementalPCA": lambda: lrla.IncrementalPCA(K),
        }[name]
        self.model = self.stream()

    def stream(self):
        model = self.make()
        for start in range(0, self.A.shape[0], 100):
            model.partial_fit(self.A[start : start + 100])
        return model

    def time_partial_fit(self, name):
        self.stream()

    def track_error(self, name):
        """How far the largest singular value that is off most lies below that of a batch fit."""
        if name == "TruncatedSVD":
            best = lrla.TruncatedSVD(K, tol=1e-6, random_state=0).fit(self.A)
        else:
            best = lrla.PCA(K, tol=1e-6, random_state=0).fit(self.A)
        return float(np.max(1 - self.model.singular_values_ / best.singular_values_))

    track_error.unit = "relative"


FIRST_CALL = """
import time, numpy, scipy.sparse, lrla
A = numpy.random.default_rng(0).standard_normal((400, 320))
A = scipy.sparse.csr_array(A * (A > 1)) if {sparse} else A
def seconds():
    start = time.perf_counter()
    lrla.TruncatedSVD(5, random_state=0).fit(A)
    return time.perf_counter() - start
lrla.TruncatedSVD
first = seconds()
print(first - min(seconds() for _ in range(3)))
"""


class FirstCall:
    """What the first fit of a process costs more than the next: compilation, or loading from a full cache."""

    params = (("dense", "sparse"),)
    param_names = ("kind",)
    timeout = 300

    def setup(self, kind):
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self, kind):
        self.folder.cleanup()

    def run(self, kind):
        code = FIRST_CALL.format(sparse=kind == "sparse")
        environment = {**os.environ, "NUMBA_CACHE_DIR": self.folder.name}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        return float(done.stdout)

    def track_fresh_cache(self, kind):
        return self.run(kind)

    def track_full_cache(self, kind):
        self.run(kind)
        return statistics.median(self.run(kind) for _ in range(3))

    track_fresh_cache.unit = track_full_cache.unit = "s"


class Import:
    """`import lrla` alone, and with everything public, against the libraries it stands on."""

    timeout = 300
    dependencies = "import numpy, scipy.sparse, numba, sklearn.base, sklearn.utils.validation, array_api_compat"
    everything = "import lrla; [getattr(lrla, name) for name in lrla.__all__]"

    def timeraw_lrla(self):
        return "import lrla"

    def timeraw_lrla_with_all_names(self):
        return self.everything

    def timeraw_dependencies(self):
        return self.dependencies

    def track_ratio(self):
        """Everything public over the dependencies, medians of runs in turns."""
        times = {code: [] for code in (self.everything, self.dependencies)}
        for _ in range(5):
            for code in times:
                times[code].append(self.seconds(code))
        return statistics.median(times[self.everything]) / statistics.median(times[self.dependencies])

    def seconds(self, code):
        timed = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
        return float(subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True).stdout)

    track_ratio.unit = "ratio"
