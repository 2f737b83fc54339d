"""`truncated_svd`: the leading singular triplets to a requested accuracy, by the solver that suits the matrix."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._progress import Callback, Progress
from lrla._random import Stream, seed_sequence
from lrla.exceptions import RankDeficientWarning
from lrla.linalg._blas_threads import one_blas_thread
from lrla.linalg._operator import as_operator, column_means, is_for_tiles
from lrla.linalg._orthonormalize import orthonormalize
from lrla.svd import _direct, _krylov, _subspace
from lrla.svd._rayleigh_ritz import finish, rayleigh_ritz
from lrla.svd._result import SVDResult
from lrla.svd._scaling import is_ordinary, without_exponent

# Entries of an array from which on its first product, and no pass before it, tells that all of them are finite: where A does
# not fit into a cache, two passes take as long as one product with 24 vectors.
LARGE = 2**20
METHODS = ("auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack")


def truncated_svd(
    A: Any,
    k: int,
    *,
    tol: float = 1e-3,
    method: str = "auto",
    center: Any = False,
    block_size: Any = "auto",
    max_iter: int = 300,
    v0: Any = None,
    dtype: Any = None,
    random_state: Any = None,
    return_info: bool = False,
    verbose: int = 0,
    callback: Callback | None = None,
) -> tuple[Any, ...]:
    """The k leading singular triplets of A, to a requested accuracy.

    Parameters
    ----------
    A : array-like, sparse matrix or array, LinearOperator or device array, (m, n)
        Structural zeros of a sparse matrix are zeros; it is never densified, but for problems so small or ranks so large
        that the dense SVD is the method.  float32 is computed in float32, every other real type in float64.
    k : int in [1, min(m, n)]
        Number of triplets.
    tol : float, default 1e-3
        Relative residual at which a triplet counts as found: ``||A^T u_i - s_i v_i|| <= tol s_i``.  The error of a singular
        value is quadratic in it: about 1e-6 at the default.
    method : {"auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack"}, default "auto"
        "krylov" is block Krylov on A^T A and moves on to "krylov2", block Krylov on A, where squaring would cost the
        accuracy asked for; "dash" is dashSVD; "randomized" is subspace iteration with as many steps as scikit-learn takes;
        "gram" decomposes A^T A of a tall matrix; "lapack" decomposes A.  "auto" takes "lapack" where a side is at most 300
        long or k is a large part of it, else "krylov".
    center : bool or array-like of shape (n,), default False
        Subtract the column means (or the vector given) from every row, without forming the difference.
    block_size : "auto" or int
        Vectors that are multiplied at a time by the Krylov methods.
    max_iter : int, default 300
        Largest number of steps: block products, or with a sparse A filtered ones of up to 6 block products.
    v0 : array-like of shape (j, n), optional
        Rows to start from, for instance the Vt of a similar matrix.  Needs m >= n, where the basis lives on this side.
    dtype : {None, float32, float64}
        Convert A to this type first.
    random_state : None, int, RandomState or Generator
        An int makes the result repeatable.
    return_info : bool, default False
        Also return the `SVDResult` with residuals, steps and status.
    verbose : int, default 0
        1 shows a progress bar.
    callback : callable, optional
        Called with a dict after every block product; a true return value stops the iteration.

    Returns
    -------
    U : array of shape (m, k)
    s : array of shape (k,)
        Descending.
    Vt : array of shape (k, n)
        The entry of largest magnitude of every row is positive.  All three live where A does.
    info : SVDResult
        Only with `return_info`.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` is reached; the result is returned all the same.
    RankDeficientWarning
        If A has rank below k: trailing singular values are exactly zero, the factors orthonormal.

    Notes
    -----
    Krylov methods take about ``(1.5 to 4) k / b + 5`` steps with blocks of b vectors, ``4 nnz b`` flops each, and hold up
    to ``3.5 k`` vectors of the shorter side (``4.5 k`` in single precision for sparse A).  Except for sparse A, the images
    of these vectors are kept as well while they take less than a quarter of the memory of a dense A, and half a step more
    takes the last block into the space of the result: it is better than its residuals, which were known before, say.

    For a handful of triplets of a small dense matrix `numpy.linalg.svd` is as good.

    References
    ----------
    C. Musco, C. Musco, "Randomized block Krylov methods for stronger and faster approximate SVD", NIPS 2015,
    arXiv:1504.05477.

    J. Tropp, R. Webber, "Randomized algorithms for low-rank matrix approximation", 2023, arXiv:2306.12418.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import truncated_svd
    >>> A = np.outer(np.arange(1.0, 5.0), [2.0, 0.0, 1.0])
    >>> U, s, Vt = truncated_svd(A, 1)
    >>> np.allclose(U * s @ Vt, A)
    True
    """
    unseen = dtype is None and v0 is None and center is False and _is_large(A)
    A = _validation.contiguous(A) if unseen else _validation.check_matrix(A, "A", operator=True, dtype=dtype)
    k = _validation.check_rank(k, A.shape, "k")
    tol = _validation.check_real(tol, "tol", 0.0, 1.0, closed=(True, False))
    _validation.check_choice(method, "method", METHODS)
    _validation.check_integer(max_iter, "max_iter", 1)
    if not (isinstance(block_size, str) and block_size == "auto"):
        _validation.check_integer(block_size, "block_size", 1, min(A.shape))
    mean = check_center(center, A)
    if v0 is not None:
        v0 = _check_start(v0, A)
    with Progress("truncated SVD", max_iter, verbose, callback) as progress:
        result = solve(
            A, k, mean=mean, tol=tol, method=method, block_size=block_size, max_iter=max_iter, v0=v0,
            seed=seed_sequence(random_state), progress=progress, unseen=unseen,
        )  # fmt: skip
    warn(result, k)
    s = _arrays.from_host(result.s.astype(_arrays.real_dtype(result.Vt)), result.Vt)
    return (result.U, s, result.Vt, result) if return_info else (result.U, s, result.Vt)


def _is_large(A: Any) -> bool:
    """Whether A is a matrix in memory that needs no check but of its values, and over which a pass takes long."""
    return type(A) is np.ndarray and A.ndim == 2 and A.dtype in _validation.FLOATS and A.size >= LARGE


def check_center(center: Any, A: Any) -> Any:
    """The vector to subtract from every row, or None."""
    if isinstance(center, (bool, np.bool_)):
        return column_means(A) if center else None
    mean = _validation.check_vector(center, A.shape[1], "center", A)
    return _arrays.from_host(mean, A) if _arrays.kind(A) in ("device", "device_sparse") else mean


def _check_start(v0: Any, A: Any) -> Any:
    if A.shape[0] < A.shape[1]:
        raise ValueError(
            f"v0 needs a matrix with at least as many rows as columns; A has shape {tuple(A.shape)}. Pass A.T."
        )
    v0 = _validation.check_matrix(v0, "v0", sparse=False)
    if v0.shape[1] != A.shape[1] or v0.shape[0] > v0.shape[1]:
        raise ValueError(f"v0 must have shape (j, {A.shape[1]}), j <= {A.shape[1]}; got {tuple(v0.shape)}.")
    if _arrays.describe(v0) != _arrays.describe(A) and _arrays.kind(A) in ("device", "device_sparse"):
        raise ValueError(f"v0 is on {_arrays.describe(v0)}, but A on {_arrays.describe(A)}; move one of them.")
    return v0


def warn(result: SVDResult, k: int, stacklevel: int = 4) -> None:
    """Say what a result lacks."""
    if not result.converged and result.status != "stopped":
        _validation.warn_not_converged(
            f"{result.n_converged} of {k} singular triplets converged in {result.n_iter} steps. {result.message}",
            stacklevel=stacklevel,
        )
    warn_rank(result.rank, k, stacklevel)


def warn_rank(rank: int, k: int, stacklevel: int = 3) -> None:
    """Say that there are fewer independent directions than components; a zero matrix needs no words."""
    if 0 < rank < k:
        warnings.warn(
            f"The matrix has numerical rank {rank}, below the {k} components asked for; the others are zero.",
            RankDeficientWarning,
            stacklevel=stacklevel,
        )


def solve(
    A: Any,
    k: int,
    *,
    mean: Any,
    seed: np.random.SeedSequence,
    progress: Progress,
    tol: float = 1e-3,
    method: str = "auto",
    block_size: Any = "auto",
    max_iter: int = 300,
    v0: Any = None,
    n_iter: int | None = None,
    n_oversamples: int = 10,
    unseen: bool = False,
) -> SVDResult:
    """What `truncated_svd` does, on checked arguments.  `s` of the result is float64 on the host.

    `unseen` says that entries of A, then an array in memory, may be infinite or no numbers.
    """
    _validation.check_memory(8.0 * sum(A.shape) * k, f"The {k} singular vectors of a matrix of shape {tuple(A.shape)}")
    if method == "auto":
        method = _choose(A, k)
    if unseen and method != "krylov":
        A, unseen = _validation.check_matrix(A, "A"), False
    A, exponent = (A, 0) if unseen else without_exponent(A)
    mean = None if mean is None else mean * 2.0**-exponent
    op = as_operator(A, mean, iterated=method in ("krylov", "krylov2"))
    stream = _Fresh(Stream.from_seed(seed), op)
    side = op if op.shape[0] >= op.shape[1] else op.T
    block = min(_block(A, k) if isinstance(block_size, str) else block_size, side.shape[1])
    status, n_iter_done, n_products, n_converged = "direct", 1, 0, k
    signed, residuals = False, None
    rows: Any
    if method == "arpack":
        side, rows = op, _direct.arpack(A, op, k, tol, stream)
    elif method == "lapack":
        rows = _direct.lapack(dense(A, mean), k)
        side = op
    elif method == "gram":
        found = _direct.gram(side, k)
        rows = found if found is not None else _direct.lapack(dense(A, mean), k)
        side = side if found is not None else op
    elif method == "randomized":
        steps = n_iter if n_iter is not None else 7 if k < 0.1 * min(op.shape) else 4
        start = stream(min(k + n_oversamples, side.shape[1]), side)
        rows, status, n_iter_done = _subspace.subspace_iteration(side, k, start, n_iter=steps), "fixed", steps
    elif method == "dash":
        start = stream(min(k + max(k // 2, 2), side.shape[1]), side)
        rows, n_products, status = _subspace.dash(side, k, start, tol=tol, max_iter=max_iter, progress=progress)
        n_iter_done, n_converged = progress.iteration, k if status == "converged" else 0
    else:
        sparse = _arrays.kind(A) == "sparse"
        with one_blas_thread if op.own_threads else nullcontext():
            ritz = _krylov_to_tolerance(
                side, k, v0, stream, tol, block, max_iter, progress, two_sided=method == "krylov2", half_basis=sparse,
                unseen=unseen,
            )  # fmt: skip
            if ritz is None:
                A, options = _validation.check_matrix(A, "A"), {"method": method, "block_size": block}
                return solve(A, k, mean=mean, seed=seed, progress=progress, tol=tol, max_iter=max_iter, **options)
            rows = rayleigh_ritz(side, ritz.V, k, ritz.images)
        signed = side is op
        status, n_iter_done, n_products = ritz.status, progress.iteration, ritz.n_products
        n_converged, residuals = ritz.n_converged, np.pad(ritz.residuals, (0, k - len(ritz.residuals)))
    if residuals is None:
        residuals = _residuals(side, rows, k)
    if side is not op:
        rows = (rows[2], rows[1], rows[0])
    U, s, Vt, rank = finish(rows, k, lambda j: stream(j, op.T), lambda j: stream(j, op), signed)
    scale = 2.0**exponent
    return SVDResult(U, s * scale, Vt, method, status, n_iter_done, n_products, n_converged, residuals * scale, rank)


def _residuals(op: Any, rows: Any, k: int) -> np.ndarray:
    """``||A^T u - s v||`` or ``||A v - s u||``, whichever is larger, for methods that do not know it."""
    left, s, right = rows
    j = min(left.shape[0], right.shape[0], len(s))
    scale = _arrays.from_host(s[:j].astype(op.dtype), right)[:, None]
    xp = op.xp
    parts = [op.adjoint(left[:j, :]) - scale * right[:j, :], op.forward(right[:j, :]) - scale * left[:j, :]]
    norms = [_arrays.to_host(xp.sqrt(xp.sum(part * part, axis=1))).astype(np.float64) for part in parts]
    return np.pad(np.maximum(*norms), (0, k - j))


def _krylov_to_tolerance(
    op: Any, k: int, v0: Any, stream: _Fresh, tol: float, block: int, max_iter: int, progress: Progress,
    *, two_sided: bool, half_basis: bool, unseen: bool = False,
) -> Any:  # fmt: skip
    """One-sided iteration in the cheapest precision that can hold the tolerance, then float64, then two-sided.

    None if A is `unseen` and its first product says that it must be looked at before squares are taken.
    """
    half, full = np.dtype(np.float32), op.dtype
    # A float32 copy is cheap beside a sparse matrix's indices; of a dense matrix it would cost half the matrix.
    precisions = [half, full] if tol >= 1e-3 and half_basis and full != half else [full]
    rounds: list[tuple[Any, Any]] = [] if two_sided else [(_krylov.GramSpace, precision) for precision in precisions]
    # of a vector against a basis of 1.5 k, at 20 GF/s, over that of its product, at 5 GF/s
    cost = 0.75 * k * op.shape[1] / op.n_entries if half_basis else 0.0
    V, n_products = v0, 0
    for space, precision in [*rounds, (_krylov.BidiagonalSpace, full)]:
        side = op.astype(precision)
        rows, steps = stream(min(block, op.shape[1] - (0 if V is None else V.shape[0])), side), 1
        generic = rows.shape[0]
        if V is not None:
            rows, steps = op.xp.concat((_arrays.astype(V, precision), rows), axis=0), 3
        start, _ = orthonormalize(rows)
        options: dict[str, Any] = {"keep_images": not op.gram_is_fused} if space is _krylov.GramSpace else {}
        if options and V is None:
            options["orthogonalization"] = cost
        basis = space(side, k, block, start, **options)
        if unseen and not _is_ordinary(basis, side):
            return None
        unseen = False
        ritz = _krylov.block_krylov(
            basis,
            tol=tol,
            max_iter=max_iter,
            fresh=partial(stream, op=side),
            progress=progress,
            generic=generic,
            least_steps=steps,
        )
        n_products += ritz.n_products
        if ritz.status != "precision":
            break
        # what a filter gave up on converges slowly without one: begin again, with a filter
        V = None if basis.degree > 1 and precision != full else ritz.V
    return replace(ritz, V=_arrays.astype(ritz.V, full), n_products=n_products)


def _is_ordinary(basis: Any, op: Any) -> bool:
    """Whether all entries of A are finite and fourth powers of its singular values are numbers, by its first product.

    An entry that is not finite is in all images of random vectors; else their mean square is that of A, give or take what
    does not matter here.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        images = basis.begin()
        norm = float(np.linalg.norm(images)) * float(np.sqrt(op.shape[1] / len(images)))
    return is_ordinary(norm, op.shape[0] * op.shape[1], op.dtype)


class _Fresh:
    """Random rows for an operator, each call from a stream of its own."""

    def __init__(self, stream: Stream, op: Any):
        self.stream, self.calls, self.like = stream, 0, op.empty((1, 1))

    def __call__(self, count: int, op: Any) -> Any:
        self.calls += 1
        k0, k1 = self.stream.key
        stream = Stream((k0, (k1 + self.calls) & 0xFFFFFFFF))
        device = _arrays.device(self.like)
        return stream.symmetric(count, op.shape[1], xp=op.xp, device=device, dtype=np.dtype(op.dtype).name)


def _block(A: Any, k: int) -> int:
    """Vectors at a time.  Narrow blocks need fewer products in all, down to what a product is efficient for.

    Sparse products come in widths of 8, 16 and 32.  Of dense arrays in memory 2 k vectors, but 32 to 48, took the least time
    for the error with BLAS (measured, k = 20 and 100).  With lrla's own products it were three registers, which one tile
    takes, but for few triplets in float32 two.  On a device a wide block costs hardly more than a narrow one, and one wider
    than k sees all copies of a value.
    """
    kind = _arrays.kind(A)
    if kind in ("sparse", "operator"):
        return 8 if k <= 40 else 16
    if kind == "host":
        lanes = 64 // _arrays.real_dtype(A).itemsize  # numbers in a vector register
        if k <= 128 and is_for_tiles(A):
            return 32 if lanes == 16 and k <= 40 else 3 * lanes
        return max(32, min(48, lanes * -(-2 * k // lanes))) if k <= 128 else 64
    wide = 8 * -(-(k + 4) // 8)
    return max(32, min(48, 2 * k + 8), wide) if wide <= 128 else 64


def _choose(A: Any, k: int) -> str:
    """The dense decomposition where an iteration would need most of the space anyway."""
    short = min(A.shape)
    kind = _arrays.kind(A)
    if short > 300 and k + _block(A, k) < 0.4 * short:
        return "krylov"
    if kind in ("host", "device") or (kind == "sparse" and A.shape[0] * A.shape[1] <= 10**8):
        return "lapack"
    return "krylov2"


def dense(A: Any, mean: Any) -> Any:
    """A as a dense array, centred: only for the methods that decompose all of it."""
    kind = _arrays.kind(A)
    if kind in ("sparse", "device_sparse"):
        A = A.toarray()
    elif kind == "operator":
        A = A @ np.eye(A.shape[1])
    if mean is None:
        return A
    return _arrays.astype(_arrays.astype(A, np.float64) - mean[None, :], _arrays.real_dtype(A))
