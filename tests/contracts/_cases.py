"""What the contracts are checked on: every public estimator and array routine, and how to compare what they return.

A new estimator is found by itself through `lrla.__all__`; a new array routine gets a line in `ROUTINES`.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator

import lrla
from lrla import _arrays, _validation

SHAPE = (20, 6)  # of the small matrices
K = 2  # and the rank asked for

ESTIMATORS = [
    value
    for value in (getattr(lrla, name) for name in lrla.__all__)
    if inspect.isclass(value) and issubclass(value, BaseEstimator)
]
for_each_estimator = pytest.mark.parametrize("cls", ESTIMATORS, ids=lambda cls: cls.__name__)


def apply(model: Any, X: Any) -> Any:
    """`transform`, or `predict` where there is none."""
    if hasattr(model, "transform"):
        return model.transform(X)
    return getattr(model, "decision_function", model.predict)(X)


def has_holes(cls: type) -> bool:
    """Whether NaN and masked entries are not observed, for this estimator, in place of being refused."""
    return cls().__sklearn_tags__().input_tags.allow_nan


# Two-dimensional attributes that are sums of squares, in float64 on the host whatever the data are, and residuals.
SUMS = ("eigenvalues_", "risk_ensemble_", "risk_single_", "risk_ridge_", "risk_se_", "loo_residuals_", "covariance_")


def streaming(cls: type) -> bool:
    return hasattr(cls(), "partial_fit")  # of an instance: it may depend on the parameters


for_each_streaming_estimator = pytest.mark.parametrize(
    "cls", [cls for cls in ESTIMATORS if streaming(cls)], ids=lambda cls: cls.__name__
)

# Those whose components follow from the data, and are orthonormal; a sketch's follow from the seed.
DECOMPOSITIONS = [cls for cls in ESTIMATORS if hasattr(cls, "singular_values_")]
for_each_decomposition = pytest.mark.parametrize("cls", DECOMPOSITIONS, ids=lambda cls: cls.__name__)
for_each_streaming_decomposition = pytest.mark.parametrize(
    "cls", [cls for cls in DECOMPOSITIONS if streaming(cls)], ids=lambda cls: cls.__name__
)


# ---------------------------------------------------------------------------------------------------- estimators


def make(cls: type, **params: Any) -> Any:
    """A small instance with a fixed seed; only the parameters that the class has are set."""
    accepted = inspect.signature(cls).parameters
    wanted = {"n_components": K, "random_state": 0, "path_ratio": 2.0, **params}  # a short path, where there is one
    return cls(**{name: value for name, value in wanted.items() if name in accepted})


def fit(estimator: Any, X: Any, y: Any = None) -> Any:
    """`fit`, with a target where one is required: y, or the first column."""
    with _boundary_ignored():
        given = target(estimator, X) if y is None else (y,) * len(target(estimator, np.zeros((2, 1))))
        return estimator.fit(X, *given)


def add_batch(estimator: Any, X: Any) -> Any:
    """`partial_fit`, likewise."""
    with _boundary_ignored():
        return estimator.partial_fit(X, *target(estimator, X))


def started(cls: type, X: Any) -> Any:
    """A stream whose first batch was X: from `fit`, but where what `fit` keeps is too little to go on from."""
    return add_batch(make(cls), X) if cls.__name__ == "SketchedRidge" else fitted(cls, X)


def target(estimator: Any, X: Any) -> tuple[Any, ...]:
    """Nothing, or the first column, as labels for a classifier; zeros where there is no column to be read."""
    tags = estimator.__sklearn_tags__()
    if not tags.target_tags.required:
        return ()
    y = _first_column(X)
    return ((y > y.mean() if len(y) else y).astype(int) if tags.estimator_type == "classifier" else y,)


def _first_column(X: Any) -> np.ndarray:
    try:
        if _arrays.kind(X) == "device":
            X = on_host(X)
        if sp.issparse(X):
            X = _validation.check_sparse(X, "X").tocsr()  # a broken one must not reach SciPy's products
        y = X[:, [0]].toarray().ravel() if sp.issparse(X) else np.array(X, dtype=np.float64)[:, 0]
        return y if np.all(np.isfinite(y)) and np.any(y != y[0]) else np.arange(float(len(y)))
    except Exception:  # X is one of those that must be refused, whatever y is
        return np.arange(float(X.shape[0] if getattr(X, "shape", ()) else 2))


@contextlib.contextmanager
def _boundary_ignored() -> Iterator[None]:
    """The target is a column: the best penalty is the smallest, and rounding is what is left."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The smallest penalty was the best")
        warnings.filterwarnings("ignore", "Residuals below .* have lost their digits")
        warnings.filterwarnings("ignore", "n_(out=.* is not below n_in|components=.* is not below n_features)")
        yield


