"""Ridge regression for all penalties from one decomposition: residuals, leverages, leave-one-out and GCV.

With Z (n, q) centred and scaled by the roots of the weights, W the sum of the weights, the eigenvalues e and vectors V of
``Z^T Z / W`` give for every penalty lambda (in units of 1/W), with ``P = Z V`` and ``c = P^T y / W``,

    fitted values  P (c / (e + lambda)),    leverages  h_i = sum_j P_ij^2 / (e_j + lambda) / W + w_i / W,

the last term for the intercept: two products of level 3 for all penalties.  Where q > n the n x n kernel is decomposed
instead, and the leave-one-out residual comes from ``r_i / (1 - h_i)`` with lambda cancelled in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg

from lrla import _arrays
from lrla.ridge._design import Design

SINGULAR = 1e-10  # of 1 - h: below, a residual without the row itself is not determined by rounded numbers
NARROW = 1e5  # largest eigenvalue over the least penalty up to which a preconditioner may be stored in float32
SVD_BELOW = 1e-12  # of the largest eigenvalue: penalties that small want the SVD of Z, whose Gram matrix lost them


@dataclass(frozen=True)
class Decomposition:
    """Nonzero eigenvalues and what belongs to them.

    Attributes
    ----------
    e : ndarray of shape (r,)
        Positive eigenvalues of ``Z^T Z / W`` in ascending order.
    V : array of shape (q, r) or None
        Right singular vectors of Z; None where only the kernel was decomposed.
    U : array of shape (n, r) or None
        Left singular vectors, from the kernel; None where the features were decomposed.
    empty : array of shape (n,) or None
        Squared length of the part of unit vector i that no column of Z reaches, the intercept's direction left out; beside U.
    size : int
        q, the number of columns of Z.
    """

    e: np.ndarray
    V: Any
    U: Any
    empty: Any
    size: int

    def shrinkage(self, lambdas: np.ndarray) -> np.ndarray:
        """``1 / (e + lambda)``, (r, L)."""
        return 1.0 / (self.e[:, None] + lambdas[None, :])

    def degrees(self, lambdas: np.ndarray) -> np.ndarray:
        """``sum e / (e + lambda)``, (L,): degrees of freedom without the intercept."""
        return self.e @ self.shrinkage(lambdas)

    def harmonic_mean(self, lambdas: np.ndarray) -> np.ndarray:
        """Harmonic mean of ``e + lambda`` over all q values, zeros included, (L,)."""
        zeros = self.size - len(self.e)
        with np.errstate(divide="ignore"):
            inverse = np.sum(self.shrinkage(lambdas), axis=0) + (zeros / lambdas if zeros else 0.0)
        return self.size / inverse

    def complement(self, lambdas: np.ndarray, n: int, power: int) -> np.ndarray:
        """``tr (I - L)^power`` of the smoother L without the intercept, (L,)."""
        return n - len(self.e) + np.sum((lambdas * self.shrinkage(lambdas)) ** power, axis=0)


def decompose(design: Design, method: str, intercept: bool) -> Decomposition:
    """Decompose Z by the smaller of its two Gram matrices (method "eigh"), or by its SVD ("svd")."""
    n, q = design.shape
    by_features, cut = q <= n, max(n, q) * _arrays.eps(np.float64)
    if method == "svd":
        U, s, V = _svd(design.dense())
        e = s * s / design.total
        cut = cut * cut * e.max(initial=0.0)
    else:
        e, Q = _eigh(design.gram() if by_features else design.kernel())
        U, V = (None, Q) if by_features else (Q, None)
        # the means of sparse data are taken off its Gram matrix, and leave the rounding errors of what they were part of
        cut = cut * (e.max(initial=0.0) + (design.mean_square if design.is_sparse else 0.0))
    if is_constant(e, design.mean_square, n, _arrays.real_dtype(design.like)):
        cut = np.inf
    kept = np.flatnonzero(e > cut)
    e, first = e[kept], int(kept[0]) if len(kept) else len(e)
    if by_features:  # eigenvalues ascend, so what is kept are the last ones
        return Decomposition(e, V[:, first:], None, None, q)
    U = U[:, first:]
    return Decomposition(e, None, U, _empty(U, design, intercept), q)


def is_constant(e: np.ndarray, mean_square: float, n: int, dtype: Any) -> bool:
    """Whether the eigenvalues of n centred rows of a dtype are what rounding leaves of columns that do not vary."""
    error = 8.0 * (_arrays.eps(dtype) + math.sqrt(n) * _arrays.eps(np.float64))
    return bool(e.max(initial=0.0) <= error * error * mean_square)


def _eigh(G: Any) -> tuple[np.ndarray, Any]:
    if isinstance(G, np.ndarray):
        return scipy.linalg.eigh(G, driver="evd", overwrite_a=True, check_finite=False)
    with _arrays.device_errors(G):
        e, Q = _arrays.namespace(G).linalg.eigh(G)
    return _arrays.to_host(e), Q


def _svd(Z: Any) -> tuple[Any, np.ndarray, Any]:
    """U, s, V with s ascending."""
    xp = _arrays.namespace(Z)
    with _arrays.device_errors(Z):
        U, s, Vt = xp.linalg.svd(Z, full_matrices=False)
    return xp.flip(U, axis=1), _arrays.to_host(s)[::-1], xp.flip(Vt, axis=0).T


def _empty(U: Any, design: Design, intercept: bool) -> Any:
    """What of each unit vector lies outside the columns of U and of the intercept's direction; rounding noise is zero."""
    xp = _arrays.namespace(U)
    n, r = int(U.shape[0]), int(U.shape[1])
    if r >= n - int(intercept):
        return xp.zeros(n, dtype=xp.float64, device=_arrays.device(U))
    left = 1.0 - xp.sum(U * U, axis=1)
    if intercept:
        left = left - intercept_leverage(design)
    return xp.where(left > 1e-12, left, xp.zeros_like(left))


