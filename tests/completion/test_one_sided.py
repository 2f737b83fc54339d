"""One-sided completion: Hajek's second moment (oracle 12), and the directions against the table of measured figures."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import multivariate_normal

from lrla import OneSidedCompletion, hajek_second_moment
from lrla.completion import _sparse_table
from lrla.completion._em import FactorModel
from lrla.completion._moments import pair_moments
from lrla.completion._observed import Observed
from lrla.completion._one_sided_completion import _table
from lrla.exceptions import NotIdentifiableWarning


def few_entries(rng, m, n, k, count, draw=None):
    """Rows of rank k of which `count` entries each are observed, and the directions of the complete rows."""
    U = rng.standard_normal((m, k)) if draw is None else draw(rng, (m, k))
    X = U @ rng.standard_normal((k, n))
    columns = np.argsort(rng.random((m, n)), axis=1)[:, :count].ravel()
    rows = np.repeat(np.arange(m), count)
    observed = sp.csr_array((X[rows, columns], (rows, columns)), shape=(m, n))
    return observed, np.linalg.svd(X, full_matrices=False)[2][:k]


def sine(found, truth):
    """Root mean square of the sines of the angles between two spaces."""
    return np.sqrt(max(1 - np.linalg.norm(found @ truth.T) ** 2 / len(truth), 0.0))


# ---------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("shape", [(50, 7), (7, 50), (3000, 20)])
def test_complete_data_give_the_second_moment(shape, rng):
    X = rng.standard_normal(shape)
    T, counts = hajek_second_moment(X)
    np.testing.assert_allclose(T.toarray(), X.T @ X / len(X), rtol=0, atol=1e-13 * np.abs(X.T @ X).max())
    np.testing.assert_array_equal(counts.toarray(), len(X))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_every_entry_is_the_mean_over_the_rows_that_show_both(share, rng):
    X = np.where(rng.random((60, 12)) < share, rng.integers(-2, 3, (60, 12)).astype(float), np.nan)  # sums may cancel
    T, counts = hajek_second_moment(X)
    for j in range(12):
        for h in range(12):
            both = ~np.isnan(X[:, j]) & ~np.isnan(X[:, h])
            assert counts[j, h] == both.sum()
            if both.any():
                assert T[j, h] == pytest.approx(np.mean(X[both, j] * X[both, h]), abs=1e-14)
    assert T.nnz == counts.nnz


def test_unbiased_over_masks(rng):
    X = rng.standard_normal((40, 6)) + 1.0
    found = []
    for _ in range(200):
        T, counts = hajek_second_moment(np.where(rng.random(X.shape) < 0.7, X, np.nan))
        assert counts.nnz == 36
        found.append(T.toarray())
    error = np.mean(found, axis=0) - X.T @ X / len(X)
    assert np.all(np.abs(error) <= 4 * np.std(found, axis=0) / np.sqrt(200))  # 21 entries: 4 standard errors


def test_a_stored_zero_is_observed(rng):
    X = sp.csr_array((np.array([0.0, 2.0]), (np.array([0, 0]), np.array([0, 1]))), shape=(1, 2))
    T, counts = hajek_second_moment(X)
    assert counts.nnz == T.nnz == 4
    np.testing.assert_array_equal(T.toarray(), [[0, 0], [0, 4]])


def test_scale_of_the_moment():
    X = np.array([[1.0, 2.0], [3.0, np.nan]])
    np.testing.assert_allclose(hajek_second_moment(1e150 * X)[0].toarray() / 1e300, hajek_second_moment(X)[0].toarray())
    with pytest.raises(ValueError, match="too large for its second moment"):
        hajek_second_moment(1e200 * X)


def test_moments_of_batches_add_up_to_those_of_all(rng):
    X = np.where(rng.random((90, 15)) < 0.2, rng.standard_normal((90, 15)) + 100, np.nan)

    def moments(rows):
        shown = ~np.isnan(rows)
        indptr = np.concatenate(([0], np.cumsum(shown.sum(axis=1))))
        observed = Observed(indptr, np.nonzero(shown)[1], rows[shown], rows.shape)
        return pair_moments(observed, np.full(15, 100.0), 2.0)

    total, whole = moments(X[:20]) + moments(X[20:50]) + moments(X[50:]), moments(X)
    for center in (False, True):
        np.testing.assert_allclose(total.second(center).toarray(), whole.second(center).toarray(), rtol=0, atol=1e-12)


def test_centred_moment_of_complete_data_is_the_covariance(rng):
    X = rng.standard_normal((200, 6)) + 1e6
    observed = Observed(np.arange(0, 1201, 6), np.tile(np.arange(6), 200), X.ravel(), X.shape)
    T = pair_moments(observed, np.full(6, 1e6 + 0.5), 1.0).second(center=True)
    np.testing.assert_allclose(T.toarray(), np.cov(X.T, bias=True), rtol=0, atol=1e-9)


# ---------------------------------------------------------------------------------------------------- directions


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning"
)  # without noise the likelihood has no maximum
@pytest.mark.parametrize(
    ("m", "k", "count", "by_moments", "bound"),
    [(4000, 2, 2, 0.20, 0.10), (16000, 2, 2, 0.12, 0.035), (16000, 4, 2, 0.20, 0.13), (16000, 4, 3, 0.125, 0.05)],
)
def test_directions_from_few_entries(m, k, count, by_moments, bound, seed):
    X, truth = few_entries(np.random.default_rng(seed), m, 50, k, count)
    first = sine(OneSidedCompletion(k, method="moment").fit(X).components_, truth)
    assert first <= by_moments
    assert sine(OneSidedCompletion(k).fit(X).components_, truth) <= bound
    zero_filled = np.linalg.svd(X.toarray(), full_matrices=False)[2][:k]
    assert sine(zero_filled, truth) > 0.7  # what this is for


DRAWS = {"signs": lambda rng, shape: rng.choice([-1.0, 1.0], shape), "t5": lambda rng, shape: rng.standard_t(5, shape)}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_rows_that_are_not_gaussian(draw, rng):
    X, truth = few_entries(rng, 16000, 50, 3, 2, draw)
    first = sine(OneSidedCompletion(3, method="moment").fit(X).components_, truth)
    second = sine(OneSidedCompletion(3, tol=1e-3).fit(X).components_, truth)
    assert second < 0.7 * first


def test_batches_give_the_model_of_all_rows(rng):
    X, _ = few_entries(rng, 3000, 20, 2, 3)
    for center in (False, True):
        whole = OneSidedCompletion(2, method="moment", center=center).fit(X)
        model = OneSidedCompletion(2, method="moment", center=center)
        for start in range(0, 3000, 1000):
            model.partial_fit(X[start : start + 1000])
        assert model.n_samples_seen_ == 3000
        np.testing.assert_allclose(model.get_covariance(), whole.get_covariance(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(model.mean_, whole.mean_, rtol=0, atol=1e-12)


def test_scores_are_those_of_the_gaussian(rng):
    X, _ = few_entries(rng, 2000, 8, 2, 4)
    X.data += 0.3 * rng.standard_normal(X.nnz)
    model = OneSidedCompletion(2, center=True).fit(X)
    dense = np.full(X.shape, np.nan)
    dense[X.tocoo().coords] = X.tocoo().data
    wanted = [
        multivariate_normal.logpdf(row[o], model.mean_[o], model.get_covariance()[np.ix_(o, o)])
        for row in dense[:50]
        if (o := ~np.isnan(row)).any()
    ]
    np.testing.assert_allclose(model.score_samples(dense[:50]), wanted, rtol=1e-8)
    assert model.score(dense[:50]) == pytest.approx(np.mean(wanted), rel=1e-8)
    np.testing.assert_allclose(model.score_samples(X[:50]), wanted, rtol=1e-8)


def test_transform_is_the_posterior_mean(rng):
    X, _ = few_entries(rng, 4000, 10, 2, 5)
    X.data += 0.2 * rng.standard_normal(X.nnz)
    model = OneSidedCompletion(2).fit(X)
    row = X[[0]].tocoo()
    o, x = row.coords[1], row.data
    V, variance = model.components_[:, o], model.explained_variance_
    posterior = np.linalg.solve(V @ V.T + model.noise_variance_ * np.diag(1 / variance), V @ x)
    np.testing.assert_allclose(model.transform(X[[0]])[0], posterior, rtol=1e-8)
    np.testing.assert_allclose(model.inverse_transform(posterior[None])[0], posterior @ model.components_)


def test_complete_rows_are_probabilistic_pca(rng):
    X = rng.standard_normal((500, 2)) @ rng.standard_normal((2, 8)) * 3 + rng.standard_normal((500, 8))
    model = OneSidedCompletion(2, center=True, tol=1e-12, max_iter=1000).fit(X)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    assert model.noise_variance_ == pytest.approx(values[:-2].mean(), rel=1e-6)
    np.testing.assert_allclose(model.explained_variance_, values[:-3:-1] - values[:-2].mean(), rtol=1e-6)
    assert sine(model.components_, vectors[:, :-3:-1].T) < 1e-6


def test_many_columns_start_as_few_do(rng, monkeypatch):
    X, _ = few_entries(rng, 3000, 30, 2, 4)
    a = OneSidedCompletion(2, method="moment").fit(X)
    monkeypatch.setattr("lrla.completion._moments.SMALL", 10)
    b = OneSidedCompletion(2, method="moment", random_state=0).fit(X)
    assert sine(a.components_, b.components_) < 1e-4


def test_too_few_pairs_are_said(rng):
    X = sp.csr_array((np.ones(8), (np.arange(8), np.arange(8) % 4)), shape=(8, 4))
    with pytest.warns(NotIdentifiableWarning, match="4 pairs of columns.*rank 2 of 4 columns has 7 degrees"):
        OneSidedCompletion(2).fit(X)


def test_memory_besides_the_input_is_that_of_the_factors(rng, monkeypatch):
    """EM works on blocks of rows: all that it keeps of every row are its factors."""
    n, k = 40, 2
    monkeypatch.setattr(_sparse_table, "BLOCK_NUMBERS", 1 << 12)  # so that both sizes have many blocks
    X, _ = few_entries(rng, 60_000, n, k, 4)
    observed = Observed.from_csr(X)
    peaks = []
    for m in (20_000, 60_000):
        part = observed.without(np.arange(4 * m, observed.nnz))
        part = Observed(part.indptr[: m + 1], part.indices, part.values, (m, n))
        table = _table(part, 1.0)
        start = FactorModel(np.zeros(n), rng.standard_normal((n, k)), np.ones(n))
        table.expect(start)  # compiles
        tracemalloc.start()
        table.expect(start)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 40_000 <= 3 * 8 * k  # bytes of a row, whose entries alone take 48
