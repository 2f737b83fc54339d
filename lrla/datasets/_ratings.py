"""Ratings made up after the measure of the public ones: few popular rows and columns, offsets, low rank, much noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from lrla import _random, _validation

CHUNK = 1 << 17  # cells whose factors are gathered at a time


class Ratings(NamedTuple):
    """What `make_ratings` returns: the ratings to learn from, and the others as triplets."""

    X: scipy.sparse.csr_array
    test_values: np.ndarray
    test_rows: np.ndarray
    test_columns: np.ndarray


def make_ratings(
    n_rows: int = 943,
    n_columns: int = 1682,
    n_entries: int = 100_000,
    *,
    rank: int = 20,
    row_decay: float = 0.6,
    column_decay: float = 0.9,
    noise: float = 0.8,
    test_size: float = 0.1,
    random_state: object = None,
) -> Ratings:
    """Make ratings from 0.5 to 5 in halves, with the popularity, the offsets and the noise of the well-known collections.

    Distinct cells are drawn one after the other with probability proportional to ``i**-row_decay * j**-column_decay``.
    The rating of a cell is 3.5, plus an offset of its row (standard deviation 0.4) and of its column (0.5), plus a part of
    low rank (0.5) whose singular values fall like ``l**-0.7``, plus noise; it is clipped to [0.5, 5] and rounded to halves.

    Parameters
    ----------
    n_rows, n_columns : int, default=943 and 1682
        Users and films, say.  The defaults are the size of MovieLens-100k; 70 000 x 10 000 that of MovieLens-10M.
    n_entries : int, default=100_000
        Ratings in all, at most half of the cells.
    rank : int, default=20
        Of the part of low rank.
    row_decay, column_decay : float, default=0.6 and 0.9
        How fast the popularity falls; 0 is uniform.
    noise : float, default=0.8
        Standard deviation of the noise.
    test_size : float, default=0.1
        Share of the ratings that is kept for a test, drawn at random.
    random_state : None, int, RandomState or Generator, default=None

    Returns
    -------
    X : csr_array of shape (n_rows, n_columns)
        The ratings to learn from, float64.
    test_values, test_rows, test_columns : ndarray
        The others.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range.

    Notes
    -----
    The order of rows and columns carries no information: popularity is shuffled.  1e7 entries take some ten seconds and
    less than 1 GB.

    References
    ----------
    F. M. Harper, J. A. Konstan, "The MovieLens datasets: history and context", ACM TiiS 5(4), 2015.

    Examples
    --------
    >>> from lrla.datasets import make_ratings
    >>> X, values, rows, columns = make_ratings(200, 300, 5000, random_state=0)
    >>> X.shape, X.nnz, len(values)
    ((200, 300), 4500, 500)
    """
    m = _validation.check_integer(n_rows, "n_rows", 1)
    n = _validation.check_integer(n_columns, "n_columns", 1)
    nnz = _validation.check_integer(n_entries, "n_entries", 1, m * n // 2, hint=" At most half of the cells are drawn.")
    k = _validation.check_integer(rank, "rank", 1)
    decays = [
        _validation.check_real(row_decay, "row_decay", 0.0),
        _validation.check_real(column_decay, "column_decay", 0.0),
    ]
    noise = _validation.check_real(noise, "noise", 0.0)
    test_size = _validation.check_real(test_size, "test_size", 0.0, 1.0, closed=(True, False))
    rng = np.random.default_rng(_random.seed_sequence(random_state))
    rows, columns = np.divmod(_distinct_cells((m, n), nnz, decays, rng), n)
    values = _ratings(rows, columns, (m, n), k, rng)
    values += noise * rng.standard_normal(nnz)
    values = np.round(2.0 * np.clip(values, 0.5, 5.0)) / 2.0
    test = np.zeros(nnz, dtype=bool)
    test[rng.choice(nnz, round(test_size * nnz), replace=False, shuffle=False)] = True
    kept = ~test
    counts = np.bincount(rows[kept], minlength=m)
    X = scipy.sparse.csr_array(
        (values[kept], columns[kept].astype(np.int32), np.concatenate([[0], np.cumsum(counts)])), shape=(m, n)
    )
    return Ratings(X, values[test], rows[test], columns[test])


def _distinct_cells(shape: tuple[int, int], count: int, decays: list[float], rng: np.random.Generator) -> np.ndarray:
    """Distinct cells ``i * n + j`` in ascending order, drawn without replacement with weights that are a product."""
    labels = [rng.permutation(size) for size in shape]
    sums = [np.cumsum(np.arange(1.0, size + 1.0) ** -decay) for size, decay in zip(shape, decays, strict=True)]
    found, share = np.empty(0, dtype=np.int64), 1.0  # share of the draws that are new
    while (missing := count - len(found)) > 0:
        draws = int(1.05 * missing / share) + 1000
        i, j = (
            label[np.searchsorted(s, s[-1] * rng.random(draws), side="right").clip(max=len(s) - 1)]
            for label, s in zip(labels, sums, strict=True)
        )
        cells = np.sort(np.concatenate([found, i * shape[1] + j]))
        cells = cells[np.concatenate([[True], cells[1:] != cells[:-1]])]
        share = max((len(cells) - len(found)) / draws, 0.01)
        if (surplus := len(cells) - count) > 0:  # of this round, not of the earlier ones, which had the first choice
            new = np.ones(len(cells), dtype=bool)
            new[np.searchsorted(cells, found)] = False
            cells = np.delete(cells, rng.choice(np.flatnonzero(new), surplus, replace=False, shuffle=False))
        found = cells
    return found


def _ratings(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], k: int, rng: np.random.Generator
) -> np.ndarray:
    """What is expected in the cells, before noise."""
    scale = np.arange(1.0, k + 1.0) ** -0.7
    scale *= 0.5 / np.linalg.norm(scale)  # entries of the low-rank part have standard deviation 0.5
    left, right = (rng.standard_normal((size, k), dtype=np.float32) for size in shape)
    left *= scale
    offsets = [sd * rng.standard_normal(size) for sd, size in zip((0.4, 0.5), shape, strict=True)]
    values = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        i, j = rows[start : start + CHUNK], columns[start : start + CHUNK]
        values[start : start + CHUNK] = np.einsum("ek,ek->e", left[i], right[j])
        values[start : start + CHUNK] += 3.5 + offsets[0][i] + offsets[1][j]
    return values
