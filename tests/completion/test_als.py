"""`complete_als`: the optimum, its certificate, and what must not change it."""

import tracemalloc

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lrla import _threads
from lrla._progress import Progress
from lrla.completion import _path
from lrla.completion._als import Settings, complete, complete_als, fold_in
from lrla.completion._half_sweep import Solver
from lrla.completion._observed import Observed
from lrla.completion._path import Penalty, Problem


def low_rank(rng, m, n, k, share, noise=0.3):
    """A noisy low-rank matrix with NaN where it is not observed."""
    X = rng.standard_normal((m, k)) @ rng.standard_normal((k, n)) + noise * rng.standard_normal((m, n))
    X[rng.random((m, n)) > share] = np.nan
    return X


def observed_of(X, weights=None):
    rows, columns = np.nonzero(~np.isnan(X))
    return Observed.from_triplets(rows, columns, X[rows, columns], X.shape, weights)


def prediction(fitted):
    return fitted.mean + fitted.row_bias[:, None] + fitted.column_bias + fitted.U @ fitted.V.T


def proximal(X, reg, steps=600):
    """The nuclear-norm problem by dense proximal steps: the objective there."""
    seen, Z = ~np.isnan(X), np.zeros(X.shape)
    for _ in range(steps):
        P, s, Qt = np.linalg.svd(np.where(seen, X, Z), full_matrices=False)
        s = np.maximum(s - reg, 0)
        Z = P * s @ Qt
    return np.square((X - Z)[seen]).sum() + 2 * reg * s.sum(), Z


# ---------------------------------------------------------------------------------------------------- the optimum


@pytest.mark.parametrize("below", [0.99, 0.999, 0.9995])
def test_a_penalty_little_below_that_of_a_column_ends(rng, below):
    """The column's size would take thousands of sweeps to come to rest: they are foretold."""
    X = low_rank(rng, 80, 60, 3, 0.5)
    observed = observed_of(X)
    largest = float(np.linalg.svd(np.nan_to_num(X), compute_uv=False)[0])
    settings = Settings(fit_bias=False, center=False, tol=1e-13, max_iter=100)
    fitted = complete(observed, 5, below * largest, settings)
    assert fitted.converged
    assert fitted.U.shape[1] == 1
    assert abs(fitted.optimality - 1) <= 1e-5


def test_fully_observed_it_is_the_soft_thresholded_svd(rng):
    X = low_rank(rng, 40, 30, 4, 1.1)
    P, s, Qt = np.linalg.svd(X, full_matrices=False)
    U, found, Vt, info = complete_als(X, 30, 2.0, tol=1e-12, max_iter=500, random_state=0)
    expected = P * np.maximum(s - 2.0, 0) @ Qt
    # the objective to 1e-12 of itself is the matrix to the root of that
    assert np.linalg.norm(U * found @ Vt - expected) <= 1e-6 * np.linalg.norm(expected)
    assert abs(info.objective - np.square(X - expected).sum() - 4 * np.maximum(s - 2, 0).sum()) <= 1e-7 * info.objective
    np.testing.assert_allclose(U.T @ U, np.eye(len(found)), atol=1e-10)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(len(found)), atol=1e-10)


def test_above_the_largest_singular_value_there_is_no_column_and_below_one(rng):
    X = low_rank(rng, 40, 30, 1, 0.5)
    top = np.linalg.norm(np.nan_to_num(X), 2)
    _, s, _, info = complete_als(X, 5, 1.001 * top, random_state=0)
    assert s.shape == (0,)
    assert info.optimality <= 1
    _, s, _, _ = complete_als(X, 5, 0.98 * top, random_state=0)
    assert s.shape == (1,)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_objective_and_the_certificate_are_those_of_the_convex_problem(rng, share):
    X = low_rank(rng, 60, 40, 3, 0.5)
    reg = share * np.linalg.norm(np.nan_to_num(X), 2)
    objective, _ = proximal(X, reg)
    U, s, Vt, info = complete_als(X, 40, reg, tol=1e-9, max_iter=1000, random_state=0)
    assert abs(info.objective - objective) <= 1e-6 * objective
    assert info.converged
    assert info.optimality <= 1.001
    residual = np.nan_to_num(X - U * s @ Vt)
    assert info.optimality == pytest.approx(np.linalg.norm(residual, 2) / reg, rel=2e-3)


