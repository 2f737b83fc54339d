"""Compiled work on many small symmetric matrices at once, which lie side by side.

Of symmetric k x k matrices only the lower triangle is kept, row by row: entry (a, b), b <= a, of all of them is in row
a (a + 1) / 2 + b of an array.  The matrices themselves are in strips of STRIP along its last two axes, so that the innermost
loops run over matrices: they are of one length, and as fast for small k as for large ones.
"""

from __future__ import annotations

import math

import numpy as np

from lrla._jit import kernel

STRIP = 64


@kernel(error_model="numpy")
def load(X, hidden, center, scale, M, D, places, held):
    """Read some rows of a table, in units of its columns; returns how many of their entries are hidden.

    Parameters
    ----------
    X : (b, n), float32 or float64, NaN in its holes
    hidden : (b, ceil(n / 8)) uint8, a bit for each entry, the first one the highest; or (0, 0)
    center, scale : (n,); a column of scale zero is not shown
    M : (b, n), 1 where an entry is shown and not hidden, else 0
    D : (b, n), such entries less the center, in units of the scale, else 0
    places, held : (b n,), where hidden entries are in the b n entries, and what they are in the same units
    """
    n = X.shape[1]
    for i in range(X.shape[0]):
        for j in range(n):
            x = float(X[i, j])
            shown = x == x and scale[j] > 0.0
            M[i, j] = 1.0 if shown else 0.0
            D[i, j] = (x - center[j]) / scale[j] if shown else 0.0
    count = 0
    for i in range(hidden.shape[0]):
        for byte in range(hidden.shape[1]):
            if hidden[i, byte] != 0:
                for bit in range(8):
                    if hidden[i, byte] & (128 >> bit):
                        j = 8 * byte + bit
                        places[count] = i * n + j
                        held[count] = D[i, j]
                        M[i, j], D[i, j] = 0.0, 0.0
                        count += 1
    return count


@kernel(fastmath={"contract"}, error_model="numpy")
def solve_all(G, R, logdet):
    """Replace positive definite matrices by their inverses, and right-hand sides by the solutions.

    Parameters
    ----------
    G : (k (k + 1) / 2, strips, STRIP), overwritten
    R : (k, strips, STRIP), overwritten
    logdet : (strips, STRIP), log det of the matrices
    """
    k, strips, width = R.shape
    V, f = np.empty((k, width)), np.empty(width)
    for strip in range(strips):  # entries are indexed one by one: a view of a row takes as long as 30 additions
        for i in range(width):
            logdet[strip, i] = 0.0
        for p in range(k):  # symmetric sweeps: after all of them G is minus the inverse
            for a in range(k):
                row = a * (a + 1) // 2 + p if a > p else p * (p + 1) // 2 + a
                for i in range(width):
                    V[a, i] = G[row, strip, i]
            for i in range(width):
                logdet[strip, i] += math.log(V[p, i])
                V[p, i] = 1.0 / V[p, i]
            for a in range(k):
                row = a * (a + 1) // 2 + p if a > p else p * (p + 1) // 2 + a
                for i in range(width):
                    f[i] = V[a, i] * V[p, i]
                    G[row, strip, i] = -V[p, i] if a == p else f[i]
                row = a * (a + 1) // 2
                for b in range(a + 1):
                    if a != p and b != p:
                        for i in range(width):
                            G[row + b, strip, i] -= f[i] * V[b, i]
        for a in range(k):
            for i in range(width):
                V[a, i] = R[a, strip, i]
                R[a, strip, i] = 0.0
        for a in range(k):
            row = a * (a + 1) // 2
            for b in range(a + 1):
                for i in range(width):
                    G[row + b, strip, i] = -G[row + b, strip, i]
                    R[a, strip, i] += G[row + b, strip, i] * V[b, i]
                if b < a:
                    for i in range(width):
                        R[b, strip, i] += G[row + b, strip, i] * V[a, i]


@kernel(fastmath={"contract"}, error_model="numpy")
def second_moments(S, Z, weight):
    """Make of covariances of z the weighted second moments of (z, 1).

    Parameters
    ----------
    S : ((k + 1) (k + 2) / 2, strips, STRIP), the covariances in the rows of z, overwritten
    Z : (k, strips, STRIP), means of z
    weight : (strips, STRIP)
    """
    k, strips, width = Z.shape
    for strip in range(strips):
        w = weight[strip]
        for a in range(k):
            x = Z[a, strip]
            for b in range(a + 1):
                s, y = S[a * (a + 1) // 2 + b, strip], Z[b, strip]
                for i in range(width):
                    s[i] = w[i] * (s[i] + x[i] * y[i])
            s = S[k * (k + 1) // 2 + a, strip]
            for i in range(width):
                s[i] = w[i] * x[i]
        s = S[k * (k + 3) // 2, strip]
        for i in range(width):
            s[i] = w[i]


@kernel(fastmath={"contract"}, error_model="numpy")
def factor_all(k, G):
    """Replace positive semidefinite matrices by their lower Cholesky factors; what rounding makes negative is zero.

    Parameters
    ----------
    k : order of the matrices
    G : (k (k + 1) / 2, strips, STRIP), overwritten
    """
    _, strips, width = G.shape
    for strip in range(strips):
        for a in range(k):
            for b in range(a + 1):
                row, other = a * (a + 1) // 2, b * (b + 1) // 2
                for i in range(width):
                    total = G[row + b, strip, i]
                    for c in range(b):
                        total -= G[row + c, strip, i] * G[other + c, strip, i]
                    pivot = G[other + b, strip, i]
                    if a == b:
                        total = math.sqrt(max(total, 0.0))
                    else:
                        total = total / pivot if pivot > 0.0 else 0.0
                    G[row + b, strip, i] = total
