"""The estimator MatrixCompletion: low-rank factors and offsets of a matrix of which some entries are observed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from lrla import _random, _validation
from lrla._estimator import Estimator, all_or_nothing
from lrla._progress import Progress
from lrla.completion._als import check_reg, complete, fold_in, started
from lrla.completion._automatic import complete_automatically
from lrla.completion._estimated import SLOWER
from lrla.completion._fitted import Fitted, Settings
from lrla.completion._input import check_index, check_row_ids, read_observed, require_entries
from lrla.completion._observed import Observed, cast, entries_of, lines
from lrla.completion._predictions import best_columns, predict_pairs, singular_form, with_rows
from lrla.exceptions import NotIdentifiableWarning, UnobservedWarning

FOLD_IN_TOLERANCE = {"float32": 1e-6, "float64": 1e-10}
LIMITED = 1.01  # optimality from which on it is the rank that keeps the fit from the optimum of its penalty
LARGEST = 1e153  # root of the largest sum of squares that is a number, with some room
PATH_FIELDS = ("reg", "n_components", "train_rmse", "validation_rmse")


class MatrixCompletion(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Completion of a matrix by low-rank factors and offsets, with rank and penalty chosen on held-out entries.

    An entry (i, j) is taken to be ``mean + b_i + c_j + u_i v_j``.  Meant for sparse observations such as ratings; the cost of
    a sweep is linear in the number of observations and in the rank.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Largest rank k; "auto" finds it on held-out entries.
    reg : float, "bayes" or "auto", default="auto"
        Penalty of the factors, in the units of X.  "bayes" estimates a penalty for each component from the variances of
        factors and noise.  "auto" does that where it predicts held-out entries better than a single penalty, and else finds
        the best one on them.
    reg_scaling : float, default=0.0
        alpha: the penalty of a row or column is multiplied by its number of observations to this power.  0 is the nuclear norm,
        1 the weighting of Zhou et al.
    reg_bias : float or None, default=None
        Penalty of the offsets, a pure number.  None: the ratio of the variances of noise and offsets, as estimated.
    fit_bias : bool, default=True
        Whether there are a mean and offsets of rows and columns.  Where something is "auto", they are left out if they do not
        lower the error on held-out entries.
    max_components : int, default=64
        Largest rank that n_components="auto" tries.
    max_iter : int, default=100
        Largest number of sweeps at the final penalty.
    tol : float, default=1e-5
        Stop where a sweep lowers the objective by less than this share; 300 times that share where penalties are estimated.
    cg_tol, cg_max_iter : float, int, default=0.2, 8
        How exactly, and in how many steps at most, conjugate gradients solve for a row within a sweep.
    path_ratio : float, default=1.25
        Ratio of consecutive penalties on the way down from the largest useful one; its fourth power on the way to a start for
        estimated penalties.
    sweeps_per_level : int, default=2
        Sweeps at each of them, and in `partial_fit`.
    validation_fraction : float, default=0.05
        Share of the entries that "auto" holds out; twice as much below 50 000 entries.
    n_iter_no_change : int, default=2
        "auto" stops after so many penalties without a smaller error on these.
    missing_values : float, default=nan
        Marks a hole in dense X.
    clip : tuple of two floats or None, default=None
        Range of everything that is predicted.
    warm_start : bool, default=False
        `fit` goes on from the last factors, and does not walk down the path again; what is "auto" keeps the value found before.
        It begins anew where `fit_bias` or `reg_scaling` has changed, or reg="bayes" is new or has another `n_components`.
    copy_X : bool, default=False
        Whether the model keeps a copy of X's entries.  Without, those of a CSR matrix with sorted indices are its own arrays, as
        with scikit-learn's neighbours, and must not be changed while the model is used.
    random_state : None, int, RandomState or Generator, default=None
        For the entries that are held out, and the start of the residual's decomposition.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    components_ : ndarray of shape (k, n_features)
        Orthonormal rows: right singular vectors of the low-rank part.  Rows beyond `n_components_` are zero; k is the number
        asked for, or with "auto" that which was found, at least 1.
    row_factors_ : ndarray of shape (n_samples, k)
        The low-rank part is ``row_factors_ @ components_``.
    singular_values_ : ndarray of shape (k,)
        Of the low-rank part.
    row_bias_, column_bias_ : ndarray of shape (n_samples,), (n_features,)
        Offsets b and c.
    global_mean_ : float
        Mean of the observed entries.
    n_components_ : int
        Components that are not zero.
    reg_ : float
        The penalty; the geometric mean of those of the components where these were estimated.
    noise_variance_ : float or None
        Of the observations, where penalties were estimated; else None.
    path_ : structured ndarray
        For every penalty on the way: ``reg``, ``n_components``, ``train_rmse``, ``validation_rmse`` (NaN where nothing was
        held out).  First those of the search, then those of the fit to all entries.
    validation_rmse_ : float or None
        Error on the held-out entries of the penalty and the rank that were chosen; None where nothing was held out, or "auto"
        found a rank that reproduces all entries exactly.
    optimality_ : float or None
        Largest singular value of the residual over the penalty.  At 1 (to the tolerance) this is the global optimum of the
        problem with that penalty, if the rank was not limited by `n_components`; above, it is not.  Known to 1e-4, and above 1.1
        to a hundredth.  None where penalties were estimated: that problem is not convex.
    objective_ : float
        What is minimised, see Notes; the expected sum of squared errors where penalties were estimated.
    n_iter_ : int
        Sweeps in all.
    empty_rows_, empty_columns_ : ndarray of int
        Rows and columns without any observed entry.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    The objective is the (weighted) sum of squared errors plus ``reg (sum |u_i|^2 + sum |v_j|^2)`` plus ``reg_bias`` times the
    sum of squared offsets.  Alternating least squares lowers it: in turn the rows of U and those of V are solved for, each by
    a few steps of conjugate gradients from where it was.  Between the half-sweeps both factors are brought to one diagonal
    Gram matrix, which makes the mean Gram matrix of the rows diagonal, and so a good preconditioner of all of them.  The
    penalty comes down from the value at which the solution is zero, and columns are added where the residual has a singular
    value above it: a fixed small penalty from a random start gets stuck where this does not.

    Estimated penalties are those of variational Bayes: the entries of u_i and v_j have variances besides their values, which
    add to the penalties of the rows and columns that they meet, and the penalty of a component is the variance of the noise
    over its mean square, on either side.  So rows with few entries, and weak components, are held back more than others, and
    components that only fit noise vanish.  Its cost is a half more a sweep, and a tenth of the sweeps of a path is enough.
    It is left where the data has no noise, or nothing but noise.

    X may be CSR, CSC or COO, whose stored entries are the observations, **zeros included**; a dense array with NaN, a masked
    array, or a data frame with missing values; or triplets ``(values, (rows, columns))``.  An entry given several times counts
    as often, with its mean.

    Where `n_components` is large enough, the penalty and not the rank determines the result, and `optimality_` is 1.  Where the
    rank limits it, the entries should be more than the (m + n - k) k degrees of freedom of rank k; a
    `lrla.exceptions.NotIdentifiableWarning` says so if they are not.

    A row without observations has u = 0 and b = 0, so that ``mean + c_j`` is predicted; a column likewise.

    The observations are kept for `partial_fit`, `complete` and `recommend`.  Beside a CSR matrix with sorted 32-bit indices a fit
    takes the memory of some copies of the factors and of a few million entries, however many there are; other forms of X are
    brought to this one first.

    References
    ----------
    Y. Gu, Z. Song, J. Yin, L. Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear time",
    ICLR 2024, arXiv:2302.11068.

    T. Hastie, R. Mazumder, J. Lee, R. Zadeh, "Matrix completion and low-rank SVD via fast alternating least squares", JMLR 16,
    2015.

    Y. J. Lim, Y. W. Teh, "Variational Bayesian approach to movie rating prediction", KDD Cup and Workshop, 2007.

    Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan, "Large-scale parallel collaborative filtering for the Netflix prize", AAIM
    2008.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import MatrixCompletion
    >>> from lrla.datasets import make_ratings
    >>> X, values, rows, columns = make_ratings(300, 200, 9000, random_state=0)
    >>> model = MatrixCompletion(random_state=0, clip=(0.5, 5.0)).fit(X)
    >>> error = model.predict_entries(rows, columns) - values
    >>> bool(np.sqrt(np.mean(error**2)) < 0.92 * values.std())
    True
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        reg: Any = "auto",
        reg_scaling: float = 0.0,
        reg_bias: float | None = None,
        fit_bias: bool = True,
        max_components: int = 64,
        max_iter: int = 100,
        tol: float = 1e-5,
        cg_tol: float = 0.2,
        cg_max_iter: int = 8,
        path_ratio: float = 1.25,
        sweeps_per_level: int = 2,
        validation_fraction: float = 0.05,
        n_iter_no_change: int = 2,
        missing_values: float = np.nan,
        clip: tuple[float, float] | None = None,
        warm_start: bool = False,
        copy_X: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.reg = reg
        self.reg_scaling = reg_scaling
        self.reg_bias = reg_bias
        self.fit_bias = fit_bias
        self.max_components = max_components
        self.max_iter = max_iter
        self.tol = tol
        self.cg_tol = cg_tol
        self.cg_max_iter = cg_max_iter
        self.path_ratio = path_ratio
        self.sweeps_per_level = sweeps_per_level
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.missing_values = missing_values
        self.clip = clip
        self.warm_start = warm_start
        self.copy_X = copy_X
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------------------------------ fitting

    @all_or_nothing
    def fit(
        self, X: Any, y: Any = None, *, shape: tuple[int, int] | None = None, weights: Any = None
    ) -> MatrixCompletion:
        """Fit factors and offsets to the observed entries.

        Parameters
        ----------
        X : sparse, array-like or triplets (values, (rows, columns)) of shape (n_samples, n_features)
        y : ignored
        shape : tuple of two ints, default=None
            Of triplets; None: up to the largest row and column.
        weights : array-like or sparse, default=None
            Of the observed entries: of their number, in the order in which X stores them (a dense X: row by row), or of the
            shape of X.  Not `sample_weight`, which in scikit-learn says how often a row occurs.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of its range, X holds no observed entry, or what is observed is not finite.
        """
        settings = self._settings()
        before = self._fitted if self.warm_start and hasattr(self, "_fitted") else None
        observed = self._read(X, reset=True, shape=shape, weights=weights)
        k = self._check_n_components(observed.shape)
        require_entries(observed, "X")
        self._warn_of_empty(observed)
        fitted = self._fit(observed, k, settings, before)
        self._warn_of_rank(observed, fitted)
        self._store(fitted, observed, k, settings, self.copy_X)
        return self

    def _fit(self, observed: Observed, k: int | None, settings: Settings, before: Fitted | None) -> Fitted:
        reg, start = self._check_reg(), None
        seed = int(_random.seed_sequence(self.random_state).generate_state(1)[0])
        if before is not None and len(before.V) == observed.shape[1] and self._goes_on():
            k = max(len(before.sigma), 1) if k is None else k
            reg = before.reg if reg is None or isinstance(reg, str) else reg
            before = before if reg == before.reg else replace(before, posterior=None)
            settings = replace(settings, fit_bias=self._fit_settings.fit_bias, center=self._fit_settings.center)
            start = started(observed, before, settings, k)
        with Progress("MatrixCompletion", settings.max_iter, self.verbose) as progress:
            if k is not None and reg is not None:
                penalty = None if isinstance(reg, str) else reg
                fitted = complete(observed, k, penalty, settings, start=start, seed=seed, progress=progress)
            else:
                fitted = complete_automatically(
                    observed, settings, n_components=k, reg=reg, max_components=self.max_components,
                    validation_fraction=self.validation_fraction, n_iter_no_change=self.n_iter_no_change, seed=seed,
                    progress=progress,
                )  # fmt: skip
        self._asked = self._what_is_asked()
        if not fitted.converged:
            estimated = fitted.posterior is not None
            _validation.warn_not_converged(
                f"After {settings.max_iter} sweeps at the penalty {fitted.reg:.4g}, a sweep still changes the objective by more "
                f"than {settings.tol * (SLOWER if estimated else 1):g} of it"
                + ("" if estimated else f" (optimality_ is {fitted.optimality:.4f})")
                + ". Increase max_iter or tol.",
                stacklevel=5,
            )
        return fitted

    def _what_is_asked(self) -> dict[str, Any]:
        """The parameters that decide what kind of model is fitted."""
        return {name: getattr(self, name) for name in ("fit_bias", "reg_scaling", "reg", "n_components")}

    def _goes_on(self) -> bool:
        """Whether a warm start can lead from the last model to the one that is asked for now."""
        now, before = self._what_is_asked(), self._asked
        if any(now[name] != before[name] for name in ("fit_bias", "reg_scaling")):
            return False
        if now["reg"] != "bayes":
            return True
        # components with estimated penalties vanish, but do not appear
        estimated, more = self._fitted.posterior is not None, now["n_components"] != before["n_components"]
        return estimated and not more

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None, *, row_ids: Any = None, weights: Any = None) -> MatrixCompletion:
        """Append rows, or replace some, and bring the model up to date by `sweeps_per_level` sweeps over all rows.

        The first call is `fit`.  Later ones keep the penalty, and with n_components="auto" the rank.

        Parameters
        ----------
        X : sparse, array-like or triplets of shape (n_rows, n_features)
        y : ignored
        row_ids : array-like of int of shape (n_rows,), default=None
            The row of the model that each row of X takes the place of; numbers from the present number of rows on append.
            None appends all.
        weights : array-like or sparse, default=None
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X has another number of columns, or `row_ids` is not one number >= 0 for each row, all different.
        """
        settings = self._settings()
        model = getattr(self, "_fitted", None)
        rows = self._read(X, reset=model is None, weights=weights)
        k = self._check_n_components((rows.shape[1],) * 2)  # further rows may come
        n_rows = 0 if model is None else self._observed.shape[0]
        ids = check_row_ids(row_ids, rows.shape[0], n_rows)
        observed = with_rows(None if model is None else self._observed, rows, ids)
        require_entries(observed, "X")
        self._warn_of_empty(observed)
        if model is None:
            fitted = self._fit(observed, k, settings, None)
        else:
            most = max(self.n_components_, 1) if k is None else k
            settings = replace(settings, fit_bias=self._fit_settings.fit_bias, center=self._fit_settings.center)
            sweeps = replace(settings, max_iter=settings.sweeps_per_level, tol=0.0)
            start = started(observed, model, settings, most)
            with Progress("MatrixCompletion", sweeps.max_iter, self.verbose) as progress:
                fitted = complete(observed, most, model.reg, sweeps, start=start, progress=progress)
        self._warn_of_rank(observed, fitted)
        self._store(fitted, observed, k, settings)
        return self

    def _store(
        self, fitted: Fitted, observed: Observed, k: int | None, settings: Settings, copied: bool = False
    ) -> None:
        """Set the fitted attributes; the observations may still be X's own arrays, unless they are `copied`."""
        scores, s, right, turn = singular_form(fitted.U, fitted.V)
        missing = max(0, (k or 1) - len(s))
        self.row_factors_ = np.pad(scores, ((0, 0), (0, missing))) if missing else scores
        self.components_ = (np.pad(right, ((0, 0), (0, missing))) if missing else right).T
        self.singular_values_ = np.pad(s, (0, missing)).astype(right.dtype)
        self.n_components_ = len(s)
        self.row_bias_, self.column_bias_ = fitted.row_bias, fitted.column_bias
        self.global_mean_ = float(fitted.mean)
        self.reg_ = float(fitted.reg)
        self.optimality_ = float(fitted.optimality) if fitted.posterior is None else None
        self.noise_variance_ = None if fitted.posterior is None else float(fitted.posterior.noise)
        self.objective_, self.n_iter_ = float(fitted.objective), int(fitted.n_iter)
        self.path_ = np.empty(len(fitted.path), [(name, fitted.path.dtype[name]) for name in PATH_FIELDS])
        for name in PATH_FIELDS:
            self.path_[name] = fitted.path[name]
        self.validation_rmse_ = fitted.validation_rmse
        self.empty_rows_, self.empty_columns_ = (np.flatnonzero(side == 0) for side in lines(observed))
        self._fitted = replace(
            fitted, U=fitted.U[:0].copy(), row_bias=fitted.row_bias[:0].copy(), path=fitted.path[:0].copy()
        )
        self._observed = observed.alone(copied)
        self._turn = turn
        # those of the fit, without the offsets that the search has left out
        self._fit_settings = replace(settings, fit_bias=fitted.offsets, center=fitted.centered)

    def _warn_of_empty(self, observed: Observed) -> None:
        """Warn of rows and columns of which nothing is known."""
        empty = [np.count_nonzero(side == 0) for side in lines(observed)]
        if any(empty):
            warnings.warn(
                f"{empty[0]} rows and {empty[1]} columns of X have no observed entry: their factors and offsets are zero. See "
                "empty_rows_ and empty_columns_.",
                UnobservedWarning,
                stacklevel=4,
            )

    def _warn_of_rank(self, observed: Observed, fitted: Fitted) -> None:
        """Warn where rank one has more degrees of freedom than there are entries, or the rank that limits the fit has."""
        limited = fitted.converged and len(fitted.sigma) > 1 and fitted.optimality > LIMITED
        r, (m, n) = len(fitted.sigma) if limited else 1, observed.shape
        if observed.nnz < (m + n - r) * r:
            warnings.warn(
                f"X has {observed.nnz} observed entries, and a matrix of rank {r} and shape {(m, n)} has {(m + n - r) * r} "
                "degrees of freedom: many such matrices fit as well as this one. Lower n_components, or increase reg.",
                NotIdentifiableWarning,
                stacklevel=4,
            )

    # ------------------------------------------------------------------------------------------------ predicting

    def predict_entries(self, rows: Any, columns: Any) -> np.ndarray:
        """Predict entries of the matrix.

        Not `predict`, which in scikit-learn returns one number for every row of X.

        Parameters
        ----------
        rows, columns : array-like of int
            Entry p stands in row rows[p] of the matrix that was fitted and in column columns[p]; their shapes are broadcast.

        Returns
        -------
        values : ndarray of the shape of `rows` and `columns`

        Raises
        ------
        IndexError
            If a row or a column is out of range.
        """
        check_is_fitted(self)
        rows = check_index(rows, len(self.row_factors_), "rows")
        columns = check_index(columns, self.n_features_in_, "columns")
        rows, columns = np.broadcast_arrays(rows, columns)
        values = predict_pairs(
            rows.ravel(), columns.ravel(), self.row_factors_, self.components_.T, self.row_bias_, self.column_bias_
        )
        return self._clipped(values + values.dtype.type(self.global_mean_)).reshape(rows.shape)

    def transform(self, X: Any) -> np.ndarray:
        """Factors of rows, by folding them in: each row is solved for with the columns' factors and offsets fixed.

        Parameters
        ----------
        X : sparse, array-like or triplets of shape (n_rows, n_features)

        Returns
        -------
        W : ndarray of shape (n_rows, k)
            Those of the rows that were fitted are `row_factors_`, as far as the fit has converged.
        """
        return self.fold_in(X)[0]

    def fit_transform(
        self, X: Any, y: Any = None, *, shape: tuple[int, int] | None = None, weights: Any = None
    ) -> np.ndarray:
        """Fit, and fold the same rows in with the same weights.

        Parameters
        ----------
        X, shape, weights
            As in `fit`.
        y : ignored

        Returns
        -------
        W : ndarray of shape (n_samples, k)
            As `transform`.
        """
        return self.fit(X, shape=shape, weights=weights).fold_in(X, shape=shape, weights=weights)[0]

    def fold_in(
        self, X: Any, *, shape: tuple[int, int] | None = None, weights: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Factors and offsets of rows; ``inverse_transform(*fold_in(X))`` predicts all their entries.

        Parameters
        ----------
        X : sparse, array-like or triplets of shape (n_rows, n_features)
        shape : tuple of two ints, default=None
            Of triplets; None: up to the largest row.
        weights : array-like or sparse, default=None
            Of the observed entries, as in `fit`.

        Returns
        -------
        W : ndarray of shape (n_rows, k)
            As `transform`.
        row_bias : ndarray of shape (n_rows,)
        """
        check_is_fitted(self)
        observed = self._read(X, reset=False, shape=shape, weights=weights)
        dtype = self.components_.dtype
        U, row_bias = fold_in(observed, self._fitted, self._fit_settings, cg_tol=FOLD_IN_TOLERANCE[dtype.name])
        W = np.zeros((len(U), len(self.components_)), dtype)
        W[:, : self.n_components_] = U @ self._turn.T.astype(dtype)
        return W, row_bias

    def inverse_transform(self, W: Any, row_bias: Any = None) -> np.ndarray:
        """The matrix that belongs to factors of rows.

        Parameters
        ----------
        W : array-like of shape (n_rows, k)
        row_bias : array-like of shape (n_rows,), default=None
            Offsets of the rows, which `transform` does not return, but `fold_in`; None: zero.

        Returns
        -------
        X : ndarray of shape (n_rows, n_features)
        """
        check_is_fitted(self)
        W = _validation.check_dense(W, "W")
        if W.shape[1] != len(self.components_):
            raise ValueError(f"W must have {len(self.components_)} columns; got {W.shape[1]}.")
        X = W @ self.components_
        X += self.column_bias_ + X.dtype.type(self.global_mean_)
        if row_bias is not None:
            X += _validation.check_vector(row_bias, len(W), "row_bias", W).astype(X.dtype)[:, None]
        return self._clipped(X)

    def complete(self, rows: Any = None) -> np.ndarray:
        """Rows of the matrix, dense: observed entries as they were observed, and predictions elsewhere.

        Parameters
        ----------
        rows : array-like of int of shape (n_rows,), default=None
            None: all.

        Returns
        -------
        X : ndarray of shape (n_rows, n_features)

        Raises
        ------
        IndexError
            If a row is out of range.
        """
        check_is_fitted(self)
        m, n = self._observed.shape
        rows = np.arange(m) if rows is None else check_index(rows, m, "rows").reshape(-1)
        _validation.check_memory(float(len(rows)) * n * self.components_.itemsize, "The dense matrix")
        X = self.inverse_transform(self.row_factors_[rows], self.row_bias_[rows])
        chosen, indices, values = entries_of(self._observed, rows)
        X[chosen, indices] = values
        return X

    def recommend(self, rows: Any, n: int = 10, *, exclude: Any = "observed") -> tuple[np.ndarray, np.ndarray]:
        """The columns with the largest predictions.

        Parameters
        ----------
        rows : array-like of int of shape (n_rows,)
            Rows of the matrix that was fitted.
        n : int, default=10
            How many columns for each; there may be fewer.
        exclude : "observed", None or X as in `fit` of the fitted shape, default="observed"
            Which entries are not recommended: those observed in `fit`, none, or those of another matrix.

        Returns
        -------
        columns : ndarray of int of shape (n_rows, n)
            In descending order of their values; -1 where fewer are left.
        values : ndarray of shape (n_rows, n)
            The predictions; NaN there.

        Raises
        ------
        IndexError
            If a row is out of range.
        """
        check_is_fitted(self)
        rows = check_index(rows, len(self.row_factors_), "rows").reshape(-1)
        n = _validation.check_integer(n, "n", 1)
        _validation.check_memory(16.0 * len(rows) * n, "The recommendations")
        if exclude is None:
            excluded = None
        elif isinstance(exclude, str):
            _validation.check_choice(exclude, "exclude", ("observed",))
            excluded = self._observed
        else:
            excluded = self._of_fitted_rows(exclude, "exclude")
        columns, values = best_columns(self.row_factors_, self.components_, self.column_bias_, rows, n, excluded)
        values += (self.row_bias_[rows] + values.dtype.type(self.global_mean_))[:, None]
        return columns, self._clipped(values)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the root mean square error of the predictions of the observed entries of X.

        The rows of X are those that were fitted.  So cross-validation over rows, as by `cross_val_score`, makes no sense
        here: hold out entries, or read `validation_rmse_`.

        Parameters
        ----------
        X : sparse, array-like or triplets of the fitted shape
            Usually entries that `fit` has not seen.
        y : ignored

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        observed = self._of_fitted_rows(X, "X")
        require_entries(observed, "X")
        errors = self.predict_entries(observed.row_of_entry(), observed.indices).astype(np.float64) - observed.values
        return -float(np.sqrt(np.average(errors**2, weights=observed.weights)))

    # ------------------------------------------------------------------------------------------------ inside

    def _read(self, X: Any, *, reset: bool, shape: Any = None, weights: Any = None, name: str = "X") -> Observed:
        """The observed entries of X, in the precision of the model after the first fit."""
        triplets = isinstance(X, tuple)
        if triplets and not reset and shape is None:
            shape = (None, self.n_features_in_)
        observed = read_observed(
            X, name, shape=shape, sample_weight=weights, missing_values=self.missing_values, weight_name="weights",
            allow_empty=True,
        )  # fmt: skip
        if triplets:
            self._check_n_features(observed, reset)
        else:
            validate_data(self, X, reset=reset, skip_check_array=True)
        largest = float(np.abs(observed.values).max(initial=0.0))
        if largest * max(observed.nnz, 1) ** 0.5 > LARGEST:
            raise ValueError(f"{name} is too large for its sum of squares to be a number; rescale it.")
        return observed if reset else cast(observed, self.components_.dtype, name)

    def _of_fitted_rows(self, X: Any, name: str) -> Observed:
        shape = self._observed.shape if isinstance(X, tuple) else None
        observed = self._read(X, reset=False, shape=shape, name=name)
        if observed.shape != self._observed.shape:
            raise ValueError(
                f"{name} must have the shape {self._observed.shape} of the fitted matrix, whose rows it tells more of; got "
                f"{observed.shape}. Other rows are for fold_in."
            )
        return observed

    def _clipped(self, values: np.ndarray) -> np.ndarray:
        return values if self.clip is None else np.clip(values, *self.clip, out=values)

    def _settings(self) -> Settings:
        """The parameters that the engine reads, checked, and the others too."""
        v = _validation
        for name, choices in (("fit_bias", (True, False)), ("warm_start", (True, False))):
            v.check_choice(getattr(self, name), name, choices)
        v.check_integer(self.max_components, "max_components", 1)
        v.check_integer(self.n_iter_no_change, "n_iter_no_change", 1)
        v.check_real(self.validation_fraction, "validation_fraction", 0.0, 1.0, closed=(False, False))
        if self.clip is not None:
            low, high = (v.check_real(end, "clip") for end in _pair(self.clip))
            if not low < high:
                raise ValueError(f"clip must be None or (low, high) with low < high; got {self.clip!r}.")
        return Settings(
            reg_scaling=v.check_real(self.reg_scaling, "reg_scaling", 0.0, 1.0),
            reg_bias=None if self.reg_bias is None else v.check_real(self.reg_bias, "reg_bias", 0.0),
            fit_bias=self.fit_bias,
            center=self.fit_bias,
            max_iter=v.check_integer(self.max_iter, "max_iter", 1),
            tol=v.check_real(self.tol, "tol", 0.0, 1.0, closed=(True, False)),
            cg_tol=v.check_real(self.cg_tol, "cg_tol", 0.0, 1.0, closed=(False, False)),
            cg_max_iter=v.check_integer(self.cg_max_iter, "cg_max_iter", 1),
            path_ratio=v.check_real(self.path_ratio, "path_ratio", 1.0, closed=(False, True)),
            sweeps_per_level=v.check_integer(self.sweeps_per_level, "sweeps_per_level", 1),
        )

    def _check_n_components(self, shape: tuple[int, int]) -> int | None:
        """The largest rank, or None for "auto"."""
        k = None
        if not (isinstance(self.n_components, str) and self.n_components == "auto"):
            k = _validation.check_rank(self.n_components, shape, "n_components")
        _validation.check_memory(16.0 * sum(shape) * (k or 1), "The factors")
        return k

    def _check_reg(self) -> float | str | None:
        reg = check_reg(self.reg, "auto")
        return None if reg == "auto" else reg

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(np.isnan(self.missing_values))
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _pair(value: Any) -> tuple[Any, Any]:
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"clip must be None or (low, high); got {value!r}.") from None
    return low, high
