"""`UpdatableSVD`: a truncated SVD that follows its matrix while rows, columns and entries come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.exceptions import NotFittedError

from lrla import _arrays, _validation
from lrla._estimator import all_or_nothing
from lrla.svd._factored_svd import FactoredSVD, Loss, Side
from lrla.svd._row_blocks import Rows, cut, rows_of, stacked


class UpdatableSVD:
    """Truncated SVD, A ~ U diag(s) V^T, of a matrix that changes.

    Rows and columns can be added and removed, entries changed, and low-rank terms added.  The cost of an update follows the
    size of the update, not the size of what was seen before.

    The result is the SVD of (previous approximation + new data), not of A itself; `reconstruction_error_` says how much was
    lost, and `refine` repairs it where the data can be read again.

    Parameters
    ----------
    n_components : int
        The rank k that is shown.
    n_oversamples : int or "auto", default="auto"
        Further components that are carried along, p.  They make the shown ones more accurate; "auto" is max(10, k // 2), 0
        reproduces the published method.
    left : bool, default=True
        Keep U.  Without it memory does not grow with the rows, and only rows can be added.
    buffer_size : int or "auto", default="auto"
        Rows (or columns) that are collected before they are worked in together, which is several times cheaper a row and a
        little more accurate.  Whatever is read from the object has seen all of the data.  "auto" is max(32, (k + p) // 2).
    forget : float, default=1.0
        In (0, 1]: what was seen before is multiplied by this at each call of `add_rows` or `add_columns`.
    shrinkage : float, default=0.0
        In [0, 1].  1 gives Frequent Directions, whose error is bounded for every stream; 0 is better on all but adversarial
        ones.
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
        ||A - U diag(s) V^T||_F (of the weighted A if forget < 1): the value or a bound, see `error_is_exact_`.
    error_is_exact_ : bool
        True for streams of rows only or of columns only: there the losses of all steps are orthogonal to one another.  Else
        the error is bounded by their sum.
    n_updates_ : int
        Small SVDs computed.
    n_folds_ : int
        Times that a factor was multiplied out and orthonormalized again.

    Notes
    -----
    A block of s rows with z stored entries costs O(z (k + p) + s^2 (k + p) + (s + k + p)^3) flops and the same again in
    reading; dense blocks O(n (k + p) (k + p + s)).  Removing rows copies the factor, O(m (k + p)).  Memory: (m + n) (k + p)
    numbers.  The singular values never exceed those of A (forget = 1, rows only) and never fall.

    An update that raises leaves the object as it was, to the bit.

    References
    ----------
    H. Zha, H. D. Simon, "On updating problems in latent semantic indexing", SIAM J. Sci. Comput. 21(2), 1999.
    M. Brand, "Fast low-rank modifications of the thin singular value decomposition", Linear Algebra Appl. 415, 2006.
    M. Ghashami, E. Liberty, J. M. Phillips, D. P. Woodruff, "Frequent directions: simple and deterministic matrix
    sketching", SIAM J. Comput. 45(5), 2016, arXiv:1501.01711.
    H. Deng, Y. Yang, J. Li, C. Chen, W. Jiang, S. Pu, "Fast updating truncated SVD for representation learning with sparse
    matrices", ICLR 2024, arXiv:2401.09703.

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
        self.n_oversamples = _automatic(n_oversamples, "n_oversamples", max(10, k // 2))
        self.left = bool(left)
        self.buffer_size = _automatic(buffer_size, "buffer_size", max(32, self._width // 2))
        self.forget = _validation.check_real(forget, "forget", 0, 1, closed=(False, True))
        self.shrinkage = _validation.check_real(shrinkage, "shrinkage", 0, 1)
        self.residual_rank = (
            None if residual_rank is None else _validation.check_integer(residual_rank, "residual_rank", 1)
        )
        self.dtype = _checked_dtype(dtype)
        self._model: FactoredSVD | None = None
        self._buffer: tuple[Side, tuple[Rows, ...]] = ("left", ())
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

        U, s, Vt = truncated_svd(A, min(self._width, *A.shape), tol=1e-6)
        model = self._new_model(*A.shape, A.dtype)
        model.load(U, s, Vt.T)
        model.set_known_loss(A, "any")
        self._model, self._buffer, self._shown = model, ("left", ()), {}
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
        Vt = _validation.check_matrix(Vt, "Vt", sparse=False, dtype=options.get("dtype"))
        s = _validation.check_vector(s, Vt.shape[0], "s", Vt)
        if s.min() < 0:
            raise ValueError(f"s must not be negative; got {s.min()}. Move the sign to U or Vt.")
        _check_orthonormal(Vt.T[:, s > 0], "Vt")
        if U is None:
            options["left"] = False
        else:
            U = _validation.check_matrix(U, "U", sparse=False, dtype=options.get("dtype"))
            if U.shape[1] != len(s):
                raise ValueError(f"U must have {len(s)} columns, as s has values and Vt rows; got {U.shape[1]}.")
            _check_orthonormal(U[:, s > 0], "U")
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
        _check_length(D.shape[1], m, "D", "rows")
        _check_length(E.shape[1], n, "E", "rows")
        _check_length(E.shape[0], D.shape[0], "E", "columns, as D has")
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
        m, n = self.shape
        i, j = _index(i, m, "i"), _index(j, n, "j")
        _check_length(len(j), len(i), "j", "entries, as i has")
        delta = _validation.check_vector(delta, len(i), "delta", np.empty(0))
        changes = scipy.sparse.coo_array((delta, (i, j)), shape=(m, n))
        if len(np.unique(i)) <= len(np.unique(j)):
            D, E = _distinct_rows(changes.tocsr())
        else:
            E, D = _distinct_rows(changes.T.tocsr())
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
        return self._merge(theirs)

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
        if self._buffer[1]:
            with self._update():
                pass
        return self

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self._fitted().shape
        side, blocks = self._buffer
        waiting = sum(map(len, blocks))
        return (m + waiting, n) if side == "left" else (m, n + waiting)

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
        return self._padded(self._settled().left.rows(_index(idx, self.shape[0], "idx")))

    def right_rows(self, idx: Any) -> np.ndarray:
        """Rows of V, that is columns of `Vt`, without multiplying out the others.

        Parameters
        ----------
        idx : array-like of int of shape (b,)

        Returns
        -------
        ndarray of shape (b, n_components)
        """
        return self._padded(self._settled().right.rows(_index(idx, self.shape[1], "idx")))

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
    def _update(self, entries: int = 0) -> Iterator[FactoredSVD]:
        """Around every change: what was buffered comes first, and whatever is raised, the object stays as it was.

        `entries` that are going to be written let the checkpoint choose its way.
        """
        model, before = self._fitted(), dict(vars(self))
        try:
            with model.transaction(whole=entries >= model.right.n):
                self._shown = {}
                self._work_in_buffer(model)
                yield model
        except BaseException:
            vars(self).update(before)
            raise

    def _work_in_buffer(self, model: FactoredSVD) -> None:
        side, blocks = self._buffer
        if self.forget < 1:
            model.scale(self.forget ** len(blocks))
            blocks = [block.scaled(self.forget**age) for age, block in enumerate(reversed(blocks))][::-1]
        for rows in stacked(blocks, self._longest_block):
            model.absorb(rows, side)
        self._buffer = (side, ())

    @property
    def _longest_block(self) -> int:
        """Rows worked in at once: the small SVD costs the cube of it, and blocks as long as the rank cost least a row."""
        return max(128, 2 * self._width)

    @all_or_nothing
    def _append(self, X: Any, side: Side, name: str) -> UpdatableSVD:
        """Append the rows of X at that side (for columns X is a transpose): through the buffer if they are few."""
        if self._model is None:
            self._model = self._new_model(*((0, X.shape[1]) if side == "left" else (X.shape[1], 0)), X.dtype)
        else:
            _check_length(X.shape[1], self.shape[side == "left"], name, "columns" if side == "left" else "rows")
        if X.shape[0] < min(self.buffer_size, self._longest_block):
            return self._collect(rows_of(_by_rows(X)), side)
        with self._update(entries=X.size) as model:
            model.scale(self.forget)
            for block in cut(_by_rows(X), self._longest_block):
                model.absorb(block, side)
        return self

    def _collect(self, block: Rows, side: Side) -> UpdatableSVD:
        old_side, blocks = self._buffer
        if blocks and (old_side != side or type(blocks[0]) is not type(block)):
            self.flush()
            blocks = ()
        self._shown = {}
        self._buffer = (side, (*blocks, block))
        if sum(map(len, self._buffer[1])) >= self.buffer_size:
            self.flush()
        return self

    def _add_products(self, D: Any, E: Any) -> UpdatableSVD:
        with self._update(entries=E.size + D.size) as model:
            blocks = (cut(_by_rows(X), self._longest_block) for X in (D, E))
            for left, right in zip(*blocks, strict=True):
                model.add_product(left, right)
        return self

    @all_or_nothing
    def _merge(self, theirs: FactoredSVD) -> UpdatableSVD:
        if self._model is None:
            self._model = self._new_model(0, theirs.right.n, theirs.right.dtype)
        _check_length(theirs.right.n, self._model.right.n, "other", "columns")
        with self._update() as model:
            model.merge(theirs)
        return self

    def _remove(self, idx: Any, side: Side) -> UpdatableSVD:
        size = self.shape[side == "right"]
        index = np.unique(_index(idx, size, "idx"))
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
        if dtype is not None and _is_plain(X, name, dtype):
            return X
        if _arrays.kind(X) in ("device", "device_sparse"):
            raise TypeError(f"{name} comes from {_arrays.library(X)}, but UpdatableSVD needs NumPy arrays on the host.")
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


def _automatic(value: Any, name: str, automatic: int) -> int:
    return automatic if isinstance(value, str) and value == "auto" else _validation.check_integer(value, name, 0)


def _checked_dtype(dtype: Any) -> np.dtype | None:
    if dtype is None:
        return None
    if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"dtype must be float64, float32 or None; got {dtype!r}.")
    return np.dtype(dtype)


def _is_plain(X: Any, name: str, dtype: np.dtype) -> bool:
    """Whether X can be taken as it is.  Small updates take less time than scikit-learn's checks, made for all cases."""
    if type(X) is np.ndarray:
        return X.ndim == 2 and X.dtype == dtype and X.size > 0 and bool(np.isfinite(X).all())
    if type(X) not in (scipy.sparse.csr_array, scipy.sparse.csr_matrix) or X.dtype != dtype or 0 in X.shape:
        return False
    return _validation.check_sparse(X, name) is X and bool(np.isfinite(X.data).all())


def _check_length(found: int, wanted: int, name: str, what: str) -> None:
    if found != wanted:
        raise ValueError(f"{name} must have {wanted} {what}; got {found}.")


def _check_orthonormal(X: np.ndarray, name: str) -> None:
    X = X.astype(np.float64, copy=False)
    gap = np.abs(X.T @ X - np.eye(X.shape[1])).max(initial=0.0)
    if gap > 1e-4:
        raise ValueError(
            f"The singular vectors in {name} must be orthonormal; their inner products are off by {gap:.1e}. "
            "Make the SVD of the product of the three factors first."
        )


def _index(values: Any, size: int, name: str) -> np.ndarray:
    """An index array whose entries lie in [0, size)."""
    index = np.atleast_1d(np.asarray(values))
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise TypeError(
            f"{name} must be a 1-dimensional array of integers; got {index.ndim} dimension(s) of {index.dtype}."
        )
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(f"{name} must lie in [0, {size}); got values from {index.min()} to {index.max()}.")
    return index.astype(np.intp)


def _by_rows(X: Any) -> Any:
    """CSR for sparse matrices."""
    return X if isinstance(X, np.ndarray) else X.tocsr()


def _distinct_rows(changes: Any) -> tuple[Any, Any]:
    """D, E with changes = D^T E, where D holds the unit vectors of the rows that change."""
    rows = np.flatnonzero(np.diff(changes.indptr))
    D = scipy.sparse.csr_array(
        (np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(len(rows), changes.shape[0])
    )
    return D, changes[rows]
