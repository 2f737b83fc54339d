"""Half-sweeps (algorithm A1): each row against its own least-squares problem."""

import numpy as np
import pytest
import scipy.sparse

from lrla import _arrays, _threads
from lrla.completion import _half_sweep
from lrla.completion._half_sweep import half_sweep

M, N, K = 60, 45, 6


@pytest.fixture
def problem(rng):
    """Triplets with rows of 1, 2, 3 ... entries, row 0 empty; features, a start, and weights."""
    lengths = np.minimum(np.arange(M), N)
    rows = np.repeat(np.arange(M), lengths)
    columns = np.concatenate([rng.choice(N, size, replace=False) for size in lengths])
    values = rng.standard_normal(len(rows))
    return (
        values,
        (rows, columns),
        rng.standard_normal((N, K)),
        rng.standard_normal((M, K)),
        rng.random(len(rows)) + 0.1,
    )


def solved(values, place, V, reg, weights):
    """Row by row with LAPACK: least squares with the penalty as further equations."""
    rows, columns = place
    U = np.zeros((rows.max() + 1, V.shape[1]))
    for i in np.unique(rows):
        mine = rows == i
        root = np.sqrt(weights[mine])
        A = np.vstack([root[:, None] * V[columns[mine]], np.sqrt(reg) * np.eye(V.shape[1])])
        U[i] = np.linalg.lstsq(A, np.r_[root * values[mine], np.zeros(V.shape[1])], rcond=None)[0]
    return U


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 1e-4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_solve_their_least_squares_problems(problem, dtype, bound, weighted):
    values, place, V, U, weights = problem
    weights = weights if weighted else np.ones_like(values)
    expected = solved(values, place, V, 0.3, weights)
    found = half_sweep(
        (values.astype(dtype), place), V.astype(dtype), U.astype(dtype), reg=0.3, shape=(M, N),
        sample_weight=weights if weighted else None, cg_tol=1e-12, cg_max_iter=4 * K,
    )  # fmt: skip
    assert found.dtype == dtype
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_a_row_of_few_entries_is_done_in_one_step_more(rng, entries):
    # features of ones and minus ones: the preconditioner is a multiple of the identity, the system that plus rank n_i
    A, values = rng.choice([-1.0, 1.0], (entries, K)), rng.standard_normal(entries)
    place = np.zeros(entries, int), np.arange(entries)
    found = half_sweep((values, place), A, reg=0.5, cg_tol=0.0, cg_max_iter=entries + 1)
    expected = A.T @ np.linalg.solve(A @ A.T + 0.5 * np.eye(entries), values)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)


def test_the_objective_falls_in_every_half_sweep(problem):
    values, (rows, columns), V, U, weights = problem

    def objective(U, V):
        errors = values - np.einsum("ij,ij->i", U[rows], V[columns])
        return weights @ errors**2 + 0.7 * (np.square(U).sum() + np.square(V).sum())

    before = objective(U, V)
    for _ in range(10):
        U = half_sweep((values, (rows, columns)), V, U, reg=0.7, shape=(M, N), sample_weight=weights, cg_max_iter=1)
        V = half_sweep((values, (columns, rows)), U, V, reg=0.7, shape=(N, M), sample_weight=weights, cg_max_iter=1)
        after = objective(U, V)
        assert after <= before * (1 + 1e-12)
        before = after


def test_rows_without_entries_are_zero_and_solved_rows_stay(problem):
    values, place, V, U, _ = problem
    found = half_sweep((values, place), V, U, reg=0.3, shape=(M, N), cg_tol=0.0, cg_max_iter=50)
    assert np.all(found[0] == 0)
    again = half_sweep((values, place), V, found, reg=0.3, shape=(M, N), cg_tol=0.0, cg_max_iter=50)
    np.testing.assert_allclose(again, found, rtol=0, atol=1e-12)
    zero = half_sweep((0 * values, place), V, reg=0.3, shape=(M, N))  # the residual is zero from the start: no 0/0
    assert np.all(zero == 0)


def test_without_penalty_a_short_row_moves_as_little_as_needed(problem):
    values, (rows, columns), V, U, _ = problem
    V = np.linalg.qr(V)[0] * np.sqrt(N / np.bincount(columns, minlength=N).mean())
    mine = rows == 3
    found = half_sweep(
        (values[mine], (0 * rows[mine], columns[mine])), V, U[3:4], shape=(1, N), cg_tol=0.0, cg_max_iter=40
    )
    np.testing.assert_allclose(V[columns[mine]] @ found[0], values[mine], rtol=1e-9)
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_make_no_difference(problem, dtype, scale):
    values, place, V, U, _ = (np.asarray(part, dtype) if not isinstance(part, tuple) else part for part in problem)
    plain = half_sweep((values, place), V, U, reg=0.25, shape=(M, N), cg_tol=0.0, cg_max_iter=3)
    scaled = half_sweep(
        (dtype(scale) * values, place), V, dtype(scale) * U, reg=0.25, shape=(M, N), cg_tol=0.0, cg_max_iter=3
    )
    assert np.linalg.norm(scaled / dtype(scale) - plain) <= 300 * _arrays.eps(np.dtype(dtype)) * np.linalg.norm(plain)


