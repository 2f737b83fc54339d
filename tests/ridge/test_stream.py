"""`partial_fit`: cross-products of all sketches, one pass over the rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from lrla.ridge import SketchedRidge, SketchedRidgeCV


def data(rng, n=120, p=90, targets=None):
    X = rng.standard_normal((n, p)) + 2.0
    Y = X @ rng.standard_normal((p, targets or 1)) + 5 * rng.standard_normal((n, targets or 1))
    return X, Y if targets else Y[:, 0]


def streamed(model, X, y, w=None, parts=(0, 37, 38, 99, 120)):
    for a, b in itertools.pairwise(parts):
        model.partial_fit(X[a:b], y[a:b], None if w is None else w[a:b])
    return model


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", [None, 2])
def test_a_stream_is_the_batch(intercept, weighted, targets, rng):
    X, y = data(rng, targets=targets)
    w = rng.uniform(0.2, 2.0, 120) if weighted else None
    options = {"alpha": 40.0, "n_components": 30, "n_estimators": 3, "fit_intercept": intercept, "random_state": 0}
    batch, stream = SketchedRidge(**options).fit(X, y, w), streamed(SketchedRidge(**options), X, y, w)
    np.testing.assert_allclose(stream.coef_, batch.coef_, rtol=0, atol=1e-10 * np.abs(batch.coef_).max())
    np.testing.assert_allclose(stream.intercept_, batch.intercept_, atol=1e-9 * np.abs(y).max())
    for name in ("mu_", "dof_", "eigenvalues_", "alpha_min_"):
        np.testing.assert_allclose(getattr(stream, name), getattr(batch, name), rtol=1e-9)
    assert stream.n_samples_seen_ == 120


@pytest.mark.parametrize("sketch", ["sparse_stack", None])
@pytest.mark.parametrize("weighted", [False, True])
def test_curves_and_choice_are_those_of_gcv(sketch, weighted, rng):
    X, y = data(rng, p=50)
    w = rng.uniform(0.2, 2.0, 120) if weighted else None
    options = {
        "n_components": 20, "criterion": "gcv", "refit": "ensemble", "sketch": sketch, "random_state": 0,
        "alphas": np.logspace(-1, 4, 15),
    }  # fmt: skip
    batch, stream = SketchedRidgeCV(**options).fit(X, y, w), streamed(SketchedRidgeCV(**options), X, y, w)
    assert stream.alpha_ == batch.alpha_
    for name in ("risk_ensemble_", "risk_single_", "risk_ridge_", "risk_se_", "mu_"):
        np.testing.assert_allclose(getattr(stream, name), getattr(batch, name), rtol=1e-9)
    np.testing.assert_allclose(stream.coef_, batch.coef_, rtol=0, atol=1e-9 * np.abs(batch.coef_).max())
    assert stream.best_score_ == pytest.approx(batch.best_score_, rel=1e-9)


def test_a_large_mean_does_not_cancel(rng):
    X, y = data(rng)
    X += 1e6
    options = {"alpha": 40.0, "n_components": 30, "random_state": 0}
    batch, stream = SketchedRidge(**options).fit(X, y), streamed(SketchedRidge(**options), X, y)
    # centred within the batches: an uncentred product would have lost 1e12 of the 1e16
    np.testing.assert_allclose(stream.coef_, batch.coef_, rtol=0, atol=1e-7 * np.abs(batch.coef_).max())


def test_sparse_batches(rng):
    X, y = data(rng)
    X[rng.random(X.shape) < 0.8] = 0.0
    options = {"alpha": 40.0, "n_components": 30, "random_state": 0}
    dense, sparse = streamed(SketchedRidge(**options), X, y), streamed(SketchedRidge(**options), sp.csr_array(X), y)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=0, atol=1e-10 * np.abs(dense.coef_).max())


def test_order_of_batches_does_not_matter(rng):
    X, y = data(rng)
    p = rng.permutation(120)
    options = {"alpha": 40.0, "n_components": 30, "random_state": 0}
    a, b = (streamed(SketchedRidge(**options), A, c) for A, c in ((X, y), (X[p], y[p])))
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=0, atol=1e-10 * np.abs(a.coef_).max())


def test_the_limit_on_columns(rng):
    X = rng.standard_normal((5, 9000))
    with pytest.raises(ValueError, match=r"n_estimators \* n_components = 4200 must be at most 4096"):
        SketchedRidge(n_components=600, n_estimators=7, random_state=0).partial_fit(X, X[:, 0])


def test_what_needs_the_rows_is_refused_in_a_stream(rng):
    X, y = data(rng)
    assert not hasattr(SketchedRidgeCV(), "partial_fit")
    with pytest.raises(ValueError, match="keeps no rows, which scoring would need"):
        SketchedRidgeCV(criterion="gcv", refit="ensemble", scoring="r2").partial_fit(X, y)
    with pytest.raises(ValueError, match="sketch='rows' needs all rows"):
        SketchedRidge(sketch="rows").partial_fit(X, y)
    model = SketchedRidge(random_state=0).partial_fit(X, y)
    with pytest.raises(AttributeError, match="use fit"):
        model.predict_interval(X)
    with pytest.raises(ValueError, match="targets"):
        model.partial_fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="fit_intercept was True for the rows seen before"):
        model.set_params(fit_intercept=False).partial_fit(X, y)


def test_dtype_converts_batches(rng):
    X, y = data(rng)
    options = {"alpha": 40.0, "n_components": 30, "dtype": np.float32, "random_state": 0}
    batch, stream = SketchedRidge(**options).fit(X, y), streamed(SketchedRidge(**options), X, y)
    assert stream.coef_.dtype == np.float32
    np.testing.assert_allclose(stream.coef_, batch.coef_, rtol=0, atol=1e-5 * np.abs(batch.coef_).max())


@pytest.mark.parametrize(
    ("size", "size_y"), [(1e-170, 1.0), (1e-300, 1e-200), (1.0, 1e-170), (1e150, 1e150), (1e-40, 1e40)]
)
@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
def test_units_do_not_matter(size, size_y, store, rng):
    X, y = data(rng)
    options = {"criterion": "gcv", "refit": "ensemble", "n_components": 30, "random_state": 0}
    plain, scaled = (streamed(SketchedRidgeCV(**options), store(X * a), y * b) for a, b in ((1.0, 1.0), (size, size_y)))
    np.testing.assert_allclose(scaled.coef_ * size / size_y, plain.coef_, rtol=1e-9)
    np.testing.assert_allclose(scaled.intercept_ / size_y, plain.intercept_, rtol=1e-9)
    if size > 1e-150:  # squares of which are numbers
        for name in ("alphas_", "alpha_", "mu_", "eigenvalues_", "alpha_min_"):
            np.testing.assert_allclose(getattr(scaled, name) / size / size, getattr(plain, name), rtol=1e-9, atol=1e-12)
    if size_y > 1e-150:
        np.testing.assert_allclose(scaled.risk_ridge_ / size_y / size_y, plain.risk_ridge_, rtol=1e-9)
        assert scaled.best_score_ / size_y / size_y == pytest.approx(plain.best_score_, rel=1e-9)
    given = [SketchedRidge(alpha=alpha, n_components=30, random_state=0) for alpha in (40.0, 40.0 * size * size)]
    if size > 1e-150:
        a, b = streamed(given[0], X, y), streamed(given[1], X * size, y * size_y)
        np.testing.assert_allclose(b.coef_ * size / size_y, a.coef_, rtol=1e-9, atol=1e-12)


def test_subnormal_numbers_of_float32(rng):
    X, y = data(rng)
    options = {"alpha": 0.0, "n_components": 10, "random_state": 0}
    small = (X * 1e-42).astype(np.float32)
    large = (small.astype(np.float64) * 1e42).astype(np.float32)
    model, same = (SketchedRidge(**options).partial_fit(A, b) for A, b in ((small, y * 1e-12), (large, y)))
    np.testing.assert_allclose(model.coef_ * 1e-30, same.coef_, rtol=1e-3)


def test_squares_that_are_no_numbers_are_refused(rng):
    X, y = data(rng)
    with pytest.raises(ValueError, match="X is too large"):
        SketchedRidge(random_state=0).partial_fit(X * 1e170, y)
    with pytest.raises(ValueError, match="too large for its squares"):
        SketchedRidge(random_state=0).partial_fit(X, y).partial_fit(X * 1e170, y)
    model = SketchedRidge(random_state=0).partial_fit(0.0 * X, 0.0 * y)
    np.testing.assert_array_equal(model.coef_, 0.0)


def test_features_that_do_not_vary_predict_the_mean(rng):
    y = rng.standard_normal(7)
    for size in (0.1, 1e7 / 3, 1e20 / 7):
        X = np.full((7, 5), size) * np.arange(1, 6)
        model = streamed(SketchedRidge(alpha=0.0, n_components=2, random_state=0), X, y, parts=(0, 3, 7))
        np.testing.assert_allclose(model.predict(X), y.mean(), rtol=0, atol=1e-6)


def test_residuals_that_lost_their_digits_are_told(rng):
    X = rng.standard_normal((60, 20))
    with pytest.warns(RuntimeWarning, match="lost their digits"):
        SketchedRidge(alpha=1e-12, sketch=None).partial_fit(X, X @ rng.standard_normal(20))
