"""What an updating SVD is given: the checks that `_validation` does not have, and the forms that updates work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from lrla import _validation


def check_automatic(value: Any, name: str, automatic: int) -> int:
    """A non-negative integer, or what "auto" stands for."""
    return automatic if isinstance(value, str) and value == "auto" else _validation.check_integer(value, name, 0)


def check_dtype(dtype: Any) -> np.dtype | None:
    """float32, float64 or None, as a NumPy dtype."""
    if dtype is None:
        return None
    if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"dtype must be float64, float32 or None; got {dtype!r}.")
    return np.dtype(dtype)


def is_plain(X: Any, name: str, dtype: np.dtype) -> bool:
    """Whether X can be taken as it is.  Small updates take less time than scikit-learn's checks, made for all cases."""
    if type(X) is np.ndarray:
        return X.ndim == 2 and X.dtype == dtype and X.size > 0 and bool(np.isfinite(X).all())
    if type(X) not in (scipy.sparse.csr_array, scipy.sparse.csr_matrix) or X.dtype != dtype or 0 in X.shape:
        return False
    return _validation.check_sparse(X, name) is X and bool(np.isfinite(X.data).all())


def check_length(found: int, wanted: int, name: str, what: str) -> None:
    """Refuse anything but the wanted number of rows or columns."""
    if found != wanted:
        raise ValueError(f"{name} must have {wanted} {what}; got {found}.")


def check_svd(U: Any, s: Any, Vt: Any, dtype: Any) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """U (m x r, or None), s (r,) and Vt (r x n) with orthonormal vectors wherever s is positive."""
    Vt = _validation.check_matrix(Vt, "Vt", sparse=False, dtype=dtype)
    s = _validation.check_vector(s, Vt.shape[0], "s", Vt)
    if s.min() < 0:
        raise ValueError(f"s must not be negative; got {s.min()}. Move the sign to U or Vt.")
    _check_orthonormal(Vt.T[:, s > 0], "Vt")
    if U is not None:
        U = _validation.check_matrix(U, "U", sparse=False, dtype=dtype)
        check_length(U.shape[1], len(s), "U", "columns, as s has values and Vt rows")
        _check_orthonormal(U[:, s > 0], "U")
    return U, s, Vt


def _check_orthonormal(X: np.ndarray, name: str) -> None:
    X = X.astype(np.float64, copy=False)
    gap = np.abs(X.T @ X - np.eye(X.shape[1])).max(initial=0.0)
    if gap > 1e-4:
        raise ValueError(
            f"The singular vectors in {name} must be orthonormal; their inner products are off by {gap:.1e}. "
            "Make the SVD of the product of the three factors first."
        )


def check_index(values: Any, size: int, name: str) -> np.ndarray:
    """An index array whose entries lie in [0, size)."""
    index = np.atleast_1d(np.asarray(values))
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise TypeError(
            f"{name} must be a 1-dimensional array of integers; got {index.ndim} dimension(s) of {index.dtype}."
        )
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(f"{name} must lie in [0, {size}); got values from {index.min()} to {index.max()}.")
    return index.astype(np.intp)


def by_rows(X: Any) -> Any:
    """CSR for sparse matrices."""
    return X if isinstance(X, np.ndarray) else X.tocsr()


def check_entries(i: Any, j: Any, delta: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Changes of single entries as D^T E with few rows: of the two, one holds unit vectors, the other the changes."""
    i, j = check_index(i, shape[0], "i"), check_index(j, shape[1], "j")
    check_length(len(j), len(i), "j", "entries, as i has")
    delta = _validation.check_vector(delta, len(i), "delta", np.empty(0))
    changes = scipy.sparse.coo_array((delta, (i, j)), shape=shape)
    if len(np.unique(i)) <= len(np.unique(j)):
        return _distinct_rows(changes.tocsr())
    return _distinct_rows(changes.T.tocsr())[::-1]


def _distinct_rows(changes: Any) -> tuple[Any, Any]:
    """D, E with changes = D^T E, where D holds the unit vectors of the rows that change."""
    rows = np.flatnonzero(np.diff(changes.indptr))
    D = scipy.sparse.csr_array(
        (np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape=(len(rows), changes.shape[0])
    )
    return D, changes[rows]
