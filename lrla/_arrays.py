"""The only door to array libraries: what kind of array came in, its namespace and device, the way to the host and back.

Optional libraries are recognised by the module of a type, so that nothing is imported that the user did not import.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import array_api_compat
import numpy as np

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
Array = Any  # an array of any namespace
Kind = Literal["host", "sparse", "device", "device_sparse", "operator", "dask"]


def library(x: Any) -> str:
    """The top-level package that the type of x comes from, through subclasses: "numpy", "cupy", "torch", "dask", ..."""
    roots = [base.__module__.partition(".")[0] for base in type(x).__mro__]
    known = (
        "cupyx",
        "cupy",
        "torch",
        "array_api_strict",
        "jax",
        "jaxlib",
        "dask",
        "polars",
        "pandas",
        "scipy",
        "numpy",
    )
    return next((root for root in roots if root in known), roots[0])


def kind(x: Any) -> Kind:
    """Ask once, at the door, which way x takes: everything that NumPy can read is "host"."""
    origin = library(x)
    if origin == "dask":
        return "dask"
    if origin == "cupyx":
        return "device_sparse"
    if origin == "scipy":
        return "operator" if hasattr(x, "matvec") else "sparse"
    if origin != "numpy" and array_api_compat.is_array_api_obj(x):
        return "device"
    return "operator" if hasattr(x, "matvec") and hasattr(x, "shape") else "host"


def namespace(x: Array) -> Any:
    """The array-API namespace of x; NumPy for SciPy's sparse, CuPy for cupyx's."""
    if kind(x) == "device_sparse":
        return array_api_compat.array_namespace(x.data)
    return array_api_compat.array_namespace(x) if array_api_compat.is_array_api_obj(x) else _numpy()


@cache
def _numpy() -> Any:
    import array_api_compat.numpy

    return array_api_compat.numpy


def device(x: Array) -> Any:
    """The device of a dense array; None on the host, where NumPy has only one."""
    return None if library(x) in ("numpy", "scipy") else array_api_compat.device(x)


def to_host(x: Array) -> np.ndarray:
    """A NumPy array with the values of x.  On an accelerator this waits and copies: once an iteration at the most."""
    if isinstance(x, np.ndarray):
        return x
    return _copy_to_host(x)


def _copy_to_host(x: Array) -> np.ndarray:
    if library(x) == "cupy":
        return x.get()
    if library(x) == "torch":
        return x.cpu().numpy()
    return np.from_dlpack(x)


def from_host(a: np.ndarray, like: Array) -> Array:
    """The values of a in the namespace and on the device of `like`, in the dtype of a."""
    if isinstance(like, np.ndarray):
        return a
    xp = namespace(like)
    return a if xp is _numpy() else xp.asarray(np.ascontiguousarray(a), device=device(like))


def real_dtype(x: Array) -> np.dtype:
    """The dtype of x as a NumPy dtype: float32 stays, everything else is computed in float64."""
    return FLOAT32 if _is_single(x.dtype) else FLOAT64


def astype(x: Array, dtype: Any) -> Array:
    """Convert to float32 or float64 in whatever namespace x lives; x itself where nothing is to do."""
    xp = namespace(x)
    return xp.astype(x, getattr(xp, str(np.dtype(dtype))), copy=False)


def eps(dtype: Any) -> float:
    """Spacing of 1.0 in float32 or float64, for a dtype of any namespace."""
    return 2.0**-23 if _is_single(dtype) else 2.0**-52


def _is_single(dtype: Any) -> bool:
    return dtype == FLOAT32 if isinstance(dtype, np.dtype) else str(dtype).endswith("float32")


def device_errors(x: Array) -> AbstractContextManager[Any]:
    """Within this context a failed factorization on the device raises (CuPy returns rubbish silently by default)."""
    if library(x) in ("cupy", "cupyx"):
        import cupyx

        return cupyx.errstate(linalg="raise")
    return nullcontext()


def describe(x: Array) -> str:
    """Namespace and device in words, for messages."""
    where = device(x)
    return library(x) if where is None else f"{library(x)} on {where}"