def fitted(cls: type, X: Any, **params: Any) -> Any:
    return fit(make(cls, **params), X)


# What "auto" finds depends on which entries are held out, and these go by their place: parameters without "auto", and
# iterations to the end.
DETERMINED = {"MatrixCompletion": {"reg": 1.0, "tol": 0.0, "max_iter": 1000, "cg_tol": 1e-6, "cg_max_iter": 50}}


def public_state(model: Any) -> dict[str, Any]:
    """Every fitted attribute, lazy ones included, and the factors of a model that is no estimator."""
    names = [name for name in dir(model) if name.endswith("_") and not name.startswith("_")]
    names += [name for name in ("U", "Vt", "shape") if hasattr(model, name)]
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


NUMBERS = ("singular_values_", "explained_variance_", "components_", "mean_", "var_", "coef_", "U", "Vt")


def numbers(model: Any, X: Any) -> dict[str, Any]:
    """The attributes that are a function of the data, up to signs of components, and the transform of X."""
    found = pick({name: getattr(model, name, None) for name in NUMBERS}, NUMBERS)
    if hasattr(model, "transform"):
        found["transform"] = model.transform(X)
    if "components_" in found:  # a stream keeps the signs that it started with
        signs = np.sign(np.take_along_axis(V := found["components_"], np.abs(V).argmax(axis=1)[:, None], axis=1))
        found["components_"] = V * signs
        if found["transform"].shape[1] == len(signs):  # coordinates
            found["transform"] = found["transform"] * signs.T
    return found


def pick(results: dict[str, Any], names: Any) -> dict[str, Any]:
    """The results of these names that are there."""
    return {name: results[name] for name in names if results.get(name) is not None}


# of Q and B only the product is determined
FACTORS = (
    "U",
    "s",
    "Vt",
    "product",
    "singular_values_",
    "explained_variance_",
    "mean_",
    "components_",
    "transform",
    "coef_",
)


# ---------------------------------------------------------------------------------------------------- array routines


@dataclass(frozen=True)
class Subject:
    """A way for a matrix into the library: `run(A)` returns what was computed from it, by name."""

    name: str
    argument: str  # what messages call the matrix
    run: Callable[..., dict[str, Any]]
    decomposes: bool = True  # singular values are among what it computes
    sparse: bool = True  # accepts sparse matrices
    holes: bool = False  # NaN and masked entries are not observed, and stored zeros are

    def __call__(self, A: Any, **options: Any) -> dict[str, Any]:
        if sp.issparse(A) and not self.sparse:
            pytest.skip(f"{self.name} takes no sparse matrix, which row 36 of the table tests")
        return self.run(A, **options)


