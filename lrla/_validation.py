"""The door: checks of parameters and data.  Every message names the argument, what was found, and the fix.

scikit-learn's public validation does the common part; in front of it stand the inputs that it lets through although
they end in a wrong number or a crash (masked arrays, sparse indices out of range), behind it nothing.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array

from lrla import _arrays

FLOATS = (np.float64, np.float32)  # what is computed in; all other real types become float64


# ---------------------------------------------------------------------------------------------------- parameters


def check_integer(value: Any, name: str, minimum: int, maximum: int | None = None, hint: str = "") -> int:
    """An int in [minimum, maximum], or TypeError (not an integer; bool is none) or ValueError (out of range)."""
    wanted = f"an integer >= {minimum}" if maximum is None else f"an integer in [{minimum}, {maximum}]"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {wanted}; got {value!r} of type {type(value).__name__}.{hint}")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {wanted}; got {number}.{hint}")
    return number


def check_rank(value: Any, shape: tuple[int, int], name: str) -> int:
    """A rank in [1, min(shape)]."""
    return check_integer(value, name, 1, min(shape), hint=f" A matrix of shape {tuple(shape)} has no larger rank.")


def check_real(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf, *, closed: tuple[bool, bool] = (True, True)
) -> float:
    """A finite real number in an interval, or TypeError or ValueError; `closed` says which ends belong to it."""
    wanted = f"a real number in {'[' if closed[0] else '('}{low}, {high}{']' if closed[1] else ')'}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {wanted}; got {value!r} of type {type(value).__name__}.")
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        number = math.inf
    above = number >= low if closed[0] else number > low
    below = number <= high if closed[1] else number < high
    if not (math.isfinite(number) and above and below):
        raise ValueError(f"{name} must be {wanted}; got {number}.")
    return number


def check_choice(value: Any, name: str, choices: Sequence[Any]) -> Any:
    """One of `choices`, or ValueError that lists them.  NumPy's booleans, which grids of parameters hold, are Python's."""
    value = bool(value) if isinstance(value, np.bool_) else value
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")
    return value


def check_memory(n_bytes: float, what: str) -> None:
    """Refuse a request that needs more than the machine's physical memory, before anything is allocated."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40
    if n_bytes > limit:
        raise ValueError(
            f"{what} would take about {n_bytes:.3g} bytes, more than the {limit:.3g} bytes of memory of this machine. "
            "Ask for fewer components."
        )


# ---------------------------------------------------------------------------------------------------- data


def check_matrix(A: Any, name: str = "A", *, sparse: bool = True, operator: bool = False, dtype: Any = None) -> Any:
    """The matrix of an array routine, checked: a C- or F-ordered ndarray, CSR or CSC, a device array, or an operator.

    Parameters
    ----------
    A : array-like, sparse, device array or LinearOperator of shape (m, n)
        float32 stays float32; other real types become float64.
    name : str
        The argument's name, for messages.
    sparse, operator : bool
        Whether these kinds are accepted.
    dtype : float32, float64 or None
        Convert to this dtype; None keeps float32 and float64.

    Raises
    ------
    TypeError, ValueError
        As contracted in docs/bad_input.md: wrong kind, shape, type, or values that are not finite.
    """
    refuse_unsupported(A, name)
    kind = _arrays.kind(A)
    if kind == "operator":
        if not operator:
            raise TypeError(
                f"{name} is a LinearOperator; this routine needs the entries: pass an array or a sparse matrix."
            )
        return check_operator(A, name)
    if kind in ("device", "device_sparse"):
        return check_device(A, name, sparse=sparse, dtype=dtype)
    if kind == "sparse":
        A = check_sparse(A, name)
    with np.errstate(over="ignore"):  # a longdouble beyond float64 is refused as infinite: no warning besides
        checked = check_array(A, accept_sparse=["csr", "csc"] if sparse else False, dtype=list(FLOATS), input_name=name)
    return cast(contiguous(checked), dtype, name)