def test_the_certificate_fails_when_stopped_early(rng):
    X = low_rank(rng, 60, 40, 3, 0.5)
    reg = 0.05 * np.linalg.norm(np.nan_to_num(X), 2)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        _, _, _, info = complete_als(X, 40, reg, max_iter=1, path_ratio=1e6, random_state=0)
    assert not info.converged
    assert info.optimality > 1.01
    _, _, _, narrow = complete_als(X, 1, reg, random_state=0)  # not enough columns for the optimum
    assert narrow.optimality > 1.01


@pytest.mark.parametrize("offsets", [False, True])
def test_the_objective_never_rises(rng, offsets):
    observed = observed_of(low_rank(rng, 50, 40, 3, 0.4))
    problem = Problem(observed, 0.0, Solver(0.1, 1), 0)
    factors = problem.start(offsets)
    penalty = Penalty(0.5, (2.0, 3.0))
    problem.grow(factors, penalty, 8)
    before = np.inf
    for _ in range(25):
        _, after = problem.sweep(factors, penalty)
        assert after <= before * (1 + 1e-12)
        before = after


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_half_sweep_and_no_balancing_raises_the_objective(rng, alpha, weighted):
    """By its definition, with offsets: each step alone."""
    X = low_rank(rng, 50, 40, 3, 0.4) + 2
    observed = observed_of(X, rng.random((~np.isnan(X)).sum()) + 0.2 if weighted else None)
    problem, penalty = Problem(observed, alpha, Solver(0.1, 1), 0), Penalty(0.5, (2.0, 3.0))
    rows, w = observed.row_of_entry(), np.ones(observed.nnz) if observed.weights is None else observed.weights
    target = (observed.values - problem.mean) / problem.scale

    def objective(factors):
        predicted = np.einsum("pk,pk->p", factors.U[rows], factors.V[observed.indices])
        sides = (factors.U, problem.row_weights, 0), (factors.V, problem.column_weights, 1)
        ridge = sum(
            weights
            @ (0.5 * np.square(X[:, factors.columns]).sum(axis=1) + penalty.bias[place] * np.square(X[:, place]))
            for X, weights, place in sides
        )
        return w @ np.square(target - predicted) + ridge

    factors = problem.start(True)
    problem.grow(factors, penalty, 8)
    before = objective(factors)
    for _ in range(20):
        for step in (
            lambda: problem.balance(factors),
            lambda: problem.half_sweep(factors, penalty, False),
            lambda: problem.balance(factors),
            lambda: problem.half_sweep(factors.T, penalty, True),
        ):
            step()
            after = objective(factors)
            assert after <= before * (1 + 1e-12)
            before = after


def test_the_objective_that_is_told_is_that_of_the_result(rng):
    X = low_rank(rng, 50, 40, 3, 0.4) + 2
    fitted = complete(observed_of(X), 8, 3.0, Settings(reg_bias=2.5))
    errors = np.nan_to_num(X - prediction(fitted))
    penalties = 3.0 * (np.square(fitted.U).sum() + np.square(fitted.V).sum())
    penalties += 2.5 * (np.square(fitted.row_bias).sum() + np.square(fitted.column_bias).sum())
    assert fitted.objective == pytest.approx(np.square(errors).sum() + penalties, rel=1e-6)


def test_offsets_are_found_and_certified_with_the_factors(rng):
    b, c = rng.standard_normal(60), rng.standard_normal(40)
    X = low_rank(rng, 60, 40, 2, 0.6, noise=0.1) + 3 + b[:, None] + c
    fitted = complete(observed_of(X), 40, 1.0, Settings(tol=1e-9, max_iter=1000))
    assert fitted.optimality <= 1.001
    seen = ~np.isnan(X)
    assert np.sqrt(np.mean((prediction(fitted) - X)[seen] ** 2)) < 0.15
    gradient = (np.where(seen, X - prediction(fitted), 0)).sum(axis=1) - fitted.reg_bias[0] * fitted.row_bias
    assert np.abs(gradient).max() <= 1e-2 * np.abs(fitted.row_bias).max() * fitted.reg_bias[0] + 1e-3


# ---------------------------------------------------------------------------------------------------- invariances


def tight(X, reg=3.0, weights=None, **options):
    settings = Settings(**{"tol": 1e-11, "max_iter": 1000, "reg_bias": 2.0, **options})
    return complete(observed_of(X, weights), min(X.shape), reg, settings)


@pytest.fixture
def table(rng):
    return low_rank(rng, 50, 40, 3, 0.4) + 1 + rng.standard_normal(50)[:, None]


