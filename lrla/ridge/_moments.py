"""One pass over rows: centred cross-products of all sketches, from which GCV of the ensemble follows without the rows.

With M, C and s the (weighted) cross-products of ``Z_all = X [S_1 ... S_K]`` with itself, with y, and of y with itself, the
residual of the combination ``sum_k g_k (y - Z_k w_k)`` has the squared norm ``g^2 s - 2 g u^T C + u^T M u`` for
g = sum g_k and u the stacked ``g_k w_k``.  Two states merge by Chan's update of means and centred products.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.ridge._path import Decomposition, is_constant
from lrla.ridge._risk import Curves, best, implicit_penalty, relative_error
from lrla.ridge._tuning import Tuned, lowest

WIDEST = 4096  # columns of all sketches together: their cross-products take 128 MB
CANCELLED = 1e-10  # of y^T y: a residual that small, from cross-products, has lost its digits


@dataclass(frozen=True)
class Moments:
    """Sums over the rows seen.

    Attributes
    ----------
    rows : int
        With a positive weight.
    total : float
        Sum of the weights.
    z, y : ndarray of shape (q,) and (T,)
        Means; zero without intercept.
    M, C, s : ndarray of shape (q, q), (q, T) and (T,)
        Centred cross-products; about zero without intercept.
    """

    rows: int
    total: float
    z: np.ndarray
    y: np.ndarray
    M: np.ndarray
    C: np.ndarray
    s: np.ndarray

    @classmethod
    def of(cls, Z: Any, y: Any, weights: Any, intercept: bool) -> Moments:
        """Those of one block of rows, float64 arrays of one namespace; the result is on the host."""
        xp = _arrays.namespace(Z)
        w = xp.ones_like(y[:, 0]) if weights is None else weights
        total = float(xp.sum(w))
        mean_z, mean_y = xp.zeros_like(Z[0, :]), xp.zeros_like(y[0, :])
        if intercept:
            mean_z, mean_y = (w @ Z) / total, (w @ y) / total
            Z, y = Z - mean_z[None, :], y - mean_y[None, :]
        wy = y * w[:, None]
        root = xp.sqrt(w)[:, None]
        parts = (mean_z, mean_y, (Z * root).T @ (Z * root), Z.T @ wy, xp.sum(y * wy, axis=0))
        return cls(int(xp.sum(xp.astype(w > 0.0, xp.int64))), total, *map(_arrays.to_host, parts))

    def merge(self, other: Moments, intercept: bool) -> Moments:
        """The state of both sets of rows together."""
        total = self.total + other.total
        if not intercept:
            return replace(
                self, rows=self.rows + other.rows, total=total, M=self.M + other.M, C=self.C + other.C,
                s=self.s + other.s,
            )  # fmt: skip
        dz, dy, share = other.z - self.z, other.y - self.y, other.total / total
        mixed = self.total * share
        return Moments(
            self.rows + other.rows, total, self.z + share * dz, self.y + share * dy,
            self.M + other.M + mixed * np.outer(dz, dz), self.C + other.C + mixed * np.outer(dz, dy),
            self.s + other.s + mixed * dy * dy,
        )  # fmt: skip

    def decompose(self, width: int) -> list[Decomposition]:
        """A decomposition of every member's block of `width` columns."""
        found = []
        for first in range(0, len(self.M), width):
            part = slice(first, first + width)
            e, V = scipy.linalg.eigh(self.M[part, part] / self.total, driver="evd", check_finite=False)
            kept = e > max(self.rows, width) * _arrays.eps(np.float64) * e.max(initial=0.0)
            kept &= not is_constant(e, float(self.z[part] @ self.z[part]), self.rows, self.M.dtype)
            found.append(Decomposition(e[kept], V[:, kept], None, None, width))
        return found

    def coefficients(self, found: list[Decomposition], lambdas: np.ndarray) -> np.ndarray:
        """Those of all members for all penalties, stacked: (K q, L, T)."""
        width, parts = found[0].size, []
        for k, one in enumerate(found):
            c = one.V.T @ self.C[k * width : (k + 1) * width] / self.total
            D = one.shrinkage(lambdas)
            parts.append(np.einsum("qr,rl,rt->qlt", one.V, D, c, optimize=True))
        return np.concatenate(parts)

    def curves(self, found: list[Decomposition], lambdas: np.ndarray, intercept: bool) -> tuple[Curves, bool]:
        """GCV risk of the ensemble and of single members, and whether some residual lost its digits."""
        K, width = len(found), found[0].size
        W = self.coefficients(found, lambdas)
        left = np.array([1.0 - (one.degrees(lambdas) + intercept) / self.rows for one in found])  # (K, L)
        defined = np.all(np.abs(left) > 1e-10, axis=0)
        g = 1.0 / np.where(defined, left, 1.0)
        members, lost = np.zeros((K, *W.shape[1:])), False
        for k in range(K):
            part = slice(k * width, (k + 1) * width)
            rss, worn = self._squared(W[part], np.ones(len(lambdas)), self.M[part, part], self.C[part])
            members[k] = g[k][:, None] ** 2 * rss / self.total
            lost |= worn
        stacked = W * np.repeat(g / K, width, axis=0)[:, :, None]
        ensemble, worn = self._squared(stacked, g.mean(axis=0), self.M, self.C)
        ensemble /= self.total
        ensemble[~defined], members[:, ~defined] = np.inf, np.inf
        return Curves(ensemble, members), lost or worn

    def _squared(self, U: np.ndarray, g: np.ndarray, M: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, bool]:
        """``||g y - Z u||^2`` for all penalties and targets, (L, T)."""
        q, L, T = U.shape
        MU = (M @ U.reshape(q, L * T)).reshape(U.shape)
        value = g[:, None] ** 2 * self.s - 2.0 * g[:, None] * np.einsum("qlt,qt->lt", U, C)
        value = value + np.einsum("qlt,qlt->lt", U, MU)
        scale = g[:, None] ** 2 * self.s
        return np.maximum(value, 0.0), bool(np.any((value < CANCELLED * scale) & (scale > 0.0)))