def intercept_leverage(design: Design) -> Any:
    """``w_i / W``, (n,)."""
    xp, n = design.xp, design.shape[0]
    if design.root is not None:
        return design.root * design.root / design.total
    return xp.full((n,), 1.0 / design.total, dtype=xp.float64, device=_arrays.device(design.like))


# ---------------------------------------------------------------------------------------------------- coefficients


def projections(design: Design, found: Decomposition, y: Any) -> Any:
    """``c`` (r, T) with coefficients ``V (c / (e + lambda))``: ``V^T Z^T y / W``."""
    if found.U is None:
        return found.V.T @ design.adjoint(y) / design.total
    root = _arrays.from_host(np.sqrt(found.e / design.total), y)
    return root[:, None] * (found.U.T @ y)


def shrunken(c: Any, shrinkage: np.ndarray) -> Any:
    """``c / (e + lambda)`` for all penalties, (r, L T), from c (r, T) and the shrinkage (r, L)."""
    D = _arrays.from_host(shrinkage, c)
    return _arrays.namespace(c).reshape(D[:, :, None] * c[:, None, :], (-1, shrinkage.shape[1] * int(c.shape[1])))


def coefficients(design: Design, found: Decomposition, C: Any) -> Any:
    """Coefficients (q, t) of Z, from any number of columns ``c / (e + lambda)`` (r, t)."""
    if found.V is not None:
        return found.V @ C
    root = _arrays.from_host(np.sqrt(found.e * design.total), C)
    return design.adjoint(found.U @ (C / root[:, None]))


# ---------------------------------------------------------------------------------------------------- residuals


@dataclass(frozen=True)
class Residuals:
    """Corrected residuals of one member.

    Attributes
    ----------
    values : array of shape (n, L, T)
        As the response would show them for a row that the fit has not seen (unweighted).
    leverage : array of shape (n, L)
    defined : ndarray of shape (L,), bool
        Whether they are determined for every row.
    basis : array of shape (n, r) or None
        Left singular vectors of Z, where they were asked for.
    """

    values: Any
    leverage: Any
    defined: np.ndarray
    basis: Any = None


