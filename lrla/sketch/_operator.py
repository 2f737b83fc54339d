"""What all sketches share: an immutable value that names a random matrix S, and its products with data.

S is (n_in, n_out) with E[S S^T] = I.  It is a pure function of (kind, n_in, n_out, parameters, seed, member): two equal
operators are the same matrix, a pickle holds a few numbers, and what is computed from them (tables, permutations) is kept
beside the operator, never in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse

from lrla import _arrays, _validation
from lrla._random import Stream

TILE_BYTES = 16 * 2**20  # of a dense tile of S: about what stays in cache
S = TypeVar("S", bound="SketchOperator")

_REMEMBERED: WeakKeyDictionary[SketchOperator, dict[str, Any]] = WeakKeyDictionary()


def remembered(build: Callable[[Any], Any]) -> property:
    """A property that is computed once and kept outside of the operator, which stays a small value."""
    name = build.__name__

    def read(self: SketchOperator) -> Any:
        known = _REMEMBERED.setdefault(self, {})
        if name not in known:
            known[name] = build(self)
        return known[name]

    return property(read, doc=build.__doc__)


@dataclass(frozen=True)
class SketchOperator:
    """A random matrix S of shape (n_in, n_out) with E[S S^T] = I, named by a few numbers.

    Made by `make_sketch`.  It is a SciPy LinearOperator in all but name: it has `shape`, `dtype`, `matvec`, `rmatvec`,
    `matmat`, `rmatmat` and ``@``.

    Parameters
    ----------
    kind, n_in, n_out, member :
        As in `make_sketch`.
    entropy, spawn_key :
        What `random_state` came down to: those of a `SeedSequence`.
    dtype :
        Of the entries that `rows`, `to_array` and `to_csr` give out.  A product has the dtype of the data.
    """

    kind: str
    n_in: int
    n_out: int
    entropy: Any
    spawn_key: tuple[int, ...]
    member: int
    dtype: np.dtype

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, int]:
        """(n_in, n_out)."""
        return self.n_in, self.n_out

    @property
    def seed(self) -> np.random.SeedSequence:
        """The seed; `make_sketch` with this `random_state` and the same other arguments makes an equal operator."""
        return np.random.SeedSequence(self.entropy, spawn_key=self.spawn_key)

    @property
    def law(self) -> str | None:
        """Spectral law of S S^T as the dimensions grow: "gaussian", "orthogonal", or None where neither holds."""
        return None

    @property
    def padded_size(self) -> int:
        """The dimension that the spectral law refers to: the power of two of "srht", else n_in."""
        return self.n_in

    @property
    def stream(self) -> Stream:
        """The random numbers of S."""
        return Stream.from_seed(self.seed, self.member)

    def prefix(self: S, n_out: int) -> S:
        """The sketch made of the first columns of this one, rescaled so that E[S S^T] = I.

        Parameters
        ----------
        n_out : int
            At most the number of columns; for "sparse_stack" the end of a block of columns.

        Returns
        -------
        SketchOperator of shape (n_in, n_out)
        """
        return replace(self, n_out=_validation.check_integer(n_out, "n_out", 1, self.n_out))

    # ------------------------------------------------------------------------------------------------ entries

    def rows(self, first: int, last: int) -> np.ndarray:
        """Rows of S as a dense array.

        Parameters
        ----------
        first, last : int
            The rows with first <= i < last.

        Returns
        -------
        ndarray of shape (last - first, n_out)
        """
        first = _validation.check_integer(first, "first", 0, self.n_in)
        last = _validation.check_integer(last, "last", first, self.n_in)
        return self._tile(first, last, np.empty((0, 0), dtype=self.dtype))

    def to_array(self) -> np.ndarray:
        """S as a dense array.

        Returns
        -------
        ndarray of shape (n_in, n_out)
        """
        _validation.check_memory(float(self.dtype.itemsize) * self.n_in * self.n_out, "The entries of the sketch")
        return self.rows(0, self.n_in)

    def to_csr(self) -> scipy.sparse.csr_array:
        """S in compressed rows.

        Returns
        -------
        csr_array of shape (n_in, n_out)
        """
        return scipy.sparse.csr_array(self.to_array())

    # ------------------------------------------------------------------------------------------------ products

    def right(self, X: Any, out: Any = None) -> Any:
        """Return ``X S``: every row of X sketched.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n, n_in)
            NaN and infinities pass through, as in any product.
        out : array of shape (n, n_out), default=None
            Where to put the result; float64 or float32.

        Returns
        -------
        array of shape (n, n_out)
            Dense, in the dtype, the namespace and on the device of X.
        """
        X = check_factor(X, "X", 1, self.n_in, "n_in")
        if out is None:
            return self._right(X)
        check_out(out, (X.shape[0], self.n_out))
        out[...] = self._right(X)
        return out

    def left(self, A: Any, out: Any = None) -> Any:
        """Return ``S^T A``: the columns of A sketched.

        Parameters
        ----------
        A : array-like, sparse or device array of shape (n_in, c) or (n_in,)
        out : array of shape (n_out, c) or (n_out,), default=None
            Where to put the result.

        Returns
        -------
        array of shape (n_out, c) or (n_out,)
        """
        A = check_factor(A, "A", 0, self.n_in, "n_in", vector=True)
        if out is not None:
            check_out(out, (self.n_out, *A.shape[1:]))
        B = self._left(_as_columns(A))
        B = B[:, 0] if A.ndim == 1 else B
        if out is None:
            return B
        out[...] = B
        return out

    def left_partial(self, A_block: Any, offset: int, out: Any) -> Any:
        """Add to `out` what the rows [offset, offset + len(A_block)) of A contribute to ``S^T A``.

        The blocks of A may come in any order and size; in the order of the rows the result of the sparse kinds is that of
        `left` to the bit.

        Parameters
        ----------
        A_block : array-like, sparse or device array of shape (b, c) or (b,)
        offset : int
            Index in A of the first row of the block.
        out : array of shape (n_out, c) or (n_out,)
            Written into; zeros before the first block.

        Returns
        -------
        out
        """
        A_block = check_factor(A_block, "A_block", 0, None, "", vector=True)
        offset = _validation.check_integer(offset, "offset", 0, self.n_in - A_block.shape[0])
        check_out(out, (self.n_out, *A_block.shape[1:]))
        self._add(_as_columns(A_block), offset, out[:, None] if A_block.ndim == 1 else out)
        return out

    def expand(self, W: Any) -> Any:
        """Return ``S W``: coefficients of the sketch brought back to the input space.

        Parameters
        ----------
        W : array-like, sparse or device array of shape (n_out, t) or (n_out,)

        Returns
        -------
        array of shape (n_in, t) or (n_in,)
        """
        W = check_factor(W, "W", 0, self.n_out, "n_out", vector=True)
        W = W.toarray() if _arrays.kind(W) == "sparse" else W
        B = self._expand(_as_columns(W))
        return B[:, 0] if W.ndim == 1 else B

    # ------------------------------------------------------------------------------------------------ as a matrix

    __array_ufunc__ = None  # X @ S asks this class, not NumPy

    def __matmul__(self, W: Any) -> Any:
        return self.expand(W)

    def __rmatmul__(self, X: Any) -> Any:
        return self.left(X) if np.ndim(X) == 1 else self.right(X)

    @property
    def ndim(self) -> int:
        """Two, as for any matrix."""
        return 2

    @property
    def T(self) -> TransposedSketch:
        """The transposed operator, (n_out, n_in): ``S.T @ A`` is `left`."""
        return TransposedSketch(self)

    def matvec(self, w: Any) -> Any:
        """Return ``S w``; for SciPy."""
        return self.expand(w)

    def rmatvec(self, a: Any) -> Any:
        """Return ``S^T a``; for SciPy."""
        return self.left(a)

    matmat, rmatmat = matvec, rmatvec

    # ------------------------------------------------------------------------------------------------ of the families

    def _tile(self, first: int, last: int, like: Any) -> Any:
        """Rows first <= i < last of S in the dtype, namespace and device of `like`."""
        raise NotImplementedError

    def _right(self, X: Any) -> Any:
        """``X S`` for a checked X: here by dense tiles of S, and never all of it."""
        like = X.data if _arrays.kind(X) == "device_sparse" else X
        X = X.tocsc() if _arrays.kind(X) in ("sparse", "device_sparse") else X
        return sum_in_place(X[:, i:j] @ self._tile(i, j, like) for i, j in self._tiles(0, self.n_in))

    def _left(self, A: Any) -> Any:
        like = A.data if _arrays.kind(A) == "device_sparse" else A
        A = A.tocsr() if _arrays.kind(A) in ("sparse", "device_sparse") else A
        return sum_in_place(_adjoint_times(self._tile(i, j, like), A[i:j, :]) for i, j in self._tiles(0, self.n_in))

    def _add(self, A: Any, offset: int, out: Any) -> None:
        like = A.data if _arrays.kind(A) == "device_sparse" else A
        A = A.tocsr() if _arrays.kind(A) in ("sparse", "device_sparse") else A
        for i, j in self._tiles(offset, offset + A.shape[0]):
            out += _adjoint_times(self._tile(i, j, like), A[i - offset : j - offset, :])

    def _expand(self, W: Any) -> Any:
        parts = [self._tile(i, j, W) @ W for i, j in self._tiles(0, self.n_in)]
        return parts[0] if len(parts) == 1 else _arrays.namespace(W).concat(parts, axis=0)

    def _tiles(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of rows that are made dense at a time."""
        step = max(1, TILE_BYTES // (8 * self.n_out))
        return [(i, min(i + step, last)) for i in range(first, last, step)] or [(first, first)]


@dataclass(frozen=True)
class TransposedSketch:
    """The transpose of a sketch, as a matrix of shape (n_out, n_in)."""

    T: SketchOperator

    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self.T.n_out, self.T.n_in

    @property
    def dtype(self) -> np.dtype:
        """That of the sketch."""
        return self.T.dtype

    @property
    def ndim(self) -> int:
        """Two, as for any matrix."""
        return 2

    def __matmul__(self, A: Any) -> Any:
        return self.T.left(A)

    def __rmatmul__(self, Y: Any) -> Any:
        return self.T.expand(Y.T).T

    def matvec(self, a: Any) -> Any:
        """Return ``S^T a``; for SciPy."""
        return self.T.left(a)

    def rmatvec(self, w: Any) -> Any:
        """Return ``S w``; for SciPy."""
        return self.T.expand(w)

    matmat, rmatmat = matvec, rmatvec


# ---------------------------------------------------------------------------------------------------- parts


def check_factor(X: Any, name: str, axis: int, size: int | None, meaning: str, vector: bool = False) -> Any:
    """An array that S is multiplied with: its kind, type and shape.  Its values are not looked at."""
    _validation.refuse_unsupported(X, name)
    kind = _arrays.kind(X)
    if kind == "operator":
        raise TypeError(
            f"{name} is a LinearOperator, and a sketch needs the entries: pass an array or a sparse matrix."
        )
    if kind == "sparse":
        X = _validation.check_sparse(X, name)
    elif kind == "device_sparse":
        X = X if X.format in ("csr", "csc") else X.tocsr()
    elif kind == "host":
        X = np.asarray(X)
    if "complex" in str(X.dtype):
        raise ValueError(f"{name} is complex; Complex data not supported. Pass its real part.")
    if X.ndim != 2 and not (vector and X.ndim == 1):
        raise ValueError(f"{name} must be a 2-dimensional array; got {X.ndim} dimension(s).")
    if size is not None and X.shape[axis] != size:
        raise ValueError(f"{name} has {X.shape[axis]} {('rows', 'columns')[axis]}; the sketch has {meaning}={size}.")
    target = _arrays.real_dtype(X)
    if kind == "host":
        X = X.astype(target, copy=False)
        return X if X.flags.c_contiguous or X.flags.f_contiguous else np.ascontiguousarray(X)
    if str(X.dtype).rpartition(".")[2] != target.name:
        X = _arrays.astype(X, target) if kind == "device" else X.astype(target)
    return X


def _as_columns(A: Any) -> Any:
    return A[:, None] if A.ndim == 1 else A


def check_out(out: Any, shape: tuple[int, ...]) -> None:
    """Refuse what a product of that shape cannot be written into."""
    if not isinstance(out, np.ndarray) and _arrays.kind(out) != "device":
        raise TypeError(f"out must be an array; got {type(out).__name__}.")
    if tuple(out.shape) != shape:
        raise ValueError(f"out must have shape {shape}; got {tuple(out.shape)}.")
    if str(out.dtype).rpartition(".")[2] not in ("float64", "float32"):
        raise ValueError(f"out must be of type float64 or float32; got {out.dtype}.")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only; pass an array that can be written into.")


def _adjoint_times(tile: Any, A: Any) -> Any:
    """``tile^T A``, dense; a sparse A wants to stand on the left."""
    return (A.T @ tile).T if _arrays.kind(A) in ("sparse", "device_sparse") else tile.T @ A


def sum_in_place(parts: Any) -> Any:
    """The sum of an iterable of arrays, into the first of them."""
    total = None
    for part in parts:
        if total is None:
            total = part
        else:
            total += part
    return total