def tune_moments(
    seen: Moments, found: list[Decomposition], alphas: np.ndarray | None, intercept: bool, operators: list[Any],
    grid: Callable[[list[Decomposition]], np.ndarray],
) -> Tuned:  # fmt: skip
    """The choice of a penalty by GCV from cross-products; `grid` makes the penalties where `alphas` is None."""
    lambdas = grid(found) if alphas is None else alphas / seen.total
    low = 0.0 if not operators else lowest(found)
    if lambdas.min() < 0.0 and lambdas.min() <= low:
        raise ValueError(
            f"alpha must be > {low * seen.total:.6g} (alpha_min_, minus the least nonzero eigenvalue of the sketched data); "
            f"got {lambdas.min() * seen.total:g}. Take a larger alpha."
        )
    curves, lost = seen.curves(found, lambdas, intercept)
    if lost and len(lambdas) == 1:
        warnings.warn(
            f"Residuals below {CANCELLED:g} of the response have lost their digits in the cross-products of partial_fit: "
            "their risk is not exact. Use fit for data that is fitted exactly.",
            RuntimeWarning, stacklevel=6,
        )  # fmt: skip
    mu = np.maximum(lambdas, 0.0)
    if operators:
        mu = implicit_penalty(found, lambdas, operators[0].law, int(operators[0].padded_size))
    index = best(curves.ensemble.mean(axis=1, keepdims=True), lambdas)
    degrees = np.mean([one.degrees(lambdas) for one in found], axis=0) + intercept
    return Tuned(
        lambdas * seen.total, lambdas, mu, degrees, relative_error(found, lambdas, seen.rows - int(intercept)),
        low * seen.total, curves, np.broadcast_to(index, (len(seen.y),)),
        -curves.ensemble.mean(axis=1)[index], None, None, None,
    )  # fmt: skip
