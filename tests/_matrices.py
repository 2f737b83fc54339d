"""Matrices whose singular values are known, and the ratios in which LAPACK's own tests state an error."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def orthonormal(m, k, rng):
    """An m x k matrix with orthonormal columns."""
    return np.linalg.qr(rng.standard_normal((m, k)))[0]


def matrix_with_spectrum(m, n, s, rng, dtype=np.float64):
    """An m x n matrix with the singular values s (zeros beyond), in random orthonormal frames."""
    s = np.asarray(s, dtype=np.float64)
    return ((orthonormal(m, len(s), rng) * s) @ orthonormal(n, len(s), rng).T).astype(dtype)


def sparse_matrix(m, n, density, rng, dtype=np.float64, container=sp.csr_array):
    """A sparse matrix of positive values in random places, like word counts."""
    A = sp.random_array((m, n), density=density, rng=rng, data_sampler=lambda size: 1.0 + rng.random(size))
    return container(A.tocsr().astype(dtype))


def orthogonality_ratio(Q):
    """||I - Q^T Q||_2 / (m eps) for Q with m rows; LAPACK accepts up to 30."""
    m, k = Q.shape
    gap = Q.astype(np.float64).T @ Q.astype(np.float64) - np.eye(k)
    return np.linalg.norm(gap, 2) / (m * np.finfo(Q.dtype).eps)


def residual_ratio(A, U, s, Vt):
    """||A V - U S||_2 / (||A||_2 max(m, n) eps): the backward error of triplets that need not be all of A."""
    A, U, s, Vt = (np.asarray(x, dtype=np.float64) for x in (A, U, s, Vt))
    scale = np.abs(A).max()  # keeps the squares inside the norm from overflowing
    error = np.linalg.norm((A / scale) @ Vt.T - U * (s / scale), 2)
    return error / (np.linalg.norm(A / scale, 2) * max(A.shape) * np.finfo(np.float64).eps)
