"""Powers of two that bring a matrix into the range in which squares, and squares of squares, are numbers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import one_blas_thread

LEAST = {np.dtype(np.float64): -1000, np.dtype(np.float32): -120}  # of e, so that 2^-e is a number of the dtype


def values_of(A: Any) -> Any:
    """The entries of a dense array, or the stored ones of a sparse matrix."""
    return A.data if _arrays.kind(A) in ("sparse", "device_sparse") else A


def exponent_of(A: Any) -> int:
    """The e for which the largest magnitude in A lies in ``[2^(e-1), 2^e)``; 0 if there is none but zeros."""
    values = values_of(A)
    if 0 in tuple(values.shape):
        return 0
    xp = _arrays.namespace(values)
    return int(np.frexp(max(-float(xp.min(values)), float(xp.max(values))))[1])


def is_within(A: Any, low: int, high: int) -> bool:
    """Whether one pass of BLAS, a norm, tells that the largest magnitude is above ``2^low`` and all norms are below ``2^high``.

    False where it does not tell: for arrays that are not NumPy's, for zeros, and where squares overflow.  Sparse data takes
    one thread: a second one of BLAS would wait for more work for 0.1 s, on a core that lrla's threads need next.
    """
    values = values_of(A)
    if not isinstance(values, np.ndarray) or not values.size:
        return False
    flat = values.ravel(order="K")
    threads = one_blas_thread if _arrays.kind(A) == "sparse" else nullcontext()
    with threads, np.errstate(over="ignore", under="ignore"):
        norm = float(np.sqrt(np.vdot(flat, flat)))
    return norm / np.sqrt(flat.size) > 2.0**low and norm < 2.0**high


def without(A: Any, exponent: int) -> tuple[Any, int]:
    """``(A 2^-e, e)`` for the given e, or the least one for which that can be computed: subnormal data is lifted so far."""
    exponent = max(exponent, LEAST[_arrays.real_dtype(values_of(A))])
    return A * 2.0**-exponent, exponent
