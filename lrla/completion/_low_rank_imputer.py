"""The estimator LowRankImputer: fills the holes of a table by a low-rank model with noise."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_is_fitted, validate_data

from lrla import _validation
from lrla._estimator import Estimator, all_or_nothing
from lrla._progress import Progress
from lrla._random import seed_sequence
from lrla.completion import _em
from lrla.completion._als import fold_in
from lrla.completion._automatic import complete_automatically
from lrla.completion._fitted import Fitted, Settings
from lrla.completion._table import Block, Table, draw_factors
from lrla.completion._units import blocks, empty_rows, in_units, units_of
from lrla.exceptions import UnobservedWarning
from lrla.linalg._blas_threads import one_blas_thread

SOLVERS = ("auto", "em", "als")
EM_WORK = 5e7  # n k^2 up to which "auto" takes EM, whose accumulators are of that size
ROWS_PER_COMPONENT = 5  # observations that a column should have for every factor
TABLE_SHARE = 0.1  # share of observed entries from which on data count as a table


class LowRankImputer(OneToOneFeatureMixin, TransformerMixin, Estimator):
    """Imputation of missing values by a low-rank model: fast, with a standard deviation for every value filled in.

    The default engine fits a factor analysis model, ``x = mean + W z + noise`` with a noise variance for each column, by
    expectation maximization over the observed entries.  A missing entry gets its conditional mean given what its row shows.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Number of factors.  "auto" takes the number that predicts held-out entries best.
    missing_values : number or NaN, default=NaN
        What marks a missing entry.  Where it is a number, NaN is an error.  Masked arrays are understood besides.
    solver : {"auto", "em", "als"}, default="auto"
        "em" is expectation maximization, "als" alternating least squares with a ridge penalty (see `MatrixCompletion`),
        for many columns with few entries each.  "auto" takes "em" where at least a tenth of the entries is observed, or the
        median column has 5 entries for every component, unless n_features * n_components**2 exceeds 5e7.
    reg : float or "auto", default="auto"
        Penalty of "als", in units of standardized columns; "auto" takes the one that predicts held-out entries best.
    max_components : int, default=32
        Largest number of factors that n_components="auto" tries.
    max_iter : int, default=300
        Largest number of iterations of one fit.
    tol : float, default=1e-4
        "em" stops when the log-likelihood per observed entry gains less in an iteration; "als" at this relative decrease of
        its objective.
    center : bool, default=True
        Fit means.  Otherwise they are taken to be zero.
    scale : bool, default=True
        Give every column the same standard deviation within the fit.
    min_value, max_value : float or array-like of shape (n_features,), default=-inf, inf
        Filled values are clipped to this range.
    sample_posterior : bool, default=False
        Fill in random draws from the distribution of the missing entries given the observed ones, for multiple imputation.
    add_indicator : bool, default=False
        Append columns that tell what was missing, as scikit-learn's imputers do.
    keep_empty_features : bool, default=False
        Keep columns without any observed entry, filled with zeros; otherwise they are dropped.
    validation_fraction : float, default=0.1
        Share of the observed entries that n_components="auto" and reg="auto" hold out.
    random_state : None, int, RandomState or Generator, default=None
        An int makes results repeatable.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal rows, directions of the low-rank part in the units of the data, largest singular value first.
    singular_values_ : ndarray of shape (n_components,)
        Of the low-rank part of the training data: ``components_.T * (singular_values_**2 / n) @ components_`` is its
        covariance, n being the number of rows that show something.
    mean_ : ndarray of shape (n_features,)
    noise_variance_ : ndarray of shape (n_features,)
        Variance of a column that the factors do not explain ("em").
    solver_ : {"em", "als"}
    n_components_, n_iter_, n_features_in_ : int
    reg_ : float
        Penalty ("als"; 0 for "em").
    validation_score_ : float or None
        Root mean square error on held-out entries, in standard deviations of a column; None where nothing was held out, or
        "als" found a rank that reproduces all entries exactly.
    converged_ : bool
    loglik_ : float
        Log-likelihood of the observed training entries, standardized ("em").
    empty_rows_, empty_columns_ : ndarray of int
        Rows and columns without any observed entry.
    indicator_ : MissingIndicator or None

    Notes
    -----
    Observed entries come back as they are, to the bit.  A row without any observed entry is filled with the means.

    A column that varies keeps at least a millionth of its variance as noise.  Two weak priors steady what few rows
    determine: a loading has the prior variance 1/15, in standard deviations of its column, and the mean noise variance counts
    like 5 rows of every column.

    The model knows linear relations only.  Where data form clusters, and little is missing, `sklearn.impute.KNNImputer` can
    be better.

    References
    ----------
    D. Rubin, D. Thayer, "EM algorithms for ML factor analysis", Psychometrika 47, 1982.

    C. Liu, D. Rubin, Y. Wu, "Parameter expansion to accelerate EM: the PX-EM algorithm", Biometrika 85, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import LowRankImputer
    >>> rng = np.random.default_rng(0)
    >>> complete = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 20)) + 0.1 * rng.standard_normal((500, 20))
    >>> holes = rng.random(complete.shape) < 0.3
    >>> X = np.where(holes, np.nan, complete)
    >>> imputer = LowRankImputer(random_state=0).fit(X)
    >>> filled, std = imputer.transform(X, return_std=True)
    >>> imputer.components_.shape[1], imputer.solver_
    (20, 'em')
    >>> error = (filled - complete)[holes]
    >>> bool(np.sqrt(np.mean(error**2)) < 0.15)
    True
    >>> bool(0.92 < np.mean(np.abs(error) < 1.96 * std[holes]) < 0.97)
    True
    """

    _model: _em.FactorModel | Fitted

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        missing_values: Any = np.nan,
        solver: str = "auto",
        reg: Any = "auto",
        max_components: int = 32,
        max_iter: int = 300,
        tol: float = 1e-4,
        center: bool = True,
        scale: bool = True,
        min_value: Any = -np.inf,
        max_value: Any = np.inf,
        sample_posterior: bool = False,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.missing_values = missing_values
        self.solver = solver
        self.reg = reg
        self.max_components = max_components
        self.max_iter = max_iter
        self.tol = tol
        self.center = center
        self.scale = scale
        self.min_value = min_value
        self.max_value = max_value
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LowRankImputer:
        """Fit the model to the observed entries.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            With holes marked by `missing_values`, or a masked array.
        y : ignored
        sample_weight : array-like of shape (n_samples,) or None, default=None
            A row of weight 2 counts like two rows.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As contracted in docs/bad_input.md; ValueError where nothing is observed.
        """
        self._check_parameters()
        X = self._read(X, reset=True)
        weight = _row_weights(sample_weight, X)
        seed = seed_sequence(self.random_state)
        empty = empty_rows(X)
        weight[empty] = 0.0
        if not weight.any():
            raise ValueError("X has no observed entry, so there is nothing to learn from.")
        n = X.shape[1]
        self._limits = tuple(
            _limit(value, n, name) for value, name in ((self.min_value, "min_value"), (self.max_value, "max_value"))
        )
        if np.any(self._limits[0] > self._limits[1]):
            raise ValueError("min_value must not exceed max_value.")
        self._units = units_of(X, weight, bool(self.center), bool(self.scale))
        self.empty_rows_, self.empty_columns_ = np.flatnonzero(empty), np.flatnonzero(~self._units.seen)
        self._warn_about_empty()
        table = self._table(X, weight)
        most = self._most(X.shape)
        self.solver_ = self._choose_solver(table, most)
        with one_blas_thread, Progress("LowRankImputer", self.max_iter, self.verbose) as progress:
            if self.solver_ == "em":
                self._fit_em(table, most, seed, progress)
            else:
                self._fit_als(X, weight, seed, progress)
        self._publish(float(table.weight.sum()), X.dtype)
        self.indicator_ = None
        if self.add_indicator:
            self.indicator_ = MissingIndicator(error_on_new=False).fit(X)
        if not self.converged_:
            _validation.warn_not_converged(
                f"LowRankImputer stopped after {self.n_iter_} iterations, before tol={self.tol:g} was reached. Increase "
                "max_iter, or tol."
            )
        return self

    def _check_parameters(self) -> None:
        _validation.check_choice(self.solver, "solver", SOLVERS)
        _validation.check_integer(self.max_components, "max_components", 1)
        _validation.check_integer(self.max_iter, "max_iter", 1)
        _validation.check_real(self.tol, "tol", 0.0)
        _validation.check_real(self.validation_fraction, "validation_fraction", 0.0, 0.5, closed=(False, True))
        for name in ("center", "scale", "sample_posterior", "add_indicator", "keep_empty_features"):
            _validation.check_choice(getattr(self, name), name, (True, False))
        if not _is_auto(self.n_components):
            _validation.check_integer(self.n_components, "n_components", 1)
        if not _is_auto(self.reg):
            _validation.check_real(self.reg, "reg", 0.0)
        if isinstance(self.missing_values, (bool, np.bool_)) or not isinstance(self.missing_values, Real):
            raise TypeError(f"missing_values must be a real number or NaN; got {self.missing_values!r}.")
        if self.sample_posterior and self.solver == "als":
            raise ValueError(
                "sample_posterior=True needs the distribution of the entries, which solver='als' has not; use 'em'."
            )

    def _read(self, X: Any, *, reset: bool) -> np.ndarray:
        """X as a C-contiguous array of float32 or float64 with NaN in its holes; never the caller's own memory changed."""
        nan = math.isnan(self.missing_values)
        if isinstance(X, np.ma.MaskedArray):
            if X.dtype.kind == "c":
                raise ValueError("X is complex; Complex data not supported. Pass its real part.")
            dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
            X = np.ma.filled(X.astype(dtype), dtype.type(self.missing_values))
        _validation.check_on_host(X, "X", "LowRankImputer")
        with np.errstate(over="ignore"):  # a longdouble beyond float64 is refused as infinite: no warning besides
            X = validate_data(
                self, X, reset=reset, dtype=list(_validation.FLOATS), order="C",
                ensure_all_finite="allow-nan" if nan else True,
            )  # fmt: skip
        X = np.asarray(X)
        if not nan:
            X = np.where(self.missing_values == X, X.dtype.type(np.nan), X)
        return X

    def _table(self, X: np.ndarray, weight: np.ndarray) -> Table:
        return Table(X, self._units.shift, self._units.scale, weight)

    def _most(self, shape: tuple[int, int]) -> int:
        """The number of components: the one asked for, or the largest to try."""
        if not _is_auto(self.n_components):
            hint = f" X has shape {shape}."
            return _validation.check_integer(self.n_components, "n_components", 1, min(shape), hint)
        return max(1, min(self.max_components, shape[0], shape[1] - 1))

    def _choose_solver(self, table: Table, most: int) -> str:
        if not table.counts.any():
            return "em"  # nothing varies: there is nothing to choose
        if self.solver != "auto":
            return self.solver
        share = table.counts.sum() / (table.weight.sum() * table.n)
        enough = np.median(table.counts) >= ROWS_PER_COMPONENT * most
        return (
            "em"
            if self.sample_posterior or (table.n * most**2 <= EM_WORK and (share >= TABLE_SHARE or enough))
            else "als"
        )

    def _fit_em(self, table: Table, most: int, seed: Any, progress: Progress) -> None:
        options = _em.Options(fit_mean=bool(self.center), max_iter=self.max_iter, tol=self.tol)
        self.validation_score_, start = None, None
        if _is_auto(self.n_components):
            most = int(np.clip(np.median(table.counts) // ROWS_PER_COMPONENT, 1, most))
            if most > 1 and table.counts.any():
                start, self.validation_score_ = _em.choose_components(
                    table, most, self.validation_fraction, options, seed, progress
                )
        if start is None:
            start = _em.start_model(table, most, options, seed)
        model = _em.fit_factor_model(table, start, options, progress)
        self._model, self.reg_ = model, 0.0
        self.n_iter_, self.converged_, self.loglik_ = model.n_iter, model.converged, model.loglik

    def _fit_als(self, X: np.ndarray, weight: np.ndarray, seed: Any, progress: Progress) -> None:
        self._settings = Settings(fit_bias=False, center=False, max_iter=self.max_iter, tol=self.tol)
        rank = (
            {"max_components": self.max_components}
            if _is_auto(self.n_components)
            else {"n_components": self.n_components}
        )
        used = weight > 0.0
        if not used.all():
            X, weight = X[used], weight[used]
        fitted = complete_automatically(
            in_units(X, self._units, weight), self._settings, reg=None if _is_auto(self.reg) else float(self.reg),
            validation_fraction=self.validation_fraction, seed=int(seed.generate_state(1)[0]), progress=progress, **rank,
        )  # fmt: skip
        self._model, self.reg_ = fitted, fitted.reg
        self.n_iter_, self.converged_ = fitted.n_iter, fitted.converged
        self.validation_score_ = fitted.validation_rmse

    def _publish(self, rows: float, dtype: Any) -> None:
        """The fitted attributes in the units of the data."""
        units, model = self._units, self._model
        if isinstance(model, Fitted):
            loadings = units.scale[:, None] * model.V * np.sqrt(model.sigma)
            mean = units.shift + units.scale * (model.mean + model.column_bias)
            factor = 1.0
        else:
            loadings, mean = units.scale[:, None] * model.W, units.shift + units.scale * model.mean
            factor = math.sqrt(rows)
            with np.errstate(over="ignore", under="ignore"):
                self.noise_variance_ = units.scale**2 * model.psi
            if not np.all(np.isfinite(self.noise_variance_)):
                raise ValueError("X is too large for its variance to be a number; rescale it.")
        top = float(np.abs(loadings).max(initial=0.0)) or 1.0
        V, s, _ = np.linalg.svd(loadings / top, full_matrices=False)
        signs = np.sign(np.take_along_axis(V, np.abs(V).argmax(axis=0)[None], axis=0))
        self.components_ = np.ascontiguousarray((V * signs).T).astype(dtype)
        self.singular_values_ = (s * (top * factor)).astype(dtype)
        self.mean_ = mean.astype(dtype)
        self.n_components_ = len(s)

    def _warn_about_empty(self) -> None:
        if len(self.empty_rows_) or len(self.empty_columns_):
            done = "filled with 0" if self.keep_empty_features else "dropped"
            warnings.warn(
                f"{len(self.empty_rows_)} rows and {len(self.empty_columns_)} columns of X have no observed entry: the rows are "
                f"filled with means, the columns {done}. See empty_rows_ and empty_columns_.",
                UnobservedWarning,
                stacklevel=4,
            )

    # ------------------------------------------------------------------------------------------------ transform

    def transform(self, X: Any, return_std: bool = False) -> Any:
        """Fill the holes of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        return_std : bool, default=False
            Also return the standard deviation of every entry given the observed ones of its row ("em").

        Returns
        -------
        X_filled : ndarray of shape (n_samples, n_features_out)
            Observed entries as they were; the columns of `indicator_` at the end, if there are some.
        std : ndarray of shape (n_samples, n_features_out)
            0 for observed entries; only if `return_std`.
        """
        check_is_fitted(self, "components_")
        if return_std and self.solver_ == "als":
            raise ValueError(
                "return_std=True needs the distribution of the entries, which solver='als' has not; use solver='em'."
            )
        X = self._read(X, reset=False)
        seen = self._units.seen
        kept = seen | bool(self.keep_empty_features)
        filled, std = X.copy(), np.zeros(X.shape if return_std else (0, X.shape[1]), X.dtype)
        if isinstance(self._model, Fitted):
            self._fill_als(self._model, X, filled)
        else:
            self._fill_em(self._model, X, filled, std)
        filled[:, ~seen] = np.nan_to_num(X[:, ~seen], nan=0.0)
        std[:, ~seen] = 0.0
        if not kept.all():
            filled, std = filled[:, kept], std[:, kept]
        if self.indicator_ is not None:
            marks = self.indicator_.transform(X)
            filled = np.concatenate([filled, marks.astype(filled.dtype)], axis=1)
        return (filled, std) if return_std else filled

    def _fill_em(self, model: _em.FactorModel, X: np.ndarray, filled: np.ndarray, std: np.ndarray) -> None:
        """Write what belongs into the holes of X, and its standard deviation where `std` has rows."""
        scale = self._units.scale
        a, b = _em.pairs(model.k)
        products = model.W[:, a] * model.W[:, b] * np.where(a == b, 1.0, 2.0)
        noise = model.psi * model.inflation
        seed = seed_sequence(self.random_state) if self.sample_posterior else None

        def fill(block: Block) -> None:
            holes = np.isnan(X[block.rows])
            if len(std):
                variance = (products @ block.C[: len(a), : len(holes)]).T + noise
                np.copyto(std[block.rows], np.sqrt(variance) * scale, where=holes, casting="same_kind")
            Z, errors = block.Z[:, : len(holes)], 0.0
            if seed is not None:  # numbers of its own for every block, in whichever order they are filled
                own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, block.rows.start))
                rng = np.random.default_rng(own)
                Z, errors = draw_factors(block, rng), np.sqrt(noise) * rng.standard_normal(holes.shape)
            self._put(filled[block.rows], holes, model.mean + Z.T @ model.W.T + errors)

        with one_blas_thread:
            self._table(X, np.ones(len(X))).visit(model, fill)

    def _fill_als(self, model: Fitted, X: np.ndarray, filled: np.ndarray) -> None:
        """Write what belongs into the holes of X."""
        Z = fold_in(in_units(X, self._units, None), model, self._settings)[0]
        for rows in blocks(X):
            predicted = model.mean + model.column_bias + np.asarray(Z[rows], dtype=np.float64) @ model.V.T
            self._put(filled[rows], np.isnan(X[rows]), predicted)

    def _put(self, filled: np.ndarray, holes: np.ndarray, standardized: np.ndarray) -> None:
        values = np.clip(self._units.shift + self._units.scale * standardized, *self._limits)
        np.copyto(filled, values, where=holes, casting="same_kind")

    def score(self, X: Any, y: Any = None) -> float:
        """How well the model explains the observed entries of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        score : float
            "em": mean log-likelihood of the rows, columns that were constant left out.  "als": minus the root mean square
            error on a tenth of the entries (`validation_fraction`), which are hidden and filled from the others.
        """
        check_is_fitted(self, "components_")
        X = self._read(X, reset=False)
        table = self._table(X, np.ones(len(X)))
        if isinstance(self._model, Fitted):
            return self._score_als(self._model, X, table)
        scale, loglik = self._units.scale, np.empty(len(X))

        def note(block: Block) -> None:
            loglik[block.rows] = block.loglik

        with one_blas_thread:
            table.visit(self._model, note)
        volume = table.counts @ np.log(np.where(scale > 0.0, scale, 1.0))
        return float((loglik.sum() - volume) / len(X))

    def _score_als(self, model: Fitted, X: np.ndarray, table: Table) -> float:
        given, hidden = X.copy(), np.zeros(X.shape, dtype=np.bool_)
        for rows, uniform, shown in table.uniform(np.random.SeedSequence(0)):
            hidden[rows] = shown & (uniform < self.validation_fraction)
        given[hidden] = np.nan
        filled = given.copy()
        self._fill_als(model, given, filled)
        error = (filled - X)[hidden].astype(np.float64)
        top = float(np.abs(error).max(initial=0.0)) or 1.0
        return -top * float(np.sqrt(np.mean((error / top) ** 2))) if len(error) else math.nan

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`: those of X that are kept, and those of the indicator.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "components_")
        names = super().get_feature_names_out(input_features)
        kept = names[self._units.seen | bool(self.keep_empty_features)]
        if self.indicator_ is None:
            return kept
        return np.concatenate([kept, self.indicator_.get_feature_names_out(names)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.allow_nan = isinstance(self.missing_values, Real) and math.isnan(self.missing_values)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


# ---------------------------------------------------------------------------------------------------- data


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _row_weights(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    if sample_weight is None:
        return np.ones(len(X))
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(X), float(sample_weight))
    weight = np.array(_validation.check_vector(sample_weight, len(X), "sample_weight", X), dtype=np.float64)
    if np.any(weight < 0.0):
        raise ValueError(f"sample_weight must not be negative; the smallest is {weight.min()}.")
    if not np.any(weight > 0.0):
        raise ValueError("sample_weight must be positive for at least one row; all of it is zero.")
    return weight


def _limit(value: Any, n: int, name: str) -> np.ndarray:
    """A bound for every column."""
    limit = np.asarray(value, dtype=np.float64)
    if limit.shape not in ((), (n,)) or np.any(np.isnan(limit)):
        raise ValueError(f"{name} must be a number or an array of shape ({n},), without NaN; got {value!r}.")
    return np.broadcast_to(limit, (n,))