def test_the_order_of_rows_and_columns_makes_no_difference(table, rng):
    rows, columns = rng.permutation(50), rng.permutation(40)
    one, other = prediction(tight(table)), prediction(tight(table[np.ix_(rows, columns)]))
    assert np.abs(one[np.ix_(rows, columns)] - other).max() <= 1e-3 * np.abs(one).max()


def test_the_transpose_exchanges_the_sides(table):
    one, other = tight(table), tight(table.T)
    assert np.abs(prediction(one).T - prediction(other)).max() <= 1e-3 * np.abs(prediction(one)).max()
    np.testing.assert_allclose(one.row_bias, other.column_bias, atol=1e-2)
    assert one.objective == pytest.approx(other.objective, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 1e8, -3.0])
@pytest.mark.parametrize("reg_bias", [None, 2.0])
def test_the_unit_of_the_data_makes_no_difference(table, factor, reg_bias):
    one = tight(table, reg_bias=reg_bias)
    other = tight(factor * table, reg=3.0 * abs(factor), reg_bias=reg_bias)
    assert (
        np.abs(factor * prediction(one) - prediction(other)).max() <= 1e-3 * abs(factor) * np.abs(prediction(one)).max()
    )


def test_a_constant_moves_only_the_mean(table):
    one, other = tight(table), tight(table + 100.0)
    assert other.mean == pytest.approx(one.mean + 100)
    assert np.abs(prediction(one) + 100 - prediction(other)).max() <= 1e-3 * np.abs(prediction(one)).max()


def test_a_weight_of_two_is_the_entry_twice(rng):
    X = low_rank(rng, 30, 20, 2, 0.5)
    twice = np.vstack([X, X])  # every row twice: their factors agree, those of the columns see each entry twice
    doubled = tight(X, weights=np.full((~np.isnan(X)).sum(), 2.0), reg=2.0, fit_bias=False, center=False)
    one = tight(X, reg=1.0, fit_bias=False, center=False)
    # 2 |E|^2 + 2 reg (...) has the minimiser of |E|^2 + reg (...)
    assert np.abs(prediction(doubled) - prediction(one)).max() <= 1e-3 * np.abs(prediction(one)).max()
    stacked = tight(twice, reg=np.sqrt(2.0), fit_bias=False, center=False)
    assert np.abs(prediction(stacked)[:30] - prediction(one)).max() <= 1e-2 * np.abs(prediction(one)).max()


def test_single_precision_agrees_with_double(table):
    single = observed_of(table.astype(np.float32))
    one, other = tight(table), complete(single, 40, 3.0, Settings(tol=1e-11, max_iter=300, reg_bias=2.0))
    assert other.U.dtype == other.V.dtype == other.row_bias.dtype == np.float32
    assert other.objective == pytest.approx(one.objective, rel=1e-5)
    assert np.sqrt(np.mean((prediction(one) - prediction(other)) ** 2)) <= 1e-4 * np.sqrt(np.mean(prediction(one) ** 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_units(table, dtype):
    big, small = (1e18, 1e-18) if dtype == np.float32 else (1e150, 1e-150)
    plain = complete(observed_of(table.astype(dtype)), 5, 3.0, Settings())
    for factor in (big, small):
        scaled = complete(observed_of((factor * table).astype(dtype)), 5, 3.0 * factor, Settings())
        error = prediction(scaled).astype(np.float64) / factor - prediction(plain)
        assert np.abs(error).max() <= 1e-3 * np.abs(prediction(plain)).max()


def test_any_number_of_threads_gives_the_same_bits(table, monkeypatch):
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(complete(observed_of(table), 5, 3.0, Settings(), seed=1))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].U, other.U)
        np.testing.assert_array_equal(results[0].column_bias, other.column_bias)


# ---------------------------------------------------------------------------------------------------- the residual


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("noise", [0.3, 0.0])
def test_rough_triplets_are_a_decomposition_of_what_they_see(rng, dtype, noise):
    """Orthonormal on both sides, the residual's transpose maps one to the other, and with noise the first is nearly right."""
    X = low_rank(rng, 70, 50, 4, 0.6, noise).astype(dtype)
    problem = Problem(observed_of(X), 0.0, Solver(), 0)
    residual, eps = problem.residual(problem.start(False)), np.finfo(dtype).eps
    dense = residual.toarray().astype(np.float64)
    top = np.linalg.norm(dense, 2)
    for _ in range(2):  # from random vectors, and from those found before
        P, s, Q = problem.leading(residual)
        for side in (P, Q):
            np.testing.assert_allclose(side.T @ side, np.eye(len(s)), atol=300 * eps)
        reliable = s > 1e-2 * top
        assert np.abs(dense.T @ P - Q * s)[:, reliable].max() <= 300 * eps * top
        assert 0.99 * top <= s[0] <= (1 + 100 * eps) * top


