"""`MatrixCompletion`: what it predicts, what it finds by itself, and what does not change its answer."""

from __future__ import annotations

import functools
import threading
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from lrla import _threads
from lrla.completion import MatrixCompletion
from lrla.datasets import make_low_rank_observations, make_ratings
from lrla.exceptions import NotIdentifiableWarning, UnobservedWarning

CONVERGED = {"tol": 1e-12, "max_iter": 1000}  # to the root of that in the factors
REG = 11.0  # at which the ratings below have two components, and no third is near


@functools.cache
def ratings():
    return make_ratings(150, 120, 4500, column_decay=0.5, random_state=0)


@functools.cache
def fitted(**params):
    """To the end, unless other parameters are given, so that the fit is determined by the data."""
    return model(**params).fit(ratings().X)


def model(**params):
    return MatrixCompletion(
        **{"n_components": 20, "reg": REG, "reg_bias": 2.0, "random_state": 0, **CONVERGED, **params}
    )


def dense(model):
    """The fitted matrix by its definition."""
    offsets = model.global_mean_ + model.row_bias_[:, None] + model.column_bias_
    return offsets + model.row_factors_ @ model.components_


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


# ---------------------------------------------------------------------------------------------------- predictions


def test_the_attributes_fit_together():
    m = fitted()
    k = m.n_components_
    assert k == 2
    assert m.components_.shape == (20, 120)
    assert m.row_factors_.shape == (150, 20)
    np.testing.assert_allclose(m.components_[:k] @ m.components_[:k].T, np.eye(k), atol=1e-12)
    assert not np.any(m.components_[k:])
    assert not np.any(m.row_factors_[:, k:])
    np.testing.assert_allclose(np.linalg.norm(m.row_factors_, axis=0), m.singular_values_, rtol=1e-10)
    s = np.linalg.svd(m.row_factors_ @ m.components_, compute_uv=False)
    np.testing.assert_allclose(m.singular_values_, s[:20], atol=1e-10 * s[0])
    assert m.reg_ == REG
    assert m.global_mean_ == pytest.approx(ratings().X.data.mean())


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_predictions_of_pairs(count, rng):
    """Oracle 13: whether there are few pairs or many."""
    m = fitted()
    rows, columns = rng.integers(150, size=count), rng.integers(120, size=count)
    np.testing.assert_allclose(m.predict_entries(rows, columns), dense(m)[rows, columns], rtol=0, atol=1e-12)


def test_pairs_broadcast():
    m = fitted()
    block = m.predict_entries(np.arange(150)[:, None], np.arange(120))
    np.testing.assert_allclose(block, dense(m), rtol=0, atol=1e-12)
    assert m.predict_entries(3, 5) == pytest.approx(dense(m)[3, 5])
    assert m.predict_entries([], []).shape == (0,)


@pytest.mark.parametrize(
    ("rows", "columns", "error", "message"),
    [
        ([150], [0], IndexError, r"rows must lie in \[0, 150\); found 150"),
        ([0], [-1], IndexError, r"columns must lie in \[0, 120\); found -1"),
        ([0.5], [0], TypeError, "rows must be integers"),
    ],
)
def test_pairs_that_are_none(rows, columns, error, message):
    with pytest.raises(error, match=message):
        fitted().predict_entries(rows, columns)
    with pytest.raises(NotFittedError):
        MatrixCompletion().predict_entries(rows, columns)


def test_training_rows_fold_in_to_their_own_factors():
    m = fitted()
    W, row_bias = m.fold_in(ratings().X)
    assert relative(W, m.row_factors_) < 1e-4
    assert relative(row_bias, m.row_bias_) < 1e-4
    np.testing.assert_array_equal(m.transform(ratings().X), W)
    assert relative(m.inverse_transform(W, row_bias), dense(m)) < 1e-4


