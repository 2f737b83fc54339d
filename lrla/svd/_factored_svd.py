"""`FactoredSVD`: the state of an updating SVD, two implicit factors and the values between them, and what changes it.

Nothing is checked here, and nothing buffered: rows come in blocks that are already small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from lrla.linalg._blas_threads import small_blas
from lrla.svd import _updating
from lrla.svd._implicit_factor import CHUNK, Change, ImplicitFactor
from lrla.svd._row_blocks import DenseRows, Rows
from lrla.svd._updating import Residual, Truncation

Side = Literal["left", "right"]

WEAK = 1e-5  # pivots below it give dependent rows an error of more than some 100 eps
COMFORT = 300  # |log2| up to which squares, and sums of squares, are far from overflow and underflow


def other_side(side: Side) -> Side:
    """The side that is not this one."""
    return "right" if side == "left" else "left"


class Loss(NamedTuple):
    """What all truncations have cost, in squares of the model's unit.

    As long as only rows (or only columns) are added, the model is U U^T A for the true A: the losses of the steps are
    orthogonal to one another, and their energies add up to the squared error.  In every other case the error is at
    most the sum of their norms.

    Attributes
    ----------
    energy : float
    bound : float
    kind : str
        The kind of updates since the first loss; "any" fits every kind.
    exact : bool
        Whether the energies add up.
    """

    energy: float = 0.0
    bound: float = 0.0
    kind: str = "any"
    exact: bool = True

    def plus(self, energy: float, kind: str, noise: float) -> Loss:
        """After an update of that kind that lost `energy`; up to `noise` it is rounding."""
        exact = self.exact and (self.energy == 0.0 or self.kind in ("any", kind))
        energy = energy if energy > noise else 0.0
        total = self.energy + energy
        return Loss(total, self.bound + math.sqrt(energy), kind if total else "any", exact)

    def scaled(self, factor: float) -> Loss:
        """In another unit; nothing stays nothing, whatever the factor."""
        if not self.energy:
            return self
        return self._replace(energy=self.energy * factor**2, bound=self.bound * factor)


class FactoredSVD:
    """A ~ 2^exponent * left diag(s) right^T, of rank at most `width`.

    Parameters
    ----------
    m, n : int
        Shape of A, which is zero at first.
    width : int
    dtype : float64 or float32
        Type of the tall factors.
    has_left : bool
        Whether the left factor is kept.
    shrinkage : float
        See `Truncation`.
    residual_rank : int or None
        See `_updating.leading_residual`.
    """

    def __init__(
        self,
        m: int,
        n: int,
        width: int,
        dtype: Any,
        has_left: bool = True,
        shrinkage: float = 0.0,
        residual_rank: int | None = None,
    ):
        self.left = ImplicitFactor(m, width, dtype) if has_left else None
        self.right = ImplicitFactor(n, width, dtype)
        self.m = m
        self.s = np.zeros(0)
        self.exponent = 0  # s and all new rows are in units of 2^exponent
        self.loss = Loss()
        self.truncation = Truncation(width, float(np.finfo(dtype).eps), shrinkage)
        self.residual_rank = residual_rank
        self.n_updates = 0
        self.n_folds = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.m, self.right.n

    def factor(self, side: Side) -> ImplicitFactor | None:
        return self.left if side == "left" else self.right

    def load(self, U: np.ndarray | None, s: np.ndarray, V: np.ndarray) -> None:
        """Start from an SVD; columns that are only nearly orthonormal are made so."""
        width, dtype = self.right.width, self.right.dtype
        largest = float(s.max(initial=0.0))
        if largest and abs(exponent_of(largest)) > COMFORT:
            self.exponent = exponent_of(largest)
        order = np.argsort(-s, kind="stable")[:width]
        order = order[s[order] > 0]
        self.s = np.ldexp(s[order].astype(np.float64), -self.exponent)
        self.right = ImplicitFactor.from_dense(V[:, order], width, dtype)
        if self.left is not None:
            self.left = ImplicitFactor.from_dense(U[:, order], width, dtype)
            self.renew("left")
        self.renew("right")
        self.n_folds = 0

    # ------------------------------------------------------------------------------------------------ updates

    def absorb(self, E: Rows, side: Side, coefficients: np.ndarray | None = None) -> None:
        """Append rows (side "left") or, given as rows, columns (side "right").

        With `coefficients` (t x s) the t rows ``coefficients @ E`` are appended, for coefficients with orthonormal
        columns.
        """
        E = self._in_unit(E)
        inner = other_side(side)  # the factor whose span E is compared with
        with small_blas(0 if E.touches_most else len(self.s) + len(E)):  # large products may have all threads
            update = self._row_update(E, inner)
            bottom = update.bottom if coefficients is None else coefficients @ update.bottom
            self.m += len(bottom) if side == "left" else 0
            turned = self.factor(inner).plan(update.T, E, update.H, noise=update.noise)
            grown = None if self.factor(side) is None else self.factor(side).plan(update.top, rows=bottom)
        self._commit(update.s, {inner: turned, side: grown}, update.lost, side)

    def add_product(self, D: Rows, E: Rows) -> None:
        """Add D^T E, both with few rows."""
        shift = exponent_of(D.largest() or 1.0)  # only the product must be near the unit
        D, E = D.in_units_of(shift), self._in_unit(E, shift)
        Cu, left = self._compare(D, "left")
        Cv, right = self._compare(E, "right")
        update = _updating.change_low_rank(self.s, Cu, left, Cv, right, self.truncation)
        changes = {
            "left": self.left.plan(update.left_T, D, update.left_H, noise=update.left_noise),
            "right": self.right.plan(update.right_T, E, update.right_H, noise=update.right_noise),
        }
        self._commit(update.s, changes, update.lost, f"product {self.n_updates}")

    def remove(self, index: np.ndarray, side: Side) -> None:
        """Remove rows of A (side "left") or columns (side "right")."""
        factor, inner = self.factor(side), other_side(side)
        kept = factor.without(index) if factor is not None else None
        turned = _updating.remove_rows(self.s, factor.rows(index), self.truncation)
        if turned is None:
            kept, R = kept.orthonormalized()
            turned = _updating.rediagonalize(self.s, R, self.truncation)
        setattr(self, side, kept)
        self.m -= len(index) if side == "left" else 0
        other = self.factor(inner)
        changes = {side: kept.plan(turned.left_T), inner: None if other is None else other.plan(turned.right_T)}
        self._commit(turned.s, changes, 0.0, f"removal {self.n_updates}")

    def merge(self, other: FactoredSVD) -> None:
        """Append the rows of another model."""
        rows = DenseRows(np.ldexp(other.right.dense().astype(np.float64) * other.s, other.exponent).T.copy())
        coefficients = other.left.dense().astype(np.float64) if self.left is not None else np.zeros((0, len(rows)))
        self.absorb(rows, "left", coefficients)
        self.m += other.m - len(coefficients)
        theirs = other.loss.scaled(float(np.ldexp(1.0, other.exponent - self.exponent)))
        self.loss = Loss(
            self.loss.energy + theirs.energy,
            self.loss.bound + theirs.bound,
            "left",
            self.loss.exact and theirs.exact and (not theirs.energy or theirs.kind in ("any", "left")),
        )

    def refine(self, A: Any) -> None:
        """One step of subspace iteration with the whole matrix: left <- orth(A right), then A^T left is decomposed."""
        width, dtype = self.right.width, self.right.dtype
        unit = np.ldexp(self.s, self.exponent)
        Q, _ = ImplicitFactor.from_dense(A @ self.right.dense() / unit, width, dtype).orthonormalized()
        self.right = ImplicitFactor.from_dense(A.T @ Q.dense() / unit, width, dtype)
        if self.left is not None:
            self.left = Q
        self.renew("right")

    def set_known_loss(self, A: Any, kind: str) -> None:
        """Where the model is a projection of A: its loss, from the two norms."""
        values = A if isinstance(A, np.ndarray) else A.data[:, None]
        norms = [np.linalg.norm(np.ldexp(part.astype(np.float64), -self.exponent)) for part in _parts(values)]
        energy = max(0.0, float(np.sum(np.square(norms)) - np.sum(self.s**2)))
        self.loss = Loss(energy, float(np.sqrt(energy)), kind)

    def scale(self, factor: float) -> None:
        """Multiply everything seen so far."""
        if factor != 1.0:
            self.s = self.s * factor
            self.loss = self.loss.scaled(factor)

    # ------------------------------------------------------------------------------------------------ inside an update

    def _row_update(self, E: Rows, inner: Side) -> _updating.RowUpdate:
        C, rest = self._compare(E, inner)
        return _updating.append_rows(self.s, C, rest, self.truncation)

    def _compare(self, E: Rows, side: Side) -> tuple[np.ndarray, Residual]:
        """Products of E with a factor, and the residual of E outside of it.

        The Gram matrix of the residual is a difference, N - C C^T.  Two cases are worth a pass over the factor: a
        residual as small as the factor's own loss of orthonormality is no direction but noise, so the factor is made
        orthonormal; and rows that depend on a small residual of others inherit its relative error, so the difference
        is taken before the Gram matrix.
        """
        N, eps = E.gram(), self.truncation.eps
        lengths, tol = np.sqrt(N.diagonal()), 64 * eps
        C = self.factor(side).project(E)
        if self.residual_rank is not None:
            return C, _updating.leading_residual(N, C, lengths, tol, self.residual_rank)
        rest = _updating.residual(N, C, lengths, tol)
        negligible = self.truncation.rank_tol * max(_first(self.s), lengths.max(initial=0.0))
        if rest.smallest > negligible and rest.pivots[-1] < 4 * self.factor(side).drift:
            self.renew(side)
            C = self.factor(side).project(E)
            rest = _updating.residual(N, C, lengths, tol)
        if rest.smallest > negligible and rest.pivots[-1] < WEAK and len(rest.pivots) < len(E):
            correction, gram = self.factor(side).outside(E, C)
            C = C + correction
            rest = _updating.residual(gram, correction, lengths, tol**2)
        return C, rest

    def _commit(self, s: np.ndarray, changes: dict[Side, Change | None], lost: float, kind: str) -> None:
        """Make the planned changes, then make those factors new that need it."""
        largest = max(_first(self.s), _first(s))
        approximate = bool(lost) and (self.truncation.shrinkage > 0 or self.residual_rank is not None)
        changed = {side: change for side, change in changes.items() if change is not None}
        for side, change in changed.items():
            self.factor(side).commit(change)
        self.s = s
        self.loss = self.loss.plus(lost, kind, noise=(64 * self.truncation.eps * largest) ** 2)
        if approximate:
            self.loss = self.loss._replace(exact=False)
        self.n_updates += 1
        for side, change in changed.items():
            factor = self.factor(side)
            if change.folded or factor.drift > factor.precision.drift_max:
                self.renew(side)

    def renew(self, side: Side) -> None:
        """Multiply a factor out and make it orthonormal to rounding error; the product of the factors stays."""
        exact = replace(self.truncation, shrinkage=0.0)
        Q, R = self.factor(side).orthonormalized()
        turned = _updating.rediagonalize(self.s, R, exact)
        Q.commit(Q.plan(turned.left_T))
        inner = self.factor(other_side(side))
        if inner is not None:
            inner.commit(inner.plan(turned.right_T))
        setattr(self, side, Q)
        self.s = turned.s
        self.n_folds += 1

    def _in_unit(self, E: Rows, shift: int = 0) -> Rows:
        """2^shift E in units of 2^exponent, which change only where squares would come near overflow or underflow."""
        largest = E.largest()
        if not largest:
            return E
        exponent = exponent_of(largest) + shift
        relative = exponent - self.exponent
        if relative > COMFORT or (relative < -COMFORT and not len(self.s)):
            self.s = np.ldexp(self.s, -relative)
            self.loss = self.loss.scaled(float(np.ldexp(1.0, -relative)))
            self.exponent = exponent
        return E.in_units_of(self.exponent - shift) if self.exponent != shift else E

    # ------------------------------------------------------------------------------------------------ all or nothing

    @contextmanager
    def transaction(self, left: int = 0, right: int = 0) -> Iterator[None]:
        """Whatever is raised inside, the state is the one from before, to the bit.

        `left` and `right` say how many rows of these factors will be written: if few, each is copied before that.
        """
        before = dict(vars(self))
        written = [(self.left, left), (self.right, right)]
        factors = [factor for factor, _ in written if factor is not None]
        checkpoints = [factor.checkpoint(count >= factor.n) for factor, count in written if factor is not None]
        try:
            yield
        except BaseException:
            for factor, checkpoint in zip(factors, checkpoints, strict=True):
                factor.rollback(checkpoint)
            vars(self).clear()
            vars(self).update(before)
            raise
        for factor in factors:
            factor.forget_checkpoint()


def _first(s: np.ndarray) -> float:
    return float(s[0]) if len(s) else 0.0


def _parts(X: np.ndarray) -> Iterator[np.ndarray]:
    return (X[start : start + CHUNK] for start in range(0, len(X), CHUNK))


def exponent_of(largest: float) -> int:
    """e with 2^e near `largest` > 0, within the range where 2^e and 2^-e are numbers."""
    return min(max(math.frexp(largest)[1], -1000), 1000)
