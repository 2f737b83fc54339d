"""EM for the factor model, against explicit Gaussian formulas (oracle 11), and the invariances of its implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from lrla import _threads
from lrla._progress import Progress
from lrla.completion import _em, _sparse_table, _table
from lrla.completion._sparse_table import SparseTable
from lrla.completion._table import Table

SEED = np.random.SeedSequence(0)
LIKELIHOOD = _em.Options(ridge=0.0, prior_rows=0.0, tol=-1.0, max_iter=25)  # plain maximum likelihood, no early stop


def table_of(X, weight=None):
    weight = np.ones(len(X)) if weight is None else weight
    return Table(X, np.zeros(X.shape[1]), np.ones(X.shape[1]), weight)


def sparse_of(X, weight=None):
    shown = ~np.isnan(X)
    indptr = np.concatenate(([0], np.cumsum(shown.sum(axis=1))))
    columns = np.broadcast_to(np.arange(X.shape[1]), X.shape)
    weight = np.ones(len(X)) if weight is None else weight
    return SparseTable(indptr, columns[shown], X[shown], X.shape[1], weight)


def explained(table, model):
    """Posterior means (m, k), covariances (m, k, k) and log-likelihoods of the rows."""
    Z, C, loglik = np.empty((table.m, model.k)), np.empty((table.m, model.k, model.k)), np.empty(table.m)
    a, b = _em.pairs(model.k)

    def note(block):
        count = len(block.loglik)
        Z[block.rows], loglik[block.rows] = block.Z[:, :count].T, block.loglik
        C[block.rows, a, b] = C[block.rows, b, a] = block.C[: len(a), :count].T

    table.visit(model, note)
    return Z, C, loglik


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


@pytest.mark.parametrize("k", [1, 2, 4, 5, 8, 9])  # below, at and above the number of entries of a row
def test_log_likelihood_is_that_of_the_gaussian(k, rng):
    X = holed(rng)
    table, sparse = table_of(X), sparse_of(X)
    model = fit(table, k)
    wanted = []
    for row in X:
        o = ~np.isnan(row)
        wanted.append(
            multivariate_normal.logpdf(row[o], model.mean[o], covariance(model)[np.ix_(o, o)]) if o.any() else 0.0
        )
    for kind in (table, sparse):
        np.testing.assert_allclose(explained(kind, model)[2], wanted, rtol=1e-10, atol=1e-9)
        assert kind.expect(model).loglik == pytest.approx(np.sum(wanted), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 4, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_dense_and_sparse_tables_say_the_same(k, weighted, rng):
    X = holed(rng, m=700)
    weight = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    table, sparse = table_of(X, weight), sparse_of(X, weight)
    model = fit(table, k, replace(LIKELIHOOD, max_iter=3))
    one, two = table.expect(model), sparse.expect(model)
    for name in ("G", "right", "second", "total", "loglik", "Z"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(table.counts, sparse.counts)
    np.testing.assert_allclose(table.variance(), sparse.variance(), rtol=1e-10)


def test_sums_of_the_e_step_are_those_of_the_formulas(rng):
    X, k = holed(rng), 3
    table = table_of(X, weight := rng.uniform(0.5, 2.0, len(X)))
    model = fit(table, k)
    s, (Z, C, _) = table.expect(model), explained(table, model)
    np.testing.assert_allclose(s.Z, Z)
    a, b = _em.pairs(k)
    second = C + Z[:, :, None] * Z[:, None, :]
    for j in range(X.shape[1]):
        o = ~np.isnan(X[:, j])
        w, d = weight[o], X[o, j] - model.mean[j]
        G = np.einsum("i,iab->ab", w, second[o])
        np.testing.assert_allclose(s.G[:, j], [*G[a, b], *(w @ Z[o]), w.sum()], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(s.right[:, j], [*((w * d) @ Z[o]), w @ d], rtol=1e-10, atol=1e-10)
        assert s.second[j] == pytest.approx(w @ d**2)
    np.testing.assert_allclose(s.total[-1], weight.sum())


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("equal_noise", [False, True])
@pytest.mark.parametrize("fit_mean", [False, True])
@pytest.mark.parametrize("kind", [table_of, sparse_of])
def test_log_likelihood_never_decreases(kind, k, equal_noise, fit_mean, rng):
    X = holed(rng)
    options = replace(LIKELIHOOD, equal_noise=equal_noise, fit_mean=fit_mean)
    start = _em.start_model(table_of(X), k, options, SEED)
    values = [model.loglik for _, _, model in _em.iterate(kind(X), start, options)]
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
    model = fit(table, k)
    (Z, C, _), cov = explained(table, model), covariance(model)
    for i, row in enumerate(X):
        o, u = ~np.isnan(row), np.isnan(row)
        if not u.any():
            continue
        gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        mean = model.mean[u] + gain @ (row[o] - model.mean[o])
        spread = cov[np.ix_(u, u)] - gain @ cov[np.ix_(o, u)]
        np.testing.assert_allclose((model.mean + model.W @ Z[i])[u], mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(model.W[u] @ C[i] @ model.W[u].T + np.diag(model.psi[u]), spread, rtol=0, atol=1e-9)


def test_draws_have_the_posterior_mean_and_covariance(rng):
    X = np.repeat(holed(rng)[2:3], 40_000, axis=0)
    model = fit(table_of(holed(rng)), 3)
    o, draws = ~np.isnan(X[0]), np.empty((len(X), 3))

    def draw(block):
        draws[block.rows] = _table.draw_factors(block, np.random.default_rng(block.rows.start)).T

    table_of(X).visit(model, draw)
    precision = np.eye(3) + (model.W[o].T / model.psi[o]) @ model.W[o]
    spread = np.linalg.inv(precision)
    error = 4 * np.sqrt(np.diag(spread) / len(X))  # four standard errors of a mean
    assert np.all(np.abs(draws.mean(axis=0) - explained(table_of(X[:1]), model)[0][0]) < error)
    np.testing.assert_allclose(np.cov(draws.T), spread, rtol=0, atol=0.05 * np.diag(spread).max())


def test_a_weight_is_a_repetition(rng):
    X = holed(rng)
    weight = rng.integers(0, 4, len(X)).astype(float)
    repeated = np.repeat(X, weight.astype(int), axis=0)
    a, b = fit(table_of(X, weight), 3), fit(table_of(repeated), 3)
    np.testing.assert_allclose(covariance(a), covariance(b), rtol=0, atol=1e-9)
    assert a.loglik == pytest.approx(b.loglik, rel=1e-12)


@pytest.mark.parametrize("kind", [table_of, sparse_of])
@pytest.mark.parametrize("k", [2, 6])
def test_threads_change_no_bit(k, kind, rng, monkeypatch):
    X = holed(rng, m=3000)
    monkeypatch.setattr(_sparse_table, "BLOCK_NUMBERS", 1 << 11)
    monkeypatch.setattr(_table, "GROUP_WORK", 10_000)
    monkeypatch.setattr(_table, "MOST_ROWS", 128)
    start, table = _em.start_model(table_of(X), k, LIKELIHOOD, SEED), kind(X)
    assert len(table.groups(k)[0]) >= 4  # there are parts to share
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(_em.fit_factor_model(table, start, replace(LIKELIHOOD, max_iter=5), Progress("", 1)))
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
    wide = _em.widen(table, small, 4, SEED, table.expect(small).Z)
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
    monkeypatch.setattr(_table, "GRAM", 10)
    b = _em.start_model(table, 3, LIKELIHOOD, SEED)
    np.testing.assert_allclose(a.W @ a.W.T, b.W @ b.W.T, rtol=0, atol=1e-6)


def numbers(X, **weight):
    """The numbers that decide which entries are held out; NaN in holes."""
    found = np.full(X.shape, np.nan)
    for rows, uniform, shown in table_of(X, **weight).uniform(SEED):
        found[rows] = np.where(shown, uniform, np.nan)
    return found


def test_held_out_entries_choose_the_number_of_factors(rng):
    X = holed(rng, m=600, n=20, k=4, share=0.3)
    uniform = numbers(X)
    np.testing.assert_array_equal(np.isnan(uniform), np.isnan(X))
    assert np.nanmin(uniform) >= 0
    assert np.nanmax(uniform) < 1
    assert abs(np.nanmean(uniform) - 0.5) < 4 / np.sqrt(12 * np.sum(~np.isnan(X)))
    model, error = _em.choose_components(table_of(X), 12, 0.1, _em.Options(), SEED, Progress("", 1))
    assert model.k in (4, 5, 6)
    assert 0 < error < 1.0


def test_held_out_entries_follow_the_content_of_a_row(rng):
    X = holed(rng)
    twice = numbers(np.concatenate([X[::-1], X]))
    np.testing.assert_array_equal(twice[len(X) :], numbers(X))
    np.testing.assert_array_equal(twice[: len(X)], numbers(X)[::-1])


def test_hidden_entries_are_holes_whose_errors_are_told(rng):
    X = holed(rng, m=300)
    weight = rng.uniform(0.5, 2.0, len(X))
    X[:, 5] = np.nan
    X[3, 5] = 1.0  # its only entry is not to be hidden
    out = numbers(X, weight=weight) < 0.3
    out[:, 5] = False
    hidden, visible = table_of(X, weight).hide(0.0, 0.3, SEED), table_of(np.where(out, np.nan, X), weight)
    np.testing.assert_array_equal(hidden.counts, visible.counts)
    model = fit(visible, 3)
    one, two = hidden.expect(model), visible.expect(model)
    np.testing.assert_array_equal(one.G, two.G)
    assert one.loglik == two.loglik
    predicted = model.mean + explained(visible, model)[0] @ model.W.T
    wanted = np.sum((weight[:, None] * (X - predicted) ** 2)[out])
    assert one.hidden_error == pytest.approx(wanted)
    assert one.hidden_weight == pytest.approx(np.sum(weight[:, None] * out))
    assert two.hidden_weight == 0.0


@pytest.mark.parametrize("k", [1, 2, 7])
def test_many_small_matrices_at_once(k, rng):
    B = rng.standard_normal((50, k, k + 2))
    A, R = B @ B.transpose(0, 2, 1), rng.standard_normal((k, 50))
    a, b = _em.pairs(k)
    inverse, solution = _em.solve_columns(A[:, a, b].T, R)
    np.testing.assert_allclose(inverse, np.linalg.inv(A)[:, a, b].T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution, np.linalg.solve(A, R.T[:, :, None])[:, :, 0].T, rtol=1e-8, atol=1e-8)
