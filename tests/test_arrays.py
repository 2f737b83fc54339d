"""The door to array libraries: what came in, where it lives, and the way to the host and back."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from lrla import _arrays


class Subclass(np.ndarray):
    pass


class DuckOperator:
    """Products only, and no base class of SciPy's."""

    shape, dtype = (3, 2), np.dtype(float)

    def matvec(self, x):
        return np.zeros(3)


def _frame(library):
    return pytest.importorskip(library).DataFrame({"a": [1.0, 2.0]})


def _dask_array():
    return pytest.importorskip("dask.array").ones((4, 2), chunks=2)


KINDS = [
    ("list", lambda: [[1.0]], "host", "builtins"),
    ("ndarray", lambda: np.ones((2, 2)), "host", "numpy"),
    ("subclass", lambda: np.ones((2, 2)).view(Subclass), "host", "numpy"),
    ("masked", lambda: np.ma.ones((2, 2)), "host", "numpy"),
    ("scalar", lambda: np.float64(1), "host", "numpy"),
    ("None", lambda: None, "host", "builtins"),
    ("pandas", lambda: _frame("pandas"), "host", "pandas"),
    ("polars", lambda: _frame("polars"), "host", "polars"),
    ("csr_array", lambda: sp.csr_array(np.eye(2)), "sparse", "scipy"),
    ("csc_matrix", lambda: sp.csc_matrix(np.eye(2)), "sparse", "scipy"),
    ("coo_array", lambda: sp.coo_array(np.eye(2)), "sparse", "scipy"),
    ("LinearOperator", lambda: aslinearoperator(np.eye(2)), "operator", "scipy"),
    ("duck operator", DuckOperator, "operator", __name__.partition(".")[0]),
    ("dask", _dask_array, "dask", "dask"),
]


@pytest.mark.parametrize(("build", "kind", "library"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS])
def test_kind_and_library_on_the_host(build, kind, library):
    x = build()
    assert (_arrays.kind(x), _arrays.library(x)) == (kind, library)


def test_kind_and_library_of_device_arrays(device_xp):
    x = device_xp.asarray(np.eye(2))
    assert (_arrays.kind(x), _arrays.library(x)) == ("device", device_xp.name)


def test_namespace_and_device(xp):
    x = xp.asarray(np.eye(2))
    assert _arrays.namespace(x) is xp.namespace
    assert _arrays.device(x) == xp.device
    assert _arrays.library(x) in _arrays.describe(x)


def test_namespace_of_sparse_is_numpy():
    assert _arrays.namespace(sp.csr_array(np.eye(2))) is _arrays.namespace(np.eye(2))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_round_trip_to_the_host_and_back(xp, dtype):
    a = np.arange(6).reshape(2, 3).astype(dtype)
    x = _arrays.from_host(a, like=xp.asarray(np.eye(2)))
    assert xp.owns(x)
    back = _arrays.to_host(x)
    assert isinstance(back, np.ndarray)
    assert back.dtype == a.dtype
    np.testing.assert_array_equal(back, a)


def test_from_host_takes_any_layout(xp):
    a = np.arange(12.0).reshape(3, 4).T[::-1]
    np.testing.assert_array_equal(xp.to_numpy(_arrays.from_host(a, like=xp.asarray(np.eye(2)))), a)


def test_to_host_copies_only_from_a_device(xp, transfers):
    x = xp.asarray(np.eye(2))
    on_host = _arrays.to_host(x)
    assert transfers == ([] if xp.name == "numpy" else [(2, 2)])
    assert (on_host is x) == (xp.name == "numpy")


@pytest.mark.parametrize(("given", "wanted"), [("float32", "float32"), ("float64", "float64"), ("int64", "float64")])
def test_real_dtype_keeps_float32_only(xp, given, wanted):
    x = xp.asarray(np.ones((2, 2), dtype=given))
    assert _arrays.real_dtype(x) == wanted
    assert _arrays.real_dtype(_arrays.astype(x, wanted)) == wanted


@pytest.mark.parametrize("given", ["float16", "longdouble", ">f8", "bool"])
def test_real_dtype_of_other_numpy_types_is_float64(given):
    assert _arrays.real_dtype(np.ones(2, dtype=given)) == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_astype_leaves_alone_what_is_right_already(xp, dtype):
    x = xp.asarray(np.ones((2, 2), dtype=dtype))
    assert _arrays.astype(x, dtype) is x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eps_is_that_of_numpy(xp, dtype):
    assert _arrays.eps(xp.asarray(np.ones(1, dtype=dtype)).dtype) == np.finfo(dtype).eps


def test_device_errors_is_a_context_for_every_library(xp):
    x = xp.asarray(np.eye(2))
    with _arrays.device_errors(x):
        assert xp.owns(x + x)
