"""Taking a power of two out of a matrix whose squares would overflow or vanish."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays


def without_exponent(A: Any) -> tuple[Any, int]:
    """``(A 2^-e, e)``; e is 0 and A is itself unless fourth powers of its singular values may overflow or vanish.

    Those are the entries of the Gram matrix of a block that A^T A was applied to.  Sparse data is held to the range of
    float32, in which its basis may be kept.  A LinearOperator is returned as it is.
    """
    kind = _arrays.kind(A)
    values = A.data if kind in ("sparse", "device_sparse") else A
    if kind == "operator" or 0 in values.shape:
        return A, 0
    double = _arrays.real_dtype(values) == np.float64
    limit, smallest = 230 if double and kind != "sparse" else 25, -1000 if double else -120
    if _is_moderate(values, limit):
        return A, 0
    xp = _arrays.namespace(values)
    top = max(-float(xp.min(values)), float(xp.max(values)))
    exponent = int(np.frexp(top)[1]) if top > 0.0 else 0
    growth = int(np.log2(max(A.shape)))  # s_1 is at most this many powers of two above the largest entry
    if -limit <= exponent and exponent + growth <= limit + 5:
        return A, 0
    exponent = max(exponent, smallest)  # 2^-e must be a number: subnormal data is lifted as far as that allows
    return A * 2.0**-exponent, exponent


def _is_moderate(values: Any, limit: int) -> bool:
    """Whether one pass of BLAS over an ndarray, its norm, tells that the largest entry and s_1 are in range."""
    if not isinstance(values, np.ndarray):
        return False
    flat = values.ravel(order="K")
    with np.errstate(over="ignore"):
        norm = float(np.sqrt(np.vdot(flat, flat)))
    return norm > 0.0 and norm / np.sqrt(flat.size) > 2.0**-limit and norm < 2.0 ** (limit + 5)
