"""The estimator OneSidedCompletion: principal directions of rows that show two entries or more."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from lrla import _validation
from lrla._estimator import Estimator, all_or_nothing
from lrla._progress import Progress
from lrla._random import seed_sequence
from lrla.completion import _em
from lrla.completion._input import read_observed, require_entries
from lrla.completion._moments import Moments, complete_moment, pair_moments, root_mean_square
from lrla.completion._observed import Observed
from lrla.completion._sparse_table import SparseTable
from lrla.completion._table import Block
from lrla.exceptions import NotIdentifiableWarning, UnobservedWarning
from lrla.linalg._blas_threads import one_blas_thread

# Shares of the mean square of the data: the least noise of a model from moments, and the noise that EM starts from.  EM moves
# slowly where the noise is small: started from what the moments leave it needs 3 to 5 times as many iterations.
LEAST_NOISE, FIRST_NOISE = 1e-3, 0.2


class OneSidedCompletion(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Principal directions of many rows of which only a few entries are observed, two or more of each.

    No row can be completed from two entries, but all rows together determine the second moment ``X^T X``: every pair of
    columns is seen by some of them.  Its low-rank part is estimated from those pairs, and then refined by maximum
    likelihood of a probabilistic PCA model over all observed entries.

    Parameters
    ----------
    n_components : int, default=2
        Number of directions.
    method : {"moment+em", "moment"}, default="moment+em"
        "moment" is the estimate from pairs only; its sums can be taken over batches (`partial_fit`).
    center : bool, default=False
        Subtract column means.
    max_iter : int, default=300
        Largest number of EM iterations.
    tol : float, default=1e-4
        EM stops when the log-likelihood per observed entry gains less in an iteration.
    random_state : None, int, RandomState or Generator, default=None
        For the start of the iteration that decomposes the moment of more than 1024 columns.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal rows, ordered by variance.
    explained_variance_ : ndarray of shape (n_components,)
        Second moments (variances, if `center`) along the components, the noise left out.
    singular_values_ : ndarray of shape (n_components,)
        Those that the low-rank part of the complete data is estimated to have.
    covariance_ : ndarray of shape (n_features, n_features)
        ``components_.T @ diag(explained_variance_) @ components_``; made when it is read.
    mean_ : ndarray of shape (n_features,)
        Zeros without `center`.
    noise_variance_ : float
    pair_counts_ : CSR array of shape (n_features, n_features)
        Number of rows that show both columns of a pair.
    empty_rows_, empty_columns_ : ndarray of int
        Rows and columns without any observed entry.
    n_iter_, n_samples_seen_, n_features_in_ : int
    converged_ : bool

    Notes
    -----
    What is observed must not depend on the values.  Directions weaker than the noise are found only by very many rows.

    References
    ----------
    S. Cao, P. Liang, G. Valiant, "One-sided matrix completion from two observations per row", ICML 2023.

    H. Zhang, Z. Zhang, H. Nguyen, G. Lan, "One-sided matrix completion from ultra-sparse samples", TMLR 2026,
    arXiv:2601.12213.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse
    >>> from lrla import OneSidedCompletion
    >>> rng = np.random.default_rng(0)
    >>> m, n = 8000, 30
    >>> truth = rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    >>> columns = np.array([rng.choice(n, 2, replace=False) for _ in range(m)])
    >>> rows = np.repeat(np.arange(m), 2)
    >>> X = scipy.sparse.csr_array((truth[rows, columns.ravel()], (rows, columns.ravel())), shape=(m, n))
    >>> model = OneSidedCompletion(2).fit(X)
    >>> V = np.linalg.svd(truth, full_matrices=False)[2][:2]
    >>> bool(np.linalg.norm(model.components_ - model.components_ @ V.T @ V) < 0.1)
    True
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        method: str = "moment+em",
        center: bool = False,
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.method = method
        self.center = center
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> OneSidedCompletion:
        """Fit the directions.

        Parameters
        ----------
        X : sparse, array-like with NaN, masked array or triplets (values, (rows, columns)) of shape (n_samples, n_features)
            The stored entries of a sparse matrix are the observed ones, zeros included.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As contracted in docs/bad_input.md; ValueError where nothing is observed.
        """
        self._check_parameters()
        observed = self._read(X, reset=True)
        k = self._check_n_components(observed.shape)
        require_entries(observed, "X")
        moments = self._moments_of(observed, None)
        self._warn_of_little(moments, np.flatnonzero(np.diff(observed.indptr) == 0), k)
        model = self._from_moments(moments, k)
        if self.method == "moment+em":
            model = self._refine(observed, moments.scale, model)
        self._publish(moments, model, observed.values.dtype)
        if not model.converged:
            _validation.warn_not_converged(
                f"OneSidedCompletion stopped after {self.n_iter_} iterations, before tol={self.tol:g} was reached. Increase "
                "max_iter, or tol."
            )
        return self

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None) -> OneSidedCompletion:
        """Add the rows of a batch to the pair moments; the model is that of method="moment".

        Parameters
        ----------
        X : sparse, array-like or triplets of shape (n_rows, n_features)
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        before = vars(self).get("_moments")
        observed = self._read(X, reset=before is None)
        k = self._check_n_components((observed.shape[1],) * 2)  # further rows may come
        if before is None:
            require_entries(observed, "X")
        moments = self._moments_of(observed, before)
        empty = np.flatnonzero(np.diff(observed.indptr) == 0)
        if before is not None:
            moments = before + moments
            empty = np.concatenate([self.empty_rows_, before.m + empty])
        self._warn_of_little(moments, empty, k)
        dtype = observed.values.dtype if before is None else self.components_.dtype
        self._publish(moments, self._from_moments(moments, k), dtype)
        return self

    def _check_parameters(self) -> None:
        _validation.check_choice(self.method, "method", ("moment+em", "moment"))
        _validation.check_choice(self.center, "center", (True, False))
        _validation.check_integer(self.max_iter, "max_iter", 1)
        _validation.check_real(self.tol, "tol", 0.0)
        seed_sequence(0 if self.random_state is None else self.random_state)

    def _check_n_components(self, shape: tuple[int, int]) -> int:
        k = _validation.check_rank(self.n_components, shape, "n_components")
        _validation.check_memory(8.0 * k * (shape[0] + shape[1] * (k + 3) / 2), f"{k} components of {shape[1]} columns")
        return k

    def _warn_of_little(self, moments: Moments, empty_rows: np.ndarray, k: int) -> None:
        """Set `empty_rows_` and `empty_columns_`, and warn of them, and of directions that the pairs do not determine."""
        n, diagonal = moments.counts.shape[0], moments.counts.diagonal()
        self.empty_rows_, self.empty_columns_ = empty_rows, np.flatnonzero(diagonal == 0.0)
        if len(empty_rows) or len(self.empty_columns_):
            warnings.warn(
                f"{len(empty_rows)} rows and {len(self.empty_columns_)} columns of X have no observed entry: their coordinates "
                "and components are zero. See empty_rows_ and empty_columns_.",
                UnobservedWarning,
                stacklevel=4,
            )
        pairs = (moments.counts.nnz + np.count_nonzero(diagonal)) // 2
        unknowns = n * k - k * (k - 1) // 2
        if pairs < unknowns:
            warnings.warn(
                f"Rows of X show {pairs} pairs of columns, and a moment of rank {k} of {n} columns has {unknowns} degrees of "
                "freedom: the result is one of many. Lower n_components, or observe more entries a row.",
                NotIdentifiableWarning,
                stacklevel=4,
            )

    def _read(self, X: Any, *, reset: bool) -> Observed:
        triplets = isinstance(X, tuple)
        shape = (None, self.n_features_in_) if triplets and not reset else None
        observed = read_observed(X, "X", shape=shape, allow_empty=True)
        if triplets:
            self._check_n_features(observed, reset)
        else:
            validate_data(self, X, reset=reset, skip_check_array=True)
        return observed

    def _moments_of(self, observed: Observed, like: Moments | None) -> Moments:
        """Pair moments, shifted by the means of the first batch, which keeps the products from cancelling."""
        if like is not None:
            shift, scale = like.shift, like.scale
        else:
            scale = root_mean_square(observed)
            sums = np.bincount(observed.indices, observed.values / scale, observed.shape[1])
            counts = np.bincount(observed.indices, minlength=observed.shape[1])
            shift = scale * sums / np.maximum(counts, 1) if self.center else np.zeros(observed.shape[1])
        with np.errstate(over="ignore"):
            moments = pair_moments(observed, shift, scale)
        if not np.all(np.isfinite(moments.products)):
            raise ValueError("X is too large beside what came first for its second moment to be a number; rescale it.")
        return moments

    def _from_moments(self, moments: Moments, k: int) -> _em.FactorModel:
        """The model in units of `moments.scale`: directions of the completed moment, and what they leave of its diagonal."""
        T = moments.second(bool(self.center))
        V, values = complete_moment(T, moments.counts, k, seed_sequence(self.random_state))
        W = V * np.sqrt(values)
        seen = moments.counts.diagonal()
        squares = np.average(T.diagonal(), weights=seen)
        left = np.average(np.maximum(T.diagonal() - np.sum(W * W, axis=1), 0.0), weights=seen)
        psi = max(left, LEAST_NOISE * squares) or 1.0
        mean = moments.shift / moments.scale + (moments.means() if self.center else 0.0)
        return _em.FactorModel(mean, W, np.full(len(W), psi), converged=True)

    def _refine(self, observed: Observed, scale: float, start: _em.FactorModel) -> _em.FactorModel:
        options = _em.Options(
            equal_noise=True,
            fit_mean=bool(self.center),
            max_iter=self.max_iter,
            tol=self.tol,
            ridge=0.0,
            prior_rows=0.0,
        )
        table = _table(observed, scale)
        squares = float(np.mean((observed.values / scale - start.mean[observed.indices]) ** 2))
        start = replace(start, psi=np.maximum(start.psi, FIRST_NOISE * squares))
        with one_blas_thread, Progress("OneSidedCompletion", self.max_iter, self.verbose) as progress:
            return _em.fit_factor_model(table, start, options, progress)

    def _publish(self, moments: Moments, model: _em.FactorModel, dtype: Any) -> None:
        """The fitted attributes, in the units of the data."""
        scale = moments.scale
        V, s, _ = np.linalg.svd(model.W, full_matrices=False)
        V = V * np.sign(np.take_along_axis(V, np.abs(V).argmax(axis=0)[None], axis=0))
        with np.errstate(over="ignore", under="ignore"):
            variance, noise = (s * scale) ** 2, float(model.psi[0]) * scale * scale
        if not (np.all(np.isfinite(variance)) and math.isfinite(noise)):
            raise ValueError("X is too large for its variance to be a number; rescale it.")
        self.components_ = np.ascontiguousarray(V.T).astype(dtype)
        self.explained_variance_ = variance
        self.singular_values_ = (s * (scale * math.sqrt(moments.m))).astype(dtype)
        self.mean_ = (model.mean * scale).astype(dtype)
        self.noise_variance_ = noise
        self.pair_counts_ = moments.counts
        self.n_samples_seen_, self.n_iter_, self.converged_ = moments.m, model.n_iter, model.converged
        self._moments, self._scale = moments, scale
        self._model = _em.FactorModel(model.mean, V * s, model.psi)

    @property
    def covariance_(self) -> np.ndarray:
        """Low-rank part of the covariance, or of the second moment without `center`."""
        check_is_fitted(self, "components_")
        return (self.components_.T * self.explained_variance_) @ self.components_

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def get_covariance(self) -> np.ndarray:
        """Covariance of the model: `covariance_` and the noise on its diagonal.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
        """
        return self.covariance_ + self.noise_variance_ * np.eye(self.n_features_in_)

    def transform(self, X: Any) -> np.ndarray:
        """Coordinates of rows along the components: their posterior means given what is observed.

        Parameters
        ----------
        X : sparse, array-like with NaN, masked array or triplets of shape (n_rows, n_features)

        Returns
        -------
        Z : ndarray of shape (n_rows, n_components)
            ``inverse_transform(Z)`` fills the rows in.
        """
        check_is_fitted(self, "components_")
        observed = self._read(X, reset=False)
        Z = np.empty((observed.shape[0], self._model.k))

        def note(block: Block) -> None:
            Z[block.rows] = block.Z[:, : len(block.loglik)].T

        with one_blas_thread:
            _table(observed, self._scale).visit(self._model, note)
        s = np.sqrt(np.sum(self._model.W**2, axis=0))
        return (Z * (s * self._scale)).astype(observed.values.dtype)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Rows from their coordinates.

        Parameters
        ----------
        Z : array-like of shape (n_rows, n_components)

        Returns
        -------
        X : ndarray of shape (n_rows, n_features)
        """
        check_is_fitted(self, "components_")
        Z = _validation.check_matrix(Z, "Z", sparse=False)
        if Z.shape[1] != len(self.components_):
            raise ValueError(f"Z must have {len(self.components_)} columns, one for each component; got {Z.shape[1]}.")
        return Z @ self.components_ + self.mean_

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood of the observed entries of every row.

        Parameters
        ----------
        X : sparse, array-like with NaN, masked array or triplets of shape (n_rows, n_features)

        Returns
        -------
        loglik : ndarray of shape (n_rows,)
        """
        check_is_fitted(self, "components_")
        observed = self._read(X, reset=False)
        loglik = np.empty(observed.shape[0])

        def note(block: Block) -> None:
            loglik[block.rows] = block.loglik

        with one_blas_thread:
            _table(observed, self._scale).visit(self._model, note)
        return loglik - np.diff(observed.indptr) * math.log(self._scale)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood of the rows.

        Parameters
        ----------
        X : sparse, array-like with NaN, masked array or triplets of shape (n_rows, n_features)
        y : ignored

        Returns
        -------
        score : float
        """
        return float(np.mean(self.score_samples(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _table(observed: Observed, scale: float) -> SparseTable:
    weight = np.ones(observed.shape[0])
    return SparseTable(observed.indptr, observed.indices, observed.values, observed.shape[1], weight, scale)
