"""`RiskDisplay`: what is drawn is what the estimator knows, in scikit-learn's manner."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from lrla.plotting import RiskDisplay
from lrla.ridge import SketchedRidgeClassifierCV, SketchedRidgeCV

matplotlib = pytest.importorskip("matplotlib", reason="figures need matplotlib, the extra plot")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def data(rng):
    X = rng.standard_normal((80, 60))
    return X, X @ rng.standard_normal(60) / 8.0 + rng.standard_normal(80)


@pytest.fixture
def model(data):
    alphas = np.logspace(-1, 3, 12)
    return SketchedRidgeCV(alphas, n_components=25, refit="ensemble", random_state=0).fit(*data)


def made(**changes):
    alphas = np.array([0.1, 1.0, 10.0])
    curves = dict.fromkeys(("risk_ensemble", "risk_single", "risk_ridge"), alphas + 1.0)
    return RiskDisplay(**{"alphas": alphas, **curves, "risk_se": 0.1 * alphas, "alpha_chosen": 1.0, **changes})


def test_lines_are_the_fitted_curves(model):
    display = RiskDisplay.from_estimator(model)
    assert display.ax_.figure is display.figure_
    for line, name in zip(display.lines_, ("risk_ensemble_", "risk_single_", "risk_ridge_"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), model.alphas_)
        np.testing.assert_array_equal(line.get_ydata(), getattr(model, name))


def test_the_dot_is_at_the_penalty_chosen_on_the_curve_of_the_ensemble(model):
    display = RiskDisplay.from_estimator(model)
    chosen = int(np.flatnonzero(model.alphas_ == model.alpha_sketch_)[0])
    assert display.chosen_.get_xdata()[0] == model.alpha_sketch_
    assert display.chosen_.get_ydata()[0] == model.risk_ensemble_[chosen]


def test_the_band_is_one_standard_error_wide(model):
    display = RiskDisplay.from_estimator(model)
    corners = display.fill_between_.get_paths()[0].vertices
    for alpha, risk, se in zip(model.alphas_, model.risk_ensemble_, model.risk_se_, strict=True):
        at = corners[np.isclose(corners[:, 0], alpha), 1]
        assert at.min() == pytest.approx(risk - se)
        assert at.max() == pytest.approx(risk + se)


def test_text_says_what_is_seen(model):
    display = RiskDisplay.from_estimator(model)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[:4] == ["ensemble", "single member", "ridge without sketch", "± 1 standard error"]
    assert labels[4].startswith("chosen: ")
    assert display.ax_.get_title() == "SketchedRidgeCV"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Penalty alpha", "Estimated risk")
    assert RiskDisplay.from_estimator(model, name="mine").ax_.get_title() == "mine"


@pytest.mark.parametrize(
    ("alphas", "scale"), [([0.1, 1, 10], "log"), ([0, 1, 10], "symlog"), ([-2, 0.5, 10], "symlog")]
)
def test_the_axis_of_penalties(alphas, scale):
    display = made(alphas=alphas).plot()
    assert display.ax_.get_xscale() == scale
    low, high = display.ax_.get_xlim()
    assert low < min(alphas) < max(alphas) < high


@pytest.mark.parametrize(("largest", "scale"), [(2.0, "linear"), (1e4, "log")])
def test_a_risk_that_blows_up_gets_a_logarithmic_axis(largest, scale):
    assert made(risk_single=np.array([largest, 2.0, 3.0])).plot().ax_.get_yscale() == scale


def test_values_that_are_not_finite_leave_a_gap():
    display = made(risk_ridge=np.array([np.inf, 2.0, 3.0])).plot()
    assert np.isnan(display.lines_[2].get_ydata()[0])
    assert np.all(np.isfinite(display.ax_.get_ylim()))
    display.figure_.canvas.draw()


def test_penalties_in_any_order_and_no_choice():
    display = made(alphas=[10.0, 0.1, 1.0], risk_ensemble=[3.0, 1.0, 2.0], alpha_chosen=None).plot()
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [0.1, 1.0, 10.0])
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [1.0, 2.0, 3.0])
    assert display.chosen_ is None


def test_it_draws_where_it_is_told_and_passes_on_the_style():
    figure, axes = plt.subplots(1, 2)
    display = made().plot(ax=axes[1], name="here", line_kw={"linewidth": 5.0})
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert not axes[0].lines
    assert all(line.get_linewidth() == 5.0 for line in display.lines_)


def test_default_penalties_and_negative_ones_of_a_real_fit(data):
    model = SketchedRidgeCV(n_components=20, allow_negative=True, refit="ensemble", random_state=0).fit(*data)
    display = RiskDisplay.from_estimator(model)
    assert model.alphas_.min() < 0.0
    assert display.ax_.get_xscale() == "symlog"
    display.figure_.canvas.draw()


def test_several_targets(data, rng):
    X, y = data
    Y = np.stack((y, rng.standard_normal(len(y))), axis=1)
    alphas = np.logspace(-1, 3, 9)
    common = SketchedRidgeCV(alphas, n_components=25, refit="ensemble", random_state=0).fit(X, Y)
    own = SketchedRidgeCV(alphas, n_components=25, refit="ensemble", alpha_per_target=True, random_state=0).fit(X, Y)
    mean = RiskDisplay.from_estimator(common)
    np.testing.assert_allclose(mean.lines_[0].get_ydata(), common.risk_ensemble_.mean(axis=1))
    second = RiskDisplay.from_estimator(own, target=1)
    np.testing.assert_array_equal(second.lines_[0].get_ydata(), own.risk_ensemble_[:, 1])
    assert second.chosen_.get_xdata()[0] == own.alpha_sketch_[1]
    with pytest.raises(ValueError, match="target must be in"):
        RiskDisplay.from_estimator(common, target=2)
    if own.alpha_sketch_[0] != own.alpha_sketch_[1]:
        with pytest.raises(ValueError, match="say which target"):
            RiskDisplay.from_estimator(own)


def test_a_classifier_has_a_risk_too(data):
    X, y = data
    model = SketchedRidgeClassifierCV(np.logspace(-1, 3, 9), n_components=25, random_state=0).fit(X, y > 0)
    assert len(RiskDisplay.from_estimator(model).lines_) == 3


def test_what_is_no_fitted_estimator_with_a_risk_is_refused(data):
    with pytest.raises(NotFittedError):
        RiskDisplay.from_estimator(SketchedRidgeCV())
    with pytest.raises(TypeError, match="Ridge has no risk_ensemble_"):
        RiskDisplay.from_estimator(Ridge().fit(*data))
    with pytest.raises(TypeError, match="must be a fitted SketchedRidgeCV"):
        RiskDisplay.from_estimator(3)


@pytest.mark.parametrize("name", ["risk_ensemble", "risk_single", "risk_ridge", "risk_se"])
def test_curves_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match=f"alphas and {name} must have the same shape"):
        made(**{name: np.ones(4)}).plot()


def test_matplotlib_is_loaded_by_the_first_figure_only():
    code = "import sys, lrla.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
