"""Compiled loops of the updating SVD: a few sparse rows against a tall dense array, touching only the rows they name.

Sparse rows are CSR arrays: `indptr` (s + 1,), `indices` and `data` (n_stored,).  The tall array W (n, width) is float64 or
float32; all sums run in float64.  The loops are serial on purpose: a block has at most some hundred rows, and starting
threads would take longer.
"""

from __future__ import annotations

import numpy as np

from lrla import _jit


def _product(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, W: np.ndarray) -> np.ndarray:
    """E @ W for sparse rows E, in float64."""
    out = np.zeros((len(indptr) - 1, W.shape[1]))
    for i in range(len(indptr) - 1):
        for t in range(indptr[i], indptr[i + 1]):
            j, x = indices[t], data[t]
            for c in range(W.shape[1]):
                out[i, c] += x * W[j, c]
    return out


def _add_transposed(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, Y: np.ndarray, W: np.ndarray) -> None:
    """W[:, :Y.shape[1]] += E.T @ Y for sparse rows E, in place."""
    for i in range(len(indptr) - 1):
        for t in range(indptr[i], indptr[i + 1]):
            j, x = indices[t], data[t]
            for c in range(Y.shape[1]):
                W[j, c] += x * Y[i, c]


def _gram(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int) -> np.ndarray:
    """E @ E.T from the entries of E sorted by column: only pairs of entries in one column meet."""
    out = np.zeros((n_rows, n_rows))
    start = 0
    for stop in range(1, len(columns) + 1):
        if stop < len(columns) and columns[stop] == columns[start]:
            continue
        for a in range(start, stop):
            for b in range(start, stop):
                out[rows[a], rows[b]] += values[a] * values[b]
        start = stop
    return out


product = _jit.compile_cached(_product, nogil=True)
add_transposed = _jit.compile_cached(_add_transposed, nogil=True)
gram = _jit.compile_cached(_gram, nogil=True)
