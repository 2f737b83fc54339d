"""`ImplicitFactor`: a tall orthonormal factor that is rotated and extended without touching most of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lapack

from lrla.linalg._blas_threads import small_blas
from lrla.svd._row_blocks import Rows


class Precision(NamedTuple):
    """Limits that depend on the type of W.

    Attributes
    ----------
    eps : float
    cond_max : float
        Largest condition number of K that is kept: W absorbs rounding errors of size eps * cond(K).
    rounding : float
        What one change adds to V^T V - I, measured on long streams: in float64 the errors of the small matrices
        accumulate, in float32 those of W, which are independent, hardly do.
    drift_max : float
        Estimated loss of orthonormality at which a factor is made new.
    """

    eps: float
    cond_max: float
    rounding: float
    drift_max: float


PRECISION = {
    "float64": Precision(float(np.finfo(np.float64).eps), 1e4, 1e-15, 1e-11),
    "float32": Precision(float(np.finfo(np.float32).eps), 1e2, 1e-9, 4e-6),
}
CHUNK = 8192  # rows of W that are worked on at a time, in float64, when all of them must change


@dataclass(frozen=True)
class Change:
    """A rotation of an `ImplicitFactor`, computed but not yet made.

    Attributes
    ----------
    K : ndarray of shape (width, width)
        The new small factor.
    errors : ndarray of shape (r, r)
        For the new number of columns, r.
    n : int
        The new number of rows.
    E, Y : rows of shape (s, n) and ndarray of shape (s, width), or None
        ``W += E.T @ Y`` is to be made.
    rows : ndarray of shape (t, width) or None
        New rows of W.
    W : ndarray or None
        All of W, with E and the new rows in it already, if the product is carried out.
    folded : bool
        Whether that was forced by the conditioning of K or a falling rank.
    """

    K: np.ndarray
    errors: np.ndarray
    n: int
    E: Rows | None = None
    Y: np.ndarray | None = None
    rows: np.ndarray | None = None
    W: np.ndarray | None = None
    folded: bool = False


class ImplicitFactor:
    """The n x r matrix ``W[:n] @ K[:, :r]``, kept unmultiplied (the extended decomposition of Deng et al., 2024).

    A rotation ``factor @ T`` changes only the small K; rows are added to it through a solve with K, so that an update
    costs as much as the rows that it names.  When K becomes ill-conditioned, or when the rank falls, the product is
    carried out ("folded") and K starts again from the identity.

    Parameters
    ----------
    n : int
        Number of rows; all are zero at first.
    width : int
        The largest number of columns.
    dtype : float64 or float32
        Type of W; K is always float64.

    Attributes
    ----------
    W : ndarray of shape (capacity, width)
        Its rows beyond n are unused.  Invariant: ``W[:n] @ K[:, r:] = 0``.
    K : ndarray of shape (width, width)
    n, r : int
    precision : Precision
    errors : ndarray of shape (r, r)
        Estimate of how far the columns are from orthonormal.  An update by T and H makes columns that would be
        orthonormal if these were: the new error is T^T errors T, and rounding.
    drift : float
        The largest of them.

    References
    ----------
    H. Deng, Y. Yang, J. Li, C. Chen, W. Jiang, S. Pu, "Fast updating truncated SVD for representation learning with
    sparse matrices", ICLR 2024, arXiv:2401.09703.
    """

    def __init__(self, n: int, width: int, dtype: Any):
        self.W = np.zeros((n, width), dtype=dtype)
        self.K = np.eye(width)
        self.n, self.r = n, 0
        self.precision = PRECISION[self.W.dtype.name]
        self.errors = np.zeros((0, 0))
        self._journal: list[tuple[Any, np.ndarray]] | None = None

    @classmethod
    def from_dense(cls, X: np.ndarray, width: int, dtype: Any) -> ImplicitFactor:
        """The factor that equals X (n x r), r <= width."""
        factor = cls(X.shape[0], width, dtype)
        factor.W[:, : X.shape[1]] = X
        factor._starts_with(X.shape[1])
        return factor

    @property
    def width(self) -> int:
        return self.K.shape[0]

    @property
    def drift(self) -> float:
        return float(self.errors.diagonal().max(initial=0.0))

    @property
    def dtype(self) -> np.dtype:
        return self.W.dtype

    # ------------------------------------------------------------------------------------------------ reading

    def dense(self) -> np.ndarray:
        """The n x r matrix itself, in the dtype of W."""
        out = np.empty((self.n, self.r), dtype=self.dtype)
        for part in self._chunks():
            out[part] = self._part(part)
        return out

    def rows(self, index: Any) -> np.ndarray:
        """The rows that an index array names, in float64; costs width * r each."""
        return self.W[: self.n][index] @ self.K[:, : self.r]

    def project(self, E: Rows) -> np.ndarray:
        """E @ factor for rows E (s x n), in float64."""
        return E.times(self.W) @ self.K[:, : self.r]

    def outside(self, E: Rows, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X @ factor and X @ X.T for X = E - C @ factor.T, formed explicitly; costs n * r * s."""
        correction, gram = np.zeros(C.shape), np.zeros((len(C), len(C)))
        columns = E.by_columns()
        for part in self._chunks():
            V = self._part(part)
            X = columns(part) - C @ V.T
            correction += X @ V
            gram += X @ X.T
        return correction, gram

    def _part(self, part: slice) -> np.ndarray:
        return self.W[part] @ self.K[:, : self.r]

    def _chunks(self) -> Iterator[slice]:
        return (slice(start, min(start + CHUNK, self.n)) for start in range(0, self.n, CHUNK))

    # ------------------------------------------------------------------------------------------------ changing

    def plan(
        self,
        T: np.ndarray,
        E: Rows | None = None,
        H: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        noise: float = 0.0,
    ) -> Change:
        """Prepare factor <- [factor @ T + E.T @ H; rows]; nothing visible changes before `commit`.

        Parameters
        ----------
        T : ndarray of shape (r, r2)
        E, H : rows of shape (s, n) and ndarray of shape (s, r2), optional
            If E names most rows, the product is carried out.
        rows : ndarray of shape (t, r2), optional
            New rows at the bottom.
        noise : float
            Factor by which H magnifies rounding.
        """
        n = self.n + (0 if rows is None else len(rows))
        self._reserve(n)
        errors = T.T @ self.errors @ T
        errors.flat[:: len(errors) + 1] += self.precision.rounding * (1.0 + noise)  # the diagonal
        if E is not None and E.touches_most:
            return self._multiplied_out(T, E, H, rows, n, errors)
        if T.shape[1] >= T.shape[0]:
            with small_blas(self.width + (0 if H is None else len(H)) + n - self.n):
                K = self._completed(T)
                lu = _factorized(K, self.precision.cond_max)
                if lu is not None:
                    Y = None if H is None else _divided(H, lu)
                    rows = None if rows is None else _divided(rows, lu)
                    return Change(K, errors, n, E, Y, rows)
        return replace(self._multiplied_out(T, E, H, rows, n, errors), folded=True)

    def commit(self, change: Change) -> None:
        """Make a planned change, the only place where the factor is written."""
        if change.W is not None:
            self.W, self._journal = change.W, None
        else:
            if change.E is not None:
                if self._journal is not None:
                    self._journal.append((change.E.touched, self.W.take(change.E.touched, axis=0, mode="clip")))
                change.E.add_to(self.W, change.Y)
            if change.rows is not None:
                self.W[self.n : change.n] = change.rows
        self.K, self.errors, self.n = change.K, change.errors, change.n
        self.r = len(change.errors)

    def without(self, index: np.ndarray) -> ImplicitFactor:
        """A new factor that lacks the rows of an index array."""
        other = copy(self)
        other.W = np.delete(self.W[: self.n], index, axis=0)
        other.n, other._journal = len(other.W), None
        return other

    def append_zeros(self, count: int) -> None:
        """Append zero rows."""
        self._reserve(self.n + count)
        self.W[self.n : self.n + count] = 0
        self.n += count

    def _completed(self, T: np.ndarray) -> np.ndarray:
        """K for factor @ T: its first r2 columns are K T, the others keep it square and invertible.

        When the rank grows, K T (width x r2) has rank r < r2.  Columns of K beyond r may be added to it, for W
        annihilates them: they go into the null space of T, scaled like T.
        """
        r, r2 = T.shape
        if r == r2 == self.width:
            return self.K @ T
        K = self.K.copy()
        K[:, :r2] = self.K[:, :r] @ T
        if r2 > r:
            null_space = np.linalg.qr(T.T, mode="complete")[0][:, r:]
            scale = np.linalg.norm(T) / np.sqrt(r) if r else 1.0
            K[:, :r2] += scale * (self.K[:, r:r2] @ null_space.T)
        return K

    def _multiplied_out(
        self, T: np.ndarray, E: Rows | None, H: np.ndarray | None, rows: np.ndarray | None, n: int, errors: np.ndarray
    ) -> Change:
        width, r2 = self.width, T.shape[1]
        product = np.zeros((width, width))
        product[:, :r2] = self.K[:, : self.r] @ T
        W = np.zeros((len(self.W), width), dtype=self.dtype)
        for part in self._chunks():
            W[part] = self.W[part] @ product
        if E is not None:
            E.add_to(W, H)
        if rows is not None:
            W[self.n : n, :r2] = rows
        return Change(np.eye(width), errors, n, W=W)

    def _reserve(self, n: int) -> None:
        """Make room for n rows, doubling, so that appending costs O(1) a row on average."""
        if n > len(self.W):
            W = np.zeros((max(n, 2 * len(self.W)), self.width), dtype=self.dtype)
            W[: self.n] = self.W[: self.n]
            self.W, self._journal = W, None

    # ------------------------------------------------------------------------------------------------ orthonormality

    def orthonormalized(self) -> tuple[ImplicitFactor, np.ndarray]:
        """Q, R with factor = Q R, Q orthonormal to rounding error and folded (K = I), R upper triangular (r x r).

        Cholesky QR, repeated until the Gram matrix is the identity to rounding error; the columns are nearly
        orthonormal already, so two rounds are the rule.
        """
        Q = self._like(np.zeros((self.n, self.width), dtype=self.dtype))
        for part in self._chunks():
            Q.W[part, : self.r] = self._part(part)
        R = np.eye(self.r)
        for _ in range(4):
            gram = Q._gram()
            if np.abs(gram - np.eye(self.r)).max(initial=0.0) < 8 * self.precision.eps:
                return Q, R
            try:
                factor = np.linalg.cholesky(gram).T
            except np.linalg.LinAlgError:
                break
            R, step = factor @ R, np.linalg.inv(factor)
            for part in self._chunks():
                Q.W[part, : self.r] = Q.W[part, : self.r] @ step
        X, last = np.linalg.qr(self.dense().astype(np.float64))  # far from orthonormal, or no longer of full rank
        Q.W[:, : X.shape[1]], Q.W[:, X.shape[1] :] = X, 0
        Q._starts_with(X.shape[1])
        return Q, last

    def _like(self, W: np.ndarray) -> ImplicitFactor:
        """The factor W[:, :r]."""
        other = copy(self)
        other.W, other.K, other._journal = W, np.eye(self.width), None
        other._starts_with(self.r)
        return other

    def _starts_with(self, r: int) -> None:
        self.r = r
        self.errors = np.eye(r) * self.precision.eps

    def _gram(self) -> np.ndarray:
        """Gram matrix of W[:, :r], in float64."""
        gram = np.zeros((self.r, self.r))
        for part in self._chunks():
            X = self.W[part, : self.r].astype(np.float64, copy=False)
            gram += X.T @ X
        return gram

    # ------------------------------------------------------------------------------------------------ undoing, storing

    def checkpoint(self, whole: bool) -> tuple[dict[str, Any], list[tuple[Any, np.ndarray]]]:
        """Remember the state, for `rollback`.

        With `whole`, all of W is copied at once; without, rows are copied before they are written, which is cheaper
        for an update that touches few of them.
        """
        before, journal = dict(vars(self)), []
        if whole:
            self.W = self.W.copy()
        else:
            self._journal = journal
        return before, journal

    def rollback(self, checkpoint: tuple[dict[str, Any], list[tuple[Any, np.ndarray]]]) -> None:
        """Return to a checkpoint, to the bit."""
        before, journal = checkpoint
        for touched, values in reversed(journal):
            before["W"][touched] = values
        vars(self).update(before)

    def forget_checkpoint(self) -> None:
        """Stop copying rows."""
        self._journal = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the unused capacity."""
        return {**vars(self), "W": self.W[: self.n].copy(), "_journal": None}


def _factorized(K: np.ndarray, cond_max: float) -> tuple[np.ndarray, np.ndarray] | None:
    """LU factors of K^T, or None if cond_2(K) > cond_max; LAPACK's estimate in the 1-norm mostly spares the SVD."""
    lu, pivots, info = lapack.dgetrf(K.T)
    if info:
        return None
    reciprocal, _ = lapack.dgecon(lu, lapack.dlange("1", K.T))
    if reciprocal * cond_max < 1.0 and not np.linalg.cond(K) <= cond_max:
        return None
    return lu, pivots


def _divided(H: np.ndarray, lu: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """[H, 0] K^-1; for many rows with the inverse, whose condition number is bounded: half the time of a solve."""
    width, r = len(lu[1]), H.shape[1]
    if len(H) > width:
        return H @ lapack.dgetri(*lu)[0].T[:r]
    padded = np.zeros((len(H), width))
    padded[:, :r] = H
    return lapack.dgetrs(*lu, padded.T)[0].T
