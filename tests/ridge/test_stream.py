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


def test_residuals_that_lost_their_digits_are_told(rng):
    X = rng.standard_normal((60, 20))
    with pytest.warns(RuntimeWarning, match="lost their digits"):
        SketchedRidge(alpha=1e-12, sketch=None).partial_fit(X, X @ rng.standard_normal(20))
