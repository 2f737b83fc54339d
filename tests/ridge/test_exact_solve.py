"""The exact solution: what scikit-learn's Ridge gives, by every way and for every storage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from lrla.ridge import SketchedRidgeCV
from lrla.ridge._ensemble import Problem
from lrla.ridge._exact_solve import conjugate_gradients, exact_ridge, sketch_preconditioner
from lrla.sketch import make_sketch

STORAGE = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_array, "csc": sp.csc_array}


def power_law(n, p, rng, exponent=0.7):
    X = rng.standard_normal((n, p)) * np.arange(1, p + 1) ** -exponent
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    return X + 0.3, y


def solve(problem, mu, method, tol=1e-10, max_iter=300, q=60, K=2):
    ops = [make_sketch(problem.shape[1], q, random_state=0, member=k) for k in range(K)]
    return exact_ridge(
        problem.design(problem.X), problem.response()[0], mu, top=1.0, degrees=20.0, floor=0.1,
        sketches=lambda J: [problem.design(op.right(problem.X)) for op in ops[:J]], size=K, width=q, tol=tol,
        max_iter=max_iter, method=method,
    )  # fmt: skip


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE.keys())
@pytest.mark.parametrize("method", ["direct", "cg", "sketched cg"])
@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_way_gives_the_solution_of_ridge(storage, method, shape, weighted, rng):
    X, y = power_law(*shape, rng)
    w = rng.uniform(0.2, 2.0, len(y)) if weighted else None
    problem = Problem.of(storage(X), y[:, None], w, True)
    mu = 0.05
    found = solve(problem, np.array([mu]), method)
    wanted = Ridge(alpha=mu * problem.total, solver="svd").fit(X, y, w).coef_
    assert found.converged
    assert found.method == method
    np.testing.assert_allclose(found.beta[:, 0], wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_targets_have_penalties_of_their_own(rng):
    X, _ = power_law(150, 100, rng)
    Y = X @ rng.standard_normal((100, 3)) + rng.standard_normal((150, 3))
    mu = np.array([0.01, 0.1, 3.0])
    wanted = Ridge(alpha=mu * 150, solver="svd").fit(X, Y).coef_
    for method in ("direct", "cg", "sketched cg"):
        found = solve(Problem.of(X, Y, None, True), mu, method)
        np.testing.assert_allclose(found.beta.T, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_the_sketch_saves_iterations(rng):
    """Power-law spectrum, penalty just above what the sketches imply at zero: the conditioning is about 5 then."""
    X, y = power_law(600, 800, rng)
    problem = Problem.of(X, y[:, None], None, True)
    mu = np.array([0.01])
    plain, helped = (solve(problem, mu, method, tol=1e-8, q=200, K=4).n_iter for method in ("cg", "sketched cg"))
    assert helped < 0.6 * plain


def test_the_preconditioner_is_symmetric_and_positive(rng):
    X, y = power_law(50, 60, rng)
    problem = Problem.of(X, y[:, None], None, True)
    ops = [make_sketch(60, 10, random_state=0, member=k) for k in range(3)]
    apply = sketch_preconditioner([problem.design(op.right(X)) for op in ops], np.array([0.2]))
    P = np.hstack([apply(unit[:, None]) for unit in np.eye(50)])
    Zs = [problem.design(op.right(X)).dense() for op in ops]
    wanted = np.linalg.inv(sum(Z @ Z.T for Z in Zs) / 3 / 50 + 0.2 * np.eye(50))
    np.testing.assert_allclose(P, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def test_a_target_that_is_constant_needs_no_iteration(rng):
    X, y = power_law(50, 60, rng)
    problem = Problem.of(X, np.column_stack([y, np.ones(50)]), None, True)
    a, _, residual = conjugate_gradients(
        problem.design(X), problem.response()[0], np.array([0.1, 0.1]), None, 1e-9, 200
    )
    assert np.all(np.isfinite(a))
    assert np.all(residual <= 1e-9)


# ---------------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE.keys())
@pytest.mark.parametrize("method", ["direct", "cg", "sketched cg"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore::lrla.exceptions.SketchBoundaryWarning")
def test_ridge_at_alpha_reproduces_the_model(storage, method, weighted, rng, monkeypatch):
    X, y = power_law(250, 300, rng)
    X[np.abs(X) < 0.2] = 0.0
    w = rng.uniform(0.2, 2.0, 250) if weighted else None
    monkeypatch.setattr(SketchedRidgeCV, "_solver", lambda self: method)
    model = SketchedRidgeCV(np.logspace(0, 4, 10), n_components=60, random_state=0).fit(storage(X), y, w)
    wanted = Ridge(alpha=model.alpha_, solver="svd").fit(X, y, w)
    np.testing.assert_allclose(model.coef_, wanted.coef_, rtol=0, atol=1e-5 * np.abs(wanted.coef_).max())
    assert model.intercept_ == pytest.approx(wanted.intercept_, abs=1e-5 * np.abs(y).max())
    assert model.alpha_ > model.alpha_sketch_


def test_a_solution_that_is_not_reached_is_returned_with_a_warning(rng, monkeypatch):
    X, y = power_law(250, 300, rng)
    monkeypatch.setattr(SketchedRidgeCV, "_solver", lambda self: "cg")
    model = SketchedRidgeCV([10.0], n_components=60, random_state=0, max_iter=2, tol=1e-9)
    monkeypatch.setattr(SketchedRidgeCV, "_warn_at_boundary", lambda self: None)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 .* increase max_iter"):
        model.fit(X, y)
    assert model.n_iter_ == 2
    assert np.all(np.isfinite(model.coef_))
