"""The building blocks, products with block vectors and orthonormalisation, beside what SciPy and NumPy offer."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse

from lrla.linalg._operator import DenseOperator
from lrla.linalg._orthonormalize import orthonormalize
from lrla.linalg._sparse import SparseOperator


class SparseProducts:
    """X -> X A^T, Y -> Y A and X -> X A^T A for a sparse A and b vectors."""

    params = (("float64", "float32"), (8, 32, 100))
    param_names = ("dtype", "vectors")

    def setup(self, dtype, b):
        rng = np.random.default_rng(0)
        self.A = scipy.sparse.random_array((40_000, 8_000), density=0.0015, format="csr", rng=rng).astype(dtype)
        self.X, self.Y = (rng.standard_normal((b, size)).astype(dtype) for size in self.A.shape[::-1])
        self.right, self.op = np.ascontiguousarray(self.X.T), SparseOperator(self.A)
        self.op.forward(self.X), self.op.adjoint(self.Y), self.op.gram(self.X)

    def time_forward(self, dtype, b):
        self.op.forward(self.X)

    def time_adjoint(self, dtype, b):
        self.op.adjoint(self.Y)

    def time_gram(self, dtype, b):
        self.op.gram(self.X)

    def time_scipy_gram(self, dtype, b):
        self.A.T @ (self.A @ self.right)

    def track_error(self, dtype, b):
        """Of the Gram product against SciPy in float64, in units of the dtype's eps."""
        exact = (self.A.T @ (self.A @ self.right.astype(np.float64))).T
        return float(np.max(np.abs(self.op.gram(self.X) - exact)) / np.max(np.abs(exact)) / np.finfo(dtype).eps)

    track_error.unit = "eps"


class DenseProducts:
    """The same for a dense A; the bound is one large square product."""

    params = (("float64", "float32"), (8, 32, 128))
    param_names = ("dtype", "vectors")

    def setup(self, dtype, b):
        rng = np.random.default_rng(0)
        self.A = rng.standard_normal((6_000, 2_000)).astype(dtype)
        self.X, self.op = rng.standard_normal((b, 2_000)).astype(dtype), DenseOperator(self.A)
        self.right = np.ascontiguousarray(self.X.T)

    def time_gram(self, dtype, b):
        self.op.gram(self.X)

    def time_numpy_columns(self, dtype, b):
        self.A.T @ (self.A @ self.right)


class Orthonormalize:
    """Rows of a (b, n) block, against SciPy's QR of the transpose."""

    params = ((30, 110), (6_000, 100_000))
    param_names = ("vectors", "length")

    def setup(self, b, n):
        self.W = np.random.default_rng(0).standard_normal((b, n))
        self.tall = np.ascontiguousarray(self.W.T)

    def time_orthonormalize(self, b, n):
        orthonormalize(self.W)

    def time_scipy_qr(self, b, n):
        scipy.linalg.qr(self.tall, mode="economic")

    def track_error(self, b, n):
        Q, R = orthonormalize(self.W)
        orthogonality = np.max(np.abs(Q @ Q.T - np.eye(len(Q))))
        return float(max(orthogonality, np.max(np.abs(R @ Q - self.W)) / np.max(np.abs(self.W))))

    track_error.unit = "max abs"
