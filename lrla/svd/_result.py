"""What the batch solvers return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

MESSAGES = {
    "converged": "All singular triplets reached the tolerance.",
    "direct": "The decomposition is a direct one: there is nothing to iterate.",
    "fixed": "The method makes a fixed number of passes and does not test for convergence.",
    "max_iter": "max_iter was reached first. Raise max_iter, or loosen tol.",
    "stopped": "The callback stopped the iteration.",
    "exhausted": "The matrix has fewer independent directions than were asked for.",
}


@dataclass(frozen=True)
class SVDResult:
    """A truncated SVD ``A ~ U diag(s) Vt`` and what is known about it.

    Attributes
    ----------
    U : array of shape (m, k)
    s : ndarray or device array of shape (k,)
    Vt : array of shape (k, n)
    method : str
        The solver that found it.
    status : str
        "converged", "direct", "fixed", "max_iter", "stopped" or "exhausted"; `message` says what can be done.
    n_iter : int
        Block products (passes over A and A^T).
    n_products : int
        Vectors that A^T A was applied to.
    n_converged : int
        Triplets that reached the tolerance.
    residuals : ndarray of shape (k,)
        ``||A^T u_i - s_i v_i||``, as the iteration estimates it; each s_i is at most this far from a singular value of A.
    rank : int
        Singular values that are not rounding noise.
    """

    U: Any
    s: Any
    Vt: Any
    method: str
    status: str
    n_iter: int = 0
    n_products: int = 0
    n_converged: int = 0
    residuals: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rank: int = 0

    @property
    def converged(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in ("converged", "direct", "fixed", "exhausted")

    @property
    def message(self) -> str:
        """The status in words, with the way out."""
        return MESSAGES[self.status]
