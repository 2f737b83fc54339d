"""Half-sweeps: with the factors of one side fixed, the rows of the other side by preconditioned conjugate gradients.

All rows share one preconditioner, the mean square of every coordinate of the features: where the factors are balanced
(see `_balance`) the average of the rows' Gram matrices is diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lrla import _arrays, _validation
from lrla._jit import frozen
from lrla._threads import available_threads, share
from lrla.completion import _kernels
from lrla.completion._observed import BLOCKS, Columns, Observed, Part

SCRATCH_BYTES = 1 << 19  # of gathered features: further passes read them in order, from the second cache
NOISE = 8.0  # rounding noise of a residual, in units of the last place of its terms
# Entries, if they are many, of which all threads together make copies at a time; more if the factors take more memory.
LEAST_GROUP = 1 << 21
# Rows of factors that are worked on at a time, in the second cache, and in how many parts that threads share.
BLOCK_ROWS, FACTOR_PARTS = 1024, 16


class Solver(NamedTuple):
    """How exactly a half-sweep is solved."""

    tolerance: float = 0.2
    max_iter: int = 8


class Sums(NamedTuple):
    """What a half-sweep saw: loss and penalty of its side before, what their sum went down by, steps an entry."""

    loss: float
    ridge: float
    gain: float
    steps: float


class Factors:
    """Two factors with their offsets, side by side in rows of whole cache lines.

    With offsets, row i of U is (b_i, 1, u_i, 0 ...) and row j of V is (1, c_j, v_j, 0 ...): one product of two rows gives
    b_i + c_j + u_i v_j, and either side's half-sweep finds its own offset as one more coordinate.

    Attributes
    ----------
    U, V : (m, width), (n, width)
    k : int
        Columns of the factors.
    shift : int
        2 with offsets, else 0.
    spreads : arrays of the shapes of U and V, or None
        Variances of their entries, where factors are distributions and not points.
    """

    def __init__(self, U: np.ndarray, V: np.ndarray, k: int, shift: int, spreads: tuple[np.ndarray, ...] | None = None):
        self.U, self.V, self.k, self.shift, self.spreads = U, V, k, shift, spreads

    @classmethod
    def empty(cls, shape: tuple[int, int], dtype: np.dtype, offsets: bool) -> Factors:
        """No columns, offsets zero."""
        shift = 2 if offsets else 0
        U, V = (aligned_zeros(size, padded(shift, dtype), dtype) for size in shape)
        if offsets:
            U[:, 1] = V[:, 0] = 1
        return cls(U, V, 0, shift)

    @property
    def columns(self) -> slice:
        """Where the factors stand in U and V."""
        return slice(self.shift, self.shift + self.k)

    @property
    def T(self) -> Factors:
        """The two sides exchanged, in place of a copy: the offsets' columns change their parts."""
        return Factors(self.V, self.U, self.k, self.shift, None if self.spreads is None else self.spreads[::-1])

    def append(self, U: np.ndarray, V: np.ndarray) -> None:
        """Add columns U (m, g) and V (n, g)."""
        self.replace(np.hstack([self.U[:, self.columns], U]), np.hstack([self.V[:, self.columns], V]))

    def keep(self, columns: Any) -> None:
        """Drop all columns but some: their numbers, or a mask (k,)."""
        chosen = self.shift + np.arange(self.k)[columns]
        spreads = None if self.spreads is None else tuple(S[:, chosen] for S in self.spreads)
        self.replace(self.U[:, chosen], self.V[:, chosen], spreads)

    def stretch(self, ratios: np.ndarray) -> None:
        """Multiply the products of the columns by numbers (k,)."""
        for X in (self.U, self.V):
            X[:, self.columns] *= np.sqrt(ratios).astype(X.dtype)

    def replace(self, U: np.ndarray, V: np.ndarray, spreads: Any = None) -> None:
        """Put factors U (m, k) and V (n, k), and their variances if there are some, in place of the present ones."""
        self.k = U.shape[1]
        before = self.spreads
        self.U, self.V = (self._with(old, new) for old, new in ((self.U, U), (self.V, V)))
        self.spreads = None
        if spreads is not None:
            assert before is not None  # the offsets keep theirs
            self.spreads = tuple(self._with(old, new) for old, new in zip(before, spreads, strict=True))

    def spread(self) -> None:
        """Make the factors distributions, with no width as yet."""
        self.spreads = tuple(aligned_zeros(X.shape[0], X.shape[1], X.dtype) for X in (self.U, self.V))

    def _with(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        width = padded(self.shift + self.k, old.dtype)
        result = old if old.shape[1] == width else aligned_zeros(len(old), width, old.dtype)
        result[:, : self.shift] = old[:, : self.shift]
        result[:, self.columns] = new
        result[:, self.shift + self.k :] = 0
        return result

    def copy(self) -> Factors:
        """Factors that share nothing with these."""
        U, V = (aligned_zeros(X.shape[0], X.shape[1], X.dtype) for X in (self.U, self.V))
        U[:], V[:] = self.U, self.V
        result = Factors(U, V, self.k, self.shift)
        if self.spreads is not None:
            result.spread()
            for new, old in zip(result.spreads or (), self.spreads, strict=True):
                new[:] = old
        return result


def padded(width: int, dtype: np.dtype) -> int:
    """The number of coordinates in the cache lines that `width` of them take; one line at least."""
    line = _kernels.LINE_BYTES // np.dtype(dtype).itemsize
    return max(1, -(-width // line)) * line


def aligned_zeros(rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, width) that start on a cache line: a line in two of them takes twice as long to read or write."""
    return _aligned(np.zeros, rows, width, dtype)


def aligned_empty(rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    """An array (rows, width) with any contents that starts on a cache line."""
    return _aligned(np.empty, rows, width, dtype)


def _aligned(create: Any, rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    size, line = rows * width * np.dtype(dtype).itemsize, _kernels.LINE_BYTES
    memory = create(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(rows, width)


def update_rows(
    observed: Observed | Columns,
    X: np.ndarray,
    F: np.ndarray,
    penalty: np.ndarray,
    free: np.ndarray,
    numbers: np.ndarray,
    row_weights: np.ndarray,
    solver: Solver,
    spreads: tuple[np.ndarray, ...] | None = None,
    noise: float = 0.0,
) -> Sums:
    """Move every row of X towards its minimiser, in place; see `_kernels.half_sweep_rows`.

    Parameters
    ----------
    observed : Observed or Columns, (m, n)
    X, F : (m, width), (n, width)
        Unknowns and features, C-contiguous rows of whole cache lines.
    penalty, free : (width,)
        Penalty of every coordinate, and whether it may change (1 or 0).
    numbers : (2,)
        Scale and mean: the target of an observation x is scale x - mean.
    row_weights : (m,)
        Factors of the penalty.
    spreads : arrays of the shapes of X and F, optional
        Variances of X, which are written, and of F.
    noise : float
        Variance of the noise of the scaled observations, for those of X.
    """
    dtype = X.dtype
    d = np.where(free > 0, mean_squares(F, observed.T.counts), 1)
    shape = np.concatenate((penalty, free, d)).astype(dtype)
    rounding = (NOISE * _arrays.eps(dtype)) ** 2
    form = _form(dtype, *numbers[:2], np.finfo(dtype).tiny, rounding, noise, solver.tolerance)
    counts, ones = (
        observed.counts.astype(dtype),
        _form(dtype, 0, -1),
    )  # a residual of one: its sums are those of features

    def work(part: Part, scratch: np.ndarray, sums: np.ndarray) -> None:
        rows, spread = part.rows, None
        if spreads is not None:
            spread = spreads[0][rows]
            _kernel(part, spreads[1], spread, shape, ones, _kernels.SUMS_ONLY, 0, scratch, sums)
        own = counts[rows], row_weights[rows], spread
        _kernel(part, F, X[rows], shape, form, solver.max_iter, 0, scratch, sums, *own)

    loss, ridge, gain, steps = _over_parts(observed, X, solver.max_iter > 0, work).tolist()
    return Sums(loss, ridge, gain, steps / max(1, observed.nnz))


def add_up_residuals(
    observed: Observed | Columns, F: np.ndarray, X: np.ndarray, numbers: np.ndarray, tail: int
) -> None:
    """Write into the last columns of X the sums of those of F times the residuals of the columns before, and their weights.

    Parameters
    ----------
    observed : Observed or Columns, (m, n)
    F, X : (n, width), (m, width)
        C-contiguous rows of whole cache lines; the last `tail` columns fill cache lines of their own.
    numbers : (2,)
        Scale and mean: the residual is ``scale x_ij - mean - f_j x_i``.
    """
    if isinstance(observed, Columns):
        scatter_residuals(observed.T, X, F, numbers, tail)
        return
    shape, form, lines = np.zeros(3 * X.shape[1], X.dtype), _form(X.dtype, *numbers), _lines(tail, X.dtype)

    def work(part: Part, scratch: np.ndarray, sums: np.ndarray) -> None:
        _kernel(part, F, X[part.rows], shape, form, _kernels.SUMS_ONLY, lines, scratch, sums)

    _over_parts(observed, X, False, work)


def scatter_residuals(
    observed: Observed, F: np.ndarray, X: np.ndarray, numbers: np.ndarray, tail: int, squares: np.ndarray | None = None
) -> None:
    """The same for the transpose, from entries by rows: into the last columns of F (n, width) go sums of those of X (m, width).

    With `squares` (m,) the last columns of X are first made the sums of those of F, times the squares.
    """
    n, width = F.shape
    form = (*numbers.astype(F.dtype), _lines(width, F.dtype))
    squares = np.empty(0, F.dtype) if squares is None else squares
    # as many sums side by side as threads may want, and memory for a factor or two
    sums = np.zeros((int(np.clip(2 * sum(observed.shape) * width // (n * tail), 2, 8)), n, tail), F.dtype)
    longest = int(np.diff(observed.indptr).max(initial=0)) + 4

    def work(first: int, last: int) -> None:
        kept = np.empty(longest, F.dtype)
        for place in range(first, last):
            blocks = BLOCKS * place // len(sums), BLOCKS * (place + 1) // len(sums)
            for part in observed.parts(blocks[0], blocks[1], LEAST_GROUP):
                _kernels.scatter_residuals(
                    part.indptr, part.indices, part.values, part.weights, F.reshape(-1), X[part.rows].reshape(-1), form,
                    _lines(tail, F.dtype), (part.bounds[0], part.bounds[-1]), squares[part.rows], kept,
                    sums[place].reshape(-1),
                )  # fmt: skip

    share(work, len(sums))
    F[:, width - tail :] = sums.sum(axis=0)


def _lines(width: int, dtype: np.dtype) -> int:
    """Cache lines in a row."""
    return width * dtype.itemsize // _kernels.LINE_BYTES


def _form(dtype: np.dtype, *numbers: float) -> tuple[np.generic, ...]:
    """The six numbers that the kernel takes; those that are not given are zero."""
    return tuple(np.array([*numbers, 0, 0, 0, 0, 0, 0][:6], dtype))


def _over_parts(
    observed: Observed | Columns, X: np.ndarray, gather: bool, task: Callable[[Part, np.ndarray, np.ndarray], None]
) -> np.ndarray:
    """Call a task for all parts of the entries, shared among threads, with room to work in and for sums; the total of these."""
    blocks, width = len(observed.bounds) - 1, X.shape[1]
    sums, room = np.zeros((blocks, 4)), SCRATCH_BYTES // (width * X.itemsize) if gather else 0
    group = max(LEAST_GROUP, sum(observed.shape) * width // 4) // available_threads()

    def work(first: int, last: int) -> None:
        scratch = aligned_empty(room + _kernels.WORK_ROWS, width, X.dtype).reshape(-1)
        for part in observed.parts(first, last, group):
            task(part, scratch, sums[part.blocks])

    share(work, blocks)
    return sums.sum(axis=0)


def _kernel(
    part: Part, F: np.ndarray, X: np.ndarray, shape: np.ndarray, form: tuple[np.generic, ...], most: int, tail: int,
    scratch: np.ndarray, sums: np.ndarray, counts: np.ndarray | None = None, row_weights: np.ndarray | None = None,
    spread: np.ndarray | None = None,
) -> None:  # fmt: skip
    """The kernel on a part, with X and all that belongs to rows cut down to those of the part."""
    nothing = np.empty(0, X.dtype)
    counts, row_weights, spread = (nothing if x is None else x.reshape(-1) for x in (counts, row_weights, spread))
    _kernels.half_sweep_rows(
        part.indptr, part.indices, part.values, part.weights, counts, row_weights, F.reshape(-1), X.reshape(-1), spread,
        shape, form, most, tail, part.bounds, (0, len(part.bounds) - 1), scratch, sums,
    )  # fmt: skip


def mean_squares(F: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of the squares of every column, with the rows counted as often as they are observed; float64."""
    total = sum_over_rows(len(F), lambda rows: counts[rows] @ np.square(F[rows], dtype=np.float64))
    return total / max(counts.sum(), np.finfo(np.float64).tiny)


def sum_over_rows(count: int, term: Callable[[slice], np.ndarray]) -> np.ndarray:
    """The sum of `term` over blocks of so many rows; threads share them, and make no difference to the sum."""
    blocks = [slice(start, min(start + BLOCK_ROWS, count)) for start in range(0, max(count, 1), BLOCK_ROWS)]
    sums: list[Any] = [0.0] * min(FACTOR_PARTS, len(blocks))

    def work(first: int, last: int) -> None:
        for part in range(first, last):
            for rows in blocks[len(blocks) * part // len(sums) : len(blocks) * (part + 1) // len(sums)]:
                sums[part] = sums[part] + term(rows)

    share(work, len(sums))
    return sum(sums[1:], start=sums[0])


def pair_products(rows: np.ndarray, columns: np.ndarray, U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """``u_i v_j`` for pairs (i, j), (n_pairs,).

    Parameters
    ----------
    rows, columns : (n_pairs,) int32
    U, V : (m, width), (n, width)
        C-contiguous rows of whole cache lines.
    """
    out, lines = np.empty(len(rows), U.dtype), U.shape[1] * U.itemsize // _kernels.LINE_BYTES
    _kernels.pair_products(frozen(rows), frozen(columns), U.reshape(-1), V.reshape(-1), lines, out)
    return out


# ---------------------------------------------------------------------------------------------------- the array routine


def half_sweep(
    X: Any,
    V: Any,
    U: Any = None,
    *,
    reg: float = 0.0,
    shape: tuple[int, int] | None = None,
    sample_weight: Any = None,
    missing_values: float = math.nan,
    cg_tol: float = 0.2,
    cg_max_iter: int = 8,
) -> Any:
    """Update all rows of U in ``X ~ U V^T`` with V fixed: one half of a sweep of alternating least squares.

    Row i of the result approximates the minimiser of ``sum_j w_ij (x_ij - u_i v_j)^2 + reg |u_i|^2`` over the observed
    entries of row i, by conjugate gradients that start at row i of U.

    Parameters
    ----------
    X : sparse matrix, array with NaN, masked array, or tuple (values, (rows, columns)), (m, n)
        The observed entries.  On a device (CuPy, torch, any array namespace): triplets of distinct cells.
    V : array of shape (n, k)
    U : array of shape (m, k), optional
        Where to start; zeros without.  It is not changed.
    reg : float, default 0
        Penalty; with 0 a row that has fewer entries than columns is moved as little as needed.
    shape : (m, n), optional
        Of triplets, where empty rows or columns at the end shall count.
    sample_weight : array-like, optional
        Weights of the observed entries, in the order in which X holds them.
    missing_values : float, default NaN
        Marks a hole in an array.
    cg_tol : float, default 0.2
        A row is done when its preconditioned residual has fallen by this factor.
    cg_max_iter : int, default 8
        Largest number of steps.

    Returns
    -------
    U : array of shape (m, k)
        In the dtype of the values, where X lives.  Rows without entries are zero.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Notes
    -----
    All rows share one diagonal preconditioner, from the mean squares of V's columns over the entries.  It is best where
    the Gram matrix of V is diagonal; ``4 k`` flops an entry and step.  On a device rows are padded to tiles.

    References
    ----------
    Y. Gu, Z. Song, J. Yin, L. Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear
    time", ICLR 2024, arXiv:2302.11068.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla.completion import half_sweep
    >>> X = np.array([[2.0, 4.0, np.nan], [np.nan, 2.0, 3.0]])
    >>> V = np.array([[1.0], [2.0], [3.0]])
    >>> half_sweep(X, V)
    array([[2.],
           [1.]])
    """
    reg = _validation.check_real(reg, "reg", 0.0)
    cg_tol = _validation.check_real(cg_tol, "cg_tol", 0.0, 1.0, closed=(True, False))
    cg_max_iter = _validation.check_integer(cg_max_iter, "cg_max_iter", 0)
    if isinstance(X, tuple) and len(X) == 2 and _arrays.kind(X[0]) == "device":
        return _on_device(X, V, U, reg, shape, sample_weight, cg_tol, cg_max_iter)
    from lrla.completion._input import read_observed

    observed = read_observed(X, "X", shape=shape, sample_weight=sample_weight, missing_values=missing_values)
    V = _validation.check_matrix(V, "V", sparse=False, dtype=observed.dtype)
    m, k = observed.shape[0], V.shape[1]
    _check_rows(V, "V", observed.shape[1])
    F, result = (aligned_zeros(size, padded(k, observed.dtype), observed.dtype) for size in observed.shape[::-1])
    F[:, :k] = V
    if U is not None:
        U = _validation.check_matrix(U, "U", sparse=False, dtype=observed.dtype)
        _check_start(U, m, k)
        result[:, :k] = U
    penalty, free = (np.zeros(F.shape[1], observed.dtype) for _ in range(2))
    penalty[:k], free[:k] = reg, 1
    ones = np.ones(m, observed.dtype)
    update_rows(observed, result, F, penalty, free, np.array([1.0, 0.0]), ones, Solver(cg_tol, cg_max_iter))
    return np.ascontiguousarray(result[:, :k])


def _on_device(
    X: Any, V: Any, U: Any, reg: float, shape: Any, sample_weight: Any, cg_tol: float, cg_max_iter: int
) -> Any:
    from lrla.completion._tiles import RowTiles, half_sweep_tiles

    values, (rows, columns) = X
    xp = _arrays.namespace(values)
    V = _validation.check_device(V, "V", sparse=False)
    values = _arrays.astype(values, _arrays.real_dtype(V))
    m, n = (int(xp.max(rows)) + 1, V.shape[0]) if shape is None else shape
    _check_rows(V, "V", n)
    for index, size, what in ((rows, m, "rows"), (columns, n, "columns")):
        if tuple(index.shape) != tuple(values.shape) or not xp.isdtype(index.dtype, "integral"):
            raise ValueError(f"X = (values, (rows, columns)): {what} must be integers, as many as there are values.")
        if bool(xp.any((index < 0) | (index >= size))):
            raise ValueError(f"X = (values, (rows, columns)): {what} must lie in [0, {size}).")
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError("X = (values, (rows, columns)): the values contain NaN or infinity; leave these entries out.")
    if U is None:
        U = xp.zeros((m, V.shape[1]), dtype=V.dtype, device=_arrays.device(V))
    _check_start(U, m, V.shape[1])
    return half_sweep_tiles(RowTiles(rows, columns, values, (m, n), sample_weight), V, U, reg, cg_tol, cg_max_iter)


def _check_rows(V: Any, name: str, rows: int) -> None:
    if V.shape[0] != rows:
        raise ValueError(f"{name} must have a row for each of the {rows} columns of X; got shape {tuple(V.shape)}.")


def _check_start(U: Any, m: int, k: int) -> None:
    if tuple(U.shape) != (m, k):
        raise ValueError(f"U must have shape ({m}, {k}), the rows of X and the columns of V; got {tuple(U.shape)}.")
