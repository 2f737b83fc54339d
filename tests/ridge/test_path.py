"""The exact path and its members: leave-one-out by brute force, plain ridge, degrees of freedom and the implicit penalty."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold

from lrla.ridge import SketchedRidge, SketchedRidgeCV
from lrla.sketch import make_sketch

SHAPES = {"tall": (60, 20), "wide": (30, 80), "square": (40, 40)}
ALPHAS = np.logspace(-2, 3, 12)


def problem(shape, rng, targets=None, shift=1.0):
    n, p = shape
    X = rng.standard_normal(shape) + shift
    B = rng.standard_normal((p, targets or 1))
    Y = X @ B + rng.standard_normal((n, targets or 1))
    return X, Y if targets else Y[:, 0]


# ---------------------------------------------------------------------------------------------------- the exact path


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 3])
def test_without_sketch_it_is_ridgecv(shape, intercept, targets, rng):
    X, y = problem(shape, rng, targets)
    wanted = RidgeCV(ALPHAS, fit_intercept=intercept, store_cv_results=True).fit(X, y)
    got = SketchedRidgeCV(ALPHAS, sketch=None, fit_intercept=intercept, store_cv_results=True).fit(X, y)
    assert got.alpha_ == wanted.alpha_
    np.testing.assert_allclose(got.coef_, wanted.coef_, rtol=0, atol=1e-8 * np.abs(wanted.coef_).max())
    np.testing.assert_allclose(got.intercept_, wanted.intercept_, atol=1e-8)
    np.testing.assert_allclose(got.cv_results_, wanted.cv_results_, rtol=1e-8, atol=1e-10)
    assert got.best_score_ == pytest.approx(wanted.best_score_, rel=1e-8)


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_data_give_what_dense_data_give(container, shape, weighted, rng):
    X, y = problem(shape, rng)
    X[rng.random(shape) < 0.7] = 0.0
    w = rng.uniform(0.2, 3.0, len(y)) if weighted else None
    dense, sparse = (SketchedRidgeCV(ALPHAS, sketch=None).fit(A, y, w) for A in (X, container(X)))
    assert sparse.alpha_ == dense.alpha_
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=0, atol=1e-9 * np.abs(dense.coef_).max())
    np.testing.assert_allclose(sparse.risk_ensemble_, dense.risk_ensemble_, rtol=1e-8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("weighted", [False, True])
def test_the_means_of_sparse_data_leave_no_trace(shape, weighted, rng):
    """Means ten times the deviations: what is taken off the Gram matrix is a thousand times what stays of it."""
    for _ in range(8):
        X, y = problem(shape, rng, shift=10.0)
        X[:, 3] = X[:, 4]
        w = rng.uniform(0.2, 3.0, len(y)) if weighted else None
        dense, sparse = (SketchedRidgeCV(ALPHAS, sketch=None).fit(A, y, w) for A in (X, sp.csr_array(X)))
        assert sparse.eigenvalues_.shape == dense.eigenvalues_.shape
        np.testing.assert_allclose(sparse.risk_ensemble_, dense.risk_ensemble_, rtol=1e-8)
        assert sparse.alpha_ == dense.alpha_


@pytest.mark.parametrize("options", [
    {"sketch": None}, {"sketch": None, "decomposition": "svd"}, {"n_components": 2}, {"n_components": 2, "sketch": "srdct"},
    {"n_components": 4, "sketch": "rows"}, {"n_components": 2, "refit": "ensemble"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("store", [np.asarray, np.float32, sp.csr_array], ids=["f8", "f4", "csr"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore::lrla.exceptions.SketchBoundaryWarning")
def test_features_that_do_not_vary_predict_the_mean(options, store, weighted, rng):
    """Rounding makes them vary: the default grid, which follows the eigenvalues, must not follow these."""
    y = rng.standard_normal(7)
    w = rng.uniform(0.3, 2.0, 7) if weighted else None
    for size in (0.1, 1e7 / 3, 1e20 / 7):
        X = store(np.full((7, 5), size) * np.arange(1, 6))
        model = SketchedRidgeCV(random_state=0, **options).fit(X, y, w)
        np.testing.assert_allclose(model.predict(X), np.average(y, weights=w), rtol=0, atol=1e-6)
    empty = SketchedRidgeCV(sketch=None).fit(sp.csr_array((7, 5)), y, w)
    np.testing.assert_array_equal(empty.coef_, 0.0)


def test_a_scorer_chooses_as_in_ridgecv(rng):
    X, y = problem((60, 20), rng)
    weights = rng.uniform(0.1, 3.0, 60)  # which scorers are told
    for scoring, w in itertools.product(("neg_mean_absolute_error", "r2"), (None, weights)):
        wanted = RidgeCV(ALPHAS, scoring=scoring).fit(X, y, w)
        got = SketchedRidgeCV(ALPHAS, sketch=None, scoring=scoring).fit(X, y, w)
        assert got.alpha_ == wanted.alpha_
        assert got.best_score_ == pytest.approx(wanted.best_score_, rel=1e-9)


def test_folds_choose_as_in_ridgecv(rng):
    X, y = problem((60, 20), rng)
    wanted = RidgeCV(ALPHAS, cv=4, scoring="neg_mean_squared_error").fit(X, y)
    got = SketchedRidgeCV(ALPHAS, sketch=None, cv=4).fit(X, y)
    assert got.alpha_ == wanted.alpha_
    assert got.best_score_ == pytest.approx(wanted.best_score_, rel=1e-9)  # folds of equal size


def test_folds_may_be_masks(rng):
    X, y = problem((60, 20), rng)
    first = np.arange(60) < 25
    rows = [(np.flatnonzero(~part), np.flatnonzero(part)) for part in (first, ~first)]
    masks = [(~part, part) for part in (first, ~first)]
    a, b = (SketchedRidgeCV(ALPHAS, sketch=None, cv=cv).fit(X, y) for cv in (rows, masks))
    np.testing.assert_array_equal(a.risk_ensemble_, b.risk_ensemble_)


def test_folds_that_cannot_be_used_are_refused(rng):
    X, y = problem((60, 20), rng)
    half, rest = np.arange(30), np.arange(30, 60)
    for bad in (np.arange(30, 61), half + 0.5, np.arange(-61, 0), np.ones(59, dtype=bool)):
        with pytest.raises(ValueError, match="cv must give numbers of rows below 60"):
            SketchedRidgeCV(ALPHAS, sketch=None, cv=[(bad, rest), (rest, half)]).fit(X, y)
    with pytest.raises(ValueError, match="cv leaves no rows of positive weight"):
        SketchedRidgeCV(ALPHAS, sketch=None, cv=2).fit(X, y, np.repeat([1.0, 0.0], 30))


def test_a_penalty_for_each_target(rng):
    X, Y = problem((50, 30), rng, targets=3)
    Y *= [1.0, 1.0, 0.0]
    Y[:, 2] = rng.standard_normal(50)
    wanted = RidgeCV(ALPHAS, alpha_per_target=True).fit(X, Y)
    got = SketchedRidgeCV(ALPHAS, sketch=None, alpha_per_target=True).fit(X, Y)
    np.testing.assert_array_equal(got.alpha_, wanted.alpha_)
    np.testing.assert_allclose(got.coef_, wanted.coef_, rtol=0, atol=1e-8 * np.abs(wanted.coef_).max())
    np.testing.assert_allclose(got.best_score_, wanted.best_score_, rtol=1e-8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_zero_penalty_is_the_minimum_norm_solution(shape, rng):
    X, y = problem(shape, rng)
    X[:, 3], X[:, 4] = 0.0, X[:, 5]  # rank deficient
    model = SketchedRidge(alpha=0.0, sketch=None).fit(X, y)
    Xc, yc = X - X.mean(axis=0), y - y.mean()
    np.testing.assert_allclose(model.coef_, np.linalg.pinv(Xc, rcond=1e-10) @ yc, atol=1e-8)
    assert not np.any(np.isnan(model.risk_ensemble_))


@pytest.mark.parametrize("decomposition", ["auto", "svd"])
def test_tiny_penalties_use_the_svd(decomposition, rng):
    """Condition 1e9: the Gram matrix loses the small directions, which matter at lambda = 1e-20."""
    U, V = (np.linalg.qr(rng.standard_normal((60, 15)))[0] for _ in range(2))
    X = (U * np.logspace(0, -9, 15)) @ V[:15].T
    b = np.linalg.lstsq(X, rng.standard_normal(60), rcond=1e-14)[0]
    model = SketchedRidgeCV([1e-22], sketch=None, decomposition=decomposition, fit_intercept=False).fit(X, X @ b)
    s = np.linalg.svd(X, compute_uv=False)
    expected = Ridge(alpha=1e-22, fit_intercept=False, solver="svd").fit(X, X @ b).coef_
    # the least singular value is known to eps / 1e-9 of itself; a Gram matrix would have lost it
    np.testing.assert_allclose(X @ model.coef_, X @ expected, rtol=0, atol=1e-6 * np.abs(X @ b).max())
    assert model.dof_[0] == pytest.approx(np.sum(s**2 / (s**2 + 1e-22)), rel=1e-4)


def test_float32_data_have_float64_sums(rng):
    """Condition 1e4 and a penalty of 1e-9: a Gram matrix summed in float32 is off by per cents there."""
    U, V = np.linalg.qr(rng.standard_normal((500, 40)))[0], np.linalg.qr(rng.standard_normal((40, 40)))[0]
    X = ((U * np.logspace(1, -3, 40)) @ V.T).astype(np.float32)
    y = X.astype(np.float64) @ rng.standard_normal(40) + 0.01 * rng.standard_normal(500)
    single, double = (SketchedRidge(alpha=1e-9, sketch=None).fit(A, y) for A in (X, X.astype(np.float64)))
    assert single.coef_.dtype == np.float32
    assert single.risk_ensemble_[0] == pytest.approx(double.risk_ensemble_[0], rel=1e-7)


# ---------------------------------------------------------------------------------------------------- leave-one-out


def leave_one_out(operators, X, y, lam, w, intercept):
    """Residuals of the ensemble when every row in turn is taken out; sketches and the total penalty stay."""
    w = np.ones(len(y)) if w is None else w
    total, out = w.sum(), np.zeros(len(y))
    for i in range(len(y)):
        keep = np.arange(len(y)) != i
        for op in operators:
            Z = X if op is None else X @ op.to_array()
            zm = np.average(Z[keep], axis=0, weights=w[keep]) if intercept else 0.0
            ym = np.average(y[keep], weights=w[keep]) if intercept else 0.0
            A = (Z[keep] - zm) * np.sqrt(w[keep])[:, None]
            b = (y[keep] - ym) * np.sqrt(w[keep])
            coef = np.linalg.solve(A.T @ A + total * lam * np.eye(Z.shape[1]), A.T @ b)
            out[i] += (y[i] - ym - (Z[i] - zm) @ coef) / len(operators)
    return out


@pytest.mark.parametrize("q", [12, 60], ids=["fewer columns than rows", "more columns than rows"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("K", [1, 3])
def test_leave_one_out_is_exact(q, intercept, weighted, K, rng):
    X, y = problem((40, 70), rng)
    w = rng.uniform(0.3, 3.0, 40) if weighted else None
    total = 40.0 if w is None else w.sum()
    model = SketchedRidge(
        alpha=0.3 * total, n_components=q, n_estimators=K, fit_intercept=intercept, random_state=1
    ).fit(X, y, w)
    wanted = leave_one_out(model.operators_, X, y, 0.3, w, intercept)
    np.testing.assert_allclose(model.loo_residuals_, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert model.risk_ensemble_[0] == pytest.approx(np.average(wanted**2, weights=w), rel=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(40, 12), (40, 70)])
def test_leave_one_out_of_row_samples_is_exact(intercept, weighted, shape, rng):
    X, y = problem(shape, rng)
    w = rng.uniform(0.3, 3.0, 40) if weighted else None
    model = SketchedRidge(
        alpha=20.0, n_components=25, n_estimators=3, sketch="rows", fit_intercept=intercept, random_state=1
    ).fit(X, y, w)
    v = np.ones(40) if w is None else w
    wanted = np.zeros(40)
    for rows in row_samples(40, 25, 3):
        for i in range(40):
            alpha = 20.0 / v.sum() * v[rows].sum()
            wanted[i] += residuals_elsewhere(X, y, v, rows[rows != i], np.array([i]), alpha, intercept)[0] / 3
    np.testing.assert_allclose(model.loo_residuals_, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert model.operators_ == []


def residuals_elsewhere(X, y, w, fit, judge, alpha, intercept):
    """Of plain ridge regression fitted to some rows, at others."""
    xm, ym = (np.average(A[fit], axis=0, weights=w[fit]) if intercept else 0.0 for A in (X, y))
    A, b = (X[fit] - xm) * np.sqrt(w[fit])[:, None], (y[fit] - ym) * np.sqrt(w[fit])
    coef = np.linalg.solve(A.T @ A + alpha * np.eye(X.shape[1]), A.T @ b)
    return y[judge] - ym - (X[judge] - xm) @ coef


@pytest.mark.parametrize("weighted", [False, True])
def test_folds_of_row_samples(weighted, rng):
    """A member is judged by what the rest of its sample tells, and not by all of the other rows."""
    X, y = problem((60, 12), rng)
    w = rng.uniform(0.3, 3.0, 60) if weighted else np.ones(60)
    model = SketchedRidgeCV(
        [20.0], n_components=25, n_estimators=3, sketch="rows", cv=4, refit="ensemble", store_residuals=True, random_state=1
    ).fit(X, y, w if weighted else None)  # fmt: skip
    wanted = np.zeros((3, 60))
    for k, rows in enumerate(row_samples(60, 25, 3)):
        for fit, judge in KFold(4).split(X):
            alpha = 20.0 / w.sum() * w[rows].sum()
            wanted[k, judge] = residuals_elsewhere(X, y, w, np.intersect1d(rows, fit), judge, alpha, True)
    np.testing.assert_allclose(model.loo_residuals_, wanted.mean(axis=0), rtol=0, atol=1e-11 * np.abs(wanted).max())
    single = np.mean([np.average(row**2, weights=w) for row in wanted])
    assert model.risk_single_[0] == pytest.approx(single, rel=1e-10)
    few = SketchedRidgeCV([20.0], n_components=2, sketch="rows", cv=4, refit="ensemble", random_state=1)
    with pytest.raises(ValueError, match=r"cv leaves a sample .* fewer than 2 rows .*larger n_components"):
        few.fit(X, y)


def row_samples(n, m, K, seed=1):
    seed = np.random.SeedSequence(seed)
    return [np.sort(make_sketch(n, m, "uniform", random_state=seed, member=k).indices) for k in range(K)]


def test_one_isolated_feature_leaves_a_row_undetermined_and_the_risk_infinite(rng):
    X, y = problem((40, 6), rng)
    X[:, 5] = 0.0
    X[7, 5] = 1.0  # only this row tells the coefficient: its leverage is 1 without a penalty
    model = SketchedRidgeCV([0.0, 1.0], sketch=None, fit_intercept=False).fit(X, y)
    assert model.risk_ridge_[0] == np.inf
    assert np.isfinite(model.risk_ridge_[1])
    assert model.alpha_ == 1.0
    assert not np.any(np.isnan(model.risk_se_))


def test_interpolation_has_leave_one_out_but_no_gcv(rng):
    X, y = problem((20, 50), rng)
    loo, gcv = (SketchedRidgeCV([0.0, 1.0], sketch=None, criterion=c).fit(X, y) for c in ("loo", "gcv"))
    assert np.isfinite(loo.risk_ridge_[0])
    assert gcv.risk_ridge_[0] == np.inf
    nearly = SketchedRidgeCV([1e-6], sketch=None).fit(X, y)
    assert loo.risk_ridge_[0] == pytest.approx(nearly.risk_ridge_[0], rel=1e-6)


# ---------------------------------------------------------------------------------------------------- weights


def test_weights_are_repetitions_to_the_coefficients(rng):
    X, y = problem((30, 50), rng)
    w = rng.integers(1, 4, 30)
    options = {"alpha": 5.0, "n_components": 10, "random_state": 0}
    weighted = SketchedRidge(**options).fit(X, y, w)
    repeated = SketchedRidge(**options).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-12 * np.abs(repeated.coef_).max())


def test_rows_of_weight_zero_are_not_there(rng):
    X, y = problem((30, 50), rng)
    w = rng.uniform(0.5, 2.0, 30)
    w[[3, 8]] = 0.0
    options = {"n_components": 10, "random_state": 0, "store_residuals": True, "refit": "ensemble"}
    all_rows = SketchedRidgeCV(ALPHAS, **options).fit(X, y, w)
    fewer = SketchedRidgeCV(ALPHAS, **options).fit(X[w > 0], y[w > 0], w[w > 0])
    np.testing.assert_array_equal(all_rows.coef_, fewer.coef_)
    np.testing.assert_array_equal(all_rows.risk_ensemble_, fewer.risk_ensemble_)
    np.testing.assert_array_equal(all_rows.loo_residuals_[w > 0], fewer.loo_residuals_)
    assert np.all(all_rows.loo_residuals_[w == 0] == 0)


def test_weights_scale_like_the_inverse_penalty(rng):
    X, y = problem((30, 50), rng)
    a = SketchedRidge(alpha=10.0, n_components=10, random_state=0).fit(X, y, np.full(30, 4.0))
    b = SketchedRidge(alpha=2.5, n_components=10, random_state=0).fit(X, y)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-10)
    np.testing.assert_allclose(a.risk_ensemble_, b.risk_ensemble_, rtol=1e-10)


# ---------------------------------------------------------------------------------------------------- sketches


@pytest.mark.parametrize("K", [1, 3])
def test_an_orthogonal_sketch_of_full_size_is_plain_ridge(K, rng):
    X, y = problem((50, 30), rng)
    with pytest.warns(UserWarning, match="compression|n_out"):
        model = SketchedRidge(alpha=4.0, n_components=30, n_estimators=K, sketch="orthogonal", random_state=0).fit(X, y)
    plain = SketchedRidge(alpha=4.0, sketch=None).fit(X, y)
    np.testing.assert_allclose(model.coef_, Ridge(alpha=4.0).fit(X, y).coef_, rtol=0, atol=1e-12 * np.abs(X).max())
    for name in ("risk_ensemble_", "risk_single_", "risk_ridge_", "dof_"):
        np.testing.assert_allclose(getattr(model, name), getattr(plain, name), rtol=1e-10)
    assert model.mu_[0] == pytest.approx(4.0 / 50, rel=1e-10)


@pytest.mark.parametrize("sketch", ["gaussian", "rademacher", "sparse_stack", "srdct", "srht", "orthogonal", "rows"])
def test_plain_ridge_at_mu_has_the_degrees_of_freedom_of_the_sketch(sketch, rng):
    n, p = 400, 500
    X = rng.standard_normal((n, p)) * np.sqrt(2.0 / (1.0 + 30.0 * np.linspace(0, 1, p)))
    lambdas = np.array([0.0, 0.05, 0.3, 1.0, 10.0])
    q = 200 if sketch == "rows" else 150
    model = SketchedRidgeCV(
        lambdas * n,
        n_components=q,
        n_estimators=4,
        sketch=sketch,
        refit="ensemble",
        fit_intercept=False,
        random_state=0,
    ).fit(X, rng.standard_normal(n))
    e = np.linalg.svd(X, compute_uv=False) ** 2 / n
    plain = [np.sum(e / (e + mu)) for mu in model.mu_]
    np.testing.assert_allclose(plain, model.dof_, rtol=0.015)


def test_monotonicity(rng):
    X, y = problem((200, 300), rng, shift=0.0)
    model = SketchedRidgeCV(n_components=60, refit="ensemble", allow_negative=True, random_state=0).fit(X, y)
    assert np.all(np.diff(model.alphas_) > 0)
    assert np.all(np.diff(model.dof_) < 0)
    assert np.all(np.diff(model.mu_) > 0)
    assert np.all(model.mu_ >= model.alphas_ / 200)
    sizes = [model.risk(k) for k in (1, 2, 4, 16, np.inf)]
    assert all(np.all(a >= b) for a, b in itertools.pairwise(sizes))
    np.testing.assert_allclose(model.risk(4), model.risk_ensemble_, rtol=1e-12)
    np.testing.assert_allclose(model.risk(1), model.risk_single_, rtol=1e-12)


def test_convergence_to_plain_ridge_follows_the_closed_form(rng):
    """Isotropic data, n=140, p=200, q=156, lambda=0.1 (the published example): mu is 0.281 and 0.156."""
    found = {"gaussian": [], "orthogonal": []}
    for trial in range(6):
        X = np.random.default_rng(trial).standard_normal((140, 200))
        for sketch, values in found.items():
            model = SketchedRidge(
                alpha=14.0, n_components=156, n_estimators=2, sketch=sketch, fit_intercept=False, random_state=trial
            ).fit(X, X[:, 0])
            values.append(model.mu_[0])
    assert np.mean(found["gaussian"]) == pytest.approx(0.2806, rel=0.02)
    assert np.mean(found["orthogonal"]) == pytest.approx(0.1562, rel=0.02)
