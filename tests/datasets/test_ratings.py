"""`make_ratings`: what is promised of size, of popularity, and of what the values are made of."""

from __future__ import annotations

import numpy as np
import pytest

from lrla.datasets import make_ratings


def test_sizes_and_distinct_cells():
    X, values, rows, columns = make_ratings(300, 200, 6000, test_size=0.25, random_state=0)
    assert X.shape == (300, 200)
    assert (X.nnz, len(values), len(rows), len(columns)) == (4500, 1500, 1500, 1500)
    assert X.has_sorted_indices
    coo = X.tocoo()
    cells = np.concatenate([coo.row * 200 + coo.col, rows * 200 + columns])
    assert len(np.unique(cells)) == 6000
    assert cells.min() >= 0
    assert max(coo.row.max(), rows.max()) < 300


def test_values_are_halves_from_a_half_to_five():
    X, values, *_ = make_ratings(random_state=1)
    both = np.concatenate([X.data, values])
    assert X.dtype == np.float64
    assert set(np.unique(both)) == set(np.arange(0.5, 5.01, 0.5))
    assert abs(both.mean() - 3.45) < 0.15  # 3.5, less what is clipped, and the offsets of the popular
    assert 0.9 < both.std() < 1.2  # variances 0.16 + 0.25 + 0.25 + 0.64, less what is clipped


def test_popularity_falls_as_asked_for():
    """Far from saturation, the counts in descending order follow the powers."""
    X, *_ = make_ratings(4000, 3000, 200_000, row_decay=0.6, column_decay=0.5, test_size=0.0, random_state=0)
    for axis, decay in ((1, 0.6), (0, 0.5)):
        counts = np.sort(np.bincount(X.tocoo().coords[1 - axis], minlength=X.shape[1 - axis]))[::-1]
        middle = slice(20, 1000)
        slope = np.polyfit(np.log(np.arange(1, len(counts) + 1)[middle]), np.log(counts[middle]), 1)[0]
        assert slope == pytest.approx(-decay, abs=0.08)


def test_zero_decay_is_uniform():
    X, *_ = make_ratings(50, 40, 1000, row_decay=0.0, column_decay=0.0, test_size=0.0, random_state=0)
    counts = np.diff(X.indptr)
    assert np.sum((counts - 20) ** 2 / 10) < 100  # chi-squared of 49 degrees of freedom, at 5 standard deviations


def test_order_carries_no_popularity():
    X, *_ = make_ratings(1000, 1000, 50_000, random_state=0)
    counts = np.diff(X.indptr)
    assert abs(np.corrcoef(np.arange(1000), counts)[0, 1]) < 0.15


def test_parts_of_a_rating():
    """Without noise, offsets and rank 20 explain all but rounding and clipping."""
    X, *_ = make_ratings(120, 100, 6000, rank=2, noise=0.0, test_size=0.0, random_state=0)
    rows, columns = X.tocoo().coords
    design = np.zeros((X.nnz, 220))
    design[np.arange(X.nnz), rows] = design[np.arange(X.nnz), 120 + columns] = 1.0
    left = X.data - design @ np.linalg.lstsq(design, X.data, rcond=None)[0]
    assert 0.3 < left.std() < 0.55  # the part of low rank, of 0.5, and rounding, of 0.14


def test_the_same_seed_gives_the_same_ratings():
    first, second, third = (make_ratings(60, 50, 900, random_state=seed) for seed in (3, 3, 4))
    for a, b in zip(first[1:], second[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
    assert np.any(first.X.toarray() != third.X.toarray())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_entries": 51}, ValueError, r"n_entries must be an integer in \[1, 50\]"),
        ({"n_entries": 10.0}, TypeError, "n_entries must be"),
        ({"n_rows": 0}, ValueError, "n_rows must be"),
        ({"noise": -1.0}, ValueError, "noise must be"),
        ({"test_size": 1.0}, ValueError, "test_size must be"),
        ({"column_decay": -0.1}, ValueError, "column_decay must be"),
        ({"rank": 0}, ValueError, "rank must be"),
        ({"random_state": "0"}, TypeError, "random_state must be"),
    ],
)
def test_what_makes_no_ratings_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        make_ratings(**{"n_rows": 10, "n_columns": 10, "n_entries": 20, **options})
