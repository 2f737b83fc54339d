"""`UpdatableSVD`: a truncated SVD that follows its matrix while rows, columns and entries come and go."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from lrla import _validation
from lrla._estimator import all_or_nothing
from lrla.exceptions import RankDeficientWarning
from lrla.svd import _update_input as given
from lrla.svd._factored_svd import FactoredSVD, Loss, Side, other_side
from lrla.svd._row_blocks import Buffer, Rows, cut, rows_of


class UpdatableSVD:
    """Truncated SVD, A ~ U diag(s) V^T, of a matrix that changes.

    Rows and columns can be added and removed, entries changed, and low-rank terms added.  The cost of an update
    follows the size of the update, not the size of what was seen before.

    The result is the SVD of (previous approximation + new data), not of A itself; `reconstruction_error_` says how
    much was lost, and `refine` repairs it where the data can be read again.

    Parameters
    ----------
    n_components : int
        The rank k that is shown.
    n_oversamples : int or "auto", default="auto"
        Further components that are carried along, p.  They make the shown ones more accurate; "auto" is
        max(10, k // 2), 0 reproduces the published method.
    left : bool, default=True
        Keep U.  Without it memory does not grow with the rows, and only rows can be added.
    buffer_size : int or "auto", default="auto"
        Rows (or columns) that are collected before they are worked in together, which is several times cheaper a row
        and a little more accurate.  Whatever is read from the object has seen all of the data.  "auto" is
        max(32, (k + p) // 2).
    forget : float, default=1.0
        In (0, 1]: what was seen before is multiplied by this at each call of `add_rows` or `add_columns`.
    shrinkage : float, default=0.0
        In [0, 1].  1 gives Frequent Directions, whose error is bounded for every stream; 0 is better on all but
        adversarial ones.
    residual_rank : int, optional
        Keep only so many new directions of each block.  Saves little, since blocks are short; for comparison.
    dtype : float64 or float32, optional
        Type of U and V; by default that of the first data.

    Attributes
    ----------
    singular_values_ : ndarray of shape (n_components,)
        Zeros beyond `rank_`.
    U : ndarray of shape (m, n_components), read-only
    Vt : ndarray of shape (n_components, n), read-only
        Multiplied out when asked for, and kept until the next update.  Zeros beyond `rank_`.
    rank_ : int
    shape : tuple of int
    reconstruction_error_ : float
        ||A - U diag(s) V^T||_F (of the weighted A if forget < 1): the value or a bound, see `error_is_exact_`.  What is
        below 1e-7 of a new row (float32: 3e-3) is taken for rounding and not seen.
    error_is_exact_ : bool
        True for streams of rows only or of columns only: there the losses of all steps are orthogonal to one another.
        Else the error is bounded by their sum.
    n_updates_ : int
        Small SVDs computed.
    n_folds_ : int
        Times that a factor was multiplied out and orthonormalized again.

    Notes
    -----
    A block of s rows with z stored entries costs O(z (k + p) + s^2 (k + p) + (s + k + p)^3) flops and the same again in
    reading; dense blocks O(n (k + p) (k + p + s)).  Removing rows copies the factor, O(m (k + p)).  Memory: (m + n)
    (k + p) numbers.  The singular values never exceed those of A (forget = 1, rows only) and never fall.

    An update that raises leaves the object as it was, to the bit.

    References
    ----------
    H. Zha, H. D. Simon, "On updating problems in latent semantic indexing", SIAM J. Sci. Comput. 21(2), 1999.
    M. Brand, "Fast low-rank modifications of the thin singular value decomposition", Linear Algebra Appl. 415, 2006.
    M. Ghashami, E. Liberty, J. M. Phillips, D. P. Woodruff, "Frequent directions: simple and deterministic matrix
    sketching", SIAM J. Comput. 45(5), 2016, arXiv:1501.01711.
    H. Deng, Y. Yang, J. Li, C. Chen, W. Jiang, S. Pu, "Fast updating truncated SVD for representation learning with
    sparse matrices", ICLR 2024, arXiv:2401.09703.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import UpdatableSVD
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    >>> model = UpdatableSVD(3)
    >>> for row in A:
    ...     _ = model.add_rows([row])
    >>> bool(np.allclose(model.U * model.singular_values_ @ model.Vt, A))
    True
    """

    def __init__(
        self,
        n_components: int,
        *,
        n_oversamples: int | str = "auto",
        left: bool = True,
        buffer_size: int | str = "auto",
        forget: float = 1.0,
        shrinkage: float = 0.0,
        residual_rank: int | None = None,
        dtype: Any = None,
    ):
        k = self.n_components = _validation.check_integer(n_components, "n_components", 1)
        self.n_oversamples = given.check_automatic(n_oversamples, "n_oversamples", max(10, k // 2))
        self.left = bool(left)
        self.buffer_size = given.check_automatic(buffer_size, "buffer_size", max(32, self._width // 2))
        self.forget = _validation.check_real(forget, "forget", 0, 1, closed=(False, True))
        self.shrinkage = _validation.check_real(shrinkage, "shrinkage", 0, 1)
        self.residual_rank = (
            None if residual_rank is None else _validation.check_integer(residual_rank, "residual_rank", 1)
        )
        self.dtype = given.check_dtype(dtype)
        self._longest_block = max(128, 2 * self._width)  # rows worked in at once; the small SVD costs the cube of it
        self._model: FactoredSVD | None = None
        self._buffer = Buffer()
        self._shown: dict[str, np.ndarray] = {}

    @property
    def _width(self) -> int:
        return self.n_components + self.n_oversamples

    # ------------------------------------------------------------------------------------------------ starting

    def fit(self, A: Any) -> UpdatableSVD:
        """Start from a matrix, forgetting everything seen before.

        Parameters
        ----------
        A : array-like or sparse of shape (m, n)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If A is not a finite real matrix, or n_components > min(m, n).
        """
        A = self._checked(A, "A")
        _validation.check_rank(self.n_components, A.shape, "n_components")
        from lrla.svd import truncated_svd

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankDeficientWarning)  # here a rank below k is nothing unusual
            U, s, Vt = truncated_svd(A, min(self._width, *A.shape), tol=1e-6, random_state=0)
        model = self._new_model(*A.shape, A.dtype)
        model.load(U, s, Vt.T)
        model.set_known_loss(A, "any")
        self._model, self._buffer, self._shown = model, Buffer(), {}
        return self

    @classmethod
    def from_svd(
        cls, U: Any, s: Any, Vt: Any, *, n_components: int | None = None, error: float = 0.0, **options: Any
    ) -> UpdatableSVD:
        """Start from a known SVD.

        Parameters
        ----------
        U : array-like of shape (m, r) or None
            None sets ``left=False``.
        s : array-like of shape (r,)
        Vt : array-like of shape (r, n)
        n_components : int, default=r
        error : float, default=0.0
            Frobenius norm of what this SVD leaves of its matrix, for `reconstruction_error_`.
        **options
            Further parameters of the class.

        Returns
        -------
        UpdatableSVD

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, a singular value is negative, or the factors are not orthonormal.
        """
        U, s, Vt = given.check_svd(U, s, Vt, options.get("dtype"))
        if U is None:
            options["left"] = False
        self = cls(len(s) if n_components is None else n_components, **options)
        model = self._new_model(0 if U is None else len(U), Vt.shape[1], Vt.dtype)
        model.load(U, s, Vt.T)
        lost = float(np.ldexp(_validation.check_real(error, "error", 0.0), -model.exponent))
        model.loss = Loss(lost**2, lost, "any")
        self._model = model
        return self

    def _new_model(self, m: int, n: int, dtype: Any) -> FactoredSVD:
        dtype = dtype if self.dtype is None else self.dtype
        return FactoredSVD(m, n, self._width, dtype, self.left, self.shrinkage, self.residual_rank)

    # ------------------------------------------------------------------------------------------------ updating

    def add_rows(self, E: Any) -> UpdatableSVD:
        """A <- [A; E].

        Parameters
        ----------
        E : array-like or sparse of shape (s, n)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If E is not a finite real matrix with n columns.
        """
        return self._append(self._checked(E, "E"), "left", "E")

    def add_columns(self, F: Any) -> UpdatableSVD:
        """A <- [A, F].

        Parameters
        ----------
        F : array-like or sparse of shape (m, s)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If F is not a finite real matrix with m rows, or the model was made with ``left=False``.
        """
        self._need_left("add_columns")
        return self._append(self._checked(F, "F").T, "right", "F")

    def add_zero_columns(self, count: int) -> UpdatableSVD:
        """A <- [A, 0]: room for `count` new features, which the rows so far do not have.

        Parameters
        ----------
        count : int

        Returns
        -------
        self
        """
        count = _validation.check_integer(count, "count", 0)
        with self._update() as model:
            model.right.append_zeros(count)
        return self

    def add_low_rank(self, D: Any, E: Any) -> UpdatableSVD:
        """A <- A + D E^T.

        Parameters
        ----------
        D : array-like or sparse of shape (m, q)
        E : array-like or sparse of shape (n, q)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If D and E are not finite real matrices of these shapes, or the model was made with ``left=False``.
        """
        self._need_left("add_low_rank")
        m, n = self.shape
        D, E = self._checked(D, "D").T, self._checked(E, "E").T
        given.check_length(D.shape[1], m, "D", "rows")
        given.check_length(E.shape[1], n, "E", "rows")
        given.check_length(E.shape[0], D.shape[0], "E", "columns, as D has")
        return self._add_products(D, E)

    def update_entries(self, i: Any, j: Any, delta: Any) -> UpdatableSVD:
        """A[i[t], j[t]] += delta[t] for all t.

        Parameters
        ----------
        i, j : array-like of int of shape (t,)
        delta : array-like of shape (t,)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an index is out of range, a change is not finite, or the model was made with ``left=False``.
        """
        self._need_left("update_entries")
        D, E = given.check_entries(i, j, delta, self.shape)
        return self._add_products(D, E)

    def remove_rows(self, idx: Any) -> UpdatableSVD:
        """A <- A without the rows `idx`; the rows behind them move up.

        Parameters
        ----------
        idx : array-like of int of shape (b,)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an index is out of range or no row is left, or the model was made with ``left=False``.
        """
        self._need_left("remove_rows")
        return self._remove(idx, "left")

    def remove_columns(self, idx: Any) -> UpdatableSVD:
        """A <- A without the columns `idx`; the columns behind them move up.

        Parameters
        ----------
        idx : array-like of int of shape (b,)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an index is out of range or no column is left.
        """
        return self._remove(idx, "right")

    @all_or_nothing
    def merge(self, other: UpdatableSVD) -> UpdatableSVD:
        """A <- [A; B] for the matrix B of another model.

        Parameters
        ----------
        other : UpdatableSVD
            With as many columns, and with U if this one keeps it.  It is not changed.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If `other` is no such model.
        """
        if not isinstance(other, UpdatableSVD):
            raise TypeError(f"other must be an UpdatableSVD; got {type(other).__name__}.")
        other.flush()
        theirs = other._fitted()
        if self.left and theirs.left is None:
            raise ValueError("other keeps no U, so this model cannot extend its own; make other with left=True.")
        if self._model is None:
            self._model = self._new_model(0, theirs.right.n, theirs.right.dtype)
        given.check_length(theirs.right.n, self._model.right.n, "other", "columns")
        with self._update() as model:
            model.merge(theirs)
        return self

    def refine(self, A: Any, n_passes: int = 1) -> UpdatableSVD:
        """Improve the model by reading the whole matrix again: one step of subspace iteration a pass.

        Parameters
        ----------
        A : array-like or sparse of shape (m, n)
            The matrix that the updates have made.
        n_passes : int, default=1
            Each pass multiplies with A and with A^T.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If A is not a finite real matrix of the right shape.
        """
        n_passes = _validation.check_integer(n_passes, "n_passes", 1)
        A = self._checked(A, "A")
        if A.shape != self.shape:
            raise ValueError(f"A has shape {A.shape}, but this model has followed a matrix of shape {self.shape}.")
        with self._update() as model:
            for _ in range(n_passes):
                model.refine(A)
            model.set_known_loss(A, "left")
        return self

    def flush(self) -> UpdatableSVD:
        """Work in the buffered rows now.

        Returns
        -------
        self
        """
        if self._buffer.blocks:
            with self._update():
                pass
        return self

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self._fitted().shape
        waiting = self._buffer.n_rows
        return (m + waiting, n) if self._buffer.side == "left" else (m, n + waiting)

    @property
    def rank_(self) -> int:
        return min(len(self._settled().s), self.n_components)

    @property
    def singular_values_(self) -> np.ndarray:
        model = self._settled()
        shown = np.zeros(self.n_components)
        shown[: self.rank_] = np.ldexp(model.s[: self.n_components], model.exponent)
        return shown.astype(model.right.dtype)

    @property
    def U(self) -> np.ndarray:
        self._need_left("U")
        return self._show("left")

    @property
    def Vt(self) -> np.ndarray:
        return self._show("right")

    def left_rows(self, idx: Any) -> np.ndarray:
        """Rows of U, without multiplying out the others.

        Parameters
        ----------
        idx : array-like of int of shape (b,)

        Returns
        -------
        ndarray of shape (b, n_components)
        """
        self._need_left("left_rows")
        return self._padded(self._settled().left.rows(given.check_index(idx, self.shape[0], "idx")))

    def right_rows(self, idx: Any) -> np.ndarray:
        """Rows of V, that is columns of `Vt`, without multiplying out the others.

        Parameters
        ----------
        idx : array-like of int of shape (b,)

        Returns
        -------
        ndarray of shape (b, n_components)
        """
        return self._padded(self._settled().right.rows(given.check_index(idx, self.shape[1], "idx")))

    @property
    def reconstruction_error_(self) -> float:
        model = self._settled()
        hidden = float(np.sum(model.s[self.n_components :] ** 2))
        loss = model.loss
        error = np.sqrt(loss.energy + hidden) if loss.exact else loss.bound + np.sqrt(hidden)
        return float(np.ldexp(error, model.exponent))

    @property
    def error_is_exact_(self) -> bool:
        return self._settled().loss.exact

    @property
    def n_updates_(self) -> int:
        return self._settled().n_updates

    @property
    def n_folds_(self) -> int:
        return self._settled().n_folds

    def _show(self, side: Side) -> np.ndarray:
        factor = self._settled().factor(side)
        if side not in self._shown:
            dense = self._padded(factor.dense())
            dense = np.ascontiguousarray(dense if side == "left" else dense.T)
            dense.flags.writeable = False
            self._shown = {**self._shown, side: dense}
        return self._shown[side]

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), self.n_components), dtype=self._model.right.dtype)
        out[:, : rows.shape[1]] = rows[:, : self.n_components]
        return out

    def _fitted(self) -> FactoredSVD:
        if self._model is None:
            raise NotFittedError("This UpdatableSVD has seen no data yet; call fit or add_rows first.")
        return self._model

    def _settled(self) -> FactoredSVD:
        """The model with nothing waiting in the buffer."""
        return self.flush()._fitted()

    # ------------------------------------------------------------------------------------------------ updating, inside

    @contextmanager
    def _update(self, **written: int) -> Iterator[FactoredSVD]:
        """Around every change: what was buffered comes first, and whatever is raised, the object stays as it was.

        `written` says how many rows of which factor are going to be written, see `FactoredSVD.transaction`.
        """
        model, before = self._fitted(), dict(vars(self))
        try:
            with model.transaction(**written):
                self._shown = {}
                model.scale(self.forget ** len(self._buffer.blocks))
                for rows in self._buffer.stacked(self._longest_block, self.forget):
                    model.absorb(rows, self._buffer.side)
                self._buffer = Buffer()
                yield model
        except BaseException:
            vars(self).update(before)
            raise

    @all_or_nothing
    def _append(self, X: Any, side: Side, name: str) -> UpdatableSVD:
        """Append the rows of X at that side (for columns X is a transpose): through the buffer if they are few."""
        if self._model is None:
            self._model = self._new_model(*((0, X.shape[1]) if side == "left" else (X.shape[1], 0)), X.dtype)
        else:
            given.check_length(X.shape[1], self.shape[side == "left"], name, "columns" if side == "left" else "rows")
        if X.shape[0] < min(self.buffer_size, self._longest_block):
            return self._collect(rows_of(given.by_rows(X)), side)
        with self._update(**{other_side(side): 0 if isinstance(X, np.ndarray) else X.nnz}) as model:
            model.scale(self.forget)
            for block in cut(given.by_rows(X), self._longest_block):
                model.absorb(block, side)
        return self

    def _collect(self, block: Rows, side: Side) -> UpdatableSVD:
        if not self._buffer.takes(block, side):
            self.flush()
        self._shown, self._buffer = {}, self._buffer.plus(block, side)
        return self.flush() if self._buffer.n_rows >= self.buffer_size else self

    def _add_products(self, D: Any, E: Any) -> UpdatableSVD:
        with self._update(left=D.size, right=E.size) as model:
            blocks = (cut(given.by_rows(X), self._longest_block) for X in (D, E))
            for left, right in zip(*blocks, strict=True):
                model.add_product(left, right)
        return self

    def _remove(self, idx: Any, side: Side) -> UpdatableSVD:
        size = self.shape[side == "right"]
        index = np.unique(given.check_index(idx, size, "idx"))
        if len(index) == size:
            raise ValueError(f"idx names all {size} {'rows' if side == 'left' else 'columns'}; at least one must stay.")
        with self._update() as model:
            if len(index):
                model.remove(index, side)
        return self

    # ------------------------------------------------------------------------------------------------ checks, copies

    def _checked(self, X: Any, name: str) -> Any:
        """A finite matrix on the host, CSR, CSC or ndarray, in the dtype of the model if there is one."""
        dtype = self.dtype if self._model is None else self._model.right.dtype
        if dtype is not None and given.is_plain(X, name, dtype):
            return X
        _validation.check_on_host(X, name, "UpdatableSVD")
        return _validation.check_matrix(X, name, dtype=dtype)

    def _need_left(self, what: str) -> None:
        if not self.left:
            raise ValueError(f"{what} needs the left factor; make the model with left=True.")

    def __getstate__(self) -> dict[str, Any]:
        """Without the multiplied-out factors."""
        return {**vars(self), "_shown": {}}

    def __sklearn_clone__(self) -> UpdatableSVD:
        """A model with the same parameters that has seen nothing."""
        names = ("n_oversamples", "left", "buffer_size", "forget", "shrinkage", "residual_rank", "dtype")
        return type(self)(self.n_components, **{name: getattr(self, name) for name in names})

    def __repr__(self) -> str:
        seen = "no data yet" if self._model is None else f"shape={self.shape}"
        return f"UpdatableSVD(n_components={self.n_components}, {seen})"
