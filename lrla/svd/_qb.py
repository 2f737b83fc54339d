"""`qb`: a factorization A ~ Q B to a prescribed error or share of the energy; the rank is found on the way.

randQB_EI of Yu, Gu & Li (SIMAX 39, 2018, arXiv:1606.09402).  A is m x n; E = ||A||_F^2 minus the energy captured so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import Stream, seed_sequence
from lrla.linalg._operator import as_operator
from lrla.linalg._orthonormalize import orthonormalize
from lrla.svd._scaling import without_exponent

# The error indicator is a difference of squares: below these fractions of ||A||_F it is rounding noise.
FLOOR = {np.dtype(np.float64): 2.1e-7, np.dtype(np.float32): 1e-3}


def qb(
    A: Any,
    *,
    error: float | None = None,
    energy: float | None = None,
    max_rank: int | None = None,
    block_size: int = 10,
    n_iter: int = 1,
    random_state: Any = None,
) -> tuple[Any, Any, float]:
    """Factor A into Q B, Q with orthonormal columns, to a prescribed accuracy; the rank adapts to it.

    Parameters
    ----------
    A : array-like, sparse matrix or device array, (m, n)
    error : float, optional
        Wanted relative Frobenius error ``||A - Q B||_F / ||A||_F``; at least 2.1e-7 (1e-3 for float32 data), below which
        the error indicator cannot see.
    energy : float in (0, 1), optional
        Wanted share of ``||A||_F^2`` captured by Q B; the same as ``error = sqrt(1 - energy)``.  Give at most one of the
        two.
    max_rank : int, optional
        Stop at this rank in any case; alone, it is the rank.  Default: min(m, n).
    block_size : int, default 10
        Vectors added at a time.
    n_iter : int, default 1
        Power iterations for every block; 1 brings the rank within a few per cent of the smallest possible.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    Q : array of shape (m, r)
    B : array of shape (r, n)
        Q^T A.
    error : float
        Relative Frobenius error reached, exact to rounding: ``sqrt(||A||_F^2 - ||B||_F^2) / ||A||_F``.

    Raises
    ------
    ValueError
        If it is not said what is wanted, or the error is below what the indicator can see.

    Notes
    -----
    2 n_iter + 2 products for every block, and ``4 r (m + n)`` flops a vector to keep it apart from the rank found so far.
    Where the rank is known, `truncated_svd` is faster and more accurate.

    References
    ----------
    W. Yu, Y. Gu, Y. Li, "Efficient randomized algorithms for the fixed-precision low-rank matrix approximation", SIAM J.
    Matrix Anal. Appl. 39(3), 2018, arXiv:1606.09402.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import qb
    >>> Q, B, error = qb(np.diag([10.0, 5.0, 0.1]), error=0.05, block_size=1, random_state=0)
    >>> Q.shape
    (3, 2)
    """
    A = _validation.check_matrix(A, "A")
    if (error is None) == (energy is None) and not (error is None and max_rank is not None):
        raise ValueError(f"Give one of error and energy, or max_rank alone; got error={error!r}, energy={energy!r}.")
    if energy is not None:
        energy = _validation.check_real(energy, "energy", 0.0, 1.0, closed=(False, False))
        error = float(np.sqrt(1.0 - energy))
    if error is not None:
        error = _validation.check_real(error, "error", 0.0, 1.0, closed=(False, False))
    most = min(A.shape) if max_rank is None else _validation.check_rank(max_rank, A.shape, "max_rank")
    if max_rank is not None:
        _validation.check_memory(8.0 * sum(A.shape) * most, f"Factors of rank {most}")
    _validation.check_integer(block_size, "block_size", 1)
    _validation.check_integer(n_iter, "n_iter", 0)
    A, exponent = without_exponent(A)
    op = as_operator(A)
    Q, B, reached = rand_qb(op, error, most, block_size, n_iter, Stream.from_seed(seed_sequence(random_state)))
    return Q.T, B * 2.0**exponent if exponent else B, reached


def rand_qb(
    op: Any, error: float | None, max_rank: int, block_size: int, n_iter: int, stream: Stream
) -> tuple[Any, Any, float]:
    """Rows of Q^T (r, m), of B (r, n), and the relative error reached; see `qb`."""
    floor = FLOOR[np.dtype(op.dtype)]
    if error is not None and error < floor:
        raise ValueError(
            f"A relative error of {error:.3g} is below {floor:.3g}, what the error indicator can resolve in "
            f"{np.dtype(op.dtype).name}. Ask for a number of components with truncated_svd instead."
        )
    total = op.squared_norm
    remaining, seen = total, 0
    Q, B = op.empty((0, op.shape[0])), op.empty((0, op.shape[1]))
    place = {"xp": op.xp, "device": _arrays.device(Q), "dtype": np.dtype(op.dtype).name}
    scale = float(np.sqrt(total))
    while remaining > ((error or 0.0) * scale) ** 2 and Q.shape[0] < max_rank:
        width = min(max(1, block_size), max_rank - Q.shape[0])
        X = _random_rows(stream, width, op.shape[1], seen, place)
        seen += width

        def outside(Y: Any, size: float = 0.0, Q: Any = Q) -> Any:
            return Y - (Y @ Q.T) @ Q

        def deflated(X: Any, Q: Any = Q, B: Any = B) -> Any:
            return op.forward(X) - (X @ B.T) @ Q

        Y = deflated(X)
        for _ in range(n_iter):
            Y, _ = orthonormalize(Y, scale=scale)
            X, _ = orthonormalize(op.adjoint(Y) - (Y @ Q.T) @ B, scale=scale)
            Y = deflated(X)
        Y, _ = orthonormalize(outside(Y), scale=scale, project=outside)
        if Y.shape[0] == 0:
            break
        Z = op.adjoint(Y)
        Q, B = op.xp.concat((Q, Y), axis=0), op.xp.concat((B, Z), axis=0)
        captured = _arrays.astype(op.xp.reshape(Z, (-1,)), np.float64)
        remaining = max(remaining - float(captured @ captured), 0.0)
    return Q, B, float(np.sqrt(remaining / total)) if total > 0.0 else 0.0


def _random_rows(stream: Stream, count: int, n: int, block: int, place: dict[str, Any]) -> Any:
    return Stream((stream.key[0], (stream.key[1] + block) & 0xFFFFFFFF)).normal(count, n, **place)
