"""The second moment of rows of which only a few entries are observed, and its completion to low rank.

With two entries a row no row can be completed, but every row tells a product of two columns.  What is summed over rows are
counts and products of pairs, so batches add up.

S. Cao, P. Liang, G. Valiant, "One-sided matrix completion from two observations per row", ICML 2023; H. Zhang, Z. Zhang,
H. Nguyen, G. Lan, "One-sided matrix completion from ultra-sparse samples", TMLR 2026, arXiv:2601.12213.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse

from lrla._progress import Progress
from lrla.completion._input import read_observed
from lrla.completion._observed import Observed
from lrla.svd._truncated import solve

DENSE_SHARE = 0.1  # share of observed entries from which on products of dense blocks take less time than sparse ones
BLOCK_NUMBERS = 1 << 20  # numbers in such a block
SMALL = 1024  # columns up to which eigenvectors come from the dense matrix
SWEEPS = 15
REG = 1e-3  # penalty of the completion, in mean counts of a pair and mean squares of the data


@dataclass(frozen=True)
class Moments:
    """Sums over rows of x_j x_l, x_j, and 1, over the pairs (j, l) that are both observed; x in units of `scale`.

    Products and sums are kept on the pattern of `counts`, CSR with sorted indices.
    """

    counts: Any  # (n, n) CSR
    products: np.ndarray  # (nnz,), sum of x_j x_l
    firsts: np.ndarray  # (nnz,), sum of x_j
    shift: np.ndarray  # (n,), was subtracted before, so that products do not cancel
    scale: float
    m: int

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows."""
        counts = self.counts + other.counts
        counts.sort_indices()
        products, firsts = (
            aligned(self.matrix(a), counts) + aligned(other.matrix(b), counts)
            for a, b in ((self.products, other.products), (self.firsts, other.firsts))
        )
        return replace(self, counts=counts, products=products, firsts=firsts, m=self.m + other.m)

    def matrix(self, values: np.ndarray) -> Any:
        """Values on the pattern of the counts, as a matrix."""
        return scipy.sparse.csr_array((values, self.counts.indices, self.counts.indptr), shape=self.counts.shape)

    def means(self) -> np.ndarray:
        """(n,), means of the observed entries of the columns, without the shift; 0 where there are none."""
        sums, counts = self.matrix(self.firsts).diagonal(), self.counts.diagonal()
        return np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0.0)

    def second(self, center: bool) -> Any:
        """(n, n) CSR, T_jl = mean of x_j x_l over the rows that show both, centred by column means or not."""
        counts = self.counts
        products = self.products
        if center:
            rows, columns, means = row_of_entry(counts), counts.indices, self.means()
            others = aligned(self.matrix(self.firsts).T.tocsr(), counts)
            products = products - means[columns] * self.firsts - means[rows] * others
            products += counts.data * means[rows] * means[columns]
        return self.matrix(products / counts.data)


def row_of_entry(csr: Any) -> np.ndarray:
    """(nnz,), the row of every stored entry."""
    return np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))


def aligned(csr: Any, pattern: Any) -> np.ndarray:
    """Values of a matrix at the stored places of another, whose pattern contains its own; SciPy may have dropped zeros."""
    csr.sort_indices()
    if csr.nnz == pattern.nnz:
        return csr.data
    n = csr.shape[1]
    values = np.zeros(pattern.nnz)
    keys = row_of_entry(pattern) * n + pattern.indices
    values[np.searchsorted(keys, row_of_entry(csr) * n + csr.indices)] = csr.data
    return values


def pair_moments(observed: Observed, shift: np.ndarray, scale: float) -> Moments:
    """Sum over the rows, at a cost of the squared number of entries of each."""
    ones = observed.matrix(np.ones(observed.nnz))
    numbers = observed.matrix((observed.values.astype(np.float64) - shift[observed.indices]) / scale)
    counts = cross_product(ones, ones)
    counts.sort_indices()
    products, firsts = (aligned(cross_product(numbers, right), counts) for right in (numbers, ones))
    return Moments(counts, products, firsts, shift, scale, observed.shape[0])


