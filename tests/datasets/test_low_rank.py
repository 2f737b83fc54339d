"""`make_low_rank_observations` and `make_low_rank_table`: rank, condition, counts, holes and noise are as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from lrla.datasets import make_low_rank_observations, make_low_rank_table


def test_observations_are_entries_of_the_matrix(seed):
    X, left, right = make_low_rank_observations(70, 50, rank=4, oversampling=1.8, condition=10.0, random_state=seed)
    M = left @ right.T
    s = np.linalg.svd(M, compute_uv=False)
    assert s[3] > 0.0
    assert s[0] / s[3] == pytest.approx(10.0)
    assert s[4] < 1e-12 * s[0]
    assert np.mean(M**2) == pytest.approx(1.0)
    rows, columns = X.tocoo().coords
    np.testing.assert_allclose(X.data, M[rows, columns], rtol=0, atol=1e-13)
    assert X.nnz == round(1.8 * 4 * (70 + 50 - 4))


@pytest.mark.parametrize("oversampling", [1.02, 1.1, 1.5, 4.0])
def test_every_row_and_column_has_as_many_entries_as_the_rank(oversampling, seed):
    X, *_ = make_low_rank_observations(120, 80, rank=5, oversampling=oversampling, random_state=seed)
    assert X.nnz == round(oversampling * 5 * 195)
    assert np.diff(X.indptr).min() >= 5
    assert np.bincount(X.indices, minlength=80).min() >= 5


def test_noise_is_relative_to_the_matrix():
    X, left, right = make_low_rank_observations(300, 300, rank=3, oversampling=5.0, noise=0.2, random_state=0)
    rows, columns = X.tocoo().coords
    off = X.data - (left @ right.T)[rows, columns]
    assert off.std() == pytest.approx(0.2, rel=0.05)


def test_a_full_matrix_may_be_asked_for():
    X, left, right = make_low_rank_observations(12, 10, rank=2, oversampling=3.0, random_state=0)
    assert X.nnz == 120
    np.testing.assert_allclose(X.toarray(), left @ right.T, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oversampling": 0.5}, "oversampling must be"),
        ({"oversampling": 9.0}, "oversampling=9.0 asks for .* choose another"),
        ({"rank": 11}, r"rank must be an integer in \[1, 10\]"),
        ({"condition": 0.5}, "condition must be"),
        ({"noise": -1.0}, "noise must be"),
    ],
)
def test_refused_observations(options, message):
    with pytest.raises(ValueError, match=message):
        make_low_rank_observations(**{"n_rows": 10, "n_columns": 20, "rank": 3, **options})


def test_table():
    X, complete, psi = make_low_rank_table(4000, 30, rank=4, noise_variance=(0.02, 0.5), missing=0.4, random_state=0)
    holes = np.isnan(X)
    assert holes.mean() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_array_equal(X[~holes], complete[~holes])
    assert (psi.min(), psi.max()) == (pytest.approx(0.02), pytest.approx(0.5))
    residual = np.linalg.svd(complete / np.sqrt(psi), compute_uv=False) / np.sqrt(4000)
    assert np.all(residual[:4] > 1.5)  # hidden factors stand out
    assert np.all(np.abs(residual[4:] - 1.0) < 0.15)  # what is left is noise of variance one, once divided by psi


def test_no_row_or_column_of_a_table_is_lost():
    X, *_ = make_low_rank_table(60, 5, rank=2, missing=0.9, random_state=0)
    assert not np.isnan(X).all(axis=1).any()
    assert not np.isnan(X).all(axis=0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": 1.0}, "missing must be"),
        ({"noise_variance": (0.0, 1.0)}, "noise_variance must be"),
        ({"noise_variance": 1.0}, "noise_variance must be a tuple of two"),
        ({"noise_variance": (1.0, 2.0, 3.0)}, "noise_variance must be a tuple of two"),
    ],
)
def test_refused_table(options, message):
    with pytest.raises(ValueError, match=message):
        make_low_rank_table(**options)
