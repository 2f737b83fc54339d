"""The estimator SketchTransform: fewer features, by a random sketch that keeps distances."""

from __future__ import annotations

from typing import Any

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.random_projection import johnson_lindenstrauss_min_dim
from sklearn.utils.validation import check_is_fitted

from lrla import _arrays, _validation
from lrla._estimator import Estimator, all_or_nothing
from lrla.linalg._exponent import values_of
from lrla.sketch._make_sketch import DATA_FREE, build


class SketchTransform(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Dimension reduction by a random sketch, which looks at the shape of the data only.

    Squared distances between rows are kept to a relative error of about ``sqrt(8 log(n_samples) / n_components)``.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Size of the sketch, at most n_features.  "auto" is the dimension for which the lemma of Johnson and Lindenstrauss
        guarantees `eps`, from the number of samples in `fit` or in the first batch of `partial_fit`; n_features if that is
        less.
    kind : str, default="sparse_stack"
        The random matrix; see `make_sketch`.
    nnz : int, default=8
        Entries in a row of kind="sparse_stack".
    eps : float, default=0.1
        Relative error of squared distances that n_components="auto" is made for.
    random_state : None, int, RandomState or Generator, default=None
        An int makes `fit` repeatable.

    Attributes
    ----------
    operator_ : SketchOperator
        The sketch S, of shape (n_features, n_components).
    n_components_, n_features_in_ : int
    components_ : array of shape (n_components, n_features)
        The entries of S^T, made when they are asked for.

    Notes
    -----
    The cost of `transform` is `nnz` additions for each entry of X that is stored, for kind="sparse_stack".

    References
    ----------
    Johnson, Lindenstrauss, *Extensions of Lipschitz mappings into a Hilbert space*, 1984.  See `make_sketch` for the kinds.

    Examples
    --------
    >>> import scipy.sparse
    >>> from lrla import SketchTransform
    >>> X = scipy.sparse.random_array((100, 20000), density=0.01, rng=0)
    >>> sketch = SketchTransform(500, random_state=0).fit(X)
    >>> sketch.transform(X).shape
    (100, 500)
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        kind: str = "sparse_stack",
        nnz: int = 8,
        eps: float = 0.1,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.kind = kind
        self.nnz = nnz
        self.eps = eps
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> SketchTransform:
        """Choose the sketch; of X only the shape counts, and where it lives.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        return self._fit(self._check_X(X, reset=True))

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None) -> SketchTransform:
        """The first batch chooses the sketch as `fit` does; later ones are checked, and change nothing.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if not self.__sklearn_is_fitted__():
            return self._fit(self._check_X(X, reset=True))
        self._check_X(X, reset=False, like=self._place, method="partial_fit")
        return self

    def _fit(self, X: Any) -> SketchTransform:
        n, p = int(X.shape[0]), int(X.shape[1])
        eps = _validation.check_real(self.eps, "eps", 0.0, 1.0, closed=(False, False))
        auto = isinstance(self.n_components, str) and self.n_components == "auto"
        q = min(max(1, int(johnson_lindenstrauss_min_dim(n, eps=eps))), p) if auto else self.n_components
        if not auto:
            hint = f" X has n_features={p}, and more components would make it larger."
            q = _validation.check_integer(q, "n_components", 1, p, hint)
        place = _place(X)
        _validation.check_choice(self.kind, "kind", DATA_FREE)
        self.operator_ = build(p, q, self.kind, self.nnz, None, True, self.random_state, 0, _arrays.real_dtype(place))
        self._place = place
        return self

    @property
    def n_components_(self) -> int:
        """Size of the sketch."""
        return self._fitted("operator_").n_out

    @property
    def components_(self) -> Any:
        """The entries of S^T, shape (n_components, n_features), where the data of `fit` live."""
        op = self._fitted("operator_")
        _validation.check_memory(8.0 * op.n_in * op.n_out, "components_")
        S = op._tile(0, op.n_in, self._place)
        return S.T.copy() if _arrays.kind(S) == "host" else S.T

    def _fitted(self, name: str) -> Any:
        if name not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object is not fitted (yet); call fit first.")
        return vars(self)[name]

    def transform(self, X: Any) -> Any:
        """Sketch every row of X.

        Parameters
        ----------
        X : array-like, sparse or device array of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_components)
            Dense, in the dtype of X, and where X lives, which must be where the data of `fit` were.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False, like=self._place)
        return self.operator_.right(X)

    def inverse_transform(self, X: Any) -> Any:
        """Return ``X S^T``: rows of feature space whose expectation is what was transformed.

        Their error is large, since n_components is below the number of features: it is the transpose, not an inverse.

        Parameters
        ----------
        X : array-like or device array of shape (n_samples, n_components)

        Returns
        -------
        array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        Z = _validation.check_matrix(X, "X", sparse=False)
        self._check_same_place(Z, _arrays.kind(Z), self._place, "inverse_transform")
        if Z.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {Z.shape[1]} columns, but {type(self).__name__} has {self.n_components_} components."
            )
        return self.operator_.expand(Z.T).T

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_is_fitted__(self) -> bool:
        return "operator_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _place(X: Any) -> Any:
    """An array without entries, of the type and where X is."""
    values = values_of(X)
    xp = _arrays.namespace(values)
    dtype = getattr(xp, _arrays.real_dtype(values).name)
    return xp.empty((0, 0), dtype=dtype, device=_arrays.device(values))
