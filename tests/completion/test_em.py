"""EM for the factor model, against explicit Gaussian formulas (oracle 11), and the invariances of its implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from lrla import _threads
from lrla._progress import Progress
from lrla.completion import _em

SEED = np.random.SeedSequence(0)
LIKELIHOOD = _em.Options(ridge=0.0, prior_rows=0.0, tol=-1.0, max_iter=25)  # plain maximum likelihood, no early stop


def table_of(X, weight=None):
    shown = ~np.isnan(X)
    indptr = np.concatenate(([0], np.cumsum(shown.sum(axis=1))))
    columns = np.broadcast_to(np.arange(X.shape[1]), X.shape)
    return _em.Table.of(indptr, columns[shown], X[shown], X.shape[1], weight)


def holed(rng, m=70, n=9, k=3, share=0.4):
    """A table of k factors with holes; the first row is empty, the second complete."""
    X = rng.standard_normal((m, k)) @ rng.standard_normal((k, n)) + rng.standard_normal((m, n)) * np.linspace(0.1, 1, n)
    holes = rng.random(X.shape) < share
    holes[0], holes[1] = True, False
    return np.where(holes, np.nan, X)


def fit(table, k, options=LIKELIHOOD):
    return _em.fit_factor_model(table, _em.start_model(table, k, options, SEED), options, Progress("", 1))


def covariance(model):
    return model.W @ model.W.T + np.diag(model.psi)


@pytest.mark.parametrize("k", [1, 2, 4, 5, 8, 9])  # below, at and above the number of entries of a row, and of lanes
def test_log_likelihood_is_that_of_the_gaussian(k, rng):
    X = holed(rng)
    table = table_of(X)
    model = fit(table, k)
    found = _em.explain(table, model).loglik
    for row, loglik in zip(X, found, strict=True):
        o = ~np.isnan(row)
        wanted = multivariate_normal.logpdf(row[o], model.mean[o], covariance(model)[np.ix_(o, o)]) if o.any() else 0.0
        assert loglik == pytest.approx(wanted, rel=1e-10, abs=1e-9)
    assert _em.expect(table, model).loglik == pytest.approx(found.sum(), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("equal_noise", [False, True])
@pytest.mark.parametrize("fit_mean", [False, True])
def test_log_likelihood_never_decreases(k, equal_noise, fit_mean, rng):
    table = table_of(holed(rng))
    options = replace(LIKELIHOOD, equal_noise=equal_noise, fit_mean=fit_mean)
    values = [model.loglik for _, _, model in _em.iterate(table, _em.start_model(table, k, options, SEED), options)]
    assert len(values) == options.max_iter
    gains = np.diff(values)
    assert gains.min() >= -1e-10 * abs(values[-1])
    assert values[-1] > values[0]


def test_complete_table_with_equal_noise_is_probabilistic_pca(rng):
    n, k = 8, 3
    X = (
        rng.standard_normal((400, n))
        @ np.diag([5.0, 4.0, 3.0, 1, 1, 1, 1, 1])
        @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    )
    options = replace(LIKELIHOOD, equal_noise=True, max_iter=300)
    model = fit(table_of(X), k, options)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[k:].mean()
    np.testing.assert_allclose(model.psi, noise, rtol=1e-8)
    wanted = (vectors[:, :k] * (values[:k] - noise)) @ vectors[:, :k].T
    np.testing.assert_allclose(model.W @ model.W.T, wanted, rtol=0, atol=1e-7 * values[0])
    np.testing.assert_allclose(model.mean, X.mean(axis=0), rtol=0, atol=1e-8)


@pytest.mark.parametrize("k", [2, 7])
def test_posterior_is_gaussian_conditioning(k, rng):
    X = holed(rng)
    table = table_of(X)
    model = replace(fit(table, k), inflation=1.0)
    found, cov = _em.explain(table, model, variance=True), covariance(model)
    for i, row in enumerate(X):
        o, u = ~np.isnan(row), np.isnan(row)
        if not u.any():
            continue
        gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        mean = model.mean[u] + gain @ (row[o] - model.mean[o])
        variance = np.diag(cov[np.ix_(u, u)] - gain @ cov[np.ix_(o, u)])
        np.testing.assert_allclose((model.mean + model.W @ found.Z[i])[u], mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.variance[i, u], variance, rtol=1e-9)


def test_draws_have_the_posterior_mean_and_covariance(rng):
    X = np.repeat(holed(rng)[2:3], 40_000, axis=0)
    table = table_of(holed(rng))
    model = fit(table, 3)
    o = ~np.isnan(X[0])
    rows = table_of(X)
    draws = _em.explain(rows, model, noise=rng.standard_normal((len(X), 3))).Z
    precision = np.eye(3) + (model.W[o].T / model.psi[o]) @ model.W[o]
    spread = np.linalg.inv(precision)
    error = 4 * np.sqrt(np.diag(spread) / len(X))  # four standard errors of a mean
    assert np.all(np.abs(draws.mean(axis=0) - _em.explain(rows, model).Z[0]) < error)
    np.testing.assert_allclose(np.cov(draws.T), spread, rtol=0, atol=0.05 * np.diag(spread).max())


@pytest.mark.parametrize("k", [2, 6])
def test_rows_of_one_pattern_share_their_factorization_and_nothing_changes(k, rng):
    patterns = rng.random((5, 9)) < 0.4
    X = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 9)) + 0.3 * rng.standard_normal((200, 9))
    table = table_of(np.where(patterns[rng.integers(0, 5, 200)], np.nan, X))
    order, first = table.patterns
    assert first.sum() <= 5
    assert sorted(order) == list(range(200))
    alone = table_of(np.where(np.isnan(X), np.nan, X))
    for one, two in ((table, replace_patterns(table)), (alone, replace_patterns(alone))):
        a, b = fit(one, k), fit(two, k)
        np.testing.assert_allclose(covariance(a), covariance(b), rtol=0, atol=1e-9)
        assert a.loglik == pytest.approx(b.loglik, rel=1e-12)


def replace_patterns(table):
    """The same table, whose rows are taken one by one."""
    twin = _em.Table.of(table.indptr, table.indices, table.values, table.n, table.weight)
    twin.__dict__["patterns"] = (np.arange(table.m), np.ones(table.m, dtype=bool))
    return twin


def test_a_weight_is_a_repetition(rng):
    X = holed(rng)
    weight = rng.integers(0, 4, len(X)).astype(float)
    repeated = np.repeat(X, weight.astype(int), axis=0)
    a, b = fit(table_of(X, weight), 3), fit(table_of(repeated), 3)
    np.testing.assert_allclose(covariance(a), covariance(b), rtol=0, atol=1e-9)
    assert a.loglik == pytest.approx(b.loglik, rel=1e-12)


@pytest.mark.parametrize("k", [2, 6])
def test_threads_change_no_bit(k, rng, monkeypatch):
    table = table_of(holed(rng, m=1500))
    monkeypatch.setattr(_em, "BLOCK_WORK", 10_000)
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(fit(table, k))
    assert len(table.bounds(k)) > 4  # there were parts to share
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].W, other.W)
        np.testing.assert_array_equal(results[0].psi, other.psi)


def test_a_column_without_entries_and_a_constant_one(rng):
    X = holed(rng)
    X[:, 2], X[:, 4] = np.nan, np.where(np.isnan(X[:, 4]), np.nan, 3.0)
    model = fit(table_of(X), 2, replace(LIKELIHOOD, prior_rows=5.0))
    assert np.all(np.isfinite(model.W))
    assert np.all(model.psi > 0)
    assert not np.any(model.W[2])
    assert model.mean[4] == pytest.approx(3.0, abs=1e-6)


def test_more_factors_begin_where_fewer_ended(rng):
    table = table_of(holed(rng, m=300, k=4))
    small = fit(table, 2)
    wide = _em.widen(table, small, 4, SEED)
    np.testing.assert_array_equal(wide.W[:, :2], small.W)
    assert np.all(np.linalg.norm(wide.W[:, 2:], axis=0) > 0)
    better = _em.fit_factor_model(table, wide, LIKELIHOOD, Progress("", 1))
    assert better.loglik > small.loglik


def test_a_callback_stops_the_iteration(rng):
    table = table_of(holed(rng))
    model = _em.fit_factor_model(
        table, _em.start_model(table, 2, LIKELIHOOD, SEED), LIKELIHOOD,
        Progress("", 1, callback=lambda info: info["iteration"] == 3),
    )  # fmt: skip
    assert model.n_iter == 3


def test_start_of_many_columns_is_the_same_by_either_way(rng, monkeypatch):
    table = table_of(holed(rng, m=200, n=40, k=3))
    a = _em.start_model(table, 3, LIKELIHOOD, SEED)
    monkeypatch.setattr(_em, "GRAM", 10)
    b = _em.start_model(table, 3, LIKELIHOOD, SEED)
    np.testing.assert_allclose(a.W @ a.W.T, b.W @ b.W.T, rtol=0, atol=1e-6)


def test_held_out_entries_choose_the_number_of_factors(rng):
    X = holed(rng, m=600, n=20, k=4, share=0.3)
    table = table_of(X)
    uniform = _em.uniform_numbers(X[~np.isnan(X)], table, SEED)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 / np.sqrt(12 * len(uniform))
    model, error = _em.choose_components(table, uniform, 12, 0.1, _em.Options(), SEED, Progress("", 1))
    assert model.k in (4, 5, 6)
    assert 0 < error < 1.0


def test_held_out_entries_follow_the_content_of_a_row(rng):
    X = holed(rng)
    twice = np.concatenate([X[::-1], X])
    numbers = _em.uniform_numbers(twice[~np.isnan(twice)], table_of(twice), SEED)
    once = _em.uniform_numbers(X[~np.isnan(X)], table_of(X), SEED)
    np.testing.assert_array_equal(numbers[len(once) :], once)
