"""`sketched_lstsq`: as accurate as LAPACK on every kind of matrix, storage and device, and it knows how accurate it is.

Backward errors are computed here by the formula of Karlson and Walden from a full SVD of A, with residuals in extended
precision; the library's own estimate is one of the things under test.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

import lrla.ridge._least_squares as module
from lrla import _arrays, _threads, _validation
from lrla.ridge import sketched_lstsq
from tests._matrices import matrix_with_spectrum, orthonormal

M, N = 4000, 160  # the smallest order of size at which a sketch is taken at all: m n^2 >= 1e8
ITERATING = ["cholesky", "lsqr", "polyak"]
EPS = np.finfo(np.float64).eps


def backward_error(A, b, x):
    """Smallest ||E||_F / ||A||_F, up to a factor of 2, for which x minimises ||(A + E) x - b||."""
    A, b, x = (np.asarray(v, dtype=np.float64) for v in (A, b, x))
    r = np.asarray(b - A.astype(np.longdouble) @ x.astype(np.longdouble), dtype=np.float64)
    R = np.linalg.qr(np.column_stack((A, r)), mode="r")  # whose last column is Q^T r
    n = A.shape[1]
    U, s, _ = scipy.linalg.svd(R[:n, :n])
    size, residual = np.linalg.norm(x), np.linalg.norm(r)
    if residual == 0.0:
        return 0.0
    return np.linalg.norm(s * (U.T @ R[:n, n]) / np.sqrt((s * size) ** 2 + residual**2)) / np.linalg.norm(A)


def lapack(A, b, cond=EPS):
    return scipy.linalg.lstsq(A, b, cond=cond, lapack_driver="gelsd")[0]


def known_problem(cond, residual, rng, m=M, n=N):
    """A with singular values from 1 down to 1/cond, x of norm 1, and r orthogonal to the columns of A; b = A x + r."""
    Q, V = orthonormal(m, n + 1, rng), orthonormal(n, n, rng)
    x = rng.standard_normal(n)
    x /= np.linalg.norm(x)
    A = (Q[:, :n] * np.logspace(0, -np.log10(cond), n)) @ V.T
    return A, x, A @ x + residual * Q[:, n]


@pytest.fixture
def problem(rng):
    """A well-conditioned problem with a large residual."""
    A = rng.standard_normal((M, N))
    return A, A @ np.ones(N) + rng.standard_normal(M)


# ---------------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("method", ITERATING)
@pytest.mark.parametrize(
    ("cond", "residual"),
    [(1e2, 1e-2), (1e4, 1.0), (1e6, 1e-9), (1e8, 1e-3), (1e9, 1e2), (1e10, 1e-6), (1e12, 1e-3), (1e14, 1e-3)],
)
def test_backward_error_is_that_of_lapack(cond, residual, method, rng):
    A, _, b = known_problem(cond, residual, rng)
    result = sketched_lstsq(A, b, method=method, random_state=0)
    assert result.method == method
    assert result.converged
    assert result.rank == N
    assert backward_error(A, b, result.x) <= 10 * backward_error(A, b, lapack(A, b)) + 1e-15


@pytest.mark.parametrize("method", ITERATING)
@pytest.mark.parametrize("cond", [1e1, 1e5, 1e9])
def test_forward_error_has_the_bound_of_a_backward_stable_solver(cond, method, rng):
    A, x, b = known_problem(cond, 1e-3, rng)
    result = sketched_lstsq(A, b, method=method, random_state=0)
    # Wedin: (cond + cond^2 ||r|| / (||A|| ||x||)) times the backward error, for which 30 eps is ample
    assert np.linalg.norm(result.x - x) <= 30 * EPS * (cond + cond**2 * 1e-3)
    assert result.residual_norm == pytest.approx(1e-3, rel=1e-8)  # what is lost in b, of norm about 1, is 1e-16


@pytest.mark.parametrize("method", [*ITERATING, "lapack"])
def test_residual_is_orthogonal_to_the_columns(method, rng):
    A, _, b = known_problem(1e6, 1.0, rng, *((M, N) if method != "lapack" else (500, 80)))
    result = sketched_lstsq(A, b, method="auto" if method == "lapack" else method, random_state=0)
    r = b - A @ result.x
    assert result.method == method
    assert np.linalg.norm(A.T @ r) <= 1e-13 * np.sqrt(N) * np.linalg.norm(A, 2) * np.linalg.norm(r)


@pytest.mark.parametrize("method", ITERATING)
def test_units_of_columns_duplicates_and_zeros_do_not_matter(method, rng):
    clean = rng.standard_normal((M, N - 2))
    b = clean @ np.ones(N - 2) + rng.standard_normal(M)
    best = np.linalg.norm(b - clean @ lapack(clean, b))
    A = np.insert(np.insert(clean, 7, clean[:, 3], axis=1), 11, 0.0, axis=1) * 10.0 ** rng.uniform(-8, 8, N)
    A[:, 7] = A[:, 3]
    result = sketched_lstsq(A, b, method=method, random_state=0)
    assert result.converged
    assert result.rank == N - 2
    assert result.x[11] == 0.0
    assert result.x[7] == pytest.approx(result.x[3], rel=1e-10)  # the shortest: both share what one of them would have
    assert np.linalg.norm(b - A @ result.x) <= best * (1 + 1e-12)
    assert np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0]) > 1.5 * best  # so this is a problem that is easily lost
    assert backward_error(A, b, result.x) <= 10 * backward_error(A, b, lapack(A, b)) + 1e-15


@pytest.mark.parametrize("method", [*ITERATING, "lapack"])
def test_rank_deficient_gives_the_shortest_solution_in_scaled_columns(method, rng):
    m, n = (M, N) if method != "lapack" else (300, 20)
    A = matrix_with_spectrum(m, n, np.logspace(0, -3, n // 2), rng)
    b = rng.standard_normal(m)
    result = sketched_lstsq(A, b, method="auto" if method == "lapack" else method, random_state=0)
    scale = np.linalg.norm(A, axis=0)
    shortest = lapack(A / scale, b, cond=1e-10)
    assert result.method == method
    assert result.rank == n // 2
    # the space that is kept is known to eps / (the smallest singular value there), and x grows as its inverse
    np.testing.assert_allclose(result.x * scale, shortest, rtol=0, atol=1e-8 * np.linalg.norm(shortest))


@pytest.mark.parametrize("method", ITERATING)
@pytest.mark.parametrize(("cond", "alpha"), [(1e2, 3.7), (1e10, 1e-6), (1e10, 1e6)])
def test_penalty_equals_the_augmented_system(method, alpha, cond, rng):
    A, _, b = known_problem(cond, 1e-2, rng)
    result = sketched_lstsq(A, b, alpha=alpha, method=method, random_state=0)
    stacked, target = np.vstack((A, np.sqrt(alpha) * np.eye(N))), np.concatenate((b, np.zeros(N)))
    x = lapack(stacked, target)
    error = 1e-15 * np.sqrt(1.0 / alpha + 1.0) * max(1.0, np.sqrt(1.0 / alpha) * 1e-2)  # as Wedin's above
    assert result.rank == N
    np.testing.assert_allclose(result.x, x, rtol=0, atol=30 * error * max(np.linalg.norm(x), 1.0))
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x), rel=1e-10)
    ours, theirs = (backward_error(stacked, target, v) for v in (result.x, x))
    assert ours <= 10 * theirs + 1e-15


def test_penalty_makes_a_deficient_matrix_regular(rng):
    A = np.zeros((M, N))
    A[:, : N // 2] = rng.standard_normal((M, N // 2))
    b = rng.standard_normal(M)
    result = sketched_lstsq(A, b, alpha=1.0, random_state=0)
    assert result.rank == N
    assert not result.x[N // 2 :].any()


@pytest.mark.parametrize("method", ITERATING)
@pytest.mark.parametrize("cond", [1e1, 1e4, 1e6])
def test_float32_is_as_good_as_lapack_in_float32(cond, method, rng):
    A, _, b = (np.asarray(v, dtype=np.float32) for v in known_problem(cond, 1e-2, rng))
    result = sketched_lstsq(A, b, method=method, random_state=0)
    single = scipy.linalg.lstsq(A, b, lapack_driver="gelsd")[0]
    assert result.x.dtype == np.float32
    assert result.converged
    assert backward_error(A, b, result.x) <= 10 * backward_error(A, b, single) + 5e-7  # 1e-15 in units of eps


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
@pytest.mark.parametrize("method", [*ITERATING, "lapack"])
def test_scale_equivariance(scale, method, problem):
    A, b = problem
    if method == "lapack":
        A, b = A[:400], b[:400]
    options = {"method": "auto" if method == "lapack" else method, "random_state": 0}
    plain, scaled = sketched_lstsq(A, b, **options), sketched_lstsq(A * scale, b, **options)
    assert scaled.method == method
    np.testing.assert_allclose(scaled.x * scale, plain.x, rtol=0, atol=1e-12 * np.abs(plain.x).max())
    np.testing.assert_allclose(sketched_lstsq(A, b * scale, **options).x / scale, plain.x, rtol=0, atol=1e-12)


def test_columns_of_hundreds_of_orders_of_magnitude(problem):
    A, b = problem
    scale = np.logspace(-200, 150, N)
    result = sketched_lstsq(A * scale, b, random_state=0)
    assert result.rank == N
    np.testing.assert_allclose(result.x * scale, sketched_lstsq(A, b, random_state=0).x, rtol=0, atol=1e-12)


def test_a_solution_beyond_the_dtype_is_refused(problem):
    A, b = problem
    with pytest.raises(ValueError, match="too large for float64"):
        sketched_lstsq(A * 1e-300, b * 1e100)


# ---------------------------------------------------------------------------------------------------- without a sketch


@pytest.mark.parametrize(("cond", "residual"), [(1e0, 1e-8), (1e1, 1e2), (1e2, 1e-2), (1e2, 1.0), (1e2, 0.0)])
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_a_gram_matrix_in_float32_loses_nothing(cond, residual, form, alpha, rng):
    A, _, b = known_problem(cond, residual, rng)
    result = sketched_lstsq(form(A), b, alpha=alpha, random_state=0)
    stacked, target = np.vstack((A, np.sqrt(alpha) * np.eye(N))), np.concatenate((b, np.zeros(N)))
    assert (result.method, result.rank, result.converged) == ("gram", N, True)
    assert 1 <= result.n_iter <= 6
    theirs = backward_error(stacked, target, lapack(stacked, target))
    assert backward_error(stacked, target, result.x) <= 10 * theirs + 1e-15


@pytest.mark.parametrize(("scale", "dtype"), [(1e-300, float), (1e-20, float), (1e280, float), (1e-25, np.float32)])
def test_a_gram_matrix_in_float32_has_room_for_any_units(scale, dtype, problem):
    A, b = (np.asarray(v, dtype=dtype) for v in problem)
    units = (np.logspace(0, 15, N) * scale).astype(dtype)
    result, plain = sketched_lstsq(A * units, b, random_state=0), sketched_lstsq(A, b, random_state=0)
    assert result.method == plain.method == "gram"
    np.testing.assert_allclose(
        result.x * units, plain.x, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(plain.x).max()
    )


def test_rows_that_mislead_about_the_condition_cost_time_but_no_digits(rng):
    """The rows that are looked at first are regular where all of A is not, and the other way round."""
    A, _, b = known_problem(1e9, 1e-2, rng)
    A[:: M // (2 * N)] = 1e-3 * rng.standard_normal(A[:: M // (2 * N)].shape)
    looks_regular = sketched_lstsq(1e-6 * A, b, random_state=0)
    assert looks_regular.converged
    assert backward_error(A, b, 1e-6 * looks_regular.x) <= 10 * backward_error(A, b, lapack(A, b)) + 1e-15
    A = rng.standard_normal((M, N))
    A[:: M // (2 * N), 0] = 0.0
    looks_deficient = sketched_lstsq(A, b, random_state=0)
    assert looks_deficient.method == "cholesky"
    assert backward_error(A, b, looks_deficient.x) <= 1e-15


def test_a_gram_matrix_that_does_not_do_gives_way_to_a_sketch(rng, monkeypatch):
    A, _, b = known_problem(1e3, 1e-2, rng)
    monkeypatch.setattr("lrla.ridge._preconditioned.REGULAR", 0.0)  # taken where float32 is hardly enough ...
    result = sketched_lstsq(A, b, random_state=0, max_iter=1)  # ... and one correction is not
    assert result.method == "cholesky"
    assert result.converged


# ---------------------------------------------------------------------------------------------------- what it reports


@pytest.mark.parametrize("method", ["auto", *ITERATING, "sketch_and_solve"])
@pytest.mark.parametrize("cond", [1e1, 1e8])
def test_the_reported_backward_error_is_the_true_one(method, cond, rng):
    A, _, b = known_problem(cond, 1e-1, rng)
    scale = np.linalg.norm(A, axis=0)
    result = sketched_lstsq(A, b, method=method, tol=1e-9 if method != "sketch_and_solve" else None, random_state=0)
    true = backward_error(A / scale, b, result.x * scale)
    # the singular values of the sketch are within a factor of 2 of those of A, and rounding is below 1e-16
    assert true / 2 - 1e-16 <= result.backward_error <= 2 * true + 1e-16


def test_sketch_and_solve_has_nearly_the_smallest_residual(problem):
    A, b = problem
    best = np.linalg.norm(b - A @ lapack(A, b))
    for size, seed in [(4.0, 0), (4.0, 1), (10.0, 0), (10.0, 1)]:
        result = sketched_lstsq(A, b, method="sketch_and_solve", sketch_size=size, random_state=seed)
        assert (result.n_iter, result.method, result.converged) == (0, "sketch_and_solve", True)
        # for a Gaussian sketch the mean of the square is 1 + 1 / (size - 1)
        assert 1.0 < result.residual_norm / best <= np.sqrt(1 + 1.5 / (size - 1))


@pytest.mark.parametrize("method", ["lsqr", "polyak"])
def test_a_looser_tolerance_is_met_with_fewer_iterations(method, problem):
    A, b = problem
    results = [sketched_lstsq(A, b, method=method, tol=tol, random_state=0) for tol in (1e-4, 1e-8, None)]
    assert results[0].n_iter < results[1].n_iter < results[2].n_iter
    assert all(result.converged for result in results)
    for result, tol in zip(results, (1e-4, 1e-8, 1e-15), strict=True):
        assert backward_error(A, b, result.x) <= 2 * tol


@pytest.mark.parametrize(("method", "size", "most"), [("lsqr", 4.0, 90), ("lsqr", 12.0, 45), ("polyak", 12.0, 60)])
def test_the_number_of_iterations_does_not_depend_on_the_condition(method, size, most, rng):
    for cond in (1e1, 1e9):
        A, _, b = known_problem(cond, 1e-2, rng)
        result = sketched_lstsq(A, b, method=method, sketch_size=size, random_state=0)
        # a gain of size^-1/2 a step: log(2e16) / log(size^1/2) steps, 55 and 30, and a second round for what rounding left
        assert result.n_iter <= most


@pytest.mark.parametrize("method", ["lsqr", "polyak"])
def test_max_iter_is_kept_and_missing_the_tolerance_is_said(method, problem):
    A, b = problem
    with pytest.warns(ConvergenceWarning, match=rf"after 3 iterations of {method}"):
        result = sketched_lstsq(A, b, method=method, max_iter=3, random_state=0)
    assert not result.converged
    assert result.n_iter == 3


def test_a_sketch_that_misses_directions_is_noticed(rng):
    A = np.zeros((M, N))
    A[: N // 2, : N // 2] = np.eye(N // 2)  # rows that uniform sampling will hardly find
    A[N // 2 :, N // 2 :] = rng.standard_normal((M - N // 2, N // 2))
    b = rng.standard_normal(M)
    with pytest.warns(ConvergenceWarning, match="another kind of sketch"):
        result = sketched_lstsq(A, b, kind="uniform", random_state=0)
    assert not result.converged
    good = sketched_lstsq(A, b, random_state=0)  # every row has its part in a sparse sketch
    assert good.converged
    assert backward_error(A, b, good.x) <= 1e-15


@pytest.mark.parametrize("kind", ["sparse_stack", "countsketch", "gaussian", "rademacher", "srdct", "srht", "uniform"])
def test_any_kind_of_sketch_gives_the_same_solution(kind, problem):
    A, b = problem
    result = sketched_lstsq(A, b, kind=kind, random_state=0)
    assert result.converged
    np.testing.assert_allclose(result.x, lapack(A, b), rtol=0, atol=1e-13)


# ---------------------------------------------------------------------------------------------------- kinds of input


@pytest.mark.parametrize("method", ITERATING)
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, sp.csc_array, sp.coo_matrix])
@pytest.mark.parametrize("columns", [1, 4])
def test_every_storage_and_several_right_hand_sides(method, form, columns, rng):
    A = rng.standard_normal((M, N)) * (rng.random((M, N)) < 0.2)
    B = rng.standard_normal((M, columns))
    B[:, columns // 2] = A[:, 0]  # one that A reaches, which is done sooner than the others
    result = sketched_lstsq(form(A), B, method=method, random_state=0)
    assert result.method == method
    assert result.converged
    assert result.x.shape == (N, columns)
    assert result.backward_error.shape == result.residual_norm.shape == (columns,)
    np.testing.assert_allclose(result.x, lapack(A, B), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.residual_norm, np.linalg.norm(B - A @ result.x, axis=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [*ITERATING, "sketch_and_solve", "lapack", "gram"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_namespace(method, dtype, xp, problem, transfers):
    A, b = problem
    if method == "lapack":
        A, b = A[:600], b[:600]
    options = {"method": "auto" if method in ("lapack", "gram") else method, "alpha": 0.5, "random_state": 0}
    here = sketched_lstsq(A.astype(dtype), b.astype(dtype), **options)
    transfers.clear()
    there = sketched_lstsq(xp.asarray(A, dtype=dtype), xp.asarray(b, dtype=dtype), **options)
    assert there.method == method
    assert xp.owns(there.x)
    assert str(there.x.dtype).endswith(np.dtype(dtype).name)
    assert isinstance(there.backward_error, float)
    np.testing.assert_allclose(xp.to_numpy(there.x), here.x, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert transfers.larger_than(12 * N * (N + 1)) == []  # the sketch and what is smaller


def test_right_hand_sides_do_not_disturb_one_another(problem, rng):
    A, b = problem
    B = np.stack((b, np.zeros(M), 1e8 * A[:, 3], rng.standard_normal(M)), axis=1)
    for method in ("auto", *ITERATING):
        together = sketched_lstsq(A, B, method=method, random_state=0)
        assert not together.x[:, 1].any()
        for j in range(4):
            alone = sketched_lstsq(A, B[:, j], method=method, random_state=0)
            np.testing.assert_allclose(together.x[:, j], alone.x, rtol=0, atol=1e-13 * max(1.0, np.abs(alone.x).max()))


@pytest.mark.parametrize("shape", [(30, 6), (5, 1), (1, 1), (40, 40), (900, 120), (2000, 30)])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_small_problems_go_to_lapack(shape, form, rng):
    A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    for method in module.METHODS:
        result = sketched_lstsq(form(A), b, method=method)
        assert (result.method, result.n_iter, result.converged) == ("lapack", 0, True)
        assert backward_error(A, b, result.x) <= 10 * backward_error(A, b, lapack(A, b)) + 1e-15


@pytest.mark.parametrize("shape", [(20, 3), (M, N)])
def test_zeros(shape):
    A, b = np.zeros(shape), np.ones(shape[0])
    result = sketched_lstsq(A, b, random_state=0)
    assert (result.rank, result.backward_error) == (0, 0.0)
    assert not result.x.any()
    assert result.residual_norm == pytest.approx(np.sqrt(shape[0]))
    assert sketched_lstsq(A + 1.0, 0 * b, random_state=0).residual_norm == 0.0


def test_consistent_system_is_solved_to_rounding(rng):
    A, x, _ = known_problem(1e3, 0.0, rng)
    for method in (*ITERATING, "sketch_and_solve"):
        result = sketched_lstsq(A, A @ x, method=method, random_state=0)
        assert result.residual_norm <= 100 * EPS
        assert np.linalg.norm(result.x - x) <= 100 * EPS * 1e3


def test_auto_takes_the_cheaper_method(rng):
    assert sketched_lstsq(rng.standard_normal((M, N)), np.ones(M)).method == "gram"
    assert sketched_lstsq(known_problem(1e6, 1.0, rng)[0], np.ones(M)).method == "cholesky"
    sparse = sp.random_array((M, N), density=0.1, rng=rng, format="csr")
    assert sketched_lstsq(sparse, np.ones(M)).method == "lsqr"


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(problem, monkeypatch):
    A, b = problem
    for method in ITERATING:
        one = sketched_lstsq(A, b, method=method, random_state=3)
        with monkeypatch.context() as patch:
            patch.setattr(_threads, "available_threads", lambda: 3)
            patch.setattr(_threads, "_pool", None)
            three = sketched_lstsq(A, b, method=method, random_state=3)
        assert np.array_equal(one.x, three.x)
    assert not np.array_equal(sketched_lstsq(A, b, method=method, random_state=4).x, one.x)
    assert np.array_equal(
        sketched_lstsq(A, b, random_state=4).x, sketched_lstsq(A, b).x
    )  # nothing random in a Gram matrix


def test_inputs_are_left_alone(problem):
    A, b = problem
    before = A.copy(), b.copy()
    A.flags.writeable = b.flags.writeable = False
    for method in (*ITERATING, "sketch_and_solve"):
        result = sketched_lstsq(A, b, method=method, random_state=0)
        result.x[0] = 0.0
    result = sketched_lstsq(A[:100, :5], b[:100])
    assert np.array_equal(A, before[0])
    assert np.array_equal(b, before[1])


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        (np.ones(19), ValueError, r"b must have shape \(20,\) or \(20, t\)"),
        (np.ones((20, 2, 2)), ValueError, "b must have shape"),
        (1.0, ValueError, "b must have shape"),
        (np.array([np.nan] * 20), ValueError, "b contains NaN"),
        (np.array([np.inf] * 20), ValueError, "b contains infinity"),
        (np.ones(20) + 1j, ValueError, "Complex data not supported"),
        (np.ma.masked_array(np.ones(20), mask=np.arange(20) == 3), TypeError, "b is a masked array"),
        (sp.csr_array(np.ones((20, 1))), ValueError, "b must be a dense array"),
        (["a"] * 20, ValueError, "could not convert|b"),
    ],
)
def test_bad_right_hand_sides(b, error, message):
    with pytest.raises(error, match=message):
        sketched_lstsq(np.eye(20), b)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": -1.0}, ValueError, "alpha must be"),
        ({"alpha": "1"}, TypeError, "alpha must be"),
        ({"method": "qr"}, ValueError, "method must be one of 'auto'"),
        ({"kind": "dct"}, ValueError, "kind"),
        ({"sketch_size": 1.0}, ValueError, "sketch_size must be"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"max_iter": 0}, ValueError, "max_iter must be"),
        ({"max_iter": 1.5}, TypeError, "max_iter must be"),
        ({"nnz": 0}, ValueError, "nnz must be"),
        ({"random_state": "0"}, TypeError, "random_state must be"),
    ],
)
@pytest.mark.parametrize("shape", [(20, 3), (M, N)])
def test_bad_parameters_are_refused_whatever_the_size(options, error, message, shape):
    with pytest.raises(error, match=message):
        sketched_lstsq(np.ones(shape), np.ones(shape[0]), **options)


def test_a_wide_matrix_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"3 rows and 5 columns.*numpy\.linalg\.lstsq"):
        sketched_lstsq(np.ones((3, 5)), np.ones(3))


def test_both_must_be_in_the_same_place(device_xp):
    A, b = np.eye(20), np.ones(20)
    with pytest.raises(ValueError, match="same place"):
        sketched_lstsq(device_xp.asarray(A), b)
    with pytest.raises(ValueError, match="same place"):
        sketched_lstsq(A, device_xp.asarray(b))


def test_lists_integers_and_float64_beside_float32():
    result = sketched_lstsq([[1, 0], [0, 2], [0, 0]], [1, 2, 3])
    np.testing.assert_allclose(result.x, [1.0, 1.0])
    assert result.residual_norm == pytest.approx(3.0)
    assert sketched_lstsq(np.eye(4, dtype=np.float32), np.ones(4)).x.dtype == np.float32
    with pytest.raises(ValueError, match="too large for float32"), warnings.catch_warnings():
        sketched_lstsq(np.eye(4, dtype=np.float32), np.full(4, 1e300))


def test_a_sketch_that_does_not_fit_is_refused(problem, monkeypatch):
    A, b = problem
    monkeypatch.setattr(module, "make_sketch", lambda *_, **__: pytest.fail("allocated before it was checked"))
    monkeypatch.setattr(_validation.os, "sysconf", lambda name: 500)  # pages of 500 bytes, and 500 of them
    with pytest.raises(ValueError, match=r"A sketch of .* bytes"):
        sketched_lstsq(A, b, method="cholesky")


def test_sweeps_in_cache_are_products_with_the_whole(problem, rng):
    A, b = problem
    system = module.System(A, ridge=2.0)
    X, top, bottom = rng.standard_normal((3, N)), rng.standard_normal((3, M)), rng.standard_normal((3, N))
    F = np.vstack((A, 2.0 * np.eye(N)))
    U = X @ F.T - 0.5 * np.hstack((top, bottom))
    done = system.sweep(X, top, bottom, np.full((3, 1), 0.5))
    np.testing.assert_allclose(np.hstack((done.top, done.bottom)), U, rtol=0, atol=1e-12)
    np.testing.assert_allclose(done.adjoint, U @ F, rtol=0, atol=1e-10)
    np.testing.assert_allclose(done.norm, np.linalg.norm(U, axis=1), rtol=1e-12)
    assert _arrays.kind(done.top) == "host"
