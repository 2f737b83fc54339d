"""`approx_leverage_scores` against the rows of Q, and `sample_rows` against what probabilities promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from lrla._random import Stream
from lrla.ridge import approx_leverage_scores, sample_rows
from lrla.sketch._sampling import bernoulli, capped_probabilities

M, N = 6000, 30


def leverage(A):
    """Squared norms of the rows of an orthonormal basis of the columns."""
    U, s, _ = np.linalg.svd(np.asarray(A, dtype=np.float64), full_matrices=False)
    return np.sum(U[:, s > 1e-9 * s[0]] ** 2, axis=1)


@pytest.fixture
def A(rng):
    """Rows of very different lengths, and so of different leverage."""
    return rng.standard_normal((M, N)) * np.exp(rng.standard_normal(M))[:, None]


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize(("size", "low", "high"), [(8.0, 0.7, 1.4), (40.0, 0.85, 1.17)])
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, sp.csc_array])
def test_all_directions_leave_the_error_of_the_sketch(A, form, size, low, high):
    ratio = approx_leverage_scores(form(A), sketch_size=size, n_proj=0, random_state=0) / leverage(A)
    # a row's score is a quadratic form of an inverse Wishart matrix: its relative deviation is (2 / (d - n))^1/2
    spread = np.quantile(ratio, [0.01, 0.99])
    assert low <= spread[0] <= spread[1] <= high
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_a_few_directions_add_the_error_of_chi_squared(A):
    ratio = approx_leverage_scores(A, n_proj=16, random_state=0) / leverage(A)
    # chi^2 with 16 degrees of freedom over 16 has these quantiles at 0.36 and 2.0; the sketch widens them a little
    assert 0.25 <= np.quantile(ratio, 0.01) <= np.quantile(ratio, 0.99) <= 2.6


def test_few_rows_are_scored_exactly(rng):
    for shape in ((200, 30), (30, 30), (20, 30), (1, 5), (7, 1)):
        A = rng.standard_normal(shape)
        np.testing.assert_allclose(approx_leverage_scores(A), leverage(A), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(100, 12), (M, N)])
def test_scores_do_not_depend_on_units_duplicates_or_zero_columns(rng, shape):
    A = rng.standard_normal(shape)
    n = shape[1]
    worse = np.column_stack((A, A[:, 0], np.zeros(shape[0]), A[:, 1] - A[:, 2])) * 10.0 ** rng.uniform(-8, 8, n + 3)
    worse[:, n] = worse[:, 0]
    worse[:, n + 2] = worse[:, 1]
    scores = approx_leverage_scores(worse, n_proj=0, random_state=0)
    assert scores.sum() == pytest.approx(n, rel=1e-6)
    np.testing.assert_allclose(scores / leverage(A), 1.0, atol=1e-9 if shape[0] == 100 else 0.7)


def test_a_row_that_nothing_can_replace_has_leverage_one(rng):
    A = np.zeros((M, N))
    A[:, 1:] = rng.standard_normal((M, N - 1))
    A[1234, 0] = 1e-6
    scores = approx_leverage_scores(A, n_proj=0, random_state=0)
    assert scores.argmax() == 1234
    assert 0.7 <= scores[1234] <= 1.0
    assert scores.max() <= 1.0


def test_zero_matrix_has_no_leverage():
    assert not approx_leverage_scores(np.zeros((50, 3))).any()
    assert not approx_leverage_scores(np.zeros((5000, 3))).any()


def test_every_namespace_and_dtype(xp, A, transfers):
    for dtype in (np.float64, np.float32):
        here = approx_leverage_scores(A.astype(dtype), random_state=0)
        there = approx_leverage_scores(xp.asarray(A, dtype=dtype), random_state=0)
        assert xp.owns(there)
        assert str(there.dtype).endswith(np.dtype(dtype).name)
        np.testing.assert_allclose(xp.to_numpy(there), here, rtol=1e3 * np.finfo(dtype).eps)
        assert transfers.larger_than(8 * N * N) == []  # the sketch


def test_repeatable(A):
    one, two, other = (approx_leverage_scores(A, random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


# ---------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("probabilities", ["uniform", "leverage", "root_leverage", "given"])
def test_sums_are_unbiased(A, probabilities):
    given = 1.0 + np.arange(M) % 7
    f = np.stack((np.ones(M), A[:, 0] ** 2, np.abs(A[:, 1])), axis=1)
    runs, truth = 60, f.sum(axis=0)
    estimates = []
    for seed in range(runs):
        i, w = sample_rows(A, 400, given if probabilities == "given" else probabilities, random_state=seed)
        estimates.append(w @ f[i])
    deviation = np.std(estimates, axis=0, ddof=1) / np.sqrt(runs)
    assert np.all(np.abs(np.mean(estimates, axis=0) - truth) <= 4.5 * deviation)  # of normal law: one in 10^5


def test_leverage_samples_keep_squared_norms_that_uniform_ones_lose(rng):
    A = np.zeros((M, 8))
    A[:, 1:] = rng.standard_normal((M, 7))
    A[: M // 1000, 0] = 1.0  # six rows hold the first direction
    for seed in range(5):
        i, w = sample_rows(A, 300, "leverage", random_state=seed)
        assert 0.5 <= (w @ A[i, 0] ** 2) / 6 <= 2.0  # each of the six has a chance of nearly 1
        assert np.any(sample_rows(A, 300, "root_leverage", random_state=seed)[0] < 6)
    lost = [not np.any(sample_rows(A, 300, "uniform", random_state=seed)[0] < 6) for seed in range(40)]
    assert np.mean(lost) > 0.5  # the chance is 0.95^6 = 0.74


@pytest.mark.parametrize("probabilities", ["uniform", "leverage", "root_leverage"])
def test_as_many_rows_come_as_were_asked_for(A, probabilities):
    counts = [len(sample_rows(A, 400, probabilities, random_state=seed)[0]) for seed in range(30)]
    assert abs(np.mean(counts) - 400) <= 4.5 * 20 / np.sqrt(30)  # the standard deviation of one is at most 20
    assert np.std(counts) > 0.0


def test_indices_are_sorted_and_distinct_and_weights_inverse_probabilities(A):
    given = np.arange(M, dtype=float)
    i, w = sample_rows(A, 500, given, random_state=0)
    assert np.all(np.diff(i) > 0)
    assert i.dtype == np.int64
    assert w.dtype == np.float64
    np.testing.assert_allclose(w, given.sum() / (500 * given[i]), rtol=1e-12)


def test_all_rows_come_with_weight_one(A):
    for probabilities in ("uniform", "leverage"):
        i, w = sample_rows(A[:50], 50, probabilities)
        assert np.array_equal(i, np.arange(50))
        assert np.array_equal(w, np.ones(50))


def test_rows_of_probability_zero_never_come_and_those_of_one_always(A):
    given = np.zeros(M)
    given[[5, 17, 4000]] = [1.0, 1e-3, 1e3]
    for seed in range(5):
        assert np.array_equal(sample_rows(A, 3, given, random_state=seed)[0], [5, 17, 4000])
        assert 4000 in sample_rows(A, 2, given, random_state=seed)[0]


@pytest.mark.parametrize("n_samples", [1, 3, 100, 998, 999, 1000])
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
def test_probabilities_sum_to_the_number_asked_for(n_samples, spread, rng):
    q = np.exp(spread * rng.standard_normal(1000))
    p = capped_probabilities(q, n_samples)
    assert p.sum() == pytest.approx(n_samples, rel=1e-10)
    assert np.all((p > 0.0) & (p <= 1.0))
    below = p < 1.0 - 1e-12
    if below.any():
        np.testing.assert_allclose(p[below] / q[below], (p[below] / q[below])[0], rtol=1e-10)
        assert np.all(q[~below] >= q[below].max() * (1 - 1e-12))


def test_blocks_of_rows_are_sampled_where_they_are(rng):
    p, stream = rng.random(300_001), Stream((11, 22))
    whole = bernoulli(p, stream)
    cuts = [0, 77, 131_073, len(p)]
    parts = [first + bernoulli(p[first:last], stream, first) for first, last in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_samples_stay_where_the_matrix_is(xp, A):
    here = sample_rows(A, 300, "leverage", random_state=0)
    there = sample_rows(xp.asarray(A), 300, "leverage", random_state=0)
    assert all(xp.owns(part) for part in there)
    assert np.array_equal(xp.to_numpy(there[0]), here[0])
    np.testing.assert_allclose(xp.to_numpy(there[1]), here[1], rtol=1e-10)


def test_sparse_rows(A):
    for probabilities in ("uniform", "leverage"):
        dense, sparse = (sample_rows(X, 300, probabilities, random_state=0) for X in (A, sp.csr_array(A)))
        assert np.array_equal(dense[0], sparse[0])


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, r"n_samples must be an integer in \[1, 20\]"),
        ({"n_samples": 21}, ValueError, "A has 20 rows"),
        ({"n_samples": 2.5}, TypeError, "n_samples"),
        ({"probabilities": "norms"}, ValueError, "probabilities must be one of 'uniform'"),
        ({"probabilities": np.ones(19)}, ValueError, r"probabilities must have shape \(20,\)"),
        ({"probabilities": np.zeros(20)}, ValueError, "not all zero"),
        ({"probabilities": -np.ones(20)}, ValueError, "must be >= 0"),
        ({"probabilities": np.full(20, np.nan)}, ValueError, "probabilities contains NaN"),
        ({"random_state": 1.5}, TypeError, "random_state"),
    ],
)
def test_bad_parameters_of_sample_rows(options, error, message):
    with pytest.raises(error, match=message):
        sample_rows(np.eye(20), **{"n_samples": 5, **options})


def test_a_zero_matrix_has_no_leverage_to_sample_by():
    with pytest.raises(ValueError, match="A is zero"):
        sample_rows(np.zeros((20, 2)), 5, "leverage")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sketch_size": 0.5}, ValueError, "sketch_size"),
        ({"n_proj": -1}, ValueError, "n_proj"),
        ({"n_proj": 2.5}, TypeError, "n_proj"),
        ({"random_state": "0"}, TypeError, "random_state"),
    ],
)
def test_bad_parameters_of_leverage_scores(options, error, message):
    with pytest.raises(error, match=message):
        approx_leverage_scores(np.eye(20), **options)