@pytest.mark.parametrize("entries", [1021, 5000])
def test_rows_longer_than_a_chunk_and_than_the_scratch(rng, monkeypatch, entries):
    monkeypatch.setattr(_half_sweep, "SCRATCH_BYTES", 1 << 16)
    V = rng.standard_normal((6000, K))
    columns = np.sort(rng.choice(6000, entries, replace=False))
    values = rng.standard_normal(entries)
    found = half_sweep(
        (values, (np.zeros(entries, int), columns)), V, reg=0.3, shape=(1, 6000), cg_tol=1e-13, cg_max_iter=40
    )
    A = V[columns]
    np.testing.assert_allclose(found[0], np.linalg.solve(A.T @ A + 0.3 * np.eye(K), A.T @ values), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_memory_held_before_does_not_matter(problem, monkeypatch, weighted):
    values, place, V, U, weights = problem
    options = {"reg": 0.25, "shape": (M, N), "sample_weight": weights if weighted else None}
    expected = half_sweep((values, place), V, U, **options)
    empty = _half_sweep.aligned_empty

    def spoilt(*args):
        result = empty(*args)
        result[:] = np.nan
        return result

    monkeypatch.setattr(_half_sweep, "aligned_empty", spoilt)
    np.testing.assert_array_equal(half_sweep((values, place), V, U, **options), expected)


def test_any_number_of_threads_gives_the_same_bits(problem, monkeypatch):
    values, place, V, U, weights = problem
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(half_sweep((values, place), V, U, reg=0.1, shape=(M, N), sample_weight=weights))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_all_ways_to_give_the_entries_mean_the_same(problem):
    values, place, V, U, _ = problem
    dense = np.full((M, N), np.nan)
    dense[place] = values
    expected = half_sweep((values, place), V, U, reg=0.1, shape=(M, N))
    stored = scipy.sparse.coo_array((values, place), shape=(M, N))
    for X in (dense, stored, stored.tocsr(), stored.tocsc(), np.ma.masked_invalid(dense)):
        np.testing.assert_allclose(half_sweep(X, V, U, reg=0.1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_lockstep_makes_the_same_steps_as_the_kernel(xp, problem, monkeypatch, weighted):
    from lrla.completion import _tiles

    monkeypatch.setattr(_tiles, "TILE_BYTES", 1 << 14)  # several tiles
    values, (rows, columns), V, U, weights = problem
    weights = weights if weighted else None
    options = {"reg": 0.3, "shape": (M, N), "cg_tol": 0.0, "cg_max_iter": 3}
    expected = half_sweep((values, (rows, columns)), V, U, sample_weight=weights, **options)
    on_device = [xp.asarray(part) for part in (values, rows, columns, V, U)]
    observed = _tiles.RowTiles(
        *(on_device[place] for place in (1, 2, 0)), (M, N), None if weights is None else xp.asarray(weights)
    )
    found = _tiles.half_sweep_tiles(observed, on_device[3], on_device[4], 0.3, 0.0, 3)
    assert type(found) is type(on_device[0])
    np.testing.assert_allclose(_arrays.to_host(found), expected, rtol=1e-10, atol=1e-12)


def test_device_triplets_give_device_rows(device_xp, problem):
    values, (rows, columns), V, U, _ = problem
    expected = half_sweep((values, (rows, columns)), V, U, reg=0.3, shape=(M, N), cg_tol=0.1)
    values, rows, columns, V, U = (device_xp.asarray(part) for part in (values, rows, columns, V, U))
    found = half_sweep((values, (rows, columns)), V, U, reg=0.3, shape=(M, N), cg_tol=0.1)
    assert type(found) is type(V)
    np.testing.assert_allclose(_arrays.to_host(found), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"V": np.ones((N + 1, K))}, "V must have a row"),
        ({"U": np.ones((M, K + 1))}, "U must have shape"),
        ({"reg": -1.0}, "reg must be"),
        ({"cg_tol": 1.0}, "cg_tol must be"),
        ({"cg_max_iter": -1}, "cg_max_iter must be"),
    ],
)
def test_bad_arguments_are_named(problem, change, message):
    values, place, V, U, _ = problem
    arguments = {"V": V, "U": U, "reg": 0.1, "shape": (M, N), **change}
    with pytest.raises(ValueError, match=message):
        half_sweep((values, place), **arguments)


def test_bad_device_triplets_are_named(strict, problem):
    values, (rows, columns), V, _, _ = problem
    as_device = strict.asarray
    with pytest.raises(ValueError, match=r"columns must lie in"):
        half_sweep((as_device(values), (as_device(rows), as_device(columns + N))), as_device(V), shape=(M, N))
    values[0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        half_sweep((as_device(values), (as_device(rows), as_device(columns))), as_device(V), shape=(M, N))
