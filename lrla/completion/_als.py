"""`complete`: alternating least squares to a given penalty and rank, along a path of penalties from the largest useful one."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from lrla import _validation
from lrla._progress import Callback, Progress
from lrla._random import seed_sequence
from lrla.completion import _estimated
from lrla.completion._balance import gram, transforms
from lrla.completion._estimated import SLOWER
from lrla.completion._fit import Fit
from lrla.completion._fitted import Fitted, Settings
from lrla.completion._half_sweep import Factors, Solver, padded, update_rows
from lrla.completion._observed import Observed
from lrla.linalg._blas_threads import one_blas_thread

BAYES = "bayes"  # in place of a penalty: penalties are estimated


def complete_als(
    X: Any,
    n_components: int,
    reg: float | str,
    *,
    shape: tuple[int, int] | None = None,
    sample_weight: Any = None,
    missing_values: float = math.nan,
    reg_scaling: float = 0.0,
    reg_bias: float | None = None,
    fit_bias: bool = False,
    max_iter: int = 100,
    tol: float = 1e-5,
    cg_tol: float = 0.2,
    cg_max_iter: int = 8,
    path_ratio: float = 1.25,
    sweeps_per_level: int = 2,
    random_state: Any = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Fitted]:
    """Complete a matrix from some of its entries by alternating least squares, to a given rank and penalty.

    It minimises ``sum (x_ij - u_i v_j)^2 + reg (sum |u_i|^2 + sum |v_j|^2)`` over the observed entries.  With as many
    columns as it asks for, that is the nuclear-norm problem ``min |P(X - Z)|_F^2 + 2 reg |Z|_*``, and `info.optimality`
    certifies its solution.

    Parameters
    ----------
    X : sparse matrix, array with NaN, masked array, or tuple (values, (rows, columns)), (m, n)
        The observed entries; stored zeros are observed.
    n_components : int
        The largest rank; more than min(m, n) counts as that.
    reg : float or "bayes"
        The penalty, in the units of X.  "bayes": a penalty for each component of either side, estimated together with the
        variances of factors and noise; see Notes.
    shape : (m, n), optional
        Of triplets.
    sample_weight : array-like, optional
        Weights of the squared errors of the observed entries.
    missing_values : float, default NaN
        Marks a hole in an array.
    reg_scaling : float in [0, 1], default 0
        The penalty of a row or column is multiplied by the number of its entries to this power.
    reg_bias : float, optional
        Penalty of the offsets; None estimates the ratio of the variances of noise and offsets.
    fit_bias : bool, default False
        Whether to take off a mean, and offsets of rows and columns: then X is about ``info.mean + info.row_bias[:, None] +
        info.column_bias + U * s @ Vt``.
    max_iter, tol : int, float
        At the last penalty, sweeps at most, and the relative decrease of the objective over a sweep that ends them.
    cg_tol, cg_max_iter : float, int
        A row is done when its residual has fallen by this factor, or after so many steps.
    path_ratio, sweeps_per_level : float, int
        The path of penalties falls by this factor from level to level, with so many sweeps at each.
    random_state : None, int, RandomState or Generator
        For the start of singular value computations.
    verbose : int, default 0
        1 shows a progress bar.
    callback : callable, optional
        Called with a dict after every sweep; a true return value stops, and what is there is returned.

    Returns
    -------
    U : ndarray of shape (m, k)
        Orthonormal columns; k <= n_components.
    s : ndarray of shape (k,)
        Descending.
    Vt : ndarray of shape (k, n)
        Orthonormal rows.
    info : Fitted
        Offsets, objective, certificate, path, number of sweeps.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` is reached; the result is returned all the same.

    Notes
    -----
    With ``reg="bayes"`` the factors are distributions (variational Bayes, with a variance for every entry), and the penalties
    follow from them: the variance of the noise over the mean square of a component.  Components that only fit noise
    vanish.  The error on new entries is usually smaller than with the best single penalty, and nothing is held out.
    `info.posterior` has the penalties; there is no certificate.  Not for data without noise.  Sweeps end where one changes
    the expected squared error by less than 300 `tol`.

    The penalty falls from the largest that has a column, and columns join where the residual has a singular value above it:
    a fit from a random start at a small penalty often ends in a poor minimum.  A sweep costs about ``20 nnz k + 8 (m + n) k**2``
    flops.  Beside a CSR matrix with sorted 32-bit indices it takes the memory of some copies of the factors.

    References
    ----------
    T. Hastie, R. Mazumder, J. Lee, R. Zadeh, "Matrix completion and low-rank SVD via fast alternating least squares",
    JMLR 16, 2015.

    Y. Gu, Z. Song, J. Yin, L. Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear
    time", ICLR 2024, arXiv:2302.11068.

    Y. J. Lim, Y. W. Teh, "Variational Bayesian approach to movie rating prediction", KDD Cup and Workshop, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla.completion import complete_als
    >>> X = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> X[1, 2] = X[3, 0] = np.nan
    >>> U, s, Vt, info = complete_als(X, 1, 1e-6, random_state=0)
    >>> np.round(U * s @ Vt, 3)[[1, 3], [2, 0]]
    array([4., 4.])
    """
    from lrla.completion._input import read_observed

    observed = read_observed(X, "X", shape=shape, sample_weight=sample_weight, missing_values=missing_values)
    n_components = _validation.check_integer(n_components, "n_components", 1)
    estimated = check_reg(reg) == BAYES
    penalty = None if estimated else float(reg)
    settings = Settings(
        reg_scaling=_validation.check_real(reg_scaling, "reg_scaling", 0.0, 1.0),
        reg_bias=None if reg_bias is None else _validation.check_real(reg_bias, "reg_bias", 0.0),
        fit_bias=bool(fit_bias),
        center=bool(fit_bias),
        max_iter=_validation.check_integer(max_iter, "max_iter", 1),
        tol=_validation.check_real(tol, "tol", 0.0, 1.0, closed=(True, False)),
        cg_tol=_validation.check_real(cg_tol, "cg_tol", 0.0, 1.0, closed=(True, False)),
        cg_max_iter=_validation.check_integer(cg_max_iter, "cg_max_iter", 1),
        path_ratio=_validation.check_real(path_ratio, "path_ratio", 1.0, closed=(False, True)),
        sweeps_per_level=_validation.check_integer(sweeps_per_level, "sweeps_per_level", 1),
    )
    seed = int(seed_sequence(random_state).generate_state(1)[0])
    with Progress("matrix completion", max_iter, verbose, callback) as progress:
        fitted = complete(observed, n_components, penalty, settings, seed=seed, progress=progress)
    if not fitted.converged and not fitted.stopped:
        _validation.warn_not_converged(
            f"complete_als stopped after max_iter={max_iter} sweeps at reg={reg}, before the objective fell by less than "
            f"{SLOWER * tol if estimated else tol:g} of itself in a sweep"
            + ("" if estimated else f" (certificate {fitted.optimality:.4f}, 1 at the optimum)")
            + ". Raise max_iter or tol."
        )
    return (*factored(fitted), fitted)


def check_reg(reg: Any, *others: str) -> float | str:
    """A penalty, "bayes" or one of some other words; or TypeError or ValueError."""
    words = (BAYES, *others)
    if isinstance(reg, str):
        _validation.check_choice(reg, "reg", words)
        return reg
    if not isinstance(reg, Real):
        listed = ", ".join(f'"{word}"' for word in words)
        raise TypeError(f"reg must be a number >= 0 or {listed}; got {reg!r} of type {type(reg).__name__}.")
    return _validation.check_real(reg, "reg", 0.0)


def factored(fitted: Fitted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The singular value decomposition of U V^T."""
    everything = slice(0, fitted.U.shape[1])
    dtype = fitted.U.dtype
    if not fitted.U.shape[1]:
        return fitted.U, np.zeros(0, dtype), fitted.V.T
    T, S, s = transforms(gram(fitted.U, everything), gram(fitted.V, everything), 0.0)
    root = np.sqrt(s)
    return fitted.U @ (T / root).astype(dtype), s.astype(dtype), (fitted.V @ (S / root).astype(dtype)).T


def complete(
    observed: Observed,
    n_components: int,
    reg: float | None,
    settings: Settings,
    *,
    start: Fitted | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Complete to rank `n_components` at most with penalty `reg`.

    Parameters
    ----------
    observed : Observed, (m, n)
    n_components : int
    reg : float or None
        None: the penalties are estimated (see `_posterior`).
    settings : Settings
    start : Fitted, optional
        Factors to start from, of the same shape; there is no path then, and estimated penalties stay.
    seed : int
    progress : Progress, optional
    """
    progress = Progress("matrix completion", settings.max_iter) if progress is None else progress
    n_components = min(n_components, *observed.shape)
    with one_blas_thread:
        fit = Fit(observed, settings, seed, progress, mean=None if start is None else start.mean)
        if start is not None:
            fit.settings = replace(
                settings, reg_bias=start.reg_bias if settings.reg_bias is None else settings.reg_bias
            )
            fit.factors = factors_of(start, fit.problem.scale, settings.fit_bias, observed.dtype)
        if start is not None and start.posterior is not None:
            return _estimated.resume(fit, start)
        if reg is None:
            return _estimated.result(fit, _estimated.settle(fit, _estimated.descend(fit, n_components)))
        if start is None:
            fit.descend(reg, n_components)
        return fit.result(reg, *fit.settle(reg, n_components))


def factors_of(fitted: Fitted, scale: float, offsets: bool, dtype: np.dtype) -> Factors:
    """The factors of a result, in the units of a problem."""
    factors = Factors.empty((len(fitted.U), len(fitted.V)), dtype, offsets)
    if offsets:
        factors.U[:, 0], factors.V[:, 1] = fitted.row_bias / scale, fitted.column_bias / scale
    factors.replace(fitted.U / scale**0.5, fitted.V / scale**0.5)
    return factors


def started(observed: Observed, model: Fitted, settings: Settings, k: int) -> Fitted:
    """The model's columns, k of them at most, with rows that belong to these observations."""
    posterior = model.posterior
    if posterior is not None:
        posterior = replace(
            posterior, row_reg=posterior.row_reg[:k], column_reg=posterior.column_reg[:k],
            column_spread=posterior.column_spread[:, :k],
        )  # fmt: skip
    model = replace(model, V=model.V[:, :k], sigma=model.sigma[:k], posterior=posterior)
    U, row_bias = fold_in(observed, model, settings, cg_tol=settings.cg_tol)
    return replace(model, U=U, row_bias=row_bias)


def fold_in(
    observed_rows: Observed, fitted: Fitted, settings: Settings, cg_tol: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Factors (m', k) and offsets (m',) of new rows over the same columns, with V and the columns' offsets fixed."""
    dtype, k = observed_rows.dtype, fitted.V.shape[1]
    scale = float(np.abs(observed_rows.values).max(initial=0.0)) or 1.0
    scale = 2.0 ** max(round(np.log2(scale)), -120 if dtype == np.float32 else -1000)
    offsets = settings.fit_bias
    rows = replace(
        fitted,
        U=np.zeros((observed_rows.shape[0], k), dtype),
        row_bias=np.zeros(observed_rows.shape[0], dtype),
    )
    factors = factors_of(rows, scale, offsets, dtype)
    penalty, free = np.zeros(factors.U.shape[1], dtype), np.zeros(factors.U.shape[1], dtype)
    posterior, spreads = fitted.posterior, None
    penalty[factors.columns] = (fitted.reg if posterior is None else posterior.row_reg) / scale
    free[factors.columns] = 1
    if offsets:
        penalty[0], free[0] = fitted.reg_bias[0], 1
    if posterior is not None:
        factors.spread()
        spreads = factors.spreads
        assert spreads is not None
        spreads[1][:, factors.columns] = posterior.column_spread / scale
    weights = np.where(observed_rows.counts > 0, observed_rows.counts, 1.0) ** settings.reg_scaling
    update_rows(
        observed_rows, factors.U, factors.V, penalty, free, np.array([1 / scale, fitted.mean / scale], dtype),
        weights.astype(dtype), Solver(cg_tol, 4 * padded(factors.k + 2, dtype)), spreads,
    )  # fmt: skip
    U = factors.U[:, factors.columns] * dtype.type(scale**0.5)
    return U, (factors.U[:, 0] * dtype.type(scale) if offsets else np.zeros(len(U), dtype))
