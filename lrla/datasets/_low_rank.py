"""Low-rank matrices of which some entries are seen, and tables with holes and a noise of its own in every column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from lrla import _random, _validation


class LowRankObservations(NamedTuple):
    """What `make_low_rank_observations` returns: the entries seen, and the factors of the whole matrix."""

    X: scipy.sparse.csr_array
    left: np.ndarray
    right: np.ndarray


def make_low_rank_observations(
    n_rows: int = 400,
    n_columns: int = 400,
    *,
    rank: int = 8,
    oversampling: float = 2.0,
    condition: float = 1.0,
    noise: float = 0.0,
    random_state: object = None,
) -> LowRankObservations:
    """Make a matrix of exact rank and show some of its entries, drawn uniformly.

    Parameters
    ----------
    n_rows, n_columns : int, default=400
    rank : int, default=8
        k; the matrix has k (m + n - k) degrees of freedom.
    oversampling : float, default=2.0
        Entries shown for each degree of freedom.
    condition : float, default=1.0
        Largest over smallest of the k singular values, which fall geometrically.
    noise : float, default=0.0
        Standard deviation of noise on the entries shown, relative to the root mean square of the matrix.
    random_state : None, int, RandomState or Generator, default=None

    Returns
    -------
    X : csr_array of shape (n_rows, n_columns)
        The entries shown.
    left, right : ndarray of shapes (n_rows, rank), (n_columns, rank)
        The matrix is ``left @ right.T``; its entries have root mean square one.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range, or the entries do not suffice for `rank` in every row and column.

    Notes
    -----
    Below `rank` entries in a row, nobody can tell that row.  So cells are drawn uniformly, and where a row or a column got
    less than `rank`, some are moved there.

    References
    ----------
    E. J. Candès, T. Tao, "The power of convex relaxation: near-optimal matrix completion", IEEE Trans. Inform. Theory
    56(5), 2010.

    Examples
    --------
    >>> from lrla.datasets import make_low_rank_observations
    >>> X, left, right = make_low_rank_observations(60, 50, rank=2, oversampling=3.0, random_state=0)
    >>> X.nnz == 3 * 2 * (60 + 50 - 2)
    True
    """
    m = _validation.check_integer(n_rows, "n_rows", 1)
    n = _validation.check_integer(n_columns, "n_columns", 1)
    k = _validation.check_rank(rank, (m, n), "rank")
    oversampling = _validation.check_real(oversampling, "oversampling", 1.0)
    condition = _validation.check_real(condition, "condition", 1.0)
    noise = _validation.check_real(noise, "noise", 0.0)
    nnz = round(oversampling * k * (m + n - k))
    if not max(m, n) * k <= nnz <= m * n:
        raise ValueError(
            f"oversampling={oversampling} asks for {nnz} entries, and a matrix of shape {(m, n)} has {m * n}, of which rank "
            f"{k} needs at least {max(m, n) * k}; choose another one."
        )
    rng = np.random.default_rng(_random.seed_sequence(random_state))
    s = np.geomspace(condition, 1.0, k)
    s *= np.sqrt(m * n) / np.linalg.norm(s)
    left, right = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    left *= s
    rows, columns = np.divmod(_spread_cells((m, n), nnz, k, rng), n)
    values = np.einsum("ek,ek->e", left[rows], right[columns]) + noise * rng.standard_normal(nnz)
    X = scipy.sparse.csr_array((values, (rows, columns)), shape=(m, n))
    return LowRankObservations(X, left, right)


def _spread_cells(shape: tuple[int, int], count: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct cells drawn uniformly, at least `least` in every row and column, in ascending order."""
    n = shape[1]
    cells = set(rng.choice(shape[0] * n, count, replace=False).tolist())
    counts = [np.bincount(index, minlength=size) for index, size in zip(_split(cells, n), shape, strict=True)]
    for axis in (0, 1):
        for line in np.flatnonzero(counts[axis] < least):
            along = line * n + np.arange(n) if axis == 0 else np.arange(shape[0]) * n + line
            free = [cell for cell in rng.permutation(along).tolist() if cell not in cells]
            for cell in free[: least - counts[axis][line]]:
                cells.add(cell)
                counts[0][cell // n] += 1
                counts[1][cell % n] += 1
    for cell in rng.permutation(sorted(cells)).tolist():
        if len(cells) == count:
            break
        i, j = divmod(cell, n)
        if counts[0][i] > least and counts[1][j] > least:
            cells.remove(cell)
            counts[0][i] -= 1
            counts[1][j] -= 1
    return np.array(sorted(cells))


def _split(cells: set[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.divmod(np.fromiter(cells, np.int64, len(cells)), n)
    return rows, columns


class LowRankTable(NamedTuple):
    """What `make_low_rank_table` returns: the table with holes, the same without, and the noise of its columns."""

    X: np.ndarray
    complete: np.ndarray
    noise_variance: np.ndarray


def make_low_rank_table(
    n_samples: int = 1000,
    n_features: int = 60,
    *,
    rank: int = 6,
    noise_variance: tuple[float, float] = (0.01, 1.0),
    missing: float = 0.3,
    random_state: object = None,
) -> LowRankTable:
    """Make a dense table from a few hidden factors, with a noise of its own in every column, and holes.

    Parameters
    ----------
    n_samples, n_features : int, default=1000 and 60
    rank : int, default=6
        Hidden factors; their part of an entry has variance about 1.
    noise_variance : tuple of two floats, default=(0.01, 1.0)
        The smallest and the largest variance of the noise; the columns' are spread geometrically between them, in random
        order.
    missing : float, default=0.3
        Share of the entries that are NaN in `X`, drawn at random; every row and column keeps at least one.
    random_state : None, int, RandomState or Generator, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        With holes.
    complete : ndarray of shape (n_samples, n_features)
        Without, noise included.
    noise_variance : ndarray of shape (n_features,)

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range.

    Notes
    -----
    No imputation has a smaller root mean square error than the root of the mean of `noise_variance`.

    References
    ----------
    D. B. Rubin, D. T. Thayer, "EM algorithms for ML factor analysis", Psychometrika 47, 1982: the model.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla.datasets import make_low_rank_table
    >>> X, complete, noise_variance = make_low_rank_table(random_state=0)
    >>> float(np.isnan(X).mean().round(2)), complete.shape
    (0.3, (1000, 60))
    """
    m = _validation.check_integer(n_samples, "n_samples", 1)
    n = _validation.check_integer(n_features, "n_features", 1)
    k = _validation.check_integer(rank, "rank", 1)
    if not (isinstance(noise_variance, (tuple, list)) and len(noise_variance) == 2):
        raise ValueError(f"noise_variance must be a tuple of two numbers > 0; got {noise_variance!r}.")
    low, high = (_validation.check_real(v, "noise_variance", 0.0, closed=(False, True)) for v in noise_variance)
    missing = _validation.check_real(missing, "missing", 0.0, 1.0, closed=(True, False))
    rng = np.random.default_rng(_random.seed_sequence(random_state))
    psi = rng.permutation(np.geomspace(low, high, n))
    complete = rng.standard_normal((m, k)) @ rng.standard_normal((k, n)) / np.sqrt(k)
    complete += rng.standard_normal((m, n)) * np.sqrt(psi)
    kept = rng.random((m, n)) >= missing
    for i in np.flatnonzero(~kept.any(axis=1)):
        kept[i, rng.integers(n)] = True
    for j in np.flatnonzero(~kept.any(axis=0)):
        kept[rng.integers(m), j] = True
    return LowRankTable(np.where(kept, complete, np.nan), complete, psi)
