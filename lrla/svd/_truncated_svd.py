"""The estimator TruncatedSVD: scikit-learn's class with a tolerance, an energy fraction, centring and partial_fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from lrla import _arrays, _validation
from lrla._estimator import all_or_nothing
from lrla.linalg._operator import as_operator, column_means
from lrla.svd._projection import BatchModel, Projection, check_energy, check_n_components, decompose, fitted, on_device
from lrla.svd._truncated import METHODS


class TruncatedSVD(Projection):
    """Dimension reduction by truncated SVD: to a requested accuracy, in one batch or from a stream.

    A superset of scikit-learn's class of this name (latent semantic analysis, when X is a term matrix).

    Parameters
    ----------
    n_components : int or float, default=2
        Rank k; or, as a float in (0, 1), the share of the squared norm of X (centred, if `center`) that the components
        must hold, the rank following from it.
    algorithm : {"auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack", "arpack"}, default="auto"
        As `method` of `truncated_svd`; "arpack" is SciPy's `svds`, for compatibility.
    tol : float, default=1e-3
        Relative residual of every triplet.  The error of a singular value is quadratic in it, about 1e-6.
    n_iter : int, default=5
        Power iterations of algorithm="randomized"; the others stop by `tol`.
    n_oversamples : int or "auto", default="auto"
        Additional vectors of algorithm="randomized" ("auto": 10), and components carried along by `partial_fit` beyond those
        shown ("auto": max(10, k // 2)).
    center : bool, default=False
        Subtract column means, implicitly; `partial_fit` too.
    max_iter : int, default=300
        Largest number of block products.
    random_state : None, int, RandomState or Generator, default=None
        An int makes `fit` repeatable.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    components_ : array of shape (k, n_features)
        Right singular vectors.  `fit`: entry of largest magnitude positive; `partial_fit`: signs never flip between batches,
        rows beyond `rank_` are zero.
    singular_values_ : array of shape (k,)
    explained_variance_ : array of shape (k,)
        Variance of the transformed training data (divided by n_samples).  Without centring it is not necessarily sorted.
    explained_variance_ratio_ : array of shape (k,)
    mean_ : array of shape (n_features,) or None
        What was subtracted.
    rank_, n_iter_, n_samples_seen_, n_features_in_ : int
    residuals_ : ndarray of shape (k,)
        ``||X^T u_i - s_i v_i||`` as the iteration estimates it, after `fit`; s_i is at most this far from a singular value.
    reconstruction_error_ : float
        ``(||X||_F^2 - sum s_i^2)^(1/2)``, the Frobenius error of ``U diag(s) V^T``; after `fit` that is ``||X - X V V^T||_F``,
        which for a stream may be smaller, as its s may be.

    Notes
    -----
    A stream's model is the SVD of (what it kept + new rows), see `UpdatableSVD`; `reconstruction_error_` says what it lost.
    After `fit`, `partial_fit` goes on from the fitted components.

    References
    ----------
    See `truncated_svd` and `UpdatableSVD`.

    Examples
    --------
    >>> import scipy.sparse
    >>> from lrla import TruncatedSVD
    >>> X = scipy.sparse.random_array((1000, 400), density=0.02, rng=0)
    >>> svd = TruncatedSVD(10, random_state=0).fit(X)
    >>> svd.transform(X).shape
    (1000, 10)
    >>> bool((svd.residuals_ <= 1e-3 * svd.singular_values_).all())
    True
    """

    mean_ = fitted("mean", "What was subtracted from every row, shape (n_features,); None without centring.")
    residuals_ = fitted("residuals", "||X^T u - s v|| of every triplet, shape (k,); after `fit` only.")
    reconstruction_error_ = fitted("reconstruction_error", "Frobenius error of U diag(s) V^T.")
    n_iter_ = fitted("n_iter", "Block products of `fit`, or batches of `partial_fit`.")

    def __init__(
        self,
        n_components: Any = 2,
        *,
        algorithm: str = "auto",
        tol: float = 1e-3,
        n_iter: int = 5,
        n_oversamples: Any = "auto",
        center: bool = False,
        max_iter: int = 300,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.algorithm = algorithm
        self.tol = tol
        self.n_iter = n_iter
        self.n_oversamples = n_oversamples
        self.center = center
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Fit the components.

        Parameters
        ----------
        X : array-like, sparse, device array or LinearOperator of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        self._fit(X)
        return self

    @all_or_nothing
    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit and return the transformed X, (n_samples, k): equal to ``fit(X).transform(X)`` to rounding.

        Parameters
        ----------
        X : array-like, sparse, device array or LinearOperator of shape (n_samples, n_features)
        y : ignored
        """
        U, s = self._fit(X)
        # subspace iteration makes X^T U = V diag(s) exact, and X V = U diag(s) only as far as it converged
        return self.transform(X) if self.algorithm == "randomized" else U * s[None, :]

    def _fit(self, X: Any) -> tuple[Any, Any]:
        oversamples = self._check_parameters()
        X = self._check_X(X, reset=True, operator=True)
        k = check_n_components(self.n_components, X.shape)
        means = column_means(X)
        op = as_operator(X, means if self.center else None)
        energy = check_energy(op.squared_norm)
        result = decompose(
            X, k, mean=means if self.center else None, method=self.algorithm, tol=self.tol, max_iter=self.max_iter,
            n_iter=self.n_iter, n_oversamples=10 if oversamples is None else oversamples,
            random_state=self.random_state, verbose=self.verbose, energy=energy,
        )  # fmt: skip
        s, V, N = result.s, result.Vt, X.shape[0]
        shift = np.zeros(len(s)) if self.center else _arrays.to_host(_arrays.astype(V, np.float64) @ means)
        variance = np.maximum(s**2 / N - shift**2, 0.0)
        total = energy / N - (0.0 if self.center else float(means @ means))
        share = variance / total if total > 0.0 else np.zeros_like(variance)
        self._model = BatchModel(
            components=V, singular_values=on_device(s, V), explained_variance=on_device(variance, V),
            explained_variance_ratio=on_device(share, V),
            mean=_arrays.astype(means, _arrays.real_dtype(V)) if self.center else None,
            noise_variance=0.0, sums=means * N, energy=energy,
            reconstruction_error=float(np.sqrt(max(energy - float(s @ s), 0.0))),
            residuals=result.residuals, rank=result.rank, n_iter=result.n_iter,
            n_samples_seen=N,
        )  # fmt: skip
        return result.U, self._model.singular_values

    def _check_parameters(self) -> int | None:
        _validation.check_choice(self.algorithm, "algorithm", (*METHODS, "arpack"))
        _validation.check_real(self.tol, "tol", 0.0, 1.0, closed=(True, False))
        _validation.check_integer(self.n_iter, "n_iter", 0)
        _validation.check_integer(self.max_iter, "max_iter", 1)
        _validation.check_choice(self.center, "center", (True, False))
        if isinstance(self.n_oversamples, str) and self.n_oversamples == "auto":
            return None
        return _validation.check_integer(self.n_oversamples, "n_oversamples", 0)

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None, *, allow_new_features: bool = False) -> TruncatedSVD:
        """Add the rows of a batch of any size; the cost follows the size of the batch.

        Parameters
        ----------
        X : array-like or sparse of shape (n_samples, n_features)
            On the host.
        y : ignored
        allow_new_features : bool, default=False
            X may have more columns than what was seen before, whose rows are taken to have zeros there (a vocabulary grows
            at its end).

        Returns
        -------
        self
        """
        oversamples = self._check_parameters()
        k = _validation.check_integer(self.n_components, "n_components", 1)
        _validation.check_on_host(X, "X", "TruncatedSVD.partial_fit")
        first = not self.__sklearn_is_fitted__()
        grows = not first and allow_new_features and getattr(X, "ndim", 0) == 2 and X.shape[1] > self.n_features_in_
        X = self._check_X(
            X, reset=first or grows, operator=False, like=None if first else self.components_, method="partial_fit"
        )
        p = max(10, k // 2) if oversamples is None else oversamples
        model = None if first else self._model
        if isinstance(model, BatchModel):
            model = self._resume(model, k, p)
        if model is None:
            from lrla.svd import _streams  # brings Numba, which a batch fit of dense data does not need

            model = _streams.centered(k, p, ddof=0) if self.center else _streams.raw(k, p)
        model.add(X if not scipy.sparse.issparse(X) else X.tocsr())
        self._model = model
        return self

    def _resume(self, model: BatchModel, k: int, p: int) -> Any:
        """A stream that goes on from a batch fit."""
        if self.center:
            raise ValueError(
                "partial_fit cannot go on from a centred fit, which keeps no column variances; start with partial_fit, or use "
                "IncrementalPCA."
            )
        if _arrays.kind(model.components) == "device":
            raise TypeError("The model is on a device, and partial_fit works on the host: call to_host() first.")
        r = max(model.rank, 1)
        from lrla.svd import _streams

        return _streams.resumed(k, p, r, model)