def cross_product(A: Any, B: Any) -> Any:
    """A^T B in CSR, by dense blocks of rows where the matrices are rather dense."""
    m, n = A.shape
    if A.nnz <= DENSE_SHARE * m * n or n > BLOCK_NUMBERS:
        return (A.T @ B).tocsr()
    total = np.zeros((n, n))
    step = max(1, BLOCK_NUMBERS // n)
    for first in range(0, m, step):
        left = A[first : first + step].toarray()
        total += left.T @ (left if B is A else B[first : first + step].toarray())
    return scipy.sparse.csr_array(total)


def hajek_second_moment(X: Any) -> tuple[Any, Any]:
    """Estimate ``X^T X / n_samples`` from observed entries: each entry is the mean over the rows that show both columns.

    Parameters
    ----------
    X : sparse, array-like with NaN, masked array or triplets (values, (rows, columns)) of shape (n_samples, n_features)
        The stored entries of a sparse matrix are the observed ones, zeros included.

    Returns
    -------
    T : CSR array of shape (n_features, n_features)
        Symmetric.  Pairs of columns that no row shows together are not stored.
    counts : CSR array of shape (n_features, n_features)
        Number of rows that show both columns of a pair, on the same pattern.

    Raises
    ------
    TypeError, ValueError
        As contracted in docs/bad_input.md; ValueError where nothing is observed.

    Notes
    -----
    Given that a pair is seen somewhere, the estimate is unbiased if it does not depend on the values what is observed.  It
    is not positive semidefinite in general.  The cost is the sum of the squared numbers of entries of the rows.

    References
    ----------
    H. Zhang, Z. Zhang, H. Nguyen, G. Lan, "One-sided matrix completion from ultra-sparse samples", TMLR 2026,
    arXiv:2601.12213.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import hajek_second_moment
    >>> X = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, 1.0], [np.nan, 4.0, 2.0]])
    >>> T, counts = hajek_second_moment(X)
    >>> T.toarray()
    array([[ 5. ,  2. ,  3. ],
           [ 2. , 10. ,  8. ],
           [ 3. ,  8. ,  2.5]])
    """
    observed = read_observed(X)
    scale = root_mean_square(observed)
    moments = pair_moments(observed, np.zeros(observed.shape[1]), scale)
    T = moments.second(center=False)
    with np.errstate(over="ignore"):
        T.data *= scale
        T.data *= scale
    if not np.all(np.isfinite(T.data)):
        raise ValueError("X is too large for its second moment to be a number; rescale it.")
    return T, moments.counts


def root_mean_square(observed: Observed) -> float:
    """Of the observed entries, free of overflow; 1 for zeros."""
    values = observed.values.astype(np.float64)
    top = float(np.abs(values).max(initial=0.0))
    return top * float(np.sqrt(np.mean((values / top) ** 2))) if top > 0.0 else 1.0


# ---------------------------------------------------------------------------------------------------- completion


def complete_moment(T: Any, counts: Any, k: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (n, k), orthonormal, and eigenvalues (k,), descending, of a low-rank completion of T.

    Minimizes ``sum N_jl (T_jl - v_j . v'_l)^2 + lam (|V|^2 + |V'|^2)`` by alternating least squares from the leading
    eigenpairs of T, and makes the result symmetric.
    """
    V, values = _leading(T, k, seed)
    left = V * np.sqrt(values)
    right = left
    weighted = T.multiply(counts).tocsr()
    squares = np.average(T.diagonal(), weights=counts.diagonal())
    ridge = REG * counts.data.mean() * max(squares, np.finfo(np.float64).tiny) * np.eye(k)
    for _ in range(SWEEPS):
        left = _half_sweep(weighted, counts, right, ridge)
        right = _half_sweep(weighted, counts, left, ridge)
    Q, R = np.linalg.qr(np.concatenate([left, right], axis=1))
    core = R[:, :k] @ R[:, k:].T
    values, vectors = np.linalg.eigh(0.5 * (core + core.T))
    return Q @ vectors[:, ::-1][:, :k], np.maximum(values[::-1][:k], 0.0)


def _half_sweep(weighted: Any, counts: Any, V: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """For every row j the minimizer of ``sum_l N_jl (T_jl - u . v_l)^2 + lam |u|^2``."""
    n, k = V.shape
    a, b = np.tril_indices(k)
    packed = counts @ (V[:, a] * V[:, b])
    G = np.empty((n, k, k))
    G[:, a, b] = G[:, b, a] = packed
    return np.linalg.solve(G + ridge, (weighted @ V)[:, :, None])[:, :, 0]


def _leading(T: Any, k: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
    """The k leading eigenpairs of a symmetric matrix with zeros where nothing is stored; negative values count as zero."""
    if T.shape[0] <= SMALL:
        values, vectors = np.linalg.eigh(T.toarray())
        return vectors[:, ::-1][:, :k], np.maximum(values[::-1][:k], 0.0)
    result = solve(T, k, mean=None, seed=seed, progress=Progress("start", 1), tol=1e-2)
    V = result.Vt.T
    return V, np.maximum(np.sum(V * (T @ V), axis=0), 0.0)
