"""`CompletionPathDisplay`: what is drawn is the path of the estimator."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from lrla.completion import MatrixCompletion
from lrla.datasets import make_ratings
from lrla.plotting import CompletionPathDisplay

matplotlib = pytest.importorskip("matplotlib", reason="figures need matplotlib, the extra plot")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    return MatrixCompletion(random_state=0).fit(make_ratings(150, 120, 4500, random_state=0).X)


LEVELS = {
    "reg": [9.0, 6.0, 4.0, 5.0, 3.0, 3.0],
    "n_components": [1, 3, 6, 2, 2, 2],
    "train_rmse": [0.9, 0.8, 0.7, 0.85, 0.8, 0.82],
    "validation_rmse": [1.0, 0.9, 0.95, 0.89, 0.88, np.nan],
}


def made(**changes):
    return CompletionPathDisplay(**{**LEVELS, "reg_chosen": 3.0, **changes})


def test_lines_are_the_path(model):
    display = CompletionPathDisplay.from_estimator(model)
    first = int(np.flatnonzero(np.diff(model.path_["reg"]) >= 0)[0]) + 1
    for line, name in zip(display.lines_, ("train_rmse", "validation_rmse"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), model.path_["reg"][:first])
        np.testing.assert_array_equal(line.get_ydata(), model.path_[name][:first])
    np.testing.assert_array_equal(display.rank_line_.get_ydata(), model.path_["n_components"][:first])
    last = np.isclose(model.path_["reg"], model.reg_)  # estimated on all entries: there is no held-out error
    assert display.chosen_.get_ydata()[0] in model.path_["train_rmse"][last]
    assert display.ax_.get_title() == "MatrixCompletion"
    display.figure_.canvas.draw()


def test_runs_are_told_apart():
    display = made().plot()
    assert [list(line.get_xdata()) for line in display.lines_] == [[9.0, 6.0, 4.0]] * 2
    found = [list(line.get_xdata()) for line in display.trial_lines_]
    assert found == [[5.0, 3.0], [5.0, 3.0], [3.0]]  # of the last one only the fitted entries have an error


def test_a_smaller_rank_begins_a_run_too():
    display = made(reg=[9.0, 6.0, 5.0, 4.0, 3.0, 2.0], n_components=[1, 6, 5, 2, 2, 2]).plot()
    assert list(display.lines_[0].get_xdata()) == [9.0, 6.0, 5.0]  # a column may be dropped on the way


def test_the_dot_is_the_smallest_held_out_error_at_the_penalty_chosen():
    display = made().plot()
    assert (display.chosen_.get_xdata()[0], display.chosen_.get_ydata()[0]) == (3.0, 0.88)
    assert display.chosen_.get_label() == "chosen: 3, rank 2"
    assert made(validation_rmse=[np.nan] * 6).plot().chosen_.get_ydata()[0] == 0.8
    both = made(reg=[9.0, 6.0, 3.0, 5.0, 3.0, 2.0], n_components=[1, 3, 6, 2, 2, 2])
    assert both.plot().chosen_.get_ydata()[0] == 0.88
    both.n_components_chosen = 7
    assert both.plot().chosen_.get_ydata()[0] == 0.95
    assert made(reg_chosen=None).plot().chosen_ is None
    assert made(reg_chosen=7.5).plot().chosen_.get_xdata()[0] == 7.5  # a line: no level is there


def test_the_penalty_falls_from_left_to_right():
    display = made().plot()
    left, right = display.ax_.get_xlim()
    assert left > 9.0 > 3.0 > right
    assert display.ax_.get_xscale() == "log"
    display.figure_.canvas.draw()


def test_penalty_zero_is_left_out():
    display = made(reg=[9.0, 6.0, 4.0, 5.0, 3.0, 0.0]).plot()
    assert all(np.all(line.get_xdata() > 0) for line in (*display.lines_, *display.trial_lines_))
    with pytest.raises(ValueError, match="nothing to draw"):
        made(reg=np.zeros(6)).plot()


def test_from_path_with_further_fields():
    path = np.zeros(
        3, [("reg", "f8"), ("n_components", "i8"), ("train_rmse", "f8"), ("validation_rmse", "f8"), ("seconds", "f8")]
    )
    path["reg"] = [3.0, 2.0, 1.0]
    display = CompletionPathDisplay.from_path(path, reg_chosen=2.0, name="mine")
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [3.0, 2.0, 1.0])
    assert display.ax_.get_title() == "mine"
    with pytest.raises(TypeError, match="path must be a structured array with the fields reg, n_components"):
        CompletionPathDisplay.from_path(np.zeros(3))


def test_it_draws_where_it_is_told_and_passes_on_the_style():
    figure, axes = plt.subplots(1, 2)
    display = made().plot(ax=axes[1], name="here", line_kw={"linewidth": 5.0})
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert not axes[0].lines
    assert all(line.get_linewidth() == 5.0 for line in display.lines_)
    assert axes[1].get_title() == "here"
    labels = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert labels == ["fitted entries", "held-out entries", "other ranks, last fit", "rank", "chosen: 3, rank 2"]


def test_what_has_no_path_is_refused():
    with pytest.raises(NotFittedError):
        CompletionPathDisplay.from_estimator(MatrixCompletion())
    with pytest.raises(TypeError, match="Ridge has no path_"):
        CompletionPathDisplay.from_estimator(Ridge().fit(np.eye(3), np.arange(3.0)))
    with pytest.raises(TypeError, match="must be a fitted MatrixCompletion"):
        CompletionPathDisplay.from_estimator(3)
    with pytest.raises(ValueError, match="must have the same shape"):
        made(train_rmse=[1.0]).plot()


def test_matplotlib_is_loaded_by_the_first_figure_only():
    code = "import sys, lrla.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
