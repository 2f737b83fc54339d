"""What a completion is asked for, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PATH_DTYPE = np.dtype(
    [("reg", "f8"), ("n_components", "i8"), ("train_rmse", "f8"), ("validation_rmse", "f8"), ("seconds", "f8")]
)


@dataclass(frozen=True)
class Settings:
    """What the user chose besides penalty and rank; see `MatrixCompletion`."""

    reg_scaling: float = 0.0
    reg_bias: float | tuple[float, float] | None = None
    fit_bias: bool = True
    center: bool = True
    max_iter: int = 100
    tol: float = 1e-5
    cg_tol: float = 0.2
    cg_max_iter: int = 8
    path_ratio: float = 1.25
    sweeps_per_level: int = 2

    @property
    def bias_penalties(self) -> tuple[float, float] | None:
        """`reg_bias` for rows and for columns; None where it is estimated."""
        given = self.reg_bias
        return (given, given) if isinstance(given, float) else given


@dataclass(frozen=True)
class Fitted:
    """A completed matrix ``mean + b_i + c_j + u_i v_j`` and what is known about it.

    Attributes
    ----------
    U, V : (m, k), (n, k)
        Balanced: both (weighted) Gram matrices are diag(sigma).
    row_bias, column_bias : (m,), (n,)
    mean : float
    sigma : (k,)
        Singular values of U V^T, with the weights of the penalty if there are some.
    reg : float
    reg_bias : (float, float)
        Penalties of the offsets of rows and of columns.
    optimality : float
        Largest singular value of the (weighted) residual over the penalty: at most 1 at the optimum.  To 1e-4 of itself, or
        where it is above 1.1 to a hundredth.
    objective : float
    n_iter : int
        Sweeps, those along the path included.
    converged, stopped : bool
        Whether the last sweeps gained less than the tolerance; whether a callback ended them.
    offsets, centered : bool
        Whether there are offsets, and a mean: a search may have left them out.
    posterior : Posterior or None
        Where the penalties were estimated; then `reg` is their geometric mean, `optimality` NaN and `objective` the expected
        sum of squared errors.
    path : structured array
        For every level reg, n_components, train_rmse, validation_rmse (NaN without validation), and seconds since the start.
    """

    U: np.ndarray
    V: np.ndarray
    row_bias: np.ndarray
    column_bias: np.ndarray
    mean: float
    sigma: np.ndarray
    reg: float
    reg_bias: tuple[float, float]
    optimality: float
    objective: float
    n_iter: int
    converged: bool
    path: np.ndarray
    stopped: bool = False
    posterior: Posterior | None = None
    offsets: bool = True
    centered: bool = True

    @property
    def validation_rmse(self) -> float | None:
        """Error on the held-out entries at the level of the path with this penalty and the nearest rank; None without."""
        if self.posterior is not None:
            return None if np.isnan(self.posterior.validation_rmse) else self.posterior.validation_rmse
        path = self.path[np.isfinite(self.path["validation_rmse"])]
        there = path[np.isclose(path["reg"], self.reg, rtol=1e-9, atol=0.0)]
        if not len(there):
            return None
        return float(there["validation_rmse"][np.argmin(np.abs(there["n_components"] - len(self.sigma)))])


@dataclass(frozen=True)
class Posterior:
    """What estimated penalties leave besides means, in the units of the data.

    Attributes
    ----------
    row_reg, column_reg : (k,)
        Penalties of the components.
    column_spread : (n, k)
        Variances of V.
    deviation : float
        Standard deviation of the noise.
    validation_rmse : float
        Error on the held-out entries (NaN without).
    """

    row_reg: np.ndarray
    column_reg: np.ndarray
    column_spread: np.ndarray
    deviation: float
    validation_rmse: float = float("nan")

    @property
    def noise(self) -> float:
        """Variance of the noise; 0 where that is too small to be a number."""
        return self.deviation**2
