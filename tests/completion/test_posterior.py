"""Estimated penalties (`_posterior`): half-sweeps of distributions against dense formulas, and what the estimates are."""

import numpy as np
import pytest

from lrla.completion import _posterior
from lrla.completion._als import Settings, complete, complete_als
from lrla.completion._balance import balance
from lrla.completion._half_sweep import Factors, Solver
from lrla.completion._observed import Observed
from lrla.completion._path import Penalty, Problem

M, N, K, NOISE = 300, 200, 3, 0.6


@pytest.fixture(scope="module")
def data():
    """Rank 3, offsets and noise, a quarter observed; the matrix without noise."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((M, K)) * [1.0, 0.8, 0.6] @ rng.standard_normal((K, N))
    truth += 3 + 0.5 * rng.standard_normal((M, 1)) + 0.5 * rng.standard_normal(N)
    rows, columns = np.nonzero(rng.random((M, N)) < 0.25)
    return truth, Observed.from_triplets(
        rows, columns, truth[rows, columns] + NOISE * rng.standard_normal(len(rows)), (M, N)
    )


def problem_of(observed, rng, k=4):
    problem = Problem(observed, 0.0, Solver(1e-12, 100), 0)
    factors = problem.start(True)
    factors.replace(rng.standard_normal((observed.shape[0], k)), rng.standard_normal((observed.shape[1], k)))
    priors = _posterior.start(problem, factors, Penalty(2.0, (3.0, 4.0)), None)
    factors.spreads[1][:, factors.columns] = rng.random((observed.shape[1], k))
    return problem, factors, priors


@pytest.mark.parametrize("weighted", [False, True])
def test_a_half_sweep_solves_for_means_and_sets_variances(data, rng, weighted):
    observed = data[1]
    if weighted:
        weights = rng.random(observed.nnz) + 0.5
        observed = Observed(observed.indptr, observed.indices, observed.values, observed.shape, weights)
    problem, factors, priors = problem_of(observed, rng)
    priors.components[0], priors.bias[0] = np.array([1.0, 2.0, 3.0, 4.0]), 5.0
    F, S = factors.V.copy(), factors.spreads[1].copy()
    _posterior.half_sweep(problem, factors, priors, False)
    free = [0, 2, 3, 4, 5]
    d = np.square(F[:, free]).T @ observed.T.counts / problem.total
    for i in (0, 17, M - 1):
        here = slice(*observed.indptr[i : i + 2])
        w = np.ones(here.stop - here.start) if observed.weights is None else observed.weights[here]
        A, met = F[observed.indices[here]], S[observed.indices[here]]
        target = (observed.values[here] - problem.mean) / problem.scale - A[:, 1]
        penalty = np.array([5.0, 1.0, 2.0, 3.0, 4.0]) + w @ met[:, free]
        x = np.linalg.solve((A[:, free].T * w) @ A[:, free] + np.diag(penalty), (A[:, free].T * w) @ target)
        np.testing.assert_allclose(factors.U[i, free], x, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(factors.spreads[0][i, free], problem.noise / (penalty + w.sum() * d), rtol=1e-12)
    assert np.all(factors.U[:, 1] == 1)
    assert not np.any(factors.spreads[0][:, [1, 6, 7]])


def test_fixed_penalties_stay_and_lower_the_expected_loss_with_its_penalty(data, rng):
    problem, factors, priors = problem_of(data[1], rng)
    priors.fixed, problem.noise = True, 0.5
    before = [reg.copy() for reg in priors.components]
    losses = [_posterior.sweep(problem, factors, priors)[1] for _ in range(12)]
    for reg, old in zip(priors.components, before, strict=True):
        np.testing.assert_array_equal(reg, old)
    assert problem.noise == 0.5
    assert losses[-1] < losses[0]
    assert abs(losses[-1] - losses[-2]) <= 1e-2 * losses[-1]


def test_the_expected_loss_is_that_of_draws(data, rng):
    problem, factors, priors = problem_of(data[1], rng)
    for _ in range(3):
        expected = _posterior.sweep(problem, factors, priors)[1]
    observed = data[1]
    rows, target = observed.row_of_entry(), (observed.values - problem.mean) / problem.scale
    found = []
    for _ in range(200):
        U, V = (
            X + np.sqrt(S) * rng.standard_normal(X.shape)
            for X, S in zip((factors.U, factors.V), factors.spreads, strict=True)
        )
        found.append(np.square(target - np.einsum("pk,pk->p", U[rows], V[observed.indices])).sum())
    # the variances of the last half-sweep take the mean square of all features for that of a row's
    assert expected == pytest.approx(np.mean(found), rel=0.02)


def test_rank_and_noise_are_found(data):
    truth, observed = data
    fitted = complete(observed, 12, None, Settings())
    assert fitted.converged
    assert fitted.U.shape[1] == K
    assert fitted.posterior.noise == pytest.approx(NOISE**2, rel=0.1)
    prediction = fitted.mean + fitted.row_bias[:, None] + fitted.column_bias + fitted.U @ fitted.V.T
    # 50 entries a row for 4 numbers, 75 a column for 4
    assert np.sqrt(np.mean((prediction - truth) ** 2)) <= 1.2 * NOISE * np.sqrt(4 / 50 + 4 / 75)


def test_single_precision_finds_the_same(data):
    observed = data[1]
    single = Observed(observed.indptr, observed.indices, observed.values.astype(np.float32), observed.shape)
    one, other = (complete(o, 12, None, Settings()) for o in (observed, single))
    assert other.U.dtype == np.float32
    product = one.U @ one.V.T
    assert np.linalg.norm(other.U @ other.V.T - product) <= 1e-3 * np.linalg.norm(product)


def test_the_routine_takes_the_word(data):
    observed = data[1]
    X = (observed.values, (observed.row_of_entry(), observed.indices))
    U, s, Vt, info = complete_als(X, 12, "bayes", fit_bias=True, random_state=0)
    assert len(s) == K
    assert np.isnan(info.optimality)
    np.testing.assert_allclose(U * s @ Vt, info.U @ info.V.T, atol=1e-10)
    with pytest.raises(ValueError, match="reg must be one of 'bayes'"):
        complete_als(X, 12, "auto")


def test_variances_follow_a_change_of_basis(rng):
    factors = Factors.empty((50, 40), np.dtype(float), True)
    factors.replace(rng.standard_normal((50, 3)) * [1, 5, 3], rng.standard_normal((40, 3)))
    factors.spread()
    for S in factors.spreads:
        S[:, factors.columns] = 1.0
    U, V = (X[:, factors.columns].copy() for X in (factors.U, factors.V))
    balance(factors)
    for X, S, old in ((factors.U, factors.spreads[0], U), (factors.V, factors.spreads[1], V)):
        T = np.linalg.lstsq(old, X[:, factors.columns], rcond=None)[0]
        np.testing.assert_allclose(S[:, factors.columns], np.tile(np.square(T).sum(axis=0), (len(S), 1)), rtol=1e-8)


def test_columns_that_only_fit_noise_vanish(rng):
    rows, columns = np.nonzero(rng.random((150, 100)) < 0.3)
    observed = Observed.from_triplets(rows, columns, rng.standard_normal(len(rows)), (150, 100))
    fitted = complete(observed, 10, None, Settings())
    prediction = fitted.mean + fitted.row_bias[:, None] + fitted.column_bias + fitted.U @ fitted.V.T
    assert np.sqrt(np.mean(prediction**2)) <= 0.2
