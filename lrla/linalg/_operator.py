"""A matrix, however it is stored, seen through its products with blocks of vectors.

Block vectors are the rows of C-contiguous arrays: ``forward(X)`` takes (b, n) to (b, m), ``adjoint(Y)`` takes (b, m) to
(b, n), and ``gram(X)`` is both.  With the large matrix as the right operand a skinny GEMM is 1.3 to 1.7 times faster.
A `mean` is subtracted from every row inside the products, so that centring neither densifies nor copies: the operator is
``A - 1 mean^T``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from lrla import _arrays
from lrla._threads import parallel_allowed
from lrla.linalg._blas_threads import openblas_cores

# Bytes of an array from which on lrla's own products are used: Numba, which they bring, takes 0.2 s to import.
TILED_BYTES = 2**25
BLOCK_BYTES = 1 << 23  # of centred rows at a time, where the mean is too large to be taken off inside the product


class Operator(Protocol):
    """What the algorithms ask of a matrix."""

    shape: tuple[int, int]
    dtype: np.dtype
    xp: Any
    gram_is_fused: bool  # whether gram(X) takes less time than forward and adjoint
    own_threads: bool  # whether products run in lrla's threads, which those of BLAS would disturb

    def forward(self, X: Any) -> Any: ...
    def adjoint(self, Y: Any) -> Any: ...
    def gram(self, X: Any) -> Any: ...
    def both(self, X: Any) -> tuple[Any, Any]: ...  # forward(X) and gram(X)
    def astype(self, dtype: Any) -> Operator: ...
    def empty(self, shape: tuple[int, int]) -> Any: ...
    @property
    def T(self) -> Operator: ...
    @property
    def squared_norm(self) -> float: ...


class Successive:
    """`both` for operators that know no faster way than one product after the other."""

    def both(self: Any, X: Any) -> tuple[Any, Any]:
        """(b, n) -> (b, m) and (b, n), ``X A^T`` and ``X (A^T A)``."""
        Y = self.forward(X)
        return Y, self.adjoint(Y)


class Transposed(Successive):
    """The transpose of an operator: forward and adjoint change places."""

    def __init__(self, A: Any):
        self.A = A
        self.shape = (A.shape[1], A.shape[0])
        self.dtype, self.xp, self.own_threads = A.dtype, A.xp, A.own_threads
        self.gram_is_fused = False

    def forward(self, X: Any) -> Any:
        return self.A.adjoint(X)

    def adjoint(self, Y: Any) -> Any:
        return self.A.forward(Y)

    def gram(self, X: Any) -> Any:
        return self.A.forward(self.A.adjoint(X))

    def astype(self, dtype: Any) -> Transposed:
        return Transposed(self.A.astype(dtype))

    def empty(self, shape: tuple[int, int]) -> Any:
        return self.A.empty(shape)

    @property
    def T(self) -> Any:
        return self.A

    @property
    def squared_norm(self) -> float:
        return self.A.squared_norm


class DenseOperator(Successive):
    """A dense array of any namespace, or a sparse matrix on a device: everything that has `@` and `.T`.

    Parameters
    ----------
    A : array of shape (m, n), float32 or float64
    mean : array of shape (n,), float64, optional
        Subtracted from every row; in the namespace and on the device of A.
    """

    own_threads = False

    def __init__(self, A: Any, mean: Any = None):
        self.A, self.mean = A, mean
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self.xp = _arrays.namespace(A)
        self.like = A if _arrays.kind(A) != "device_sparse" else A.data
        self.dtype = _arrays.real_dtype(self.like)
        self._mu = None if mean is None else _arrays.astype(mean, self.dtype)
        self._blockwise = self.gram_is_fused = mean is not None and self._mean_dominates()

    def _mean_dominates(self) -> bool:
        """Whether float32 would lose the spread of the data beside its mean (then rows are centred before the product)."""
        if self.dtype == np.float64 or _arrays.kind(self.A) == "device_sparse":
            return False
        raw = squared_norm(self.A)
        return float(self.mean @ self.mean) * self.shape[0] > 0.9 * raw

    def forward(self, X: Any) -> Any:
        """(b, n) -> (b, m)."""
        if self._blockwise:
            return self.xp.concat([X @ block.T for _, block in self._centered_blocks()], axis=1)
        Y = self._multiply(X, self.A.T)
        return Y if self._mu is None else Y - (X @ self._mu)[:, None]

    def adjoint(self, Y: Any) -> Any:
        """(b, m) -> (b, n)."""
        if self._blockwise:
            return sum(Y[:, rows] @ block for rows, block in self._centered_blocks())
        Z = self._multiply(Y, self.A)
        return Z if self._mu is None else Z - self.xp.sum(Y, axis=1)[:, None] * self._mu[None, :]

    def gram(self, X: Any) -> Any:
        """(b, n) -> (b, n), ``X (A^T A)``."""
        if self._blockwise:
            return sum((X @ block.T) @ block for _, block in self._centered_blocks())
        return self.adjoint(self.forward(X))

    def _multiply(self, X: Any, B: Any) -> Any:
        """``X B`` for B = A or A^T; a sparse matrix on a device wants to stand on the left."""
        return X @ B if _arrays.kind(B) != "device_sparse" else (B.T @ X.T).T

    def _centered_blocks(self, mean: Any = None, dtype: np.dtype | None = None) -> Any:
        step = max(1, BLOCK_BYTES // (8 * self.shape[1]))
        mu = self.mean if mean is None else mean  # subtracted in float64, rounded once
        for start in range(0, self.shape[0], step):
            rows = slice(start, min(start + step, self.shape[0]))
            yield rows, _arrays.astype(_arrays.astype(self.A[rows, :], np.float64) - mu[None, :], dtype or self.dtype)

    def gram_matrix(self) -> Any:
        """``A^T A`` (n, n) in float64, by blocks of rows where they have to be converted or centred."""
        if self.dtype == np.float64 and self.mean is None:
            return self.A.T @ self.A
        mean = self.mean
        if mean is None:
            mean = self.xp.zeros(self.shape[1], dtype=self.xp.float64, device=_arrays.device(self.like))
        return sum(block.T @ block for _, block in self._centered_blocks(mean, np.dtype(np.float64)))

    def astype(self, dtype: Any) -> DenseOperator:
        """The same matrix in another precision; self when nothing changes."""
        return self if self.dtype == dtype else type(self)(_arrays.astype(self.A, dtype), self.mean)

    def empty(self, shape: tuple[int, int]) -> Any:
        """An uninitialised array beside A, in its dtype."""
        return self.xp.empty(shape, dtype=self.like.dtype, device=_arrays.device(self.like))

    @property
    def T(self) -> Any:
        """The transposed operator."""
        return type(self)(self.A.T) if self.mean is None else Transposed(self)

    @property
    def squared_norm(self) -> float:
        """``||A - 1 mean^T||_F^2`` in float64."""
        if self.mean is None:
            return squared_norm(self.A)
        if self._blockwise:
            return sum(squared_norm(block) for _, block in self._centered_blocks())
        with np.errstate(over="ignore", invalid="ignore"):  # callers check what they get
            sums = column_means(self.A) * self.shape[0]
            return max(squared_norm(self.A) + float(self.mean @ (self.shape[0] * self.mean - 2.0 * sums)), 0.0)


def squared_norm(A: Any) -> float:
    """Sum of squares in float64, by blocks of rows so that no copy of A is made."""
    values = A.data if _arrays.kind(A) == "device_sparse" else A
    xp = _arrays.namespace(values)
    step = max(1, BLOCK_BYTES // (8 * max(1, values.shape[1] if values.ndim == 2 else 1)))
    total = xp.zeros((), dtype=xp.float64, device=_arrays.device(values))
    for start in range(0, values.shape[0], step):
        part = values[start : min(start + step, values.shape[0]), ...]
        part = xp.reshape(_arrays.astype(part, np.float64), (-1,))
        with np.errstate(over="ignore"):  # callers check what they get
            total = total + part @ part
    return float(total)


class ProductOperator(Successive):
    """A SciPy LinearOperator (or anything with `matmat` and `rmatmat`) on the host.

    The mean of its rows is only known when the caller gives it.  An operator of lrla's own may have a `gram`, which multiplies
    with A^T A at once.
    """

    own_threads = False

    def __init__(self, A: Any, mean: np.ndarray | None = None):
        self.A, self.mean = A, mean
        self.gram_is_fused = mean is None and hasattr(A, "gram")
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self.dtype = np.dtype(np.float32 if np.dtype(A.dtype) == np.float32 else np.float64)
        self.xp = _arrays.namespace(np.empty(0))

    def forward(self, X: np.ndarray) -> np.ndarray:
        """(b, n) -> (b, m)."""
        Y = np.asarray(self.A.matmat(X.T), dtype=self.dtype).T
        return Y if self.mean is None else Y - (X @ self.mean.astype(self.dtype))[:, None]

    def adjoint(self, Y: np.ndarray) -> np.ndarray:
        """(b, m) -> (b, n)."""
        Z = np.asarray(self.A.rmatmat(Y.T), dtype=self.dtype).T
        return Z if self.mean is None else Z - np.outer(Y.sum(axis=1), self.mean.astype(self.dtype))

    def gram(self, X: np.ndarray) -> np.ndarray:
        """(b, n) -> (b, n)."""
        return self.A.gram(X.T).T if self.gram_is_fused else self.adjoint(self.forward(X))

    def astype(self, dtype: Any) -> ProductOperator:
        """Self: the user's operator decides its precision."""
        return self

    def empty(self, shape: tuple[int, int]) -> np.ndarray:
        """An uninitialised array in the operator's dtype."""
        return np.empty(shape, dtype=self.dtype)

    @property
    def T(self) -> Transposed:
        """The transposed operator."""
        return Transposed(self)

    @property
    def squared_norm(self) -> float:
        """Sum of squares of the entries, read in blocks of unit vectors along the shorter side: one full product."""
        side = self if self.shape[0] <= self.shape[1] else self.T
        total = 0.0
        for start in range(0, side.shape[0], 256):
            block = np.eye(min(256, side.shape[0] - start), side.shape[0], start, dtype=self.dtype)
            total += squared_norm(side.adjoint(block))
        return total


