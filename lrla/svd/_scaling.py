"""Taking a power of two out of a matrix whose squares would overflow or vanish."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._exponent import exponent_of, is_within, values_of, without


def without_exponent(A: Any) -> tuple[Any, int]:
    """``(A 2^-e, e)``; e is 0 and A is itself unless fourth powers of its singular values may overflow or vanish.

    Those are the entries of the Gram matrix of a block that A^T A was applied to.  Sparse data is held to the range of
    float32, in which its basis may be kept.  A LinearOperator is returned as it is.
    """
    kind = _arrays.kind(A)
    if kind == "operator":
        return A, 0
    double = _arrays.real_dtype(values_of(A)) == np.float64
    limit = _limit(double and kind != "sparse")
    if is_within(A, -limit, limit + 5):
        return A, 0
    exponent = exponent_of(A)
    growth = int(np.log2(max(1, *A.shape)))  # s_1 is at most this many powers of two above the largest entry
    if -limit <= exponent and exponent + growth <= limit + 5:
        return A, 0
    return without(A, exponent)


def is_ordinary(norm: float, entries: int, dtype: Any) -> bool:
    """Whether `without_exponent` leaves a dense array alone that has about this norm, and this number of entries."""
    limit = _limit(dtype == np.float64)
    return bool(norm / np.sqrt(entries) > 2.0**-limit and norm < 2.0 ** (limit + 5))


def _limit(wide: bool) -> int:
    """The power of two up to which, and down to whose inverse, numbers are left alone."""
    return 230 if wide else 25