@pytest.mark.parametrize("shape", [(900, 500), (500, 900)])
def test_a_certificate_is_near_and_far_from_1_as_accurate_as_it_says(rng, shape):
    observed = observed_of(low_rank(rng, *shape, 3, 0.1))
    problem = Problem(observed, 0.0, Solver(), 0)
    factors = problem.start(True)
    problem.grow(factors, Penalty(0.0, (1.0, 1.0)), 3)
    residual = problem.residual(factors)
    top = np.linalg.norm(residual.toarray(), 2)
    for reg in (top, 0.95 * top, 2 * top):
        assert problem.largest(factors, reg) == pytest.approx(top, rel=1e-4)
    for reg in (0.0, 0.5 * top, np.inf):
        assert problem.largest(factors, reg) == pytest.approx(top, rel=1e-2)


def test_of_no_residual_there_are_no_triplets_but_zero(rng):
    problem = Problem(observed_of(np.full((30, 20), 2.5)), 0.0, Solver(), 0)
    P, s, Q = problem.leading(problem.residual(problem.start(False)))
    assert np.all(s == 0)
    assert P.shape == (30, 16)
    assert Q.shape == (20, 16)


def test_offsets_are_those_of_many_rounds(rng, monkeypatch):
    """The rounds end where the penalties have settled."""
    X = 3 + rng.standard_normal((300, 1)) + 0.5 * rng.standard_normal(200) + rng.standard_normal((300, 200))
    X[rng.random(X.shape) > 0.2] = np.nan
    found = {}
    for name, rounds, settled in (("usual", 5, 0.01), ("many", 40, 0.0)):
        monkeypatch.setattr(_path, "OFFSET_ROUNDS", rounds)
        monkeypatch.setattr(_path, "OFFSETS_SETTLED", settled)
        problem = Problem(observed_of(X), 0.0, Solver(), 0)
        factors = problem.start(True)
        found[name] = problem.offset_penalties(), factors.U[:, 0], factors.V[:, 1]
    for usual, many in zip(*found.values(), strict=True):
        np.testing.assert_allclose(usual, many, rtol=0.02, atol=0.02)


# ---------------------------------------------------------------------------------------------------- inexact is enough