def corrected_residuals(
    design: Design, found: Decomposition, c: Any, y: Any, lambdas: np.ndarray, criterion: str, intercept: bool,
    basis: bool = False,
) -> Residuals:  # fmt: skip
    """Residuals divided by ``1 - h_i`` (criterion "loo") or by ``1 - df / n`` ("gcv"), for all penalties.

    Parameters
    ----------
    design, found : the matrix Z and its decomposition
    c : array of shape (r, T)
        The response in it, as `projections` finds it.
    y : array of shape (n, T)
        Centred and scaled as Z is.
    lambdas : ndarray of shape (L,)
    criterion : {"loo", "gcv"}
    intercept, basis : bool
    """
    if found.U is not None:
        swept = _from_kernel(design, found, c, y, lambdas, criterion, intercept)
        return replace(swept, basis=left_vectors(design, found)) if basis else swept
    xp, (n, _), (L, T) = design.xp, design.shape, (len(lambdas), int(y.shape[1]))
    D = _arrays.from_host(found.shrinkage(lambdas), y)
    path = shrunken(c, found.shrinkage(lambdas))
    base = intercept_leverage(design) if intercept else None
    spread = 1.0 - (found.degrees(lambdas) + intercept) / n
    values, leverages, vectors = [], [], []
    for rows, P in design.times(found.V):
        if basis:
            vectors.append(_normalised(P, design, found))
        residual = y[rows, :][:, None, :] - xp.reshape(P @ path, (-1, L, T))
        leverage = (P * P) @ D / design.total
        leverage = leverage if base is None else leverage + base[rows][:, None]
        values.append(residual)
        leverages.append(leverage)
    residual, leverage = (xp.concat(parts, axis=0) if len(parts) > 1 else parts[0] for parts in (values, leverages))
    left = 1.0 - leverage
    if criterion == "gcv":
        left = xp.zeros_like(left) + _arrays.from_host(spread, y)[None, :]
    swept = _divide(residual, left, leverage, design)
    return replace(swept, basis=xp.concat(vectors, axis=0) if len(vectors) > 1 else vectors[0]) if basis else swept


def left_vectors(design: Design, found: Decomposition) -> Any:
    """Left singular vectors of Z, (n, r), for a preconditioner: in float32 where that is exact enough."""
    if found.U is not None:
        return _arrays.astype(found.U, _basis_dtype(found))
    parts = [_normalised(P, design, found) for _, P in design.times(found.V)]
    return design.xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def _normalised(P: Any, design: Design, found: Decomposition) -> Any:
    return _arrays.astype(P * _arrays.from_host(1.0 / np.sqrt(found.e * design.total), P)[None, :], _basis_dtype(found))


def _basis_dtype(found: Decomposition) -> np.dtype:
    """float32 where its rounding is far below the ratio of the least implicit penalty to the largest eigenvalue."""
    exact_enough = len(found.e) and found.e[-1] < NARROW * float(found.harmonic_mean(np.zeros(1))[0])
    return np.dtype(np.float32 if exact_enough else np.float64)


def _divide(residual: Any, left: Any, leverage: Any, design: Design) -> Residuals:
    """``residual / left``, zero for a penalty at which some row leaves it undetermined."""
    xp = design.xp
    defined = xp.all(xp.abs(left) > SINGULAR, axis=0)
    safe = xp.where(defined[None, :], left, xp.ones_like(left))
    values = xp.where(defined[None, :, None], residual / safe[:, :, None], xp.zeros_like(residual))
    if design.root is not None:
        values = values / design.root[:, None, None]
    return Residuals(values, leverage, np.asarray(_arrays.to_host(defined)))


def _from_kernel(
    design: Design, found: Decomposition, c: Any, y: Any, lambdas: np.ndarray, criterion: str, intercept: bool
) -> Residuals:
    xp, n, (L, T) = design.xp, design.shape[0], (len(lambdas), int(y.shape[1]))
    D = _arrays.from_host(found.shrinkage(lambdas), y)
    lam = _arrays.from_host(lambdas, y)
    inside = c / _arrays.from_host(np.sqrt(found.e / design.total), y)[:, None]  # U^T y
    part = xp.reshape(found.U @ shrunken(inside, found.shrinkage(lambdas)), (n, L, T))
    mass = (found.U * found.U) @ D
    outside = xp.where(found.empty[:, None] > 0.0, y - found.U @ inside, xp.zeros_like(y))
    left = lam[None, :] * mass + found.empty[:, None]  # 1 - h
    residual = lam[None, :, None] * part + outside[:, None, :]
    leverage = 1.0 - left
    if criterion == "gcv":
        spread = 1.0 - (found.degrees(lambdas) + intercept) / n
        return _divide(residual, xp.zeros_like(left) + _arrays.from_host(spread, y)[None, :], leverage, design)
    filled = found.empty[:, None] == 0.0  # there lambda cancels, also where it is zero
    top = xp.where(filled[:, :, None], part, residual)
    below = xp.where(filled, mass, left)
    values = top / xp.where(below == 0.0, xp.ones_like(below), below)[:, :, None]
    if design.root is not None:
        values = values / design.root[:, None, None]
    return Residuals(values, leverage, np.asarray(_arrays.to_host(xp.all(below != 0.0, axis=0))))