def gram_matrix(op: Any) -> Any:
    """``A^T A`` as a dense (n, n) float64 array where A lives, accumulated in float64."""
    if isinstance(op, DenseOperator) and _arrays.kind(op.A) != "device_sparse":
        return op.gram_matrix()
    op, n = op.astype(np.dtype(np.float64)), op.shape[1]
    units = (np.eye(min(64, n - start), n, start) for start in range(0, n, 64))
    G = op.xp.concat([op.gram(_arrays.from_host(unit, op.empty((1, 1)))) for unit in units], axis=0)
    return (G + G.T) / 2.0


def as_operator(A: Any, mean: np.ndarray | None = None, *, iterated: bool = False) -> Any:
    """The operator ``A - 1 mean^T`` of a checked matrix: dense or sparse, on the host or a device, or a LinearOperator.

    With `iterated`, for many products with a few vectors: where lrla has faster ones than BLAS it takes these.
    """
    kind = _arrays.kind(A)
    if kind == "sparse":
        from lrla.linalg._sparse import SparseOperator  # brings Numba: only where there is something for it to do

        return SparseOperator(A, mean)
    if kind == "operator":
        return ProductOperator(A, mean)
    if iterated and is_for_tiles(A):
        from lrla.linalg._tiled import TiledOperator  # Numba once more

        return TiledOperator(A, mean)
    return DenseOperator(A, mean)