def test_inexact_solves_need_no_more_sweeps_than_exact_ones(rng):
    m, k = 300, 5
    M = rng.standard_normal((m, k)) @ rng.standard_normal((k, m))
    X = np.where(rng.random((m, m)) < 4 * k * (2 * m - k) / m**2, M, np.nan)
    sweeps = {}
    for name, solver in (("exact", Solver(1e-10, 60)), ("inexact", Solver())):
        problem = Problem(observed_of(X), 0.0, solver, 0, 0.0)
        factors, reg = problem.start(False), problem.largest(problem.start(False))
        sweeps[name] = 0
        while sweeps[name] < 200:
            reg, sweeps[name] = reg / 1.6, sweeps[name] + 1
            problem.grow(factors, Penalty(reg, (0.0, 0.0)), k)
            problem.sweep(factors, Penalty(reg, (0.0, 0.0)))
            if np.linalg.norm(problem.scale * factors.U[:, :k] @ factors.V[:, :k].T - M) <= 1e-6 * np.linalg.norm(M):
                break
    assert sweeps["exact"] < 100
    assert sweeps["inexact"] <= 1.15 * sweeps["exact"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_new_rows_are_folded_in_where_the_fit_put_them(table, alpha):
    fitted = tight(table, reg_scaling=alpha, reg=3.0 if alpha == 0 else 0.3)
    U, bias = fold_in(observed_of(table), fitted, Settings(reg_scaling=alpha))
    assert np.linalg.norm(U - fitted.U) <= 1e-4 * np.linalg.norm(fitted.U)
    np.testing.assert_allclose(bias, fitted.row_bias, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- edges


def test_empty_rows_and_columns_are_zero(table):
    table[3], table[:, 5] = np.nan, np.nan
    fitted = complete(observed_of(table), 5, 2.0, Settings())
    assert np.all(fitted.U[3] == 0)
    assert fitted.row_bias[3] == 0
    assert np.all(fitted.V[5] == 0)
    assert fitted.column_bias[5] == 0
    assert np.all(np.isfinite(prediction(fitted)))


def test_no_penalty_is_legal(table):
    fitted = complete(observed_of(table), 3, 0.0, Settings(max_iter=20))
    assert np.all(np.isfinite(prediction(fitted)))
    seen = ~np.isnan(table)
    assert np.sqrt(np.mean((prediction(fitted) - table)[seen] ** 2)) < 0.3


def test_more_components_than_the_matrix_has_are_cut(table):
    fitted = complete(observed_of(table), 1000, 0.5, Settings())
    assert fitted.U.shape[1] <= 40


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_matrix_has_no_columns(value):
    X = np.full((20, 10), value)
    X[::3, ::2] = np.nan
    fitted = complete(observed_of(X), 4, 0.1, Settings())
    np.testing.assert_allclose(prediction(fitted), value, atol=1e-12)
    assert fitted.sigma.shape == (0,)


def test_a_single_entry():
    fitted = complete(Observed.from_triplets(np.array([1]), np.array([2]), np.array([5.0]), (3, 4)), 2, 0.1, Settings())
    assert prediction(fitted)[1, 2] == pytest.approx(5.0)
    assert np.all(np.isfinite(prediction(fitted)))


def test_a_callback_stops_and_what_is_there_is_returned(table):
    seen = []

    def stop(info):
        seen.append(info)
        return len(seen) == 3

    U, s, Vt, info = complete_als(table, 5, 0.5, callback=stop, random_state=0)
    assert len(seen) == info.n_iter == 3
    assert info.stopped
    assert not info.converged
    assert {"iteration", "reg", "n_components", "train_rmse"} <= set(seen[0])
    assert U.shape[1] == len(s) == len(Vt)


def test_an_exception_in_the_callback_comes_through(table):
    def interrupt(info):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete_als(table, 5, 0.5, callback=interrupt)


def test_the_path_tells_every_level(table):
    fitted = complete(observed_of(table), 5, 1.0, Settings(), progress=Progress("", 100))
    path = fitted.path
    assert np.all(np.diff(path["reg"]) < 0)
    assert path["reg"][-1] == 1.0
    assert np.all(np.diff(path["train_rmse"]) < 0)
    assert np.all(np.isnan(path["validation_rmse"]))
    assert np.all(np.diff(path["seconds"]) >= 0)


def test_a_start_is_taken_up_where_it_was_left(table):
    observed = observed_of(table)
    fitted = complete(observed, 5, 1.0, Settings(tol=1e-8, max_iter=500))
    again = complete(observed, 5, 1.0, Settings(tol=1e-6), start=fitted)
    assert again.n_iter <= 5
    assert again.objective <= fitted.objective * (1 + 1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reg", [1.0, None])
def test_many_entries_are_completed_like_few(rng, few_at_a_time, weighted, reg):
    """Their columns are put together in groups, and sums are made in another order: the same but for rounding."""
    X = low_rank(rng, 150, 90, 3, 0.4)
    weights = rng.uniform(0.5, 2.0, np.count_nonzero(~np.isnan(X))) if weighted else None
    settings = Settings(fit_bias=True, reg_scaling=0.5)
    few = complete(observed_of(X, weights), 4, reg, settings)
    few_at_a_time()
    many = complete(observed_of(X, weights), 4, reg, settings)
    assert many.n_iter == few.n_iter
    np.testing.assert_allclose(prediction(many), prediction(few), rtol=0, atol=1e-8)
    assert many.objective == pytest.approx(few.objective, rel=1e-10)


def peak_memory(run):
    run()  # compiles
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("reg", [3.0, None])
@pytest.mark.parametrize(("m", "n"), [(20_000, 3_000), (60_000, 200), (20_000, 80)])
def test_memory_does_not_grow_with_the_entries(m, n, reg, rng, few_at_a_time):
    """Acceptance 9: it is that of some copies of the factors.  Also where rows are short: the matrix is never made dense."""
    few_at_a_time()
    peaks, sizes, k = [], [], 6
    for nnz in (200_000, 400_000):
        cells = np.unique(rng.integers(0, m * n, nnz))
        observed = Observed.from_triplets(*np.divmod(cells, n), rng.standard_normal(len(cells)), (m, n))
        settings = Settings(max_iter=2, path_ratio=3.0)

        def run(observed=observed, settings=settings):
            assert complete(observed.alone(False), k, reg, settings).U.shape[1] <= k

        peaks.append(peak_memory(run))
        sizes.append(observed.nnz)
    assert peaks[1] - peaks[0] <= 0.5 * (sizes[1] - sizes[0])  # bytes, where an entry has 12
    block = 8 * (m + n) * 16  # 16 numbers a row: the factors with their offsets, or vectors of the residual
    assert peaks[1] <= 10 * block