@pytest.mark.parametrize("params", [{"reg_scaling": 0.5, "reg": 2.0}, {"fit_bias": False}])
def test_folding_in_with_other_models(params):
    m = fitted(**params)
    assert relative(m.transform(ratings().X), m.row_factors_) < 1e-4


def test_folding_in_is_a_ridge_regression():
    """One new row, against the normal equations: singular vectors times the roots of singular values are the features."""
    m = fitted()
    k = m.n_components_
    columns, values = np.array([3, 40, 41, 99]), np.array([4.0, 2.5, 5.0, 1.0])
    root = np.sqrt(m.singular_values_[:k])
    features = np.column_stack([(m.components_[:k] * root[:, None]).T[columns], np.ones(4)])
    target = values - m.global_mean_ - m.column_bias_[columns]
    penalty = np.diag([*np.full(k, m.reg_), 2.0])
    wanted = np.linalg.solve(features.T @ features + penalty, features.T @ target)
    W, row_bias = m.fold_in((values, (np.zeros(4, int), columns)))
    assert W.shape == (1, 20)
    np.testing.assert_allclose(W[0, :k] / root, wanted[:k], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(row_bias, wanted[k:], rtol=1e-6)


def test_rows_without_entries_fold_in_to_zero():
    W, row_bias = fitted().fold_in(sp.csr_array((4, 120)))
    assert not np.any(W)
    assert not np.any(row_bias)


def test_rows_fold_in_with_weights():
    """A weight of two is the entry twice; entries of weight zero are none."""
    m = fitted()
    columns, values = np.array([3, 40, 41, 99]), np.array([4.0, 2.5, 5.0, 1.0])
    once = (values, (np.zeros(4, int), columns))
    W, row_bias = m.fold_in(once, weights=[1.0, 2.0, 0.0, 1.0], shape=(3, 120))
    assert W.shape == (3, 20)
    assert not np.any(W[1:])
    take = [0, 1, 1, 3]
    twice, bias = m.fold_in((values[take], (np.zeros(4, int), columns[take])))
    np.testing.assert_allclose(W[:1], twice, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(row_bias[:1], bias, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::lrla.exceptions.UnobservedWarning")
def test_fit_transform_knows_shape_and_weights():
    X = ratings().X.tocoo()
    weights = 1.0 + np.arange(X.nnz) % 3
    W = model().fit_transform((X.data, X.coords), shape=(152, 120), weights=weights)
    m = model().fit((X.data, X.coords), shape=(152, 120), weights=weights)
    assert W.shape == (152, 20)
    assert relative(W, m.row_factors_) < 1e-4
    assert relative(m.transform((X.data, X.coords)), m.row_factors_[:150]) > 1e-2  # without the weights: other rows


def test_complete_keeps_what_was_observed():
    m, X = fitted(), ratings().X
    rows, columns = X.tocoo().coords
    full = m.complete()
    np.testing.assert_array_equal(full[rows, columns], X.data)
    holes = np.ones(X.shape, dtype=bool)
    holes[rows, columns] = False
    np.testing.assert_allclose(full[holes], dense(m)[holes], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(m.complete([7, 3, 7]), full[[7, 3, 7]])
    with pytest.raises(IndexError, match="rows must lie in"):
        m.complete([150])


def test_clip():
    m = fitted(clip=(3.0, 4.0))
    rows, columns = np.divmod(np.arange(150 * 120), 120)
    wanted = np.clip(dense(m), 3.0, 4.0)
    assert np.any(wanted != dense(m))
    np.testing.assert_allclose(m.predict_entries(rows, columns), wanted.ravel(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(m.inverse_transform(m.row_factors_, m.row_bias_), wanted, rtol=0, atol=1e-12)


def test_recommendations_are_the_largest_predictions():
    m, X = fitted(), ratings().X
    rows = np.array([0, 149, 17])
    scores = dense(m)[rows]
    columns, values = m.recommend(rows, 5, exclude=None)
    wanted = np.argsort(-scores, axis=1)[:, :5]
    np.testing.assert_array_equal(columns, wanted)
    np.testing.assert_allclose(values, np.take_along_axis(scores, wanted, axis=1), rtol=0, atol=1e-12)
    seen = X[rows].toarray() != 0
    columns, _ = m.recommend(rows, 5)
    np.testing.assert_array_equal(columns, np.argsort(np.where(seen, np.inf, -scores), axis=1)[:, :5])
    again, _ = m.recommend(rows, 5, exclude=X)
    np.testing.assert_array_equal(again, columns)


def test_recommendations_where_too_few_are_left():
    X = ratings().X
    m = fitted()
    all_but_two = np.where(np.arange(120) < 2, np.nan, np.zeros((150, 1)))
    columns, values = m.recommend([4], 4, exclude=all_but_two)
    assert set(columns[0, :2]) == {0, 1}
    np.testing.assert_array_equal(columns[0, 2:], -1)
    np.testing.assert_array_equal(np.isnan(values[0]), [False, False, True, True])
    assert m.recommend([4], 120, exclude=None)[0].shape == (1, 120)
    columns, values = m.recommend([4], 122, exclude=None)
    np.testing.assert_array_equal(columns[0, 120:], -1)
    assert np.all(np.isnan(values[0, 120:]))
    assert set(columns[0, :120]) == set(range(120))
    with pytest.raises(ValueError, match=r"exclude must have the shape \(150, 120\)"):
        m.recommend([4], exclude=X[:5])
    with pytest.raises(ValueError, match="exclude must be one of"):
        m.recommend([4], exclude="seen")


def test_score_is_minus_the_error_of_held_out_entries():
    m, (X, values, rows, columns) = fitted(), ratings()
    wanted = -np.sqrt(np.mean((dense(m)[rows, columns] - values) ** 2))
    assert m.score((values, (rows, columns))) == pytest.approx(wanted, rel=1e-12)
    held_out = sp.coo_array((values, (rows, columns)), shape=X.shape)
    assert m.score(held_out) == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match="must have the shape"):
        m.score(X[:10])


# ---------------------------------------------------------------------------------------------------- what changes nothing


def test_permuted_rows_and_columns(rng):
    """Oracle 7."""
    p, q = rng.permutation(150), rng.permutation(120)
    permuted = model().fit(ratings().X[p][:, q])
    assert relative(dense(permuted), dense(fitted())[p][:, q]) < 1e-6


def test_the_transpose_exchanges_the_sides():
    turned = model().fit(sp.csr_array(ratings().X.T))
    assert relative(dense(turned).T, dense(fitted())) < 1e-6
    assert relative(turned.row_bias_, fitted().column_bias_) < 1e-5


@pytest.mark.parametrize("scale", [1e-8, -3.0, 1e8])
def test_scale(scale):
    scaled = model(reg=abs(scale) * REG).fit(scale * ratings().X)
    assert relative(dense(scaled) / scale, dense(fitted())) < 1e-6


def test_a_constant_moves_the_mean_only():
    X = ratings().X.copy()
    X.data = X.data + 100.0
    moved = model().fit(X)
    assert moved.global_mean_ == pytest.approx(fitted().global_mean_ + 100.0)
    assert relative(dense(moved) - 100.0, dense(fitted())) < 1e-6
    assert relative(moved.row_bias_, fitted().row_bias_) < 1e-5


def test_float32_is_float64_to_its_precision():
    """Oracle 14."""
    single = model(tol=1e-9).fit(ratings().X.astype(np.float32))
    for name in ("components_", "row_factors_", "row_bias_", "column_bias_", "singular_values_"):
        assert getattr(single, name).dtype == np.float32
    assert relative(dense(single), dense(fitted())) < 1e-4
    assert single.predict_entries([0], [1]).dtype == np.float32
    assert single.transform(ratings().X).dtype == np.float32


@pytest.mark.parametrize("params", [{}, {"n_components": "auto", "reg": "auto"}], ids=["fixed", "auto"])
def test_threads_make_no_difference(params, monkeypatch):
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        m = model(tol=1e-4, **params).fit(ratings().X)
        results.append((m.row_factors_, m.components_, m.row_bias_, m.column_bias_, m.path_["train_rmse"]))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_weights_are_counts():
    """Oracle 13: an entry twice, averaged, is one of weight two; an entry of weight zero is none."""
    X = ratings().X.tocoo()
    again = np.arange(0, X.nnz, 3)
    up = np.where(np.arange(X.nnz) % 3 == 0, 0.5, 0.0)
    rows, columns = X.coords
    twice = (np.r_[X.data - up, X.data[again] + 0.5], (np.r_[rows, rows[again]], np.r_[columns, columns[again]]))
    weights = 1.0 + (up > 0)
    by_count = model().fit(twice, shape=X.shape)
    by_weight = model().fit(X, weights=weights)
    np.testing.assert_allclose(dense(by_count), dense(by_weight), rtol=0, atol=1e-8)
    assert relative(dense(by_count), dense(fitted())) > 1e-3
    without = model().fit(X, weights=np.where(np.arange(X.nnz) % 3 == 0, 0.0, 1.0))
    kept = np.arange(X.nnz) % 3 != 0
    fewer = model().fit((X.data[kept], (rows[kept], columns[kept])), shape=X.shape)
    np.testing.assert_allclose(dense(without), dense(fewer), rtol=0, atol=1e-12)


def test_stored_zeros_are_observed_zeros():
    """Oracle 13."""
    X = ratings().X.copy()
    X.data = X.data - 3.0
    assert np.count_nonzero(X.data == 0.0) > 100
    fewer = X.copy()
    fewer.eliminate_zeros()
    assert relative(dense(model().fit(X)), dense(model().fit(fewer))) > 1e-2


def test_the_model_has_a_copy_of_x_where_it_is_told_to():
    X = ratings().X.copy()
    shared, copied = model(tol=1e-3).fit(X), model(tol=1e-3, copy_X=True).fit(X)
    assert np.shares_memory(shared._observed.values, X.data)
    before = copied.complete()
    X.data[:] = 0.0
    np.testing.assert_array_equal(copied.complete(), before)


def test_a_streamed_model_does_not_follow_what_happens_to_its_batches():
    X = ratings().X.copy()
    m = model(tol=1e-3, n_components=3).partial_fit(X)
    before = m.complete()
    X.data[:] = 0.0
    np.testing.assert_array_equal(m.complete(), before)


# ---------------------------------------------------------------------------------------------------- the optimum


def test_the_certificate():
    """Acceptance 8: at most 1.001 at the end, and more when stopped early."""
    assert fitted().optimality_ <= 1.001
    assert fitted(fit_bias=False).optimality_ <= 1.001
    with pytest.warns(ConvergenceWarning, match=r"After 1 sweeps .* Increase max_iter or tol"):
        early = model(max_iter=1, path_ratio=1e6, sweeps_per_level=1).fit(ratings().X)
    assert early.optimality_ > 1.001


def test_it_is_the_minimum_of_the_nuclear_norm_problem():
    """Proximal steps from the solution, with soft-thresholded singular values, do not move it (Mazumder et al., 2010)."""
    m, X = fitted(fit_bias=False), ratings().X
    rows, columns = X.tocoo().coords
    Z = dense(m)
    assert m.global_mean_ == 0.0
    filled = Z.copy()
    filled[rows, columns] = X.data
    U, s, Vt = np.linalg.svd(filled)
    again = (U[:, :120] * np.maximum(s - REG, 0.0)) @ Vt
    assert relative(again, Z) < 1e-5
    objective = np.sum((X.data - Z[rows, columns]) ** 2) + 2 * REG * m.singular_values_.sum()
    assert m.objective_ == pytest.approx(objective, rel=1e-9)


def test_the_objective_is_what_it_says():
    m, X = fitted(), ratings().X
    rows, columns = X.tocoo().coords
    loss = np.sum((X.data - dense(m)[rows, columns]) ** 2)
    ridge = 2 * REG * m.singular_values_.sum() + 2.0 * (np.sum(m.row_bias_**2) + np.sum(m.column_bias_**2))
    assert m.objective_ == pytest.approx(loss + ridge, rel=1e-9)


def test_a_penalty_above_the_largest_leaves_offsets():
    m = model(reg=1e4).fit(ratings().X)
    assert m.n_components_ == 0
    assert not np.any(m.components_)
    assert np.any(m.row_bias_)
    auto = model(n_components="auto", reg=1e4, max_components=5).fit(ratings().X)
    assert auto.transform(ratings().X).shape == (150, 1)


# ---------------------------------------------------------------------------------------------------- automatic


@functools.cache
def automatic():
    return MatrixCompletion(random_state=0).fit(ratings().X)


def test_automatic_ratings_beat_offsets_and_fixed_penalties():
    """No worse than the best of a grid of penalties by 2 %, the standard error of the difference on 450 entries."""
    X, values, rows, columns = ratings()
    held_out = (values, (rows, columns))
    grid = [
        MatrixCompletion(20, reg=reg, random_state=0, tol=1e-3).fit(X).score(held_out)
        for reg in (9.0, 10.0, 12.0, 20.0)
    ]
    offsets = MatrixCompletion(1, reg=1e4, random_state=0).fit(X).score(held_out)
    score = automatic().score(held_out)
    assert score > 1.02 * max(grid)
    assert score >= offsets - 1e-3


def test_the_held_out_error_is_about_the_error_on_new_entries():
    X, values, rows, columns = ratings()
    assert automatic().validation_rmse_ == pytest.approx(-automatic().score((values, (rows, columns))), rel=0.15)
    assert automatic().validation_rmse_ in automatic().path_["validation_rmse"]
    assert automatic().validation_rmse_ <= 1.01 * np.nanmin(automatic().path_["validation_rmse"])
    assert fitted().validation_rmse_ is None


def test_estimated_penalties():
    """Every way in: rank given or not; the attributes say what was estimated."""
    X, values, rows, columns = ratings()
    assert automatic().noise_variance_ == pytest.approx(0.64, rel=0.2)  # of make_ratings, and that of rounding
    assert automatic().optimality_ is None
    assert fitted().noise_variance_ is None
    for k in (12, "auto"):
        m = MatrixCompletion(k, reg="bayes", random_state=0).fit(X)
        assert m.score((values, (rows, columns))) > 1.01 * automatic().score((values, (rows, columns)))
        assert m.reg_ > 0
        assert (m.validation_rmse_ is None) == (k == 12)
    m = MatrixCompletion(12, reg="bayes", reg_scaling=0.3, reg_bias=3.0, tol=1e-8, random_state=0).fit(X)
    assert relative(m.transform(X), m.row_factors_) < 1e-2  # the rows were solved for to cg_tol
    assert relative(m.fold_in(X)[1], m.row_bias_) < 1e-2
    assert m._fitted.reg_bias == (3.0, 3.0)


def test_estimated_penalties_stay_when_rows_come_later():
    X, values, rows, columns = ratings()
    m = MatrixCompletion(12, reg="bayes", tol=1e-7, random_state=0).fit(X)
    before, reg, k = dense(m), m.reg_, m.n_components_
    m.partial_fit(X[:3], row_ids=[150, 151, 152])
    assert (m.reg_, m.n_components_) == (pytest.approx(reg), k)
    assert relative(dense(m)[150:], before[:3]) < 0.05
    assert relative(dense(m)[:150], before) < 0.05


def test_exact_recovery_with_defaults(seed):
    """Acceptance 2, in small: rank and matrix are found from 2.2 entries for every degree of freedom."""
    X, left, right = make_low_rank_observations(150, 150, rank=4, oversampling=2.2, condition=10.0, random_state=seed)
    m = MatrixCompletion(random_state=0).fit(X)
    assert m.n_components_ == 4
    assert relative(dense(m), left @ right.T) < 1e-5


def test_a_fit_is_repeatable_and_seeds_differ():
    X = ratings().X
    again = MatrixCompletion(random_state=0).fit(X)
    np.testing.assert_array_equal(again.row_factors_, automatic().row_factors_)
    for name in again.path_.dtype.names:
        np.testing.assert_array_equal(again.path_[name], automatic().path_[name])
    other = MatrixCompletion(random_state=1).fit(X)
    assert other.validation_rmse_ != again.validation_rmse_


# ---------------------------------------------------------------------------------------------------- going on


def test_rows_that_come_later():
    """Swept to the end, the model is that of all rows at once."""
    X = ratings().X
    stream = model(sweeps_per_level=400).fit(X[:100]).partial_fit(X[100:])
    assert stream.row_factors_.shape == (150, 20)
    # the mean stays that of the first rows, for which offsets make up but for their penalty
    assert relative(dense(stream), dense(fitted())) < 2e-2
    few = model(sweeps_per_level=2).fit(X[:100]).partial_fit(X[100:])
    held_out = (ratings().test_values, (ratings().test_rows, ratings().test_columns))
    assert few.score(held_out) == pytest.approx(fitted().score(held_out), rel=0.02)


def test_the_first_partial_fit_is_fit():
    first = model().partial_fit(ratings().X)
    np.testing.assert_array_equal(first.components_, fitted().components_)


def test_rows_that_are_replaced():
    X = ratings().X
    m = model(tol=1e-6).fit(X)
    new = X[[3, 4]]
    m.partial_fit(new, row_ids=[9, 150])
    assert m.row_factors_.shape[0] == 151
    full = m.complete()
    for row, source in ((9, 3), (150, 4), (3, 3), (149, 149)):
        stored = X[[source]].tocoo()
        np.testing.assert_array_equal(full[row, stored.col], stored.data)
    assert relative(m.row_factors_[9], m.row_factors_[3]) < 0.05
    assert m._observed.nnz == X.nnz - X[[9]].nnz + new.nnz


@pytest.mark.parametrize("ids", [[0], [0, 0], [-1, 2], [0.0, 1.0], "ab"])
def test_row_ids_that_are_none(ids):
    m = model(tol=1e-3).fit(ratings().X)
    before = m.row_factors_
    with pytest.raises(ValueError, match="row_ids must be 2 different integers >= 0"):
        m.partial_fit(ratings().X[:2], row_ids=ids)
    assert m.row_factors_ is before


def test_weights_of_rows_that_come_later():
    X = ratings().X
    m = model(tol=1e-3).fit(X[:100]).partial_fit(X[100:], weights=np.full(X[100:].nnz, 2.0))
    assert m._observed.counts[0] == X[[0]].nnz
    assert m._observed.counts[149] == 2 * X[[149]].nnz


def test_warm_start_goes_on():
    X = ratings().X
    m = model(warm_start=True, tol=1e-6).fit(X)
    cold = m.n_iter_
    again = m.fit(X)
    assert again.n_iter_ <= cold / 3
    assert relative(dense(again), dense(fitted())) < 1e-2
    auto = MatrixCompletion(warm_start=True, random_state=0).fit(X)
    found = auto.reg_, auto.n_components_
    auto.fit(X[:140])
    assert (auto.reg_, auto.n_components_) == found
    assert auto.row_factors_.shape[0] == 140
    assert auto.fit(X[:, :50]).components_.shape[1] == 50  # other columns: from the start


def test_a_warm_start_is_none_where_another_kind_of_model_is_asked_for():
    X = ratings().X
    for before, after in (
        ({"fit_bias": False}, {"fit_bias": True}),
        ({"fit_bias": True}, {"fit_bias": False}),
        ({"reg_scaling": 0.0}, {"reg_scaling": 0.5, "reg": 2.0}),
        ({"reg": REG}, {"reg": "bayes"}),
        ({"reg": "bayes", "n_components": 1}, {"reg": "bayes", "n_components": 6}),
    ):
        options = {"n_components": 6, "tol": 1e-4, **before}
        warm = model(warm_start=True, **options).fit(X).set_params(**after).fit(X)
        cold = model(**{**options, **after}).fit(X)
        np.testing.assert_array_equal(warm.row_factors_, cold.row_factors_)
    again = model(reg="bayes", n_components=6, warm_start=True, tol=1e-4).fit(X)
    sweeps = again.n_iter_
    assert again.fit(X).n_iter_ < sweeps


def test_offsets_that_were_zero_come_later():
    """A constant matrix has offsets zero, which is not the same as a model without offsets."""
    m = MatrixCompletion(2, reg=1.0, reg_bias=1e-9).fit(np.where(np.eye(6) > 0, np.nan, 1.0))
    assert not np.any(m.row_bias_)
    rows = np.outer(np.arange(6.0), np.ones(6))
    m.partial_fit(rows)
    np.testing.assert_allclose(m.predict_entries(np.arange(6, 12)[:, None], np.arange(6)), rows, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-150])
def test_estimated_penalties_of_tiny_numbers_go_on(scale):
    """Also where the variance of the noise is too small to be a number."""
    X = scale * ratings().X
    m = MatrixCompletion(6, reg="bayes", random_state=0).fit(X[:140]).partial_fit(X[140:])
    plain = MatrixCompletion(6, reg="bayes", random_state=0).fit(ratings().X[:140]).partial_fit(ratings().X[140:])
    assert relative(dense(m) / scale, dense(plain)) < 1e-3


# ---------------------------------------------------------------------------------------------------- little data


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
@pytest.mark.parametrize("params", [{}, {"reg": "bayes"}, {"reg": 1.0, "n_components": 1}, {"fit_bias": False}])
@pytest.mark.filterwarnings("ignore::lrla.exceptions.NotIdentifiableWarning")
@pytest.mark.filterwarnings("ignore::lrla.exceptions.UnobservedWarning")
@pytest.mark.parametrize("everything", [False, True])
def test_tiny_matrices(shape, params, everything, rng):
    A = rng.standard_normal(shape)
    kept = np.full(shape, everything)
    kept[0, 0] = True
    m = MatrixCompletion(random_state=0, **params).fit(np.where(kept, A, np.nan))
    full = m.complete()
    assert np.all(np.isfinite(full))
    np.testing.assert_array_equal(full[kept], A[kept])
    columns, _ = m.recommend(np.arange(shape[0]), shape[1])
    np.testing.assert_array_equal((columns >= 0).sum(axis=1), (~kept).sum(axis=1))


def test_empty_rows_and_columns():
    X = sp.csr_array(ratings().X.tolil())
    A = X.toarray()
    A[[4, 7]], A[:, 11] = 0.0, 0.0
    with pytest.warns(UnobservedWarning, match="2 rows and 1 columns of X have no observed entry"):
        m = model().fit(sp.csr_array(A))
    assert (list(m.empty_rows_), list(m.empty_columns_)) == ([4, 7], [11])
    assert not np.any(m.row_factors_[[4, 7]])
    assert m.column_bias_[11] == 0.0
    np.testing.assert_allclose(m.predict_entries(4, np.arange(120)), m.global_mean_ + m.column_bias_, atol=1e-12)
    np.testing.assert_allclose(m.predict_entries(np.arange(150), 11), m.global_mean_ + m.row_bias_, atol=1e-12)


def test_a_rank_that_the_entries_do_not_determine():
    X = ratings().X
    with pytest.warns(NotIdentifiableWarning, match=r"4050 observed entries.*rank 20 .* 5000 degrees"):
        model(reg=0.5, tol=1e-3).fit(X)  # the optimum of this penalty has a larger rank
    fewer = sp.coo_array((np.ones(200), np.divmod(np.arange(200) * 67 % 18000, 120)), shape=X.shape)
    with pytest.warns(UnobservedWarning), pytest.warns(NotIdentifiableWarning, match=r"200 .*rank 1 .* 269 degrees"):
        model(n_components=1).fit(fewer)
    model(n_components=120, reg=30.0, tol=1e-3).fit(X)  # of rank 120, where the penalty determines all: no warning


# ---------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"reg": -1.0}, ValueError, "reg must be"),
        ({"reg": "best"}, ValueError, "reg must be one of 'bayes', 'auto'"),
        ({"reg": [1.0]}, TypeError, "reg must be a number >= 0 or"),
        ({"reg_scaling": 2.0}, ValueError, "reg_scaling must be"),
        ({"reg_bias": -1.0}, ValueError, "reg_bias must be"),
        ({"fit_bias": "yes"}, ValueError, "fit_bias must be one of"),
        ({"max_components": 0}, ValueError, "max_components must be"),
        ({"max_iter": 0}, ValueError, "max_iter must be"),
        ({"tol": 1.0}, ValueError, "tol must be"),
        ({"cg_tol": 0.0}, ValueError, "cg_tol must be"),
        ({"cg_max_iter": 0}, ValueError, "cg_max_iter must be"),
        ({"path_ratio": 1.0}, ValueError, "path_ratio must be"),
        ({"sweeps_per_level": 0}, ValueError, "sweeps_per_level must be"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be"),
        ({"clip": (2.0, 1.0)}, ValueError, "clip must be"),
        ({"clip": 3.0}, ValueError, "clip must be"),
        ({"warm_start": 2}, ValueError, "warm_start must be"),
        ({"missing_values": "?"}, TypeError, "missing_values must be"),
    ],
)
def test_parameters_out_of_range(params, error, message):
    with pytest.raises(error, match=message):
        model(**params).fit(ratings().X)


def test_verbose_shows_a_bar(capsys):
    model(verbose=1, tol=1e-3).fit(ratings().X)
    assert "MatrixCompletion" in capsys.readouterr().err


def test_penalty_zero():
    """Legal: a rank that the entries determine, without any shrinkage."""
    X, left, right = make_low_rank_observations(60, 50, rank=2, oversampling=5.0, random_state=0)
    m = MatrixCompletion(2, reg=0.0, fit_bias=False, random_state=0, max_iter=500, tol=1e-12).fit(X)
    assert relative(dense(m), left @ right.T) < 1e-4


def test_two_threads_at_once():
    X, m = ratings().X, automatic()
    wanted = m.transform(X), m.recommend(np.arange(150), 5)[0], m.row_factors_
    found, raised = [], []

    def work():
        try:
            again = MatrixCompletion(random_state=0).fit(X)
            found.append((m.transform(X), m.recommend(np.arange(150), 5)[0], again.row_factors_))
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised
    for other in found:
        for a, b in zip(wanted, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_memory_of_a_fit(rng):
    """The entries of X once more, to be kept; by rows and by columns while it runs, and as a residual."""
    m, n, nnz = 20_000, 3_000, 600_000
    cells = np.unique(rng.integers(0, m * n, nnz))
    X = sp.csr_array((rng.standard_normal(len(cells)), np.divmod(cells, n)), shape=(m, n))
    MatrixCompletion(8, reg=3.0, max_iter=2, tol=0.5, path_ratio=3.0).fit(X[:3000])  # compiles
    tracemalloc.start()
    one = MatrixCompletion(8, reg=3.0, max_iter=2, tol=0.5, path_ratio=3.0).fit(X)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    entries, block = X.data.nbytes + X.nnz * 4, 8 * (m + n) * 16
    assert one.n_components_ == 8
    assert kept <= entries + 2 * block
    assert peak <= 3 * entries + 5 * block