def check_dense(X: Any, name: str, *, allow_nan: bool = False) -> np.ndarray:
    """A dense host matrix in float32 or float64, finite but for NaN where that is allowed."""
    finite = "allow-nan" if allow_nan else True
    with np.errstate(over="ignore"):  # a longdouble beyond float64 is refused as infinite: no warning besides
        return check_array(X, dtype=list(FLOATS), ensure_all_finite=finite, input_name=name)


def refuse_unsupported(X: Any, name: str) -> None:
    """TypeError for inputs that would be computed behind the user's back, or read wrongly; nothing is computed."""
    origin = _arrays.library(X)
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, e.g. {name}.filled(0).")
    if origin == "dask":
        if any(math.isnan(size) for size in getattr(X, "shape", ()) if isinstance(size, float)):
            raise TypeError(
                f"{name} is a Dask array with unknown chunk sizes; call {name}.compute_chunk_sizes() and then "
                f"{name}.compute()."
            )
        raise TypeError(f"{name} is a Dask collection, which is not supported here yet; pass {name}.compute().")
    if origin in ("jax", "jaxlib"):
        raise TypeError(f"{name} is a JAX array, which is not supported; pass numpy.asarray({name}).")
    if origin == "polars" and type(X).__name__ == "LazyFrame":
        raise TypeError(f"{name} is a polars LazyFrame; pass {name}.collect().")
    if origin == "torch" and getattr(X, "requires_grad", False):
        raise TypeError(f"{name} is a torch tensor that requires grad; pass {name}.detach().")
    if origin in ("pandas", "polars") and hasattr(X, "columns"):
        _refuse_text_columns(X, name)


def check_on_host(X: Any, name: str, who: str) -> None:
    """TypeError for an array on a device where the work is done on the host."""
    refuse_unsupported(X, name)
    if _arrays.kind(X) in ("device", "device_sparse"):
        raise TypeError(
            f"{name} comes from {_arrays.library(X)}, and {who} works on the host: pass a NumPy array or a SciPy matrix."
        )


def _refuse_text_columns(X: Any, name: str) -> None:
    for i, (column, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True)):
        if str(dtype) in ("object", "string", "str", "String", "Object", "category", "Categorical"):
            values = X.iloc[:, i] if hasattr(X, "iloc") else X[column]  # pandas allows two columns of one name
            try:
                np.asarray(values.to_list(), dtype=np.float64)
            except (ValueError, TypeError):
                raise ValueError(
                    f"{name} has a column that is not numeric: {column!r} (dtype {dtype}). Encode it as numbers, or "
                    "drop it."
                ) from None


def check_sparse(X: Any, name: str) -> Any:
    """SciPy's sparse matrix as CSR or CSC whose indices can be trusted; duplicate entries are summed on a copy.

    Raises
    ------
    ValueError
        As `check_structure`.
    """
    check_structure(X, name)
    if X.format not in ("csr", "csc"):
        X = X.tocsr()
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def check_structure(X: Any, name: str) -> None:
    """That the indices of SciPy's sparse matrix can be trusted.

    Raises
    ------
    ValueError
        If X is not two-dimensional, an index is out of range, or the index pointer does not fit the entries.
    """
    if X.ndim != 2:
        raise ValueError(
            f"{name} must be a 2-dimensional sparse matrix; got a {X.ndim}-dimensional {type(X).__name__}."
        )
    if X.format in ("csr", "csc", "bsr"):
        _check_compressed(X, name)
    elif X.format == "coo":
        for axis, index in enumerate((X.row, X.col)):
            check_range(index, X.shape[axis], f"{'row' if axis == 0 else 'column'} index of {name}")


def _check_compressed(X: Any, name: str) -> None:
    block = X.blocksize if X.format == "bsr" else (1, 1)
    rows, columns = X.shape[0] // block[0], X.shape[1] // block[1]
    if X.format == "csc":
        rows, columns = columns, rows
    indptr, indices = np.asarray(X.indptr), np.asarray(X.indices)
    if len(indptr) != rows + 1 or indptr[0] != 0 or np.any(np.diff(indptr) < 0):
        raise ValueError(f"{name}.indptr must start at 0, never decrease, and have {rows + 1} entries.")
    if indptr[-1] != len(indices) or len(indices) != len(X.data):
        raise ValueError(
            f"{name}.indptr[-1] is {indptr[-1]}, but {name} has {len(indices)} indices and {len(X.data)} stored "
            "values; the three must agree."
        )
    check_range(indices, columns, f"index of {name}")


