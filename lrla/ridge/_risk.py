"""What corrected residuals say: risk curves of ensembles of any size, their standard errors, and which penalty to take.

For K members with corrected residuals E_k the risk of the ensemble is ``R_K = mean (sum_k E_k / K)^2``, that of a single
member ``R_1``, and, since members are drawn alike, ``R_K = C + (R_1 - C) / K`` for every K: C, the risk of infinitely many
members, is that of plain ridge regression at the implicit penalty mu (Patil and LeJeune, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrla.ridge._path import Decomposition

REGRESSED = 4  # members from which on their risks at one penalty tell anything about those at another
FLAT = 1e-12  # risks that differ by less, relatively, are ties: the largest penalty is taken


@dataclass(frozen=True)
class Curves:
    """Risk by penalty and target; infinite where it is not determined.

    Attributes
    ----------
    ensemble : ndarray of shape (L, T)
        R_K of the K members.
    members : ndarray of shape (K, L, T)
        Of each member alone.
    error : ndarray of shape (L, T), or float
        What the limit of many members, as these K tell it, is known to exceed the truth by.
    """

    ensemble: np.ndarray
    members: np.ndarray
    error: np.ndarray | float = 0.0

    @property
    def size(self) -> int:
        """K."""
        return len(self.members)

    @property
    def single(self) -> np.ndarray:
        """R_1, the mean over the members, (L, T)."""
        return self.members.mean(axis=0)

    def of_size(self, n_estimators: float) -> np.ndarray:
        """Risk of an ensemble of `n_estimators` members, numpy.inf allowed."""
        single = self.single
        if self.size == 1:
            return single
        with np.errstate(invalid="ignore"):
            limit = (self.size * self.ensemble - single) / (self.size - 1) - self.error
            risk = limit + (single - limit) / n_estimators
        return np.where(np.isfinite(self.ensemble) & np.isfinite(single), risk, np.inf)

    def times(self, unit: float) -> Curves:
        """In other units."""
        with np.errstate(over="ignore"):  # a risk that is no number is as bad as infinite
            return replace(self, ensemble=self.ensemble * unit, members=self.members * unit)

    def anchored(self, index: np.ndarray, known: np.ndarray) -> Curves:
        """The same with the limit for penalty index[t] and target t, `known` (T,), taken for granted.

        The K members are a sample, and its error moves the whole curve.  How much it moves other penalties where it moves the
        known one by 1 is the slope of a regression of the members' risks there on those here, for which it takes four of them.
        """
        if self.size < REGRESSED:
            return self
        targets = np.arange(len(index))
        here = self.members[:, index, targets]  # (K, T)
        with np.errstate(invalid="ignore"):
            error = self.of_size(np.inf)[index, targets] - known
            off = here - here.mean(axis=0)
            size = np.abs(off).max(axis=0)
            off = off / np.where(size > 0.0, size, 1.0)  # whose squares are numbers whatever the units of y
            slope = np.sum((self.members - self.single) * off[:, None, :], axis=0) / np.maximum(
                np.sum(off * off, axis=0), 1.0
            )
            change = slope * (error / np.where(size > 0.0, size, 1.0))
        return replace(self, error=np.where(np.isfinite(change), change, 0.0))


def relative_error(found: list[Decomposition], lambdas: np.ndarray, n: int) -> np.ndarray:
    """Relative standard deviation of a risk estimate for light-tailed errors, (L,), the mean over members."""
    shares = []
    for one in found:
        second, fourth = (np.maximum(one.complement(lambdas, n, power), 0.0) for power in (2, 4))
        with np.errstate(divide="ignore", invalid="ignore"):
            shares.append(np.where(second > 0.0, np.sqrt(2.0 * fourth) / second, np.inf))
    return np.mean(shares, axis=0)


def implicit_penalty(found: list[Decomposition], lambdas: np.ndarray, law: str | None, n_in: int) -> np.ndarray:
    """Mean over the members of mu(lambda), (L,): H for a Gaussian law, (1 - df / n_in) H for an orthogonal one."""
    values = [one.harmonic_mean(lambdas) for one in found]
    if law == "orthogonal":
        values = [mu * (1.0 - one.degrees(lambdas) / n_in) for mu, one in zip(values, found, strict=True)]
    return np.maximum(np.mean(values, axis=0), 0.0)


def best(curve: np.ndarray, lambdas: np.ndarray) -> np.ndarray:
    """Index of the least risk of each column of (L, T); among ties the one of the largest penalty."""
    finite = np.isfinite(curve)
    level = np.where(finite, curve, np.inf).min(axis=0)
    tied = finite & (curve <= level + FLAT * np.abs(level))
    tied[:, ~finite.any(axis=0)] = True
    return np.where(tied, lambdas[:, None], -np.inf).argmax(axis=0)
