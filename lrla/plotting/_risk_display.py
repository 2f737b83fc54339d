"""`RiskDisplay`: the estimated risk of a sketched ridge ensemble over its penalties, after scikit-learn's displays."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

CURVES = {"risk_ensemble": "ensemble", "risk_single": "single member", "risk_ridge": "ridge without sketch"}
STYLES = {
    "risk_ensemble": {"color": "C0", "linewidth": 2.0, "zorder": 3},
    "risk_single": {"color": "C1", "linestyle": "--"},
    "risk_ridge": {"color": "C2", "linestyle": "-."},
}
SPREAD = 30.0  # largest over smallest risk, from which on the risk has a logarithmic axis too


class RiskDisplay:
    """Estimated risk over the penalty: of the ensemble, of a single member and of ridge without a sketch.

    The band is one standard error of the ensemble's risk on either side, the dot is the penalty that was chosen.
    `from_estimator` makes one from a fitted `SketchedRidgeCV`.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,)
        Penalties, in any order; negative ones and zero are allowed.
    risk_ensemble, risk_single, risk_ridge : array-like of shape (n_alphas,)
        Estimated mean squared error on new rows.  A value that is not finite leaves a gap.
    risk_se : array-like of shape (n_alphas,)
        Standard error of `risk_ensemble`.
    alpha_chosen : float, default=None
        The penalty that was chosen.
    estimator_name : str, default=None
        Title of the figure.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`, as are the following.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Of the ensemble, of a single member and of ridge without a sketch.
    fill_between_ : matplotlib collection
        The band.
    chosen_ : matplotlib Line2D or None
        The dot.

    Notes
    -----
    Penalties are on a logarithmic axis; where some are zero or negative it is linear around zero.  The risk of ridge
    without a sketch belongs to the penalty `mu_` that the sketches amount to.

    References
    ----------
    P. Patil, D. LeJeune, "Asymptotically free sketched ridge ensembles: Risks, cross-validation, and tuning", ICLR 2024,
    arXiv:2310.04357.

    Examples
    --------
    >>> from lrla.plotting import RiskDisplay
    >>> display = RiskDisplay(
    ...     alphas=[0.1, 1.0, 10.0], risk_ensemble=[1.3, 1.1, 1.6], risk_single=[1.9, 1.4, 1.7],
    ...     risk_ridge=[1.2, 1.0, 1.6], risk_se=[0.1, 0.1, 0.1], alpha_chosen=1.0,
    ... )
    >>> display.plot().lines_  # doctest: +SKIP
    [<matplotlib.lines.Line2D ...>, ...]
    """

    def __init__(
        self,
        *,
        alphas: Any,
        risk_ensemble: Any,
        risk_single: Any,
        risk_ridge: Any,
        risk_se: Any,
        alpha_chosen: float | None = None,
        estimator_name: str | None = None,
    ):
        self.alphas = alphas
        self.risk_ensemble = risk_ensemble
        self.risk_single = risk_single
        self.risk_ridge = risk_ridge
        self.risk_se = risk_se
        self.alpha_chosen = alpha_chosen
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, target: int | None = None, ax: Any = None, name: str | None = None
    ) -> RiskDisplay:
        """Plot what a fitted estimator knows.

        Parameters
        ----------
        estimator : SketchedRidgeCV or SketchedRidgeClassifierCV
            Fitted.
        target : int, default=None
            Which target to show.  None: the mean over targets, whose standard error is then an upper bound; not possible
            where each target has its own penalty.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Title; None is the name of the class.

        Returns
        -------
        display : RiskDisplay
        """
        if not isinstance(estimator, type) and not hasattr(type(estimator), "fit"):
            raise TypeError(f"estimator must be a fitted SketchedRidgeCV; got {type(estimator).__name__}.")
        check_is_fitted(estimator)
        if not hasattr(estimator, "risk_ensemble_"):
            raise TypeError(
                f"{type(estimator).__name__} has no risk_ensemble_; a RiskDisplay shows a SketchedRidgeCV or a "
                "SketchedRidgeClassifierCV."
            )
        curves = {curve: _of_target(getattr(estimator, f"{curve}_"), target) for curve in (*CURVES, "risk_se")}
        display = cls(
            alphas=estimator.alphas_,
            alpha_chosen=_chosen(estimator.alpha_sketch_, target),
            estimator_name=type(estimator).__name__ if name is None else name,
            **curves,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, name: str | None = None, line_kw: dict[str, Any] | None = None) -> RiskDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Title; None is `estimator_name`.
        line_kw : dict, default=None
            Passed to all three lines.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt

        order, curves, se = self._checked()
        if ax is None:
            ax = plt.subplots(layout="constrained")[1]
        alphas = np.asarray(self.alphas, dtype=np.float64)[order]
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_ = [
            ax.plot(alphas, curves[curve], label=label, **{**STYLES[curve], **(line_kw or {})})[0]
            for curve, label in CURVES.items()
        ]
        ensemble = curves["risk_ensemble"]
        self.fill_between_ = ax.fill_between(
            alphas, ensemble - se, ensemble + se, alpha=0.2, color=self.lines_[0].get_color(), linewidth=0.0,
            label="± 1 standard error",
        )  # fmt: skip
        self.chosen_ = self._mark_chosen(ax, alphas, ensemble)
        self._scale_axes(ax, alphas, [*curves.values()])
        ax.set(xlabel="Penalty alpha", ylabel="Estimated risk", title=self.estimator_name if name is None else name)
        ax.legend()
        return self

    def _checked(self) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        """The order of the penalties, the curves and the standard error in that order, with gaps where they are not finite."""
        alphas = np.asarray(self.alphas, dtype=np.float64)
        order = np.argsort(alphas)
        found = {}
        for curve in (*CURVES, "risk_se"):
            values = np.asarray(getattr(self, curve), dtype=np.float64)
            if alphas.ndim != 1 or values.shape != alphas.shape:
                raise ValueError(
                    f"alphas and {curve} must have the same shape (n_alphas,); got {alphas.shape}, {values.shape}."
                )
            found[curve] = np.where(np.isfinite(values), values, np.nan)[order]
        return order, found, found.pop("risk_se")

    def _mark_chosen(self, ax: Any, alphas: np.ndarray, ensemble: np.ndarray) -> Any:
        if self.alpha_chosen is None:
            return None
        nearest = int(np.argmin(np.abs(alphas - self.alpha_chosen)))
        label = f"chosen: {self.alpha_chosen:.3g}"
        return ax.plot(alphas[nearest], ensemble[nearest], "o", color="black", markersize=7.0, zorder=4, label=label)[0]

    def _scale_axes(self, ax: Any, alphas: np.ndarray, curves: list[np.ndarray]) -> None:
        if alphas[0] > 0.0:
            ax.set_xscale("log")
        elif np.any(alphas != 0.0):
            # decades between zero and the first negative penalty would be empty
            negative, positive = -alphas[alphas < 0.0], alphas[alphas > 0.0]
            smallest = float(negative.min() if len(negative) else positive.min())
            ax.set_xscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)), linscale=1.0)
            ax.xaxis.get_major_locator().set_params(numticks=8)
        values = np.concatenate(curves)
        values = values[np.isfinite(values)]
        if len(values) and values.min() > 0.0 and values.max() > SPREAD * values.min():
            ax.set_yscale("log")


def _of_target(risk: Any, target: int | None) -> np.ndarray:
    """A curve (n_alphas,) from one or several targets."""
    risk = np.asarray(risk, dtype=np.float64)
    if risk.ndim == 1:
        if target not in (None, 0):
            raise ValueError(f"target must be None or 0, as there is one target; got {target}.")
        return risk
    if target is None:
        return risk.mean(axis=1)
    if not -risk.shape[1] <= target < risk.shape[1]:
        raise ValueError(f"target must be in [0, {risk.shape[1] - 1}]; got {target}.")
    return risk[:, target]


def _chosen(alpha: Any, target: int | None) -> float:
    alpha = np.asarray(alpha, dtype=np.float64)
    if alpha.ndim == 0:
        return float(alpha)
    if target is None and np.ptp(alpha) > 0.0:
        raise ValueError(f"Each of the {len(alpha)} targets has its own penalty; say which target to show.")
    return float(alpha[target or 0])
