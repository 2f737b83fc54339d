"""The estimators: choice and warning, growth, negative penalties, intervals, classes, array libraries, refused arguments."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge, RidgeClassifierCV
from sklearn.model_selection import KFold

from lrla.exceptions import SketchBoundaryWarning
from lrla.ridge import SketchedRidge, SketchedRidgeClassifierCV, SketchedRidgeCV
from tests.contracts._cases import on_host

ignore_boundary = pytest.mark.filterwarnings("ignore::lrla.exceptions.SketchBoundaryWarning")


def data(rng, n=200, p=150, noise=8.0, targets=None):
    X = rng.standard_normal((n, p)) * np.linspace(1, 0.05, p) + 0.5
    Y = X @ rng.standard_normal((p, targets or 1)) + noise * rng.standard_normal((n, targets or 1))
    return X, Y if targets else Y[:, 0]


# ---------------------------------------------------------------------------------------------------- the choice


def test_the_default_grid_and_its_choice(rng):
    X, y = data(rng)
    model = SketchedRidgeCV(n_components=60, random_state=0).fit(X, y)
    assert len(model.alphas_) == 41
    assert model.alphas_[0] == 0.0
    best = int(np.argmin(model.risk_ridge_))
    assert model.alpha_sketch_ == model.alphas_[best]
    assert model.alpha_ == pytest.approx(200 * model.mu_[best], rel=1e-12)
    assert model.best_score_ == -model.risk_ridge_[best]
    assert not model.mu_at_boundary_
    ensemble = SketchedRidgeCV(n_components=60, refit="ensemble", random_state=0).fit(X, y)
    best = int(np.argmin(ensemble.risk_ensemble_))
    assert ensemble.alpha_ == ensemble.alpha_sketch_ == ensemble.alphas_[best]
    coef, intercept = ensemble.path_coef(ensemble.alpha_)
    np.testing.assert_allclose(ensemble.coef_, coef, atol=1e-13)
    assert ensemble.intercept_ == pytest.approx(intercept)


def test_the_boundary_is_told_and_automatic_sketches_grow(rng, monkeypatch):
    X, y = data(rng, 400, 1000, noise=0.01)
    with pytest.warns(SketchBoundaryWarning, match="larger n_components"):
        fixed = SketchedRidgeCV(n_components=80, random_state=0).fit(X, y)
    assert fixed.mu_at_boundary_
    assert (fixed.n_components_, fixed.sketch_) == (80, "sparse_stack")
    grown = SketchedRidgeCV(sketch="sparse_stack", random_state=0).fit(X, y)  # no warning
    assert grown.n_components_ == 320  # 80, doubled twice
    assert grown.sketch_ == "sparse_stack"
    assert grown.mu_.min() < fixed.mu_.min()
    assert not grown.mu_at_boundary_


def test_large_data_end_with_a_warning_and_not_with_themselves(rng, monkeypatch):
    """X itself is taken from the beginning or not at all; the warning tells what more would cost."""
    X, y = data(rng, 400, 1000, noise=0.01)
    for limit in ("SMALL", "EASY"):
        monkeypatch.setattr(f"lrla.ridge._cost.{limit}", 0.0)
    monkeypatch.setattr("lrla.ridge._cost.Shape.path", lambda self: 12.5 * self.sketched(40, "sparse_stack", 8, True))
    sizes = []
    fit_members = SketchedRidgeCV._ensemble
    monkeypatch.setattr(
        SketchedRidgeCV, "_ensemble", lambda self, *args: sizes.append(args[1]) or fit_members(self, *args)
    )
    for sketch in ("auto", "sparse_stack"):
        with pytest.warns(
            SketchBoundaryWarning, match=r"larger n_components \(\d+: about .* times the work\), or sketch=None"
        ):
            model = SketchedRidgeCV(sketch=sketch, random_state=0).fit(X, y)
        assert model.mu_at_boundary_
        assert model.sketch_ == "sparse_stack"
        assert len(sizes) == 1  # nothing is left of the budget
        assert sizes.pop() == model.n_components_
    monkeypatch.setattr("lrla.ridge._cost.Shape.exact", lambda self: np.inf)
    with pytest.warns(SketchBoundaryWarning, match="may need more memory than there is"):
        SketchedRidgeCV(random_state=0).fit(X, y)


def test_small_data_are_their_own_sketch(rng):
    X, y = data(rng, 60, 150)
    none = SketchedRidgeCV(sketch=None).fit(X, y)
    for sketch in ("auto", "sparse_stack"):
        auto = SketchedRidgeCV(sketch=sketch).fit(X, y)
        np.testing.assert_array_equal(auto.coef_, none.coef_)
        assert (auto.sketch_, auto.operators_, auto.n_components_) == (None, [], 150)
    with pytest.raises(ValueError, match="sketch must be one of"):
        SketchedRidge(sketch="auto").fit(X, y)


def test_ties_take_the_larger_penalty(rng):
    X = rng.standard_normal((30, 5))
    model = SketchedRidgeCV([0.1, 10.0, 1.0], sketch=None).fit(X, np.full(30, 3.0))
    assert model.alpha_ == 10.0
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-14)
    np.testing.assert_allclose(model.risk_ridge_, 0.0, atol=1e-20)
    assert model.intercept_ == pytest.approx(3.0)


def test_negative_penalties(rng):
    X, y = data(rng, 300, 400, noise=0.05)
    options = {"n_components": 120, "n_estimators": 12, "refit": "ensemble", "random_state": 0}
    model = SketchedRidgeCV(allow_negative=True, **options).fit(X, y)
    assert np.sum(model.alphas_ < 0) == 4
    np.testing.assert_allclose(model.alphas_[:4] / model.alpha_min_, [0.9, 0.7, 0.5, 0.3])
    assert np.all(np.isfinite(model.risk_ensemble_))
    assert model.risk_ensemble_[1] < model.risk_ensemble_[4]  # sketching shrinks more than this signal wants
    low = model.alpha_min_
    assert SketchedRidgeCV([0.5 * low, 1.0], **options).fit(X, y).alpha_min_ == low
    for factor in (1.0, 2.0):
        with pytest.raises(ValueError, match=r"alpha must be > -.*alpha_min_"):
            SketchedRidgeCV([factor * low, 1.0], **options).fit(X, y)
        with pytest.raises(ValueError, match=r"alpha must be > -.*alpha_min_"):
            model.path_coef(factor * low)
    options.pop("refit")
    with pytest.raises(ValueError, match=r"alpha must be > -.*alpha_min_"):
        SketchedRidge(alpha=low, **options).fit(X, y)


def test_row_samples_serve_an_exact_solution(rng):
    X, y = data(rng, 300, 60)
    model = SketchedRidgeCV(sketch="rows", n_components=120, random_state=0).fit(X, y)
    wanted = Ridge(alpha=model.alpha_).fit(X, y)
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-8)
    exact = SketchedRidgeCV(model.mu_ * 300, sketch=None).fit(X, y)
    # the risk of plain ridge from members of 120 rows; half a per cent of difference between penalties, 3 of noise
    np.testing.assert_allclose(model.risk_ridge_, exact.risk_ridge_, rtol=0.05)


@pytest.mark.parametrize("sketch", ["sparse_stack", "rows"])
def test_members_in_threads_are_the_same_members(sketch, rng):
    X, y = data(rng)
    one, two = (SketchedRidgeCV(n_components=60, sketch=sketch, n_jobs=j, random_state=0).fit(X, y) for j in (None, 2))
    np.testing.assert_allclose(two.risk_ridge_, one.risk_ridge_, rtol=1e-9)
    np.testing.assert_allclose(two.coef_, one.coef_, rtol=0, atol=1e-9 * np.abs(one.coef_).max())


@ignore_boundary
def test_many_targets_in_groups_are_the_targets_together(rng, monkeypatch):
    X, Y = data(rng, targets=5)
    options = {"n_components": 60, "random_state": 0, "store_residuals": True}
    for per_target in (False, True):
        together = SketchedRidgeCV(alpha_per_target=per_target, **options).fit(X, Y)
        monkeypatch.setattr("lrla.ridge._ensemble.TARGET_BUDGET", 2 * 200 * 41)  # two targets at a time
        groups = SketchedRidgeCV(alpha_per_target=per_target, **options).fit(X, Y)
        monkeypatch.undo()
        for name in ("coef_", "risk_ridge_", "loo_residuals_", "alpha_"):
            np.testing.assert_allclose(getattr(groups, name), getattr(together, name), rtol=1e-9, atol=1e-12)


def test_folds_of_sketches(rng):
    """Against members fitted to each fold by hand; the coefficients have the same alpha there."""
    X, y = data(rng, 80, 60)
    folds = KFold(4).split(X)
    options = {"n_components": 30, "n_estimators": 2, "random_state": 0}
    model = SketchedRidgeCV([5.0, 50.0], refit="ensemble", cv=4, store_cv_results=True, **options).fit(X, y)
    wanted = np.zeros(80)
    for fit, judge in folds:
        wanted[judge] = y[judge] - SketchedRidge(alpha=5.0, **options).fit(X[fit], y[fit]).predict(X[judge])
    np.testing.assert_allclose(model.cv_results_[:, 0], wanted**2, rtol=1e-9)
    with pytest.raises(ValueError, match="cv must put every row"):
        SketchedRidgeCV(cv=[(np.arange(40), np.arange(40, 80))], **options).fit(X, y)


def test_cv_results_are_squares_or_predictions(rng):
    X, Y = data(rng, targets=2)
    options = {"n_components": 60, "random_state": 0, "store_cv_results": True, "refit": "ensemble"}
    squares = SketchedRidgeCV(**options).fit(X, Y)
    assert squares.cv_results_.shape == (200, 2, 41)
    np.testing.assert_allclose(squares.cv_results_.mean(axis=0).T, squares.risk_ensemble_)
    scored = SketchedRidgeCV(scoring="neg_mean_squared_error", **options).fit(X, Y)
    np.testing.assert_allclose((Y[:, :, None] - scored.cv_results_) ** 2, squares.cv_results_, atol=1e-10)
    assert scored.alpha_ == squares.alpha_


# ---------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("refit", ["exact", "ensemble"])
@ignore_boundary
def test_intervals_hold_new_responses(refit):
    covered = []
    for trial in range(8):
        X, y = data(np.random.default_rng(trial), 1500, 120)
        model = SketchedRidgeCV(n_components=60, refit=refit, random_state=0).fit(X[:500], y[:500])
        low, high = model.predict_interval(X[500:], coverage=0.9)
        covered.append(np.mean((low <= y[500:]) & (y[500:] <= high)))
        wider = model.predict_interval(X[500:], coverage=0.99)
        assert np.all((wider[0] < low) & (high < wider[1]))
    assert 0.88 < np.mean(covered) < 0.92  # quantiles of 500 residuals cover 0.9 +- 0.016, eight of them +- 0.006


@pytest.mark.parametrize("refit", ["exact", "ensemble"])
def test_intervals_weigh_rows_as_the_fit_does(refit, rng):
    """Rows of weight zero have no part in an interval, and an end is where the weights reach its share."""
    X, y = data(rng)
    options = {"n_components": 60, "refit": refit, "random_state": 0, "store_residuals": True}
    w = np.repeat([1.0, 0.0], 100)
    a, b = SketchedRidgeCV(**options).fit(X, y, w), SketchedRidgeCV(**options).fit(X[:100], y[:100])
    np.testing.assert_array_equal(a.predict_interval(X), b.predict_interval(X))
    w = rng.uniform(0.0, 2.0, 200)
    model = SketchedRidgeCV(**options).fit(X, y, w)
    low, high = model.predict_interval(X, coverage=0.8) - model.predict(X)
    for end, tail in ((low[0], 0.1), (high[0], 0.9)):
        below, at = (
            w[part].sum() / w.sum() for part in (model.loo_residuals_ < end - 1e-9, model.loo_residuals_ < end + 1e-9)
        )
        assert below <= tail <= at


def test_residuals_of_the_exact_solution_are_nearly_leave_one_out(rng):
    X, y = data(rng)
    model = SketchedRidgeCV(n_components=60, random_state=0, store_residuals=True).fit(X, y)
    exact = SketchedRidge(alpha=model.alpha_, sketch=None).fit(X, y)
    error = np.linalg.norm(model.loo_residuals_ - exact.loo_residuals_) / np.linalg.norm(exact.loo_residuals_)
    assert error < 0.03  # leverages are estimated by four sketches


# ---------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_without_sketch_the_classifier_is_scikit_learns(n_classes, class_weight, rng):
    X = rng.standard_normal((90, 12))
    y = np.array(["a", "b", "c"])[np.argmax(X[:, :n_classes] + 0.5 * rng.standard_normal((90, n_classes)), axis=1)]
    alphas = np.logspace(-2, 3, 9)
    wanted = RidgeClassifierCV(alphas, class_weight=class_weight).fit(X, y)
    got = SketchedRidgeClassifierCV(wanted.alpha_, sketch=None, class_weight=class_weight).fit(X, y)
    np.testing.assert_allclose(got.coef_, wanted.coef_.reshape(got.coef_.shape), atol=1e-10)
    np.testing.assert_array_equal(got.predict(X), wanted.predict(X))
    np.testing.assert_allclose(got.decision_function(X), wanted.decision_function(X), atol=1e-10)
    if class_weight is None:
        assert SketchedRidgeClassifierCV(alphas, sketch=None).fit(X, y).alpha_ == wanted.alpha_


@ignore_boundary
def test_a_classifier_is_scored_by_its_classes(rng):
    X = rng.standard_normal((150, 100))
    y = (X[:, 0] + 0.3 * rng.standard_normal(150) > 0).astype(int)
    model = SketchedRidgeClassifierCV(n_components=50, scoring="accuracy", random_state=0).fit(X, y)
    assert 0.5 < model.best_score_ <= 1.0
    folds = SketchedRidgeClassifierCV(n_components=50, scoring="accuracy", cv=3, random_state=0).fit(X, y)
    assert 0.5 < folds.best_score_ <= 1.0


def test_several_labels(rng):
    X = rng.standard_normal((100, 10))
    Y = (X[:, :3] > 0).astype(int)
    model = SketchedRidgeClassifierCV(random_state=0).fit(X, Y)
    assert np.mean(model.predict(X) == Y) > 0.9


# ---------------------------------------------------------------------------------------------------- array libraries


@pytest.mark.parametrize("shape", [(200, 150), (150, 200)])
@pytest.mark.parametrize("options", [
    {"n_components": 60}, {"sketch": None}, {"n_components": 60, "refit": "ensemble"},
    {"n_components": 80, "sketch": "rows"}, {"n_components": 60, "decomposition": "svd"}, {"n_components": 60, "cv": 3},
], ids=["sketched", "exact", "ensemble", "rows", "svd", "folds"])  # fmt: skip
@ignore_boundary
def test_any_array_library(xp, shape, options, rng):
    X, Y = data(rng, *shape, targets=2)
    here = SketchedRidgeCV(random_state=0, **options).fit(X, Y)
    there = SketchedRidgeCV(random_state=0, **options).fit(xp.asarray(X), xp.asarray(Y))
    assert xp.owns(there.coef_)
    np.testing.assert_allclose(on_host(there.coef_), here.coef_, rtol=0, atol=1e-8 * np.abs(here.coef_).max())
    np.testing.assert_allclose(there.risk_ridge_, here.risk_ridge_, rtol=1e-8)
    predicted = there.predict(xp.asarray(X))
    assert xp.owns(predicted)
    np.testing.assert_allclose(on_host(predicted), here.predict(X), rtol=0, atol=1e-8 * np.abs(Y).max())
    low, high = there.predict_interval(xp.asarray(X))
    assert xp.owns(low)


@pytest.mark.parametrize("method", ["cg", "sketched cg"])
def test_iterations_in_any_array_library(xp, method, rng, monkeypatch):
    X, y = data(rng)
    monkeypatch.setattr(SketchedRidgeCV, "_solver", lambda self: method)
    model = SketchedRidgeCV(n_components=60, random_state=0).fit(xp.asarray(X), xp.asarray(y))
    wanted = Ridge(alpha=model.alpha_).fit(X, y).coef_
    np.testing.assert_allclose(on_host(model.coef_), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_weights_and_streams_in_any_array_library(xp, rng):
    X, y = data(rng)
    w = rng.uniform(0.0, 2.0, 200) * (rng.random(200) > 0.1)
    options = {"alpha": 10.0, "n_components": 60, "random_state": 0}
    here = SketchedRidge(**options).fit(X, y, w)
    there = SketchedRidge(**options).fit(xp.asarray(X), xp.asarray(y), xp.asarray(w))
    np.testing.assert_allclose(on_host(there.coef_), here.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(on_host(there.loo_residuals_), here.loo_residuals_, rtol=0, atol=1e-9)
    stream = SketchedRidge(**options)
    for rows in (slice(0, 90), slice(90, 200)):
        stream.partial_fit(xp.asarray(X[rows]), xp.asarray(y[rows]), xp.asarray(w[rows]))
    assert xp.owns(stream.coef_)
    np.testing.assert_allclose(on_host(stream.coef_), here.coef_, rtol=0, atol=1e-9)


@ignore_boundary
def test_labels_of_data_on_a_device(xp, rng):
    X, _ = data(rng)
    y = (X[:, 0] > 0.5).astype(int)
    model = SketchedRidgeClassifierCV(n_components=60, random_state=0).fit(xp.asarray(X), y)
    assert isinstance(model.predict(xp.asarray(X)), np.ndarray)


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sketch": "countsketc"}, ValueError, "sketch must be one of"),
        ({"criterion": "aic"}, ValueError, "criterion must be one of"),
        ({"refit": "none"}, ValueError, "refit must be one of"),
        ({"decomposition": "qr"}, ValueError, "decomposition must be one of"),
        ({"n_estimators": 0}, ValueError, "n_estimators"),
        ({"n_estimators": 1}, ValueError, "n_estimators must be >= 2 with refit='exact'"),
        ({"n_components": 0}, ValueError, "n_components"),
        ({"n_components": 2.5}, TypeError, "n_components"),
        ({"n_components": 300, "sketch": "uniform"}, ValueError, r"n_components must be .*\[1, 150\]; got 300"),
        ({"n_components": 300, "sketch": "srht"}, ValueError, r"n_components must be .*\[1, 256\]; got 300"),
        ({"n_components": 300, "sketch": "rows"}, ValueError, "number of rows"),
        ({"alphas": []}, ValueError, "alphas"),
        ({"alphas": [1.0, np.nan]}, ValueError, "alphas"),
        ({"alphas": "many"}, ValueError, "alphas must be finite numbers"),
        ({"alphas": [[1.0], [2.0, 3.0]]}, ValueError, "alphas must be finite numbers"),
        ({"alphas": [-1.0], "sketch": None}, ValueError, "alpha must be >= 0"),
        ({"alphas": [-1e9]}, ValueError, "alpha must be >"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"nnz": 0}, ValueError, "nnz"),
        ({"alpha_per_target": True, "cv": 3}, ValueError, "cv=None"),
        ({"random_state": "0"}, TypeError, "random_state"),
    ],
)
def test_refused_parameters(arguments, error, message, rng):
    X, y = data(rng)
    with pytest.raises(error, match=message):
        SketchedRidgeCV(**{"n_components": 60, **arguments}).fit(X, y)


@pytest.mark.parametrize("cls", [SketchedRidge, SketchedRidgeCV, SketchedRidgeClassifierCV])
def test_refused_data(cls, rng):
    X, y = data(rng)
    y = (y > 0).astype(float)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        cls().fit(X, y[:-1])
    with pytest.raises(ValueError, match="y contains NaN"):
        cls().fit(X, np.where(np.arange(200) == 3, np.nan, y))
    for weights, message in (
        (np.full(200, -1.0), "must not be negative"), (np.zeros(200), "positive for at least 2 rows"),
        (np.full(200, 1e307), "sample_weight is too large"),
        (np.ones(199), r"sample_weight must have shape \(200,\)"), (np.full(200, np.nan), "sample_weight contains NaN"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            cls().fit(X, y, weights)


def test_a_number_of_columns_that_saves_nothing_is_told_once(rng):
    X, y = data(rng)
    with pytest.warns(UserWarning, match="n_components=160 is not below n_features=150") as told:
        SketchedRidge(n_components=160, random_state=0).fit(X, y)
    assert len(told) == 1


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e-100, 1e100])
def test_the_choice_does_not_depend_on_the_units_of_the_response(size, rng):
    """Squares of 1e-170 are no numbers; risks then are zero, and the choice is the same."""
    X, y = data(rng)
    options = {"n_components": 60, "random_state": 0}
    plain, scaled = (SketchedRidgeCV(**options).fit(X, y * s) for s in (1.0, size))
    assert scaled.alpha_ == pytest.approx(plain.alpha_, rel=1e-12)
    np.testing.assert_allclose(scaled.coef_ / size, plain.coef_, rtol=0, atol=1e-9 * np.abs(plain.coef_).max())


def test_what_is_no_number_is_refused(rng):
    X, y = data(rng)
    for alphas in (None, [0.0, 1.0]):
        with pytest.raises(ValueError, match="X is too large for its squares"):
            SketchedRidgeCV(alphas, n_components=60, random_state=0).fit(X * 1e200, y)
    with pytest.raises(ValueError, match="coefficients are too large for float64: rescale"):
        SketchedRidge(alpha=0.0, sketch=None).fit(X * 1e-200, y * 1e140)
    with pytest.raises(ValueError, match="coefficients are too large for float32: rescale"):
        SketchedRidge(alpha=0.0, sketch=None).fit((X * 1e-30).astype(np.float32), y * 1e20)


def test_a_number_weighs_every_row(rng):
    X, y = data(rng)
    wanted = SketchedRidge(10.0, sketch=None).fit(X, y, np.full(200, 3.0)).coef_
    for w in (3, 3.0, np.float32(3.0), np.array(3.0)):
        np.testing.assert_array_equal(SketchedRidge(10.0, sketch=None).fit(X, y, w).coef_, wanted)


def test_one_member_does_not_tell_the_risk_of_more(rng):
    X, y = data(rng)
    model = SketchedRidge(n_components=30, n_estimators=1, random_state=0).fit(X, y)
    assert model.risk(1) == model.risk_single_
    with pytest.raises(ValueError, match="n_estimators >= 2"):
        model.risk()


def test_dtype_converts(rng):
    X, y = data(rng)
    assert SketchedRidge(dtype=np.float32, n_components=30).fit(X, y).coef_.dtype == np.float32
    assert (
        SketchedRidge(dtype=np.float64, n_components=30).fit(sp.csr_array(X, dtype=np.float32), y).coef_.dtype == float
    )
    with pytest.raises(ValueError, match="dtype must be None, float32 or float64"):
        SketchedRidge(dtype=np.int32).fit(X, y)
