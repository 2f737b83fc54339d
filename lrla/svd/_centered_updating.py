"""Principal components of a stream of rows, sparse or dense, whose mean moves with every batch.

With N rows seen, their mean mu, and a batch E of s rows with mean beta, the centred rows seen so far change by an
update of

    [diag(s) V^T; E - 1 beta^T; g (mu - beta)^T],    g = sqrt(N s / (N + s))        (Ross et al., 2008).

For sparse E neither the centred batch nor mu is ever formed: all new rows lie in the span of the columns of E^T and
of the one vector w = N mu, the sum of all rows.  So V is kept as ``W K + w kappa^T`` (`ShiftedFactor`) and the rows
of E alone are added to W.

References
----------
D. A. Ross, J. Lim, R.-S. Lin, M.-H. Yang, "Incremental learning for robust visual tracking", Int. J. Comput. Vision 77,
2008.
T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis and recommendations",
The American Statistician 37(3), 1983.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla.svd._factored_svd import COMFORT, FactoredSVD, exponent_of
from lrla.svd._implicit_factor import Change, ImplicitFactor
from lrla.svd._row_blocks import DenseRows, SparseRows, cut

LONGEST_BLOCK = 512  # rows worked in at once; the small SVD costs the cube of it
WORK_SIZE = 2**22  # numbers in a batch that is centred on the columns it touches


class Moments:
    """Sum and squared deviations of every column, with the zeros of columns that a batch does not touch counted later.

    Merging groups of rows (Chan et al., 1983) is associative, so z zeros that follow `count` rows with sum w change
    the squared deviations by w^2 z / (count (count + z)) whenever they are counted.

    Attributes
    ----------
    n_seen : int
    sums : ndarray of shape (n,)
    deviations, count : ndarray of shape (n,)
        Sum of squared deviations from the mean, of the first `count` rows.
    """

    def __init__(self, n: int):
        self.n_seen = 0
        self.sums = np.zeros(n)
        self.deviations = np.zeros(n)
        self.count = np.zeros(n)

    def settled(self, columns: Any) -> np.ndarray:
        """Squared deviations of some columns over all `n_seen` rows."""
        count, w = self.count[columns], self.sums[columns]
        late = np.divide(w**2 * (self.n_seen - count), count * self.n_seen, out=np.zeros(len(w)), where=count > 0)
        return self.deviations[columns] + late

    def merge(self, columns: Any, s: int, means: np.ndarray, deviations: np.ndarray) -> None:
        """Count s rows, of which some columns have these means and squared deviations and the others are zero."""
        N = self.n_seen
        total = self.settled(columns) + deviations
        if N:
            total += (self.sums[columns] / N - means) ** 2 * (N * s / (N + s))
        self.deviations[columns] = total
        self.sums[columns] += s * means
        self.count[columns] = N + s
        self.n_seen = N + s

    def copy(self) -> Moments:
        """Independent of this one."""
        other = Moments(0)
        other.n_seen = self.n_seen
        other.sums, other.deviations, other.count = self.sums.copy(), self.deviations.copy(), self.count.copy()
        return other

    def append_zeros(self, count: int) -> None:
        """Room for columns that all rows so far have at zero."""
        for name in ("sums", "deviations", "count"):
            setattr(self, name, np.concatenate([getattr(self, name), np.zeros(count)]))


class CenteredRows:
    """A sparse batch E, centred, and the row g (mu - beta)^T under it: s + 1 rows, never formed over all columns.

    Parameters
    ----------
    E : SparseRows of shape (s, n)
    moments : Moments
        Of the rows before E.
    ww : float
        |w|^2 of these rows.

    Attributes
    ----------
    columns : ndarray of shape (u,)
        The columns that E touches.
    X : ndarray of shape (s, u)
        The centred batch there; it is zero elsewhere.
    means, w, gap : ndarray of shape (u,)
        beta, the sum of all earlier rows, and mu - beta there.
    N, g : float
    """

    touches_most = False

    def __init__(self, E: SparseRows, moments: Moments, ww: float):
        s, N = len(E), moments.n_seen
        self.E, self.shape, self.moments = E, (s + 1, E.shape[1]), moments
        self.columns, place = np.unique(E.indices, return_inverse=True)
        X = np.zeros((s, len(self.columns)))
        X[np.repeat(np.arange(s), np.diff(E.indptr)), place] = E.data
        self.means = X.mean(axis=0)
        self.X = X - self.means
        self.w = moments.sums[self.columns]
        self.N, self.g = N, np.sqrt(N * s / (N + s))
        self.gap = self.w / N - self.means if N else np.zeros(len(self.w))
        self.sum_gap = ww / N - float(self.means @ self.w) if N else 0.0  # (mu - beta)^T w
        self._ww = ww

    def gram(self) -> np.ndarray:
        """Inner products of the s + 1 rows."""
        out = np.empty(2 * self.shape[:1])
        out[:-1, :-1] = self.X @ self.X.T
        out[-1, :-1] = out[:-1, -1] = self.g * (self.X @ self.gap)
        out[-1, -1] = self.g**2 * (self.gap @ self.gap + self._mean_elsewhere())
        return out

    def _mean_elsewhere(self) -> float:
        """|mu|^2 on the columns that E does not touch, by difference unless that would cancel."""
        if not self.N:
            return 0.0
        rest = self._ww - float(self.w @ self.w)
        if rest < 1e-3 * self._ww:
            others = self.moments.sums.copy()
            others[self.columns] = 0.0
            rest = float(others @ others)
        return rest / self.N**2

    def by_columns(self) -> Callable[[slice], np.ndarray]:
        """A function that gives a range of columns as a dense array."""

        def dense(part: slice) -> np.ndarray:
            out = np.zeros((len(self), part.stop - part.start))
            inside = slice(*np.searchsorted(self.columns, (part.start, part.stop)))
            place = self.columns[inside] - part.start
            if self.N:
                out[-1] = self.g * self.moments.sums[part] / self.N
            out[:-1, place] = self.X[:, inside]
            out[-1, place] = self.g * self.gap[inside]
            return out

        return dense

    def largest(self) -> float:
        """Zero: the unit is the business of `CenteredStream`."""
        return 0.0

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class ShiftedChange(Change):
    """A change of a `ShiftedFactor`: also the new kappa and y, and the batch that moves w."""

    kappa: np.ndarray | None = None
    y: np.ndarray | None = None
    batch: CenteredRows | None = None


class ShiftedFactor(ImplicitFactor):
    """V = ``W[:n] @ K[:, :r] + w kappa^T``, where w is the sum of all rows seen.

    Attributes
    ----------
    moments : Moments
        Its `sums` are w.
    kappa : ndarray of shape (r,)
    y : ndarray of shape (r,) or None
        V^T w, and `ww` = |w|^2: followed as long as batches are sparse, else None, and computed when it is needed.
    """

    def __init__(self, n: int, width: int, dtype: Any):
        super().__init__(n, width, dtype)
        self.moments = Moments(n)
        self.kappa = np.zeros(0)
        self.y: np.ndarray | None = None
        self.ww = 0.0
        self._moved: list[tuple[Any, ...]] = []

    def batch(self, E: SparseRows) -> CenteredRows:
        """A sparse batch, centred."""
        if self.y is None:
            self.ww = float(self.moments.sums @ self.moments.sums)
            self.y = sum((self._part(part).T @ self.moments.sums[part] for part in self._chunks()), np.zeros(self.r))
        return CenteredRows(E, self.moments, self.ww)

    def project(self, E: Any) -> np.ndarray:
        """E @ V."""
        if not isinstance(E, CenteredRows):
            return super().project(E)  # kappa is zero then
        Vu = self._at(E)
        mean_part = self.y / E.N - E.means @ Vu if E.N else np.zeros(self.r)
        return np.vstack([E.X @ Vu, E.g * mean_part])

    def _at(self, E: CenteredRows) -> np.ndarray:
        return self.W[E.columns] @ self.K[:, : self.r] + np.outer(E.w, self.kappa)

    def _part(self, part: slice) -> np.ndarray:
        linear = super()._part(part)
        return linear + np.outer(self.moments.sums[part], self.kappa) if self.kappa.any() else linear

    def plan(self, T: np.ndarray, E: Any = None, H: Any = None, rows: Any = None, noise: float = 0.0) -> ShiftedChange:
        """Prepare V <- V T + E^T H."""
        if isinstance(E, CenteredRows):
            return self._plan_sparse(T, E, H, noise)
        y = T.T @ self.y if E is None and self.y is not None else None
        return ShiftedChange(**vars(super().plan(T, E, H, rows, noise)), kappa=T.T @ self.kappa, y=y)

    def _plan_sparse(self, T: np.ndarray, E: CenteredRows, H: np.ndarray, noise: float) -> ShiftedChange:
        """The part of E^T H along w goes to kappa; what is left is a combination of the rows of the batch alone.

        On the touched columns w moves by e = E^T 1, so V, which must not, loses e kappa^T there.
        """
        s, Hd, hc = len(E.E), H[:-1], H[-1]
        kappa = T.T @ self.kappa + (E.g / E.N if E.N else 0.0) * hc
        shared = (Hd.sum(axis=0) + E.g * hc) / s + kappa
        change = super().plan(T, E.E, Hd - shared, noise=noise)
        e = s * E.means
        V2u = self._at(E) @ T + E.X.T @ Hd + np.outer(E.gap, E.g * hc)
        y = T.T @ self.y + Hd.T @ (E.X @ E.w) + E.g * E.sum_gap * hc + V2u.T @ e
        size = np.sqrt(self.ww) * np.abs(kappa).max(initial=0.0)
        folded = change.folded or size > 1e3  # w kappa^T and W K would cancel
        return ShiftedChange(**{**vars(change), "folded": folded}, kappa=kappa, y=y, batch=E)

    def commit(self, change: ShiftedChange) -> None:
        """Make a planned change; a sparse batch moves w with it."""
        super().commit(change)
        if change.batch is not None:
            self._move(change.batch)
        self.kappa, self.y = change.kappa, change.y

    def _move(self, E: CenteredRows) -> None:
        moments, at, s = self.moments, E.columns, len(E.E)
        self._moved.append((moments, moments.n_seen, at, moments.sums[at], moments.deviations[at], moments.count[at]))
        e = s * E.means
        self.ww += float(2 * (e @ E.w) + e @ e)
        moments.merge(at, s, E.means, (E.X**2).sum(axis=0))

    def _starts_with(self, r: int) -> None:
        super()._starts_with(r)
        self.kappa, self.y = np.zeros(r), None

    def checkpoint(self, whole: bool) -> Any:
        """Remember the state, for `rollback`."""
        self._moved = []
        return super().checkpoint(whole), self._moved

    def forget_checkpoint(self) -> None:
        """Stop copying rows."""
        super().forget_checkpoint()
        self._moved = []

    def rollback(self, checkpoint: Any) -> None:
        """Return to a checkpoint, to the bit."""
        before, moved = checkpoint
        super().rollback(before)
        for moments, n_seen, at, sums, deviations, count in reversed(moved):
            moments.n_seen = n_seen
            moments.sums[at], moments.deviations[at], moments.count[at] = sums, deviations, count
        self._moved = []


class CenteredStream:
    """Truncated SVD of all rows seen so far, centred on their mean.

    Parameters
    ----------
    n_components : int
    n_oversamples : int, default=0
        Components that are carried along beyond those shown; 0 makes the textbook update.
    dtype : float64 or float32, optional
        Type of the components; that of the first batch by default.

    Attributes
    ----------
    components : ndarray of shape (n_components, n)
        Zeros beyond the rank; signs do not flip from batch to batch.
    singular_values : ndarray of shape (n_components,)
        Of the centred rows.
    mean, var : ndarray of shape (n,)
        Of every column, in float64; `var` divides by `n_seen`.
    n_seen, rank : int
    total_variance : float
        Sum of all variances, divided by n_seen - 1: `singular_values**2 / (n_seen - 1)` are shares of it.
    """

    def __init__(self, n_components: int, n_oversamples: int = 0, dtype: Any = None):
        self.n_components, self.n_oversamples, self.dtype = n_components, n_oversamples, dtype
        self._model: FactoredSVD | None = None
        self._exponent = 0  # the model works in units of 2^exponent

    def partial_fit(self, E: Any) -> CenteredStream:
        """Add the rows of a batch, all or none.

        Parameters
        ----------
        E : ndarray or CSR of shape (s, n)
            Finite numbers; one row is enough.

        Returns
        -------
        self
        """
        before = dict(vars(self))
        try:
            if self._model is None:
                self._start(E.shape[1], E.dtype)
            with self._model.transaction():
                for block in cut(E, _block_length(E)):
                    self._absorb(block)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    def _start(self, n: int, dtype: Any) -> None:
        width = self.n_components + self.n_oversamples
        self._model = FactoredSVD(0, n, width, dtype if self.dtype is None else self.dtype, has_left=False)
        self._model.right = ShiftedFactor(n, width, self._model.right.dtype)

    def _absorb(self, E: Any) -> None:
        E = self._in_unit(E)
        if not E.touches_most:
            self._model.absorb(self._factor.batch(E), "left")
            return
        X = E.X if isinstance(E, DenseRows) else E.by_columns()(slice(0, E.shape[1]))
        if self._factor.kappa.any():
            self._model.renew("right")
        s, N, moments = len(X), self.n_seen, self._factor.moments
        means = X.mean(axis=0)
        X = X - means
        moments = moments.copy()
        deviations = (X**2).sum(axis=0)
        if s > X.shape[1]:
            X = np.linalg.qr(X, mode="r")  # the rows themselves are not kept
        if N:
            X = np.vstack([X, np.sqrt(N * s / (N + s)) * (moments.sums / N - means)])
        self._model.absorb(DenseRows(X), "left")
        moments.merge(slice(None), s, means, deviations)
        self._factor.moments = moments

    def _in_unit(self, E: Any) -> Any:
        """E in the unit of the model, which changes where squares would come near overflow or underflow."""
        largest = E.largest()
        if not largest:
            return E
        change = exponent_of(largest) - self._exponent
        if change > COMFORT or (change < -COMFORT and not self._factor.moments.deviations.any()):
            self._rescale(change)
        return E.in_units_of(self._exponent) if self._exponent else E

    def _rescale(self, change: int) -> None:
        if self._factor.r:
            self._model.renew("right")  # kappa = 0
        self._model.s = np.ldexp(self._model.s, -change)
        moments = self._factor.moments.copy()
        moments.sums, moments.deviations = np.ldexp(moments.sums, -change), np.ldexp(moments.deviations, -2 * change)
        self._factor.moments, self._factor.y = moments, None
        self._exponent += change

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def _factor(self) -> ShiftedFactor:
        return self._model.right

    @property
    def n_seen(self) -> int:
        return self._factor.moments.n_seen if self._model is not None else 0

    @property
    def rank(self) -> int:
        return min(self.n_components, len(self._model.s))

    @property
    def components(self) -> np.ndarray:
        out = np.zeros((self.n_components, self._factor.n), dtype=self._factor.dtype)
        out[: self.rank] = self._factor.dense().T[: self.rank]
        return out

    @property
    def singular_values(self) -> np.ndarray:
        out = np.zeros(self.n_components)
        out[: self.rank] = np.ldexp(self._model.s[: self.rank], self._exponent)
        return out.astype(self._factor.dtype)

    @property
    def mean(self) -> np.ndarray:
        return np.ldexp(self._factor.moments.sums / self.n_seen, self._exponent)

    @property
    def var(self) -> np.ndarray:
        return np.ldexp(self._factor.moments.settled(slice(None)) / self.n_seen, 2 * self._exponent)

    @property
    def total_variance(self) -> float:
        total = float(self._factor.moments.settled(slice(None)).sum()) / max(self.n_seen - 1, 1)
        return float(np.ldexp(total, 2 * self._exponent))


def _block_length(E: Any) -> int:
    """Rows of E worked in at once: all, unless the small SVD or the touched part of a sparse batch grows too large."""
    if isinstance(E, np.ndarray):
        return E.shape[0] if E.shape[0] > E.shape[1] <= LONGEST_BLOCK else LONGEST_BLOCK
    m, n = E.shape
    touched = max(WORK_SIZE // n, int(np.sqrt(WORK_SIZE * m / max(E.nnz, 1))))
    return int(np.clip(touched, 8, LONGEST_BLOCK))
