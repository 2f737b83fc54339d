"""Taking a power of two out of a matrix whose squares would overflow or vanish."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays


def without_exponent(A: Any) -> tuple[Any, int]:
    """``(A 2^-e, e)``; e is 0 and A is itself unless its largest magnitude is beyond 1e+-150 (1e+-15 in float32).

    A LinearOperator is returned as it is.
    """
    kind = _arrays.kind(A)
    values = A.data if kind in ("sparse", "device_sparse") else A
    if kind == "operator" or 0 in values.shape:
        return A, 0
    xp = _arrays.namespace(values)
    top = max(-float(xp.min(values)), float(xp.max(values)))
    limit, smallest = (500, -1000) if _arrays.real_dtype(values) == np.float64 else (50, -120)
    exponent = int(np.frexp(top)[1]) if top > 0.0 else 0
    if abs(exponent) <= limit:
        return A, 0
    exponent = max(exponent, smallest)  # 2^-e must be a number: subnormal data is lifted as far as that allows
    return A * 2.0**-exponent, exponent