def _truncated_svd(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    U, s, Vt = lrla.truncated_svd(A, k, **{"random_state": 0, **options})
    return {"U": U, "s": s, "Vt": Vt}


def _randomized_svd(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    U, s, Vt = lrla.randomized_svd(A, k, **{"random_state": 0, **options})
    return {"U": U, "s": s, "Vt": Vt}


def _qb(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    reachable = 2e-3 if str(getattr(A, "dtype", "")).endswith(("float32", "f4")) else 1e-6
    Q, B, error = lrla.qb(A, **{"error": reachable, "max_rank": k, "random_state": 0, **options})
    return {"Q": Q, "B": B, "product": Q @ B, "error": error}


def _updatable(method: str) -> Callable[..., dict[str, Any]]:
    def run(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
        model = lrla.UpdatableSVD(k, **options)
        if method != "fit":
            model.fit(good())
        getattr(model, method)(A)
        model.flush()
        return {"U": model.U, "s": model.singular_values_, "Vt": model.Vt}

    return run


ROUTINES = [
    Subject("truncated_svd", "A", _truncated_svd),
    Subject("randomized_svd", "M", _randomized_svd),
    Subject("qb", "A", _qb),
    Subject("UpdatableSVD.fit", "A", _updatable("fit")),
]
UPDATES = [
    Subject("UpdatableSVD.add_rows", "E", _updatable("add_rows")),
    Subject("UpdatableSVD.add_columns", "F", _updatable("add_columns")),
]


def _target(A: Any) -> Any:
    """A right-hand side for A, where A is; of some length for what is no matrix."""
    m = A.shape[0] if _arrays.library(A) != "dask" and hasattr(A, "shape") and len(A.shape) == 2 else SHAPE[0]
    b = np.cos(np.arange(float(m)))
    return _arrays.from_host(b, A) if _arrays.kind(A) == "device" else b


def _sketched_lstsq(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    result = lrla.sketched_lstsq(A, _target(A), **{"random_state": 0, **options})
    return {"coef_": result.x, "rank": result.rank, "backward_error": result.backward_error}


def _approx_leverage_scores(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    return {"coef_": lrla.approx_leverage_scores(A, **{"random_state": 0, **options})}


def _sample_rows(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
    indices, weights = lrla.sample_rows(A, 1, **{"random_state": 0, **options})
    return {"indices": indices, "coef_": weights}


SOLVERS = [  # no factors of A come out of these, and no rank goes in
    Subject("sketched_lstsq", "A", _sketched_lstsq, decomposes=False),
    Subject("approx_leverage_scores", "A", _approx_leverage_scores, decomposes=False),
    Subject("sample_rows", "A", _sample_rows, decomposes=False),
]


def _method(cls: type, name: str) -> Callable[..., dict[str, Any]]:
    def run(A: Any, k: int = K, **options: Any) -> dict[str, Any]:
        estimator = make(cls, n_components=k, **options)
        if name == "transform":
            return {"transform": fit(estimator, _like(A)).transform(A)}
        if name == "partial_fit":
            return public_state(add_batch(estimator, A))
        return public_state(fit(estimator, A))

    return run


def _like(A: Any) -> Any:
    """A good matrix to fit to before A is transformed: a frame with the names a, b, c, ... if A is a frame."""
    if _arrays.library(A) in ("pandas", "polars"):
        return pytest.importorskip(_arrays.library(A)).DataFrame(dict(zip("abcdef", good().T, strict=True)))
    return good()


def subjects_of(cls: type) -> list[Subject]:
    """The methods of an estimator that take a matrix."""
    names = [name for name in ("fit", "partial_fit", "transform") if hasattr(cls(), name)]
    tags = cls().__sklearn_tags__().input_tags
    return [
        Subject(f"{cls.__name__}.{name}", "X", _method(cls, name), cls in DECOMPOSITIONS, tags.sparse, tags.allow_nan)
        for name in names
    ]


SUBJECTS = [*ROUTINES, *UPDATES, *SOLVERS, *(subject for cls in ESTIMATORS for subject in subjects_of(cls))]
FITTING = [s for s in SUBJECTS if not s.name.endswith(".transform") and s not in SOLVERS]  # they take a rank


# Ways into the library that compute on the host, and refuse device arrays with the conversion in the message.
HOST_ONLY = {
    **dict.fromkeys(("UpdatableSVD.fit", "UpdatableSVD.add_rows", "UpdatableSVD.add_columns"), "bound by latency"),
    **dict.fromkeys(("IncrementalPCA.fit", "IncrementalPCA.partial_fit", "TruncatedSVD.partial_fit"), "the same"),
    **dict.fromkeys(("MatrixCompletion.fit", "MatrixCompletion.partial_fit"), "compiled half-sweeps"),
    **dict.fromkeys(("LowRankImputer.fit", "OneSidedCompletion.fit", "OneSidedCompletion.partial_fit"), "compiled EM"),
}
ON_DEVICE = [subject for subject in FITTING if subject.name not in HOST_ONLY]
DEVICE_ESTIMATORS = [cls for cls in ESTIMATORS if f"{cls.__name__}.fit" not in HOST_ONLY]
for_each_device_estimator = pytest.mark.parametrize("cls", DEVICE_ESTIMATORS, ids=lambda cls: cls.__name__)


def for_each(subjects: list[Subject]) -> Any:
    return pytest.mark.parametrize("subject", subjects, ids=lambda subject: subject.name)


# ---------------------------------------------------------------------------------------------------- data


def good(shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """A well-conditioned dense matrix whose singular values are well apart."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in shape)
    return (U * 10.0 * 0.6 ** np.arange(k)) @ V.T


def sparse_good(shape: tuple[int, int] = SHAPE, seed: int = 0) -> sp.csr_array:
    """Half of the entries of `good`, in canonical CSR."""
    A = good(shape, seed)
    A[np.random.default_rng(seed).random(shape) < 0.5] = 0.0
    return sp.csr_array(A)


# ---------------------------------------------------------------------------------------------------- comparison


def on_host(x: Any) -> Any:
    """An array of any library as a NumPy array, by other means than the door under test."""
    if _arrays.library(x) == "array_api_strict":
        return np.from_dlpack(x)
    return x.get() if _arrays.library(x) == "cupy" else np.asarray(x)


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or _arrays.kind(x) == "device"


def same(a: Any, b: Any, path: str = "value") -> None:
    """Equal to the last bit, through containers and objects; the assertion names the place that differs."""
    assert type(a) is type(b), f"{path}: {type(a)} became {type(b)}"
    if isinstance(a, np.ndarray) and a.dtype.names:
        assert a.dtype == b.dtype, f"{path}: dtype {a.dtype} became {b.dtype}"
        same({name: a[name] for name in a.dtype.names}, {name: b[name] for name in b.dtype.names}, path)
    elif is_array(a):
        a, b = on_host(a), on_host(b)
        assert a.dtype == b.dtype, f"{path}: dtype {a.dtype} became {b.dtype}"
        np.testing.assert_array_equal(a, b, err_msg=path, strict=True)
    elif sp.issparse(a):
        same({**vars(a.tocsr())}, {**vars(b.tocsr())}, path)
    elif isinstance(a, dict):
        assert set(a) == set(b), f"{path}: names {set(a) ^ set(b)} differ"
        for name in a:
            same(a[name], b[name], f"{path}.{name}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), f"{path}: length {len(a)} became {len(b)}"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{i}]")
    elif isinstance(a, (np.random.Generator, np.random.RandomState)):
        same(a.__getstate__() or {}, b.__getstate__() or {}, path)
    elif callable(a) or a is b:
        assert a is b, f"{path} differs"
    elif attributes := _attributes(a):
        same(attributes, _attributes(b), path)
    else:
        assert a == b or (a != a and b != b), f"{path}: {a!r} became {b!r}"


def _attributes(x: Any) -> dict[str, Any]:
    slots = [name for base in type(x).__mro__ for name in getattr(base, "__slots__", ()) if hasattr(x, name)]
    return {**getattr(x, "__dict__", {}), **{name: getattr(x, name) for name in slots}}


def close(a: dict[str, Any], b: dict[str, Any], rtol: float) -> None:
    """Arrays of the same names, each equal to rtol times its largest entry."""
    assert set(a) == set(b)
    for name in a:
        x, y = on_host(a[name]), on_host(b[name])
        assert x.shape == y.shape, f"{name}: shape {x.shape} and {y.shape}"
        scale = np.abs(y).max(initial=0.0)
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * scale, err_msg=name)


def finite(results: dict[str, Any]) -> None:
    """No NaN and no Inf in any array or number."""
    for name, value in results.items():
        if name.startswith("risk_"):  # infinite where the data do not determine it
            assert not np.any(np.isnan(value)), f"{name} is not a number: {value}"
        elif name == "validation_rmse":  # NaN where nothing is held out
            assert not np.any(np.isinf(value)), f"{name} is infinite: {value}"
        elif isinstance(value, np.ndarray) and value.dtype.names:
            finite({field: value[field] for field in value.dtype.names})
        elif name == "feature_names_in_":
            continue
        elif is_array(value) or isinstance(value, float):
            assert np.all(np.isfinite(on_host(value))), f"{name} is not finite: {value}"


def arrays_of(A: Any) -> list[np.ndarray]:
    """The arrays in which a dense or sparse matrix keeps its entries."""
    if sp.issparse(A):
        return [A.data, A.indices, A.indptr] if A.format in ("csr", "csc", "bsr") else [A.data, A.row, A.col]
    return [A]


def read_only(A: Any) -> Any:
    """The same matrix; writing into it raises."""
    for array in arrays_of(A):
        array.flags.writeable = False
    return A
