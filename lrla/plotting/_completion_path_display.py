"""`CompletionPathDisplay`: error and rank of a matrix completion along its path of penalties, after scikit-learn's displays."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

FIELDS = ("reg", "n_components", "train_rmse", "validation_rmse")
CURVES = {"train_rmse": "fitted entries", "validation_rmse": "held-out entries"}
STYLES = {"train_rmse": {"color": "C0", "linestyle": "--"}, "validation_rmse": {"color": "C1", "linestyle": "-"}}
TRIAL = {"linewidth": 0.8, "alpha": 0.6}  # of what came after the first way down


class CompletionPathDisplay:
    """Error of the fitted and of the held-out entries, and the rank, over the penalty.

    The penalty falls from left to right, as it does in a fit.  The first way down has thick lines; thin ones are what was tried
    afterwards from smaller ranks, and the fit to all entries.  `from_estimator` makes one from a fitted `MatrixCompletion`,
    `from_path` from its `path_` or that of a function.

    Parameters
    ----------
    reg : array-like of shape (n_levels,)
        Penalties in the order in which they were visited.  A new run begins where they rise, or the rank falls by a third.
    n_components : array-like of shape (n_levels,)
        Ranks.
    train_rmse, validation_rmse : array-like of shape (n_levels,)
        Root mean square errors; one that is not finite leaves a gap.
    reg_chosen : float, default=None
        The penalty that was chosen.
    n_components_chosen : int, default=None
        The rank that was chosen; tells which of several levels of that penalty is meant.
    estimator_name : str, default=None
        Title of the figure.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Of the errors.  Set by `plot`, as are the following.
    rank_ax_ : matplotlib Axes
        Of the ranks, on the right.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Errors of fitted and of held-out entries on the first way down.
    trial_lines_ : list of matplotlib Line2D
        Those of the other runs.
    rank_line_ : matplotlib Line2D
    chosen_ : matplotlib Line2D or None
        The mark at the penalty that was chosen.

    Notes
    -----
    Levels of penalty zero have no place on a logarithmic axis and are left out.

    References
    ----------
    R. Mazumder, T. Hastie, R. Tibshirani, "Spectral regularization algorithms for learning large incomplete matrices", JMLR
    11, 2010.

    Examples
    --------
    >>> from lrla.plotting import CompletionPathDisplay
    >>> display = CompletionPathDisplay(
    ...     reg=[10.0, 5.0, 2.5], n_components=[1, 4, 9], train_rmse=[0.9, 0.8, 0.6], validation_rmse=[1.0, 0.9, 0.95],
    ...     reg_chosen=5.0,
    ... )
    >>> display.plot().lines_  # doctest: +SKIP
    [<matplotlib.lines.Line2D ...>, ...]
    """

    def __init__(
        self,
        *,
        reg: Any,
        n_components: Any,
        train_rmse: Any,
        validation_rmse: Any,
        reg_chosen: float | None = None,
        n_components_chosen: int | None = None,
        estimator_name: str | None = None,
    ):
        self.reg = reg
        self.n_components = n_components
        self.train_rmse = train_rmse
        self.validation_rmse = validation_rmse
        self.reg_chosen = reg_chosen
        self.n_components_chosen = n_components_chosen
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, name: str | None = None) -> CompletionPathDisplay:
        """Plot the path of a fitted estimator.

        Parameters
        ----------
        estimator : MatrixCompletion
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Title; None is the name of the class.

        Returns
        -------
        display : CompletionPathDisplay
        """
        if isinstance(estimator, type) or not hasattr(type(estimator), "fit"):
            raise TypeError(f"estimator must be a fitted MatrixCompletion; got {estimator!r}.")
        check_is_fitted(estimator)
        if not hasattr(estimator, "path_"):
            raise TypeError(f"{type(estimator).__name__} has no path_; this display shows a MatrixCompletion.")
        name = type(estimator).__name__ if name is None else name
        chosen = {"reg_chosen": estimator.reg_, "n_components_chosen": estimator.n_components_}
        return cls.from_path(estimator.path_, **chosen, ax=ax, name=name)

    @classmethod
    def from_path(
        cls,
        path: np.ndarray,
        *,
        reg_chosen: float | None = None,
        n_components_chosen: int | None = None,
        ax: Any = None,
        name: str | None = None,
    ) -> CompletionPathDisplay:
        """Plot a path.

        Parameters
        ----------
        path : structured ndarray
            With the fields ``reg``, ``n_components``, ``train_rmse`` and ``validation_rmse``, as `path_` has them.
        reg_chosen : float, default=None
            The penalty to mark.
        n_components_chosen : int, default=None
            The rank of the level to mark, if there are several with this penalty.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Title.

        Returns
        -------
        display : CompletionPathDisplay
        """
        names = getattr(getattr(path, "dtype", None), "names", None) or ()
        if not set(FIELDS) <= set(names):
            raise TypeError(f"path must be a structured array with the fields {', '.join(FIELDS)}; got {path!r}.")
        levels = {field: path[field] for field in FIELDS}
        display = cls(**levels, reg_chosen=reg_chosen, n_components_chosen=n_components_chosen, estimator_name=name)
        return display.plot(ax=ax)

    def plot(
        self, ax: Any = None, *, name: str | None = None, line_kw: dict[str, Any] | None = None
    ) -> CompletionPathDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Title; None is the one given before.
        line_kw : dict, default=None
            Style of the two thick lines.

        Returns
        -------
        display : CompletionPathDisplay
            This one, with the attributes set.
        """
        import matplotlib.pyplot as plt

        levels = self._levels()
        first, others = _runs(levels)
        if ax is None:
            ax = plt.subplots(layout="constrained")[1]
        self.ax_, self.figure_, self.rank_ax_ = ax, ax.figure, ax.twinx()
        self.rank_line_ = self.rank_ax_.plot(
            first["reg"], first["n_components"], color="0.75", drawstyle="steps-mid", label="rank"
        )[0]
        self.lines_ = [
            ax.plot(first["reg"], first[curve], label=label, **{"linewidth": 2.0, **STYLES[curve], **(line_kw or {})})[
                0
            ]
            for curve, label in CURVES.items()
        ]
        self.trial_lines_ = [
            ax.plot(run["reg"], run[curve], marker=".", **STYLES[curve], **TRIAL)[0]
            for run in others
            for curve in CURVES
            if np.any(np.isfinite(run[curve]))
        ]
        self.chosen_ = self._mark_chosen(ax, levels)
        self._scale_penalties(ax)
        ax.set_zorder(self.rank_ax_.get_zorder() + 1)  # errors in front of ranks
        ax.patch.set_visible(False)
        self.rank_ax_.set_ylim(bottom=0)
        self.rank_ax_.set_ylabel("Rank", color="0.5")
        ax.set(xlabel="Penalty", ylabel="Root mean square error", title=self.estimator_name if name is None else name)
        if self.trial_lines_:
            self.trial_lines_[0].set_label("other ranks, last fit")
        handles = [*self.lines_, *self.trial_lines_[:1], self.rank_line_, self.chosen_]
        ax.legend(handles=[handle for handle in handles if handle is not None], loc="lower left")
        return self

    def _levels(self) -> dict[str, np.ndarray]:
        """The arrays, with gaps where an error is not finite, without penalties of zero."""
        found = {field: np.asarray(getattr(self, field), dtype=np.float64) for field in FIELDS}
        shapes = {field: values.shape for field, values in found.items()}
        if found["reg"].ndim != 1 or len(set(shapes.values())) > 1:
            raise ValueError(f"All arrays must have the same shape (n_levels,); got {shapes}.")
        if not np.any(found["reg"] > 0.0):
            raise ValueError("The path has no level with a penalty above zero: there is nothing to draw.")
        shown = {field: values[found["reg"] > 0.0] for field, values in found.items()}
        return {field: np.where(np.isfinite(values), values, np.nan) for field, values in shown.items()}

    def _scale_penalties(self, ax: Any) -> None:
        """A logarithmic axis on which penalties fall from left to right."""
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        if not ax.xaxis_inverted():
            ax.invert_xaxis()

    def _mark_chosen(self, ax: Any, levels: dict[str, np.ndarray]) -> Any:
        """A dot at the level chosen: on its error of held-out entries, or else of fitted ones."""
        if self.reg_chosen is None or not self.reg_chosen > 0.0:
            return None
        near, rank = np.isclose(levels["reg"], self.reg_chosen, rtol=1e-6), levels["n_components"]
        for curve in ("validation_rmse", "train_rmse"):
            there = np.flatnonzero(near & np.isfinite(levels[curve]))
            if not len(there):
                continue
            order = levels[curve] if self.n_components_chosen is None else np.abs(rank - self.n_components_chosen)
            at = there[np.argmin(order[there])]
            label = f"chosen: {self.reg_chosen:.3g}, rank {rank[at]:.0f}"
            place = levels["reg"][at], levels[curve][at]
            return ax.plot(*place, "o", color="black", markersize=7.0, zorder=4, label=label)[0]
        return ax.axvline(self.reg_chosen, color="black", linewidth=0.8, label=f"chosen: {self.reg_chosen:.3g}")


def _runs(levels: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """The first way down, and the others: a run ends where the penalty does not fall, or the rank falls by a third."""
    reg, k = levels["reg"], levels["n_components"]
    ends = np.flatnonzero((np.diff(reg) >= 0.0) | (k[1:] < 2 / 3 * k[:-1])) + 1
    parts = {field: np.split(values, ends) for field, values in levels.items()}
    runs = [{field: parts[field][i] for field in FIELDS} for i in range(len(ends) + 1)]
    return runs[0], runs[1:]
