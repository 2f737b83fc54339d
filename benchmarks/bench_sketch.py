"""Random sketches: time of the products, peak memory and distortion with the same parameters; the first call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np
import scipy.sparse

import lrla

KINDS = ("sparse_stack", "countsketch", "rademacher", "gaussian", "srdct", "srht", "uniform")
N, D, OTHER = 4096, 400, 1000


class Products:
    """X S, S^T A and S W of every kind, for dense data in float64 and float32."""

    params = (KINDS, ("float64", "float32"))
    param_names = ("kind", "dtype")

    def setup(self, kind, dtype):
        self.X = np.random.default_rng(0).standard_normal((OTHER, N)).astype(dtype)
        self.A = np.ascontiguousarray(self.X.T)
        self.W = np.random.default_rng(1).standard_normal((D, 10)).astype(dtype)
        self.op = lrla.make_sketch(N, D, kind, random_state=0)
        self.op.right(self.X)
        self.op.left(self.A)
        self.op.expand(self.W)

    def time_right(self, kind, dtype):
        self.op.right(self.X)

    def time_left(self, kind, dtype):
        self.op.left(self.A)

    def time_expand(self, kind, dtype):
        self.op.expand(self.W)

    def peakmem_right(self, kind, dtype):
        self.op.right(self.X)

    def track_error(self, kind, dtype):
        """Largest relative error of the norm of a row."""
        norms = np.linalg.norm(self.op.right(self.X), axis=1) / np.linalg.norm(self.X, axis=1)
        return float(np.max(np.abs(norms - 1)))

    track_error.unit = "relative"


class Sparse:
    """Products of a CSR matrix with the sparse kinds."""

    params = (("sparse_stack", "countsketch"),)
    param_names = ("kind",)

    def setup(self, kind):
        self.X = scipy.sparse.random_array((20_000, 50_000), density=0.0005, format="csr", rng=0)
        self.A = self.X[:, :2000].tocsr()
        self.right, self.left = (lrla.make_sketch(size, D, kind, random_state=0) for size in self.X.shape[::-1])
        self.time_right(kind)
        self.time_left(kind)

    def time_right(self, kind):
        self.right.right(self.X)

    def time_left(self, kind):
        self.left.left(self.A)


class Stream:
    """S^T A by blocks of rows of a long matrix, whose table is made on the way; and several members at once."""

    def setup(self):
        self.op = lrla.make_sketch(10**7, D, random_state=0)
        self.block = np.random.default_rng(0).standard_normal((100_000, 50))
        self.ops = [lrla.make_sketch(N, D, random_state=0, member=k) for k in range(4)]
        self.X = np.random.default_rng(0).standard_normal((OTHER, N))
        self.time_left_partial()
        self.time_sketch_all()

    def time_left_partial(self):
        out = np.zeros((D, 50))
        for k in range(3):
            self.op.left_partial(self.block, k * len(self.block), out)

    def time_sketch_all(self):
        lrla.sketch_all(self.X, self.ops)


FIRST_CALL = """
import time, numpy, lrla
A = numpy.ones((500, 40))
lrla.make_sketch(500, 20, random_state=0)
def seconds():
    start = time.perf_counter()
    lrla.make_sketch(500, 20, random_state=0).left(A)
    return time.perf_counter() - start
first = seconds()
print(first - min(seconds() for _ in range(3)))
"""


class FirstCall:
    """What the first product of a process costs more than the next, with an empty cache of kernels and a full one."""

    timeout = 300

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self):
        self.folder.cleanup()

    def run(self):
        environment = {**os.environ, "NUMBA_CACHE_DIR": self.folder.name}
        command = [sys.executable, "-c", FIRST_CALL]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    def track_fresh_cache(self):
        return self.run()

    def track_full_cache(self):
        self.run()
        return self.run()

    track_fresh_cache.unit = track_full_cache.unit = "s"