def check_range(indices: np.ndarray, size: int, what: str) -> None:
    """ValueError for an index below 0, or not below `size`."""
    if len(indices) and (indices.min() < 0 or indices.max() >= size):
        bad = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(
            f"The {what} must lie in [0, {size}); found {bad}. Rebuild the matrix from (data, (row, col))."
        )


def check_device(X: Any, name: str, *, sparse: bool = True, dtype: Any = None) -> Any:
    """A matrix on a device (CuPy, torch, any array namespace; cupyx sparse as CSR): shape, type and finiteness."""
    if _arrays.kind(X) == "device_sparse":
        if not sparse:
            raise TypeError(f"{name} is sparse, and this routine needs a dense array: pass {name}.toarray().")
        X = X if X.format in ("csr", "csc") else X.tocsr()
        values = X.data
    else:
        values = X
    xp = _arrays.namespace(X)
    if X.ndim != 2:
        raise ValueError(
            f"{name} must be a 2-dimensional array; got {X.ndim} dimension(s). Reshape it to (rows, columns)."
        )
    if min(X.shape) < 1:
        raise ValueError(f"{name} has shape {tuple(X.shape)}; a minimum of 1 row and 1 column is required.")
    if xp.isdtype(values.dtype, "complex floating"):
        raise ValueError(f"{name} is complex; Complex data not supported. Pass its real part.")
    target = np.dtype(dtype) if dtype is not None else _arrays.real_dtype(values)
    if str(values.dtype).rpartition(".")[2] != target.name:
        with np.errstate(over="ignore"):  # for array libraries that are NumPy underneath; refused below
            X = X.astype(target) if values is not X else _arrays.astype(X, target)
        values = X.data if values is not X and _arrays.kind(X) == "device_sparse" else X
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError(f"Input {name} contains NaN or infinity.")
    return X


def check_operator(A: Any, name: str) -> Any:
    """A LinearOperator with two positive dimensions and a real dtype."""
    if len(A.shape) != 2 or min(A.shape) < 1:
        raise ValueError(f"{name} has shape {tuple(A.shape)}; a minimum of 1 row and 1 column is required.")
    if np.dtype(A.dtype).kind == "c":
        raise ValueError(f"{name} is complex; Complex data not supported.")
    return A


def contiguous(X: Any) -> Any:
    """A dense matrix in C or Fortran order: a copy for other strides, so that they change no bit of the result."""
    if isinstance(X, np.ndarray) and not (X.flags.c_contiguous or X.flags.f_contiguous):
        return np.ascontiguousarray(X)
    return X


def cast(X: Any, dtype: Any, name: str) -> Any:
    """Host data (dense or sparse) in float32 or float64; a value that float32 cannot hold is a ValueError."""
    if dtype is None or X.dtype == dtype:
        return X
    with np.errstate(over="ignore"):
        converted = X.astype(dtype)
    values = converted if isinstance(converted, np.ndarray) else converted.data
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} contains values too large for {np.dtype(dtype).name}; pass float64, or rescale.")
    return converted


def check_vector(v: Any, size: int, name: str, like: Any) -> Any:
    """A finite vector of length `size` in float64, on the host or the device of `like`."""
    kind = _arrays.kind(v)
    if kind == "device":
        if _arrays.describe(v) != _arrays.describe(like):
            raise ValueError(
                f"{name} is on {_arrays.describe(v)}, but the matrix on {_arrays.describe(like)}; move one of them."
            )
        v = _arrays.to_host(v)
    v = check_array(v, ensure_2d=False, dtype=np.float64, input_name=name)
    if v.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},); got {v.shape}.")
    return v


# ---------------------------------------------------------------------------------------------------- warnings


def warn_not_converged(message: str, stacklevel: int = 3) -> None:
    """scikit-learn's ConvergenceWarning, with the numbers of what was reached."""
    warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)
