"""Compiled loops of the updating SVD: a few sparse rows against a tall dense array, touching only the rows they name.

Sparse rows are CSR arrays: `indptr` (s + 1,), `indices` and `data` (n_stored,).  The tall array W (n, width) is
float64 or float32; all sums run in float64.  The loops are serial on purpose: a block has at most some hundred rows,
and starting threads would take longer.
"""

from __future__ import annotations

import numpy as np

from lrla import _jit

AHEAD = 12  # entries between that which is worked on and the one whose row of W is fetched
LINE_BYTES = 64


def _product(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, W: np.ndarray) -> np.ndarray:
    """E @ W for sparse rows E, in float64."""
    out = np.zeros((len(indptr) - 1, W.shape[1]))
    flat, width, line = W.reshape(-1), W.shape[1], LINE_BYTES // W.itemsize
    for i in range(len(indptr) - 1):
        for t in range(indptr[i], indptr[i + 1]):
            if t + AHEAD < len(indices):
                for c in range(0, width, line):
                    _jit.fetch(flat, indices[t + AHEAD] * width + c)
            j, x = indices[t], data[t]
            for c in range(W.shape[1]):
                out[i, c] += x * W[j, c]
    return out


def _add_transposed(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, Y: np.ndarray, W: np.ndarray) -> None:
    """W[:, :Y.shape[1]] += E.T @ Y for sparse rows E, in place."""
    flat, width, line = W.reshape(-1), W.shape[1], LINE_BYTES // W.itemsize
    for i in range(len(indptr) - 1):
        for t in range(indptr[i], indptr[i + 1]):
            if t + AHEAD < len(indices):
                for c in range(0, width, line):
                    _jit.fetch(flat, indices[t + AHEAD] * width + c)
            j, x = indices[t], data[t]
            for c in range(Y.shape[1]):
                W[j, c] += x * Y[i, c]


def _gram(order: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int) -> np.ndarray:
    """E @ E.T from the entries of E in an order by column: only pairs of entries in one column meet."""
    out = np.zeros((n_rows, n_rows))
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order) and columns[order[stop]] == columns[order[start]]:
            continue
        for a in order[start:stop]:
            for b in order[start:stop]:
                out[rows[a], rows[b]] += values[a] * values[b]
        start = stop
    return out


def _secular_root(i: int, d: np.ndarray, z2: np.ndarray, n: int, total: float, gaps: np.ndarray) -> float:
    """Root sigma^2 of 1 + sum_j z2_j / (d_j^2 - sigma^2) between the poles i and i + 1, or above the last of n.

    The origin is moved to the nearest pole, so that row i of `gaps`, the differences d_j^2 - sigma^2, is accurate to
    the last digits however small they are.  Rational interpolation on the two poles (Li, 1994), kept inside a
    bracket; `total` is the sum of z2.
    """
    last = i == n - 1
    width = total if last else (d[i + 1] - d[i]) * (d[i + 1] + d[i])
    origin, low, high = d[i], 0.0, width
    if not last:
        f = 1.0
        for j in range(n):
            f += z2[j] / ((d[j] - origin) * (d[j] + origin) - 0.5 * width)
        if f < 0.0:
            origin, low, high = d[i + 1], -0.5 * width, 0.0
        else:
            high = 0.5 * width
    mu = 0.5 * (low + high)
    for step in range(100):
        below, above, below_slope, above_slope = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            gap = (d[j] - origin) * (d[j] + origin) - mu
            gaps[i, j] = gap
            share = z2[j] / gap
            if j <= i:
                below += share
                below_slope += share / gap
            else:
                above += share
                above_slope += share / gap
        f = 1.0 + below + above
        if abs(f) <= 1e-16 * n * (1.0 - below + above):
            break
        if f < 0.0:
            low = mu
        else:
            high = mu
        P = gaps[i, i]
        Q = P if last else gaps[i, i + 1]
        b, c = below_slope * P * P, above_slope * Q * Q
        if step == 0 and not last:  # the two poles themselves, for roots that are very near to one
            b, c = z2[i], z2[i + 1]
        a = f - b / P - c / Q  # model a + b / (P - x) + c / (Q - x), for P < x < Q
        B, C = a * (P + Q) + b + c, P * Q * f
        root = np.sqrt(max(B * B - 4.0 * a * C, 0.0))
        if last:
            change = P + b / a
        elif B <= 0.0:
            change = (B - root) / (2.0 * a)
        else:
            change = 2.0 * C / (B + root)
        new = mu + change
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - mu) <= 1e-16 * abs(mu):
            break
        mu = new
    return origin * origin + mu


def _arrow_svd(
    s: np.ndarray, c: np.ndarray, rho: float, F: np.ndarray, S: np.ndarray, G: np.ndarray, work: np.ndarray
) -> bool:
    """SVD F diag(S) G^T of [[diag(s), 0], [c, rho]], for which LAPACK takes ten times as long; False if not possible.

    F and G are given as zeros, and S is not sorted.  The squares of S are the roots of a secular equation; as in Gu and
    Eisenstat (1995) the last row is then replaced by the one that has the computed roots exactly, which makes the
    vectors orthogonal to rounding error.  Not possible if values of s are equal or negligible.  `work` is (r + 5, r +
    1).
    """
    r = len(s)
    d, z, z2, index, gaps = work[0], work[1], work[2], work[3], work[4:]
    size = max(s[0], rho)
    for j in range(r):
        size = max(size, abs(c[j]))
    tol = 2e-15 * size
    index[0], d[0], z[0] = r, 0.0, max(rho, tol) / size  # active poles, ascending; 0 belongs to the last column of M
    n = np.int64(1)  # of that type from the start, or Numba compiles `_secular_root` twice
    for j in range(r - 1, -1, -1):
        if s[j] <= tol or (j > 0 and s[j - 1] - s[j] <= tol):
            return False
        if abs(c[j]) <= tol:
            S[j], F[j, j], G[j, j] = s[j], 1.0, 1.0
        else:
            index[n], d[n], z[n] = j, s[j] / size, c[j] / size
            n += 1
    total = 0.0
    for j in range(n):
        z2[j] = z[j] * z[j]
        total += z2[j]
    for i in range(n):
        S[int(index[i])] = size * np.sqrt(_secular_root(i, d, z2, n, total, gaps))
    for j in range(n):
        square = -gaps[n - 1, j]
        for i in range(n - 1):
            k = i if i < j else i + 1
            square *= gaps[i, j] / ((d[j] - d[k]) * (d[j] + d[k]))
        z[j] = np.sqrt(abs(square)) if z[j] > 0.0 else -np.sqrt(abs(square))
    for i in range(n):
        left, right = 1.0, 0.0
        for j in range(n):
            g = z[j] / gaps[i, j]
            gaps[i, j] = g
            right += g * g
            left += d[j] * d[j] * g * g
        left, right = 1.0 / np.sqrt(left), 1.0 / np.sqrt(right)
        column = int(index[i])
        for j in range(n):
            F[int(index[j]), column] = d[j] * gaps[i, j] * left
            G[int(index[j]), column] = gaps[i, j] * right
        F[r, column] = -left
    return True


product = _jit.compile_cached(_product, nogil=True)
add_transposed = _jit.compile_cached(_add_transposed, nogil=True)
gram = _jit.compile_cached(_gram, nogil=True)
_secular_root = _jit.compile_cached(_secular_root, nogil=True, error_model="numpy")
arrow_svd = _jit.compile_cached(_arrow_svd, nogil=True, error_model="numpy")
