"""`sketched_lstsq`: least squares with many more rows than columns, as accurate as a direct solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import seed_sequence
from lrla.ridge._preconditioned import Preconditioned, precondition, precondition_by_gram, rows_of, sketch_of
from lrla.ridge._refinement import cholesky, direct, iterations, lsqr, polyak, refine
from lrla.ridge._sweeps import System, column_norms, without_exponent
from lrla.sketch import make_sketch

INNER = {"cholesky": cholesky, "lsqr": lsqr, "polyak": polyak}
METHODS = ("auto", *INNER, "sketch_and_solve")
KINDS = (
    "sparse_stack", "countsketch", "gaussian", "rademacher", "orthogonal", "srdct", "srht", "uniform", "sparse_iid"
)  # fmt: skip
GRAM_COLUMNS = 2000  # up to which a dense Gram matrix is formed by itself
STAGES = 4  # as many times the iterations that the size of the sketch promises to suffice


@dataclass(frozen=True)
class LeastSquaresResult:
    """The solution of a least-squares problem and what is known about it.

    Attributes
    ----------
    x : array of shape (n,) or (n, t)
        In the namespace, device and dtype of A.
    rank : int
        Directions that were kept: singular values above 30 eps times the largest, after columns have unit norm.
    n_iter : int
        Iterations, or corrections of "gram" and "cholesky"; 0 for a direct solution.
    backward_error : float or ndarray of shape (t,)
        Estimate of the smallest change of the matrix, relative to its norm and with columns of unit norm, that makes x an exact
        solution.  Below 1e-15 in float64 no solver can do much better.
    residual_norm : float or ndarray of shape (t,)
        ``||A x - b||``.
    method : str
        What ran: "lapack", "gram", "cholesky", "lsqr", "polyak" or "sketch_and_solve".
    converged : bool
        Whether `backward_error` is what was asked for; always True for a direct solution and for "sketch_and_solve".
    """

    x: Any
    rank: int
    n_iter: int
    backward_error: Any
    residual_norm: Any
    method: str
    converged: bool


def sketched_lstsq(
    A: Any,
    b: Any,
    *,
    alpha: float = 0.0,
    kind: str = "sparse_stack",
    sketch_size: float | None = None,
    nnz: int | None = None,
    method: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    random_state: Any = None,
) -> LeastSquaresResult:
    """Solve ``min ||A x - b||^2 + alpha ||x||^2`` for a matrix with many more rows than columns.

    A random sketch of the rows gives a preconditioner with which the problem is nearly orthogonal; for a well-conditioned A,
    its Gram matrix in low precision does.  The result is backward stable, like that of a direct solver, and takes a few
    sweeps over A.

    Parameters
    ----------
    A : array-like, sparse matrix or device array of shape (m, n), m >= n
    b : array-like or device array of shape (m,) or (m, t)
        Where A is; computed in the dtype of A.
    alpha : float, default 0.0
        Ridge penalty.  Its rows are never formed, nor sketched.
    kind : str, default "sparse_stack"
        Family of the sketch, see `make_sketch`.
    sketch_size : float, optional
        Rows of the sketch, as a multiple of n; more of them cost time and memory in the beginning and save iterations.  Default:
        12 for "polyak", and for "lsqr" with dense A, where these are less than half of the rows; else 4.
    nnz : int, optional
        Non-zeros in each row of the sketch of kind "sparse_stack".  Default: 8, and 4 from 500 columns on, where these suffice.
    method : {"auto", "cholesky", "lsqr", "polyak", "sketch_and_solve"}
        "cholesky" solves with the Gram matrix of the preconditioned A, whose condition is about 10 whatever that of A was, and
        corrects the solution one to four times: 2 to 3 m n^2 flops in matrix products, in float32 where that is enough.
        "lsqr" and "polyak" (heavy ball, without inner products) iterate.
        "sketch_and_solve" returns the solution of the sketched problem, whose residual is a few per cent above the smallest.
        "auto", for dense A with n <= 2000, is "gram" where the condition of A, after columns have unit norm, is below about
        300, and "cholesky" where it is not or some of the rows do not look like it; otherwise "lsqr".  "gram" needs no sketch:
        it corrects the solution with the Gram matrix of A in float32, half the flops of "cholesky".
    tol : float, optional
        Relative backward error to reach.  Default: all that the precision gives.
    max_iter : int, optional
        Most iterations.  Default: what the size of the sketch promises to suffice.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    result : LeastSquaresResult
        With attributes x, rank, n_iter, backward_error, residual_norm, method and converged.

    Raises
    ------
    TypeError, ValueError
        For bad input, where A has more columns than rows, and where the solution is too large for its dtype.

    Warns
    -----
    ConvergenceWarning
        If the backward error stayed above `tol` (by default 10 eps, and 40 eps where rank is missing).

    Notes
    -----
    Columns are scaled to unit norm inside, so that their units do not matter.  Where A is rank deficient (dependent or zero
    columns) the solution lies in the space that the kept directions span, and is the shortest one there in scaled columns.

    Below 8 n rows, or for m n^2 < 1e8, a sketch saves nothing: the problem is solved by LAPACK's QR factorization, with the
    same scaling and the same rule for the rank, and `method` of the result is "lapack".  The sketch, dense and of
    `sketch_size` n rows, has to fit into memory.

    References
    ----------
    E. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and stable as
    classical direct solvers", arXiv:2406.03468.
    C. Paige, M. Saunders, "LSQR: an algorithm for sparse linear equations and sparse least squares", ACM TOMS 8(1), 1982.
    A. Higgins, D. Szyld, E. Boman, I. Yamazaki, "Analysis of randomized Householder-Cholesky QR factorization with
    multisketching", arXiv:2309.05868.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import sketched_lstsq
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((20000, 80))
    >>> result = sketched_lstsq(A, A @ np.arange(80.0) + rng.standard_normal(20000), random_state=0)
    >>> result.x.shape, result.rank, result.method
    ((80,), 80, 'gram')
    >>> bool(result.backward_error < 1e-15)
    True
    """
    A = _validation.check_matrix(A, "A")
    m, n = A.shape
    if m < n:
        raise ValueError(
            f"A has {m} rows and {n} columns; sketched_lstsq needs at least as many rows as columns. "
            "Use numpy.linalg.lstsq for the solution of least norm."
        )
    alpha = _validation.check_real(alpha, "alpha", 0.0)
    _validation.check_choice(method, "method", METHODS)
    size = (
        None if sketch_size is None else _validation.check_real(sketch_size, "sketch_size", 1.0, closed=(False, True))
    )
    tol = None if tol is None else _validation.check_real(tol, "tol", 0.0, 1.0, closed=(False, False))
    limit = None if max_iter is None else _validation.check_integer(max_iter, "max_iter", 1)
    _validation.check_choice(kind, "kind", KINDS)
    nnz = (8 if A.shape[1] < 500 else 4) if nnz is None else _validation.check_integer(nnz, "nnz", 1)
    seed = seed_sequence(random_state)
    rows = check_right_hand_side(b, A)
    # columns are scaled anyway: their squares alone would not call for it
    A, exponent = without_exponent(A, 900 if _arrays.real_dtype(rows) == np.float64 else 100)
    rows, shift = without_exponent(rows, 0)
    system = System(A, ridge=math.sqrt(alpha) * 2.0**-exponent)
    solved = solve(system, rows, method, kind, size, nnz, tol, limit, seed)
    X = times_power_of_two(solved.x.T, shift - exponent)
    error, norm = solved.backward_error, solved.residual_norm * 2.0**shift
    if len(getattr(b, "shape", np.shape(b))) == 1:
        X, error, norm = X[:, 0], float(error[0]), float(norm[0])
    if not solved.converged:
        _validation.warn_not_converged(
            f"The backward error is {np.max(error):.2g} after {solved.n_iter} iterations of {solved.method}. Raise "
            "sketch_size or max_iter, or take another kind of sketch."
        )
    return LeastSquaresResult(X, solved.rank, solved.n_iter, error, norm, solved.method, solved.converged)


def times_power_of_two(X: Any, exponent: int) -> Any:
    """``X 2^exponent``, or ValueError where that is no number any more."""
    if exponent == 0:
        return X
    half = exponent // 2
    with np.errstate(over="ignore"):
        X = X * 2.0**half * 2.0 ** (exponent - half)
    xp = _arrays.namespace(X)
    if not bool(xp.all(xp.isfinite(X))):
        raise ValueError(f"The solution is too large for {_arrays.real_dtype(X).name}; rescale A or b.")
    return X


def check_right_hand_side(b: Any, A: Any) -> Any:
    """The columns of b as rows (t, m), in the dtype of A and where A is."""
    _validation.refuse_unsupported(b, "b")
    home = A.data if _arrays.kind(A) == "device_sparse" else A
    on_host = _arrays.kind(A) in ("host", "sparse")
    if _arrays.kind(b) == "host" and on_host:
        b = np.asarray(b)
    elif _arrays.kind(b) != "device" or on_host or _arrays.describe(b) != _arrays.describe(home):
        raise ValueError(
            f"b is a {type(b).__name__} ({_arrays.library(b)}), but A lives in {_arrays.describe(home)}; b must be a dense "
            "array in the same place. Move one of them."
        )
    if b.ndim not in (1, 2) or b.shape[0] != A.shape[0]:
        raise ValueError(f"b must have shape ({A.shape[0]},) or ({A.shape[0]}, t), as A has; got {tuple(b.shape)}.")
    columns = b[:, None] if b.ndim == 1 else b
    checked = _validation.check_matrix(columns, "b", sparse=False, dtype=_arrays.real_dtype(home))
    return _arrays.namespace(checked).asarray(checked.T, copy=True) if not on_host else np.ascontiguousarray(checked.T)


def solve(
    system: System,
    b: Any,
    method: str,
    kind: str,
    size: float | None,
    nnz: int,
    tol: float | None,
    limit: int | None,
    seed: Any,
) -> LeastSquaresResult:
    """The algorithm behind `sketched_lstsq`; b (t, m) and x (t, n) hold vectors as rows."""
    m, n = system.shape
    norms = np.hypot(column_norms(system.A), system.ridge)
    goal = Goal.of(system, tol, limit)
    if m < 8 * n or m * n * n < 1e8:
        _validation.check_memory(8.0 * m * n, "A as a dense matrix")
        found = precondition(system, rows_of(system.A, b), norms, exact=True)
        return finish(found, b, "lapack", None, goal, m)
    if method == "auto":
        by_gram = precondition_by_gram(system, b, norms) if is_dense(system) and n <= GRAM_COLUMNS else None
        if by_gram is not None:
            result = finish(by_gram, b, "gram", direct, goal, m)
            if result.converged:
                return result
        method = "cholesky" if is_dense(system) and n <= GRAM_COLUMNS else "lsqr"
    d = sketch_rows(system, method, size)
    _validation.check_memory(8.0 * d * n, f"A sketch of {d} rows")
    op = make_sketch(m, d, kind, nnz=nnz, random_state=seed, dtype=system.dtype)
    found = precondition(system, sketch_of(op, system.A, b), norms, exact=method not in INNER)
    return finish(found, b, method, INNER.get(method), goal, d)


def is_dense(system: System) -> bool:
    """Tell whether A is an array."""
    return _arrays.kind(system.A) not in ("sparse", "device_sparse")


@dataclass(frozen=True)
class Goal:
    """The backward error to reach, in units where 1 is the size of A, and the iterations that it may take."""

    eps: float
    tol: float
    limit: int | None

    @classmethod
    def of(cls, system: System, tol: float | None, limit: int | None) -> Goal:
        return cls(_arrays.eps(system.dtype), tol or 0.0, limit)


def finish(
    found: tuple[Preconditioned, Any],
    b: Any,
    method: str,
    inner: Callable[..., tuple[Any, int]] | None,
    goal: Goal,
    d: int,
) -> LeastSquaresResult:
    """Corrections of the first y by `inner`, if there is one, with a preconditioner that d rows have made."""
    P, y = found
    state, n_iter = P.state(b, P.expand(y), y), 0
    if inner is not None:
        rate = math.sqrt(max(P.rank, 1) / d)
        budget = goal.limit or STAGES * iterations(rate, goal.eps)
        state, n_iter = refine(P, inner, b, state, max(goal.eps / 4.0, goal.tol), rate, budget)
    enough = (10.0 if P.rank == P.system.shape[1] else 40.0) * goal.eps  # a direction below 30 eps may be left out
    converged = inner is None or bool(np.all(state.error <= max(enough, goal.tol)))
    norm = _arrays.to_host(state.residual.top_norm)
    return LeastSquaresResult(state.x, P.rank, n_iter, state.error, norm, method, converged)


def sketch_rows(system: System, method: str, size: float | None) -> int:
    """Rows of the sketch.

    By default, twelve times n where sweeps over A are what counts, as long as that is less than half of A: their number is about
    72 / log(d / n), and the Gram matrix of the sketch costs less than what is saved.  Else four times n.
    """
    m, n = system.shape
    if size is None:
        most = {"polyak": 12.0, "lsqr": 12.0 if is_dense(system) else 4.0}.get(method, 4.0)
        size = max(4.0, min(most, m / (2.0 * n)))
    return min(m, math.ceil(size * n))
