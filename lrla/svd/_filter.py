"""Chebyshev filter of A^T A: fewer vectors to orthogonalise for the same number of products.

A step of a Krylov method multiplies a block and makes it orthogonal to the basis.  On very sparse rows the second costs
many times the first.  The polynomial f(x) = T_d(2 x / cut - 1) is within [-1, 1] on [0, cut] and grows steeply above, so a
Krylov space of f(A^T A) needs a basis that is smaller by nearly d for the same products (Saad, "Chebyshev acceleration
techniques", Math. Comp. 42, 1984; Zhou & Saad, SIAM J. Matrix Anal. 29, 2007).

`cut` has to lie below the k-th eigenvalue.  A few steps from random vectors tell: the squares of the Ritz vectors' first
components, summed from above, estimate how many eigenvalues there are (Lin, Saad & Yang, SIAM Review 58, 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_DEGREE = 6
# The cut is where this many times k eigenvalues are expected: far enough that an error of the estimate does no harm.  With
# 1.5 the k-th value of many flat spectra was at the cut or below, which takes up to 25 times as long; with 2 at least 1.1 k
# values of each were above it (measured, k = 15 to 150), for 5 % more products where the estimate is good.
SURPLUS = 2.0


@dataclass(frozen=True)
class Filter:
    """f(x) = T_degree(2 x / cut - 1); degree 1 is f(x) = x."""

    degree: int = 1
    cut: float = 1.0

    def apply(self, op: Any, X: Any) -> Any:
        """f(A^T A) X for rows X (b, n)."""
        return op.gram(X) if self.degree == 1 else op.chebyshev(X, self.degree, 2.0 / self.cut)

    def values(self, theta: np.ndarray) -> np.ndarray:
        """f(theta)."""
        if self.degree == 1:
            return theta
        return np.polynomial.Chebyshev.basis(self.degree)(2.0 * theta / self.cut - 1.0)

    def invert(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The theta of filtered values, and by how much a residual of f(A^T A) exceeds that of A^T A at most.

        f is convex above the cut: its difference quotients are at least that between theta and 0, (f(theta) - 1) / theta.
        Where a value is not above 1, theta is only known to be below the cut; the factor is infinite.
        """
        if self.degree == 1:
            return values, np.ones(len(values))
        above = values > 1.0 + 1e-6
        angle = np.arccosh(np.where(above, values, 1.0)) / self.degree
        theta = self.cut * (1.0 + np.cosh(angle)) / 2.0
        factor = np.divide(theta, values - 1.0, out=np.full(len(values), np.inf), where=above)
        return theta, factor


def choose(
    theta: np.ndarray, weights: np.ndarray, k: int, orthogonalization: float, worst: float, largest: float
) -> Filter:
    """The filter for the k largest eigenvalues of an operator after a few Krylov steps from random vectors.

    Parameters
    ----------
    theta : (j,)
        Ritz values, descending.
    weights : (j,)
        How many eigenvalues each stands for.
    orthogonalization : float
        Its cost for a vector over that of a product: decides the degree that is wanted.
    worst : float
        Largest ratio f(theta_1) / f(theta_k) that the precision allows: decides the degree that is possible.
    largest : float
        And the largest f(theta_1).
    """
    expected = np.cumsum(weights) - weights / 2.0
    cut = float(np.interp(SURPLUS * k, expected, theta))
    kth = float(np.interp(k, expected, theta))
    degree = int(np.clip(round(1.0 + 4.0 * orthogonalization), 1, MAX_DEGREE))
    while degree > 1:
        candidate = Filter(degree, cut)
        if cut > 0.0:
            highest, wanted = candidate.values(np.asarray([theta[0], kth]))
            if highest <= min(worst * wanted, largest):
                return candidate
        degree -= 1
    return Filter()
