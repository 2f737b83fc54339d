"""The exact solution: what scikit-learn's Ridge gives, by every way and for every storage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from lrla.ridge import SketchedRidgeCV
from lrla.ridge._cost import Shape
from lrla.ridge._ensemble import Ensemble, Problem
from lrla.ridge._exact_solve import Spectrum, _choose, conjugate_gradients, exact_ridge, sketch_preconditioner
from lrla.sketch import make_sketch

STORAGE = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_array, "csc": sp.csc_array}


def power_law(n, p, rng, exponent=0.7):
    X = rng.standard_normal((n, p)) * np.arange(1, p + 1) ** -exponent
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    return X + 0.3, y


def solve(problem, mu, method, tol=1e-10, max_iter=300, q=60, K=2):
    ensemble = members(problem, q, K)
    return exact_ridge(
        problem.design(), problem.response()[0], mu, known=Spectrum(1.0, 20.0, 0.1, K, q),
        bases=lambda J: [ensemble.basis(k) for k in range(J)], tol=tol, max_iter=max_iter, method=method,
    )  # fmt: skip


def members(problem, q, K):
    return Ensemble(problem, [make_sketch(problem.shape[1], q, random_state=0, member=k) for k in range(K)])


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
    left = problem.response()[0] - problem.design().forward(found.beta)
    np.testing.assert_allclose(found.left, left, rtol=0, atol=1e-8 * np.abs(y).max())


def test_targets_have_penalties_of_their_own(rng):
    X, _ = power_law(150, 100, rng)
    Y = X @ rng.standard_normal((100, 3)) + rng.standard_normal((150, 3))
    mu = np.array([0.01, 0.1, 3.0])
    wanted = Ridge(alpha=mu * 150, solver="svd").fit(X, Y).coef_
    for method in ("direct", "cg", "sketched cg"):
        found = solve(Problem.of(X, Y, None, True), mu, method)
        np.testing.assert_allclose(found.beta.T, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_every_sketch_saves_iterations(rng):
    """Power-law spectrum, penalty just above what the sketches imply at zero: the conditioning is about 5 then."""
    X, y = power_law(600, 800, rng)
    problem = Problem.of(X, y[:, None], None, True)
    mu = np.array([0.01])
    plain = solve(problem, mu, "cg", tol=1e-8).n_iter
    one, four = (solve(problem, mu, "sketched cg", tol=1e-8, q=200, K=K).n_iter for K in (1, 4))
    assert one < 0.6 * plain
    assert four < 0.8 * one


@pytest.mark.parametrize("q", [10, 70])  # by the features, and by the kernel
@pytest.mark.parametrize("weighted", [False, True])
def test_the_preconditioner_is_the_mean_of_inverses(q, weighted, rng):
    X, y = power_law(50, 90, rng)
    problem = Problem.of(X, y[:, None], rng.uniform(0.2, 2.0, 50) if weighted else None, True)
    mu, ensemble = 0.2, members(problem, q, 3)
    apply = sketch_preconditioner([ensemble.basis(k) for k in range(3)], np.array([mu, 2 * mu]))
    P = np.stack([apply(np.column_stack([unit, 1e-50 * unit])) for unit in np.eye(50)], axis=1)
    Zs = [ensemble.design(k).dense() for k in range(3)]
    for target, (shift, unit) in enumerate(((mu, 1.0), (2 * mu, 1e-50))):
        wanted = sum(np.linalg.inv(Z @ Z.T / problem.total + shift * np.eye(50)) for Z in Zs) / 3
        np.testing.assert_allclose(P[:, :, target] / unit, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_left_vectors_are_as_exact_as_the_preconditioner_needs(decay, rng):
    """In float32, but for spectra of more than five decades above the floor."""
    X = rng.standard_normal((80, 100)) * np.arange(1, 101) ** -decay
    ensemble = members(Problem.of(X, rng.standard_normal((80, 1)), None, True), 30, 1)
    U, e = ensemble.basis(0)
    assert U.dtype == (np.float64 if decay else np.float32)
    Z = ensemble.design(0).dense()
    np.testing.assert_allclose((U * e) @ U.T, Z @ Z.T / 80, rtol=0, atol=1e-6 * e[-1])


def test_members_sketched_together_are_the_members(rng, monkeypatch):
    """The sketches of all members in one sweep or one by one, left vectors from the sweep or by themselves: equal bits."""
    X, y = power_law(120, 150, rng)
    problem = Problem.of(X, y[:, None], None, True)
    lambdas = np.array([0.0, 0.1])
    found = []
    for together in (True, False):
        monkeypatch.setattr(Ensemble, "together", together)
        ensemble = members(problem, 40, 3)
        ensemble.kept = 2
        swept = ensemble.sweep(lambdas, slice(None), "loo")
        assert sorted(ensemble.bases) == [0, 1]
        fresh = members(problem, 40, 3)
        np.testing.assert_array_equal(ensemble.basis(1)[0], fresh.basis(1)[0])
        found.append(swept)
        assert not ensemble.made  # every sketch was used, and is gone
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found[0].members, found[1].members, rtol=1e-12)


@pytest.mark.parametrize(("shape", "mu", "members", "wanted"), [
    ((500, 300), 0.01, 4, "direct"), ((5000, 20000), 0.004, 4, "sketched cg"), ((5000, 20000), 0.004, 0, "cg"),
    ((3500, 200_000), 0.004, 4, "sketched cg"), ((200_000, 500), 1e-8, 4, "direct"),
    ((3500, 200_000), 1e-12, 4, "direct"), ((200_000, 20_000), 0.004, 4, "sketched cg"),
], ids=str)  # fmt: skip
def test_the_way_that_costs_least_is_taken(shape, mu, members, wanted):
    known = Spectrum(top=1.0, degrees=min(shape) / 5, floor=0.004, members=members, rank=min(shape) // 5)
    size = Shape(*shape, shape[0] * shape[1], False, 1, 1, members)
    assert _choose(size, mu, known, 1e-6) == wanted


@pytest.mark.parametrize("shape", [(200, 500), (500, 200)])
@pytest.mark.parametrize(("decay", "method"), [
    *((decay, method) for decay in ("polynomial", "exponential", "outlier") for method in ("auto", "sketched cg")),
    ("low rank", "auto"),  # the best penalty is zero, for which "auto" does not iterate
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::lrla.exceptions.SketchBoundaryWarning")
def test_hard_spectra_are_solved(shape, method, decay, rng, monkeypatch):
    """Eight decades between the largest eigenvalue and the penalty, and data without full rank."""
    n, p = shape
    scale = {"polynomial": np.arange(1, p + 1.0) ** -2, "exponential": np.exp(-np.arange(p) / 15.0)}
    X = rng.standard_normal(shape) * scale.get(decay, np.r_[1e4 if decay == "outlier" else 1.0, np.ones(p - 1)])
    if decay == "low rank":
        X = rng.standard_normal((n, 40)) @ rng.standard_normal((40, p))
    y = X @ rng.standard_normal(p)
    y += 1e-3 * y.std() * rng.standard_normal(n)
    monkeypatch.setattr(SketchedRidgeCV, "_solver", lambda self: method)
    model = SketchedRidgeCV(n_components=100, random_state=0).fit(X, y)
    if decay == "low rank":
        assert model.mu_.min() == 0.0
        wanted = np.linalg.pinv(X - X.mean(axis=0), rcond=1e-10) @ (y - y.mean())
    else:
        wanted = Ridge(alpha=model.alpha_, solver="svd").fit(X, y).coef_
    np.testing.assert_allclose(model.coef_, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_target_that_is_constant_needs_no_iteration(rng):
    X, y = power_law(50, 60, rng)
    problem = Problem.of(X, np.column_stack([y, np.ones(50)]), None, True)
    found = conjugate_gradients(problem.design(), problem.response()[0], np.array([0.1, 0.1]), None, 1e-9, 200)
    assert np.all(np.isfinite(found.beta))
    assert np.all(found.residual <= 1e-9)


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
    monkeypatch.setattr(SketchedRidgeCV, "_warn_at_boundary", lambda self, size, shape: None)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 .* increase max_iter"):
        model.fit(X, y)
    assert model.n_iter_ == 2
    assert np.all(np.isfinite(model.coef_))