def is_for_tiles(A: Any) -> bool:
    """Whether lrla's own products of an array with a few vectors are faster than BLAS; that needs its threads."""
    return (
        isinstance(A, np.ndarray)
        and A.nbytes >= TILED_BYTES
        and all(stride > 0 and stride % A.itemsize == 0 for stride in A.strides)
        and parallel_allowed()
        and "SkylakeX" in openblas_cores()
    )


def column_means(A: Any) -> Any:
    """Means of the columns of a checked matrix, float64, where the matrix lives."""
    kind = _arrays.kind(A)
    if kind == "sparse":
        sums = np.asarray(A.sum(axis=0, dtype=np.float64)).ravel()
    elif kind == "operator":
        sums = np.asarray(A.rmatvec(np.ones(A.shape[0])), dtype=np.float64).ravel()
    elif kind == "device_sparse":
        sums = A.astype("float64").sum(axis=0).ravel()
    else:
        sums = _dense_sums(A)
    return sums / A.shape[0]


def _dense_sums(A: Any) -> Any:
    xp = _arrays.namespace(A)
    step = max(1, BLOCK_BYTES // (8 * A.shape[1]))
    blocks = (slice(start, min(start + step, A.shape[0])) for start in range(0, A.shape[0], step))
    return sum(xp.sum(_arrays.astype(A[rows, :], np.float64), axis=0) for rows in blocks)
