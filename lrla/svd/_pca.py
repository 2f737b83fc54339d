"""The estimator PCA: scikit-learn's, to a requested accuracy, and on sparse data without densifying or ARPACK."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._estimator import all_or_nothing
from lrla.linalg._operator import as_operator, column_means
from lrla.svd._projection import BatchModel, Projection, check_energy, check_n_components, decompose, fitted, on_device

# scikit-learn's names of solvers that stand here under another name
SOLVERS = {"full": "lapack", "covariance_eigh": "gram"}
CHOICES = ("auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack", "arpack", *SOLVERS)


class PCA(Projection):
    """Principal component analysis by truncated SVD of the implicitly centred data, dense or sparse.

    Parameters
    ----------
    n_components : int, float or None, default=None
        Number of components; a float in (0, 1) asks for that share of the variance; None for min(n_samples, n_features).
    whiten : bool, default=False
        Scale the transformed features to unit variance.
    svd_solver : {"auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack", "arpack", "full", \
"covariance_eigh"}, default="auto"
        As `method` of `truncated_svd`; "full" and "covariance_eigh" are scikit-learn's names of "lapack" and "gram",
        "arpack" is SciPy's `svds`.
    tol : float, default=1e-3
        Relative residual of every triplet; the error of a variance is quadratic in it, about 1e-6.
    n_oversamples : int, default=10
        Additional vectors of svd_solver="randomized".
    iterated_power : int or "auto", default="auto"
        Power iterations of svd_solver="randomized".
    max_iter : int, default=300
        Largest number of block products.
    random_state : None, int, RandomState or Generator, default=None
    verbose : int, default=0

    Attributes
    ----------
    components_ : array of shape (k, n_features)
        Directions of largest variance; the entry of largest magnitude of each is positive.
    explained_variance_ : array of shape (k,)
        With n_samples - 1 in the denominator.
    explained_variance_ratio_ : array of shape (k,)
    singular_values_ : array of shape (k,)
        Of the centred data.
    mean_ : array of shape (n_features,)
    noise_variance_ : float
        Mean variance of the directions left out (probabilistic PCA).
    n_components_, rank_, n_iter_, n_samples_, n_features_in_ : int
    residuals_ : ndarray of shape (k,)
        ``||A^T u_i - s_i v_i||`` for the centred A; s_i is at most this far from a singular value.
    reconstruction_error_ : float
        Frobenius norm of what the components leave of the centred data.

    Notes
    -----
    Sparse X is never densified, but for problems so small that the dense SVD is the method.  float32 data whose mean hides
    its spread is centred block by block in float64 before the product.

    References
    ----------
    See `truncated_svd`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from lrla import PCA
    >>> pca = PCA(5).fit(load_digits().data)
    >>> pca.explained_variance_ratio_.round(3)
    array([0.149, 0.136, 0.118, 0.084, 0.058])
    """

    mean_ = fitted("mean", "Means of the features, shape (n_features,).")
    noise_variance_ = fitted("noise_variance", "Mean variance of the directions left out.")
    residuals_ = fitted("residuals", "||A^T u - s v|| of every triplet, shape (k,).")
    reconstruction_error_ = fitted("reconstruction_error", "What the components leave of the centred data.")
    n_iter_ = fitted("n_iter", "Block products of `fit`.")
    n_samples_ = fitted("n_samples_seen", "Rows of the training data.")

    def __init__(
        self,
        n_components: Any = None,
        *,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 1e-3,
        n_oversamples: int = 10,
        iterated_power: Any = "auto",
        max_iter: int = 300,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.n_oversamples = n_oversamples
        self.iterated_power = iterated_power
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    @property
    def n_components_(self) -> int:
        """The number of components."""
        return self._n_features_out

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> PCA:
        """Fit the components.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features), n_samples >= 2
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
        X : array-like, sparse or device array of shape (n_samples, n_features), n_samples >= 2
        y : ignored
        """
        U, s = self._fit(X)
        if self.svd_solver == "randomized":  # A^T U = V diag(s) is exact there, A V = U diag(s) as far as it converged
            return self.transform(X)
        Z = U * s[None, :]
        return Z / self._whitening(Z) if self.whiten else Z

    def _fit(self, X: Any) -> tuple[Any, Any]:
        steps = self._check_parameters()
        X = self._check_X(X, reset=True, operator=True, min_samples=2)
        k = min(X.shape) if self.n_components is None else check_n_components(self.n_components, X.shape)
        mean = column_means(X)
        energy = check_energy(as_operator(X, mean).squared_norm)
        result = decompose(
            X, k, mean=mean, method=SOLVERS.get(self.svd_solver, self.svd_solver), tol=self.tol, max_iter=self.max_iter,
            n_iter=steps, n_oversamples=self.n_oversamples, random_state=self.random_state, verbose=self.verbose,
            energy=energy,
        )  # fmt: skip
        s, V, N = result.s, result.Vt, X.shape[0]
        variance, lost = s**2 / (N - 1), max(energy - float(s @ s), 0.0)
        share = s**2 / energy if energy > 0.0 else np.zeros_like(s)
        left = min(X.shape) - len(s)
        self._model = BatchModel(
            components=V, singular_values=on_device(s, V), explained_variance=on_device(variance, V),
            explained_variance_ratio=on_device(share, V),
            mean=_arrays.astype(mean, _arrays.real_dtype(V)), sums=mean * N, energy=energy,
            noise_variance=lost / (N - 1) / left if left else 0.0, reconstruction_error=float(np.sqrt(lost)),
            residuals=result.residuals, rank=result.rank, n_iter=result.n_iter, n_samples_seen=N,
        )  # fmt: skip
        return result.U, self._model.singular_values

    def _check_parameters(self) -> int | None:
        _validation.check_choice(self.whiten, "whiten", (True, False))
        _validation.check_choice(self.svd_solver, "svd_solver", CHOICES)
        _validation.check_real(self.tol, "tol", 0.0, 1.0, closed=(True, False))
        _validation.check_integer(self.n_oversamples, "n_oversamples", 0)
        _validation.check_integer(self.max_iter, "max_iter", 1)
        if isinstance(self.iterated_power, str) and self.iterated_power == "auto":
            return None
        return _validation.check_integer(self.iterated_power, "iterated_power", 0)
