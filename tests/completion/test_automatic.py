"""`complete_automatically`: offsets, penalty and rank chosen on held-out entries; noiseless data found to be so."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from lrla import MatrixCompletion
from lrla._random import Stream
from lrla.completion import _automatic
from lrla.completion._als import Settings, complete
from lrla.completion._automatic import Search, complete_automatically, completion_path, draw, hold_out
from lrla.completion._half_sweep import half_sweep
from lrla.completion._observed import Observed


def exact_problem(m, n, k, oversampling, kappa, seed):
    """A matrix of rank k with condition number kappa, some of its entries, as many as `oversampling` times its free numbers.

    Every row and column has more than k entries: one that has fewer cannot be told by any method.
    """
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    M = U * np.geomspace(kappa, 1, k) @ V.T * np.sqrt(m * n / k)
    while True:
        rows, columns = np.divmod(rng.choice(m * n, int(oversampling * k * (m + n - k)), replace=False), n)
        if min(np.bincount(rows, minlength=m).min(), np.bincount(columns, minlength=n).min()) > k:
            return M, rows, columns


def prediction(fitted):
    return fitted.mean + fitted.row_bias[:, None] + fitted.column_bias + fitted.U @ fitted.V.T


def error(fitted, M):
    return np.linalg.norm(prediction(fitted) - M) / np.linalg.norm(M)


# ---------------------------------------------------------------------------------------------------- exact recovery


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [1, 10])
def test_exact_recovery_at_the_edge_with_defaults(kappa):
    for seed in range(10):
        M, rows, columns = exact_problem(400, 400, 8, 1.5, kappa, seed)
        fitted = complete_automatically(
            Observed.from_triplets(rows, columns, M[rows, columns], M.shape), Settings(), seed=seed
        )
        assert fitted.U.shape[1] == 8
        assert error(fitted, M) <= 1e-5


@pytest.mark.parametrize(("m", "n", "k"), [(300, 200, 5), (400, 400, 8)])
@pytest.mark.parametrize("kappa", [1, 10])
def test_exact_recovery_finds_the_rank(m, n, k, kappa):
    M, rows, columns = exact_problem(m, n, k, 2.2, kappa, 0)
    fitted = complete_automatically(Observed.from_triplets(rows, columns, M[rows, columns], M.shape), Settings())
    assert fitted.U.shape[1] == k
    assert fitted.converged
    assert error(fitted, M) <= 1e-5


def test_exact_recovery_beside_offsets():
    M, rows, columns = exact_problem(200, 150, 3, 4, 3, 0)
    rng = np.random.default_rng(1)
    M = M + 5 + 2 * rng.standard_normal(200)[:, None] + rng.standard_normal(150)
    fitted = complete_automatically(Observed.from_triplets(rows, columns, M[rows, columns], M.shape), Settings())
    assert error(fitted, M) <= 1e-5


def test_exact_recovery_in_single_precision():
    M, rows, columns = exact_problem(200, 150, 3, 4, 3, 0)
    values = M[rows, columns].astype(np.float32)
    fitted = complete_automatically(Observed.from_triplets(rows, columns, values, M.shape), Settings())
    assert fitted.U.shape[1] == 3
    assert error(fitted, M) <= 1e-3


@pytest.mark.parametrize("kappa", [1, 10])
def test_alternating_exact_solves_at_one_small_penalty_fail_there(kappa):
    """The negative control: without the path the same entries do not give the matrix."""
    M, rows, columns = exact_problem(400, 400, 8, 1.5, kappa, 0)
    values = M[rows, columns]
    filled = np.zeros(M.shape)
    filled[rows, columns] = values
    U = np.linalg.svd(filled)[0][:, :8] * 10
    for _ in range(100):
        V = half_sweep((values, (columns, rows)), U, reg=1e-8, shape=(400, 400), cg_tol=1e-10, cg_max_iter=60)
        U = half_sweep((values, (rows, columns)), V, reg=1e-8, shape=(400, 400), cg_tol=1e-10, cg_max_iter=60)
    assert np.linalg.norm(U @ V.T - M) > 0.1 * np.linalg.norm(M)


# ---------------------------------------------------------------------------------------------------- noisy data


@pytest.fixture
def table(rng):
    """Rank 5 with noise 0.1, 1000 x 50, 30 % missing: the noise is far below the structure."""
    M = rng.standard_normal((1000, 5)) @ rng.standard_normal((5, 50)) / np.sqrt(5)
    rows, columns = np.nonzero(rng.random(M.shape) < 0.7)
    return M, Observed.from_triplets(rows, columns, M[rows, columns] + 0.1 * rng.standard_normal(len(rows)), M.shape)


def test_the_rank_of_a_noisy_table_is_found(table):
    M, observed = table
    fitted = complete_automatically(observed, Settings())
    assert fitted.U.shape[1] == 5
    hidden = np.ones(M.shape, bool)
    hidden[observed.row_of_entry(), observed.indices] = False
    # noise of 0.1 on 35 entries a row leaves 0.1 sqrt(5 / 35) = 0.038 at the best
    assert np.sqrt(np.mean((prediction(fitted) - M)[hidden] ** 2)) <= 0.05


@pytest.fixture(scope="module")
def ratings():
    """A small table of ratings with offsets, rank 3 and noise, and entries to test on."""
    rng = np.random.default_rng(0)
    m, n, nnz = 400, 300, 18_000
    p, q = np.arange(1, m + 1) ** -0.5, np.arange(1, n + 1) ** -0.7
    cells = np.unique(rng.choice(m, 3 * nnz, p=p / p.sum()) * n + rng.choice(n, 3 * nnz, p=q / q.sum()))
    rows, columns = np.divmod(rng.permutation(cells)[:nnz], n)
    M = 3.5 + 0.4 * rng.standard_normal((m, 1)) + 0.5 * rng.standard_normal(n)
    M = M + 0.6 * rng.standard_normal((m, 3)) @ rng.standard_normal((3, n)) / np.sqrt(3)
    values = M[rows, columns] + 0.6 * rng.standard_normal(nnz)
    test = np.arange(nnz) < 2000
    observed = Observed.from_triplets(rows[~test], columns[~test], values[~test], (m, n))
    return observed, rows[test], columns[test], values[test]


def held_out_error(fitted, ratings):
    _, rows, columns, values = ratings
    return np.sqrt(np.mean((prediction(fitted)[rows, columns] - values) ** 2))


def test_the_choice_is_as_good_as_the_best_of_a_grid(ratings):
    fitted = complete_automatically(ratings[0], Settings())
    grid = [
        held_out_error(complete(ratings[0], k, reg, Settings()), ratings)
        for k in (1, 2, 3, 4, 8) for reg in (1.0, 2.0, 4.0, 8.0)
    ]  # fmt: skip
    assert held_out_error(fitted, ratings) <= 1.01 * min(grid)
    assert held_out_error(fitted, ratings) < 0.95 * np.sort(grid)[-5]


@pytest.fixture(scope="module", params=[5.0, 20.0])
def graded(request):
    """Rank 5 with singular values that fall to a fifth or a twentieth, and noise of a tenth; a third observed."""
    rng, m, n = np.random.default_rng(0), 300, 200
    U, V = (np.linalg.qr(rng.standard_normal((size, 5)))[0] for size in (m, n))
    M = U * np.geomspace(request.param, 1, 5) @ V.T
    M /= M.std()
    rows, columns = np.nonzero(rng.random(M.shape) < 0.3)
    values = M[rows, columns] + 0.1 * rng.standard_normal(len(rows))
    observed = Observed.from_triplets(rows, columns, values, M.shape)
    plain = Settings(fit_bias=False, center=False)
    return M, observed, min(error(complete(observed, 5, reg, plain), M) for reg in (0.03, 0.1, 0.3, 1.0))


@pytest.mark.parametrize("rank", [5, 6, 10, 20])
def test_a_rank_that_is_given_is_made_use_of(graded, rank):
    """Columns that came first fill the places; the path goes on until they are the right ones."""
    M, observed, best = graded
    assert error(complete_automatically(observed, Settings(), n_components=rank), M) <= 1.05 * best
    estimated = complete(observed, rank, None, Settings())  # nothing held out
    assert error(estimated, M) <= (1.15 if rank >= 10 else 1.6) * best


def test_the_path_shows_the_choice(ratings):
    fitted = complete_automatically(ratings[0], Settings())
    tried = fitted.path[~np.isnan(fitted.path["validation_rmse"])]
    best = tried[np.argmin(tried["validation_rmse"])]
    assert fitted.posterior.validation_rmse == best["validation_rmse"]
    assert fitted.path[-1]["reg"] == fitted.reg


def test_the_path_of_single_penalties_shows_the_choice(ratings, monkeypatch):
    monkeypatch.setattr(Search, "estimate", lambda search: False)
    fitted = complete_automatically(ratings[0], Settings())
    tried = fitted.path[~np.isnan(fitted.path["validation_rmse"])]
    best = tried[np.argmin(tried["validation_rmse"])]
    assert fitted.posterior is None
    assert best["reg"] == pytest.approx(fitted.reg)
    assert fitted.path[-1]["reg"] == fitted.reg


def test_estimated_penalties_are_left_where_there_is_no_noise():
    M, rows, columns = exact_problem(200, 150, 3, 4, 3, 0)
    fitted = complete_automatically(Observed.from_triplets(rows, columns, M[rows, columns], M.shape), Settings())
    assert fitted.posterior is None


def test_estimated_penalties_predict_better_than_the_best_single_one(ratings):
    """A grid that sees the test set, and an estimate that does not."""
    estimated = held_out_error(complete(ratings[0], 8, None, Settings()), ratings)
    grid = [
        held_out_error(complete(ratings[0], k, reg, Settings()), ratings)
        for k in (2, 3, 8) for reg in (2.0, 3.0, 4.0, 6.0, 8.0)
    ]  # fmt: skip
    assert estimated < min(grid)


def test_rank_and_penalty_may_be_given(ratings):
    fitted = complete_automatically(ratings[0], Settings(), n_components=2)
    assert fitted.U.shape[1] <= 2
    fitted = complete_automatically(ratings[0], Settings(), reg=3.0)
    assert fitted.reg == 3.0
    fitted = complete_automatically(ratings[0], Settings(), max_components=1)
    assert fitted.U.shape[1] <= 1


def test_the_same_seed_gives_the_same_bits(ratings):
    one, other = (complete_automatically(ratings[0], Settings(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.U, other.U)
    assert one.reg == other.reg


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_the_unit_of_the_data_makes_no_difference(ratings, factor):
    observed = ratings[0]
    scaled = Observed(observed.indptr, observed.indices, factor * observed.values, observed.shape)
    one, other = complete_automatically(observed, Settings()), complete_automatically(scaled, Settings())
    assert other.reg == pytest.approx(factor * one.reg, rel=1e-3)
    assert np.abs(factor * prediction(one) - prediction(other)).max() <= 1e-3 * factor * np.abs(prediction(one)).max()


def test_offsets_and_mean_are_left_out_where_there_are_none(rng):
    M = rng.standard_normal((200, 2)) @ rng.standard_normal((2, 100))
    rows, columns = np.nonzero(rng.random(M.shape) < 0.3)
    values = M[rows, columns] + 0.2 * rng.standard_normal(len(rows))
    plain = complete_automatically(Observed.from_triplets(rows, columns, values, M.shape), Settings())
    assert plain.mean == 0
    assert np.all(plain.row_bias == 0)
    moved = complete_automatically(Observed.from_triplets(rows, columns, values + 10, M.shape), Settings())
    assert moved.mean == pytest.approx(10, abs=0.5)


def test_noise_alone_gives_no_column(rng):
    rows, columns = np.nonzero(rng.random((150, 100)) < 0.3)
    observed = Observed.from_triplets(rows, columns, rng.standard_normal(len(rows)), (150, 100))
    fitted = complete_automatically(observed, Settings())
    assert np.sqrt(np.mean(prediction(fitted) ** 2)) <= 0.2


def test_a_stop_returns_what_is_there(ratings):
    from lrla._progress import Progress

    calls = []
    progress = Progress("", 100, 0, lambda info: calls.append(info) or len(calls) == 5)
    fitted = complete_automatically(ratings[0], Settings(), progress=progress)
    assert len(calls) == 5
    assert fitted.stopped
    assert not fitted.converged
    assert np.all(np.isfinite(prediction(fitted)))


# ---------------------------------------------------------------------------------------------------- held-out entries


def test_every_row_and_column_keeps_two_entries(rng):
    rows, columns = np.nonzero(rng.random((300, 200)) < 0.02)
    observed = Observed.from_triplets(rows, columns, np.ones(len(rows)), (300, 200))
    places = hold_out(observed, 0.2, 0)
    left = observed.without(places)
    for side, all_of_it in ((left, observed), (left.T, observed.T)):
        assert np.all(side.counts >= np.minimum(all_of_it.counts, 2))
    assert len(places) > 0


@pytest.mark.parametrize(("size", "count"), [(10, 0), (10, 10), (100_000, 1), (200_000, 70_000)])
def test_as_many_are_drawn_as_asked_for(size, count):
    places = draw(Stream.from_seed(np.random.SeedSequence(1)), size, count)
    assert np.all(np.diff(places) > 0)
    assert len(places) == count
    if count > 1000:  # 5 standard deviations of a hypergeometric count
        half = np.count_nonzero(places < size // 2)
        assert abs(half - count / 2) <= 5 * np.sqrt(count / 4 * (1 - count / size))


def test_holding_out_takes_little_memory(rng):
    """That of some random numbers and of what is held out."""
    nnz = 400_000
    cells = np.unique(rng.integers(0, 3000 * 2000, nnz))
    observed = Observed.from_triplets(*np.divmod(cells, 2000), np.ones(len(cells)), (3000, 2000))
    tracemalloc.start()
    hold_out(observed, 0.05, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * observed.nnz + 2**23  # and a batch of random words


def test_many_entries_are_searched_like_few(ratings, few_at_a_time):
    """Those that are held out are skipped, where of few entries the others are copied: the same but for rounding."""
    observed = ratings[0]
    few = complete_automatically(observed, Settings(), max_components=6)
    few_at_a_time()
    many = complete_automatically(observed.alone(False), Settings(), max_components=6)
    assert many.n_iter == few.n_iter
    assert many.validation_rmse == pytest.approx(few.validation_rmse, rel=1e-9)
    np.testing.assert_allclose(many.U @ many.V.T, few.U @ few.V.T, rtol=0, atol=1e-7)


@pytest.mark.filterwarnings("ignore:After 2 sweeps:sklearn.exceptions.ConvergenceWarning")
def test_memory_of_the_whole_search_does_not_grow_with_the_entries(rng, few_at_a_time, monkeypatch):
    """Acceptance 9, with the default parameters: it is that of some copies of the factors."""
    few_at_a_time()
    monkeypatch.setattr(_automatic, "MOST_HELD_OUT", 5_000)
    m, n, k, peaks, sizes = 20_000, 3_000, 3, [], []
    truth = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    for nnz in (400_000, 600_000):  # every row has some
        cells = np.unique(rng.integers(0, m * n, nnz))
        rows, columns = np.divmod(cells, n)
        values = np.einsum("pk,pk->p", truth[0][rows], truth[1][columns]) + 0.5 * rng.standard_normal(len(rows))
        X = scipy.sparse.csr_array((values, (rows.astype(np.int32), columns.astype(np.int32))), shape=(m, n))
        model = MatrixCompletion(max_components=8, max_iter=2, tol=0.9, random_state=0)
        model.fit(X)  # compiles
        tracemalloc.start()
        model.fit(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(X.nnz)
    assert peaks[1] - peaks[0] <= 1.5 * (sizes[1] - sizes[0])  # bytes, where an entry has 12
    block = 8 * (m + n) * 16  # 16 numbers a row: the factors with their offsets, or vectors of the residual
    assert peaks[1] <= 12 * block


def test_a_path_of_given_penalties(ratings):
    observed = ratings[0]
    X = (observed.values, (observed.row_of_entry(), observed.indices))
    path = completion_path(X, [2.0, 20.0, 6.0], random_state=0)
    assert path["reg"].tolist() == [20.0, 6.0, 2.0]
    assert np.all(np.diff(path["train_rmse"]) < 0)
    assert np.all(path["validation_rmse"] > path["train_rmse"])
    whole = completion_path(X, validation_fraction=0.0, random_state=0)
    assert len(whole) == 21
    assert whole["reg"][0] / whole["reg"][-1] == pytest.approx(1.25**20)
    assert np.all(np.isnan(whole["validation_rmse"]))
    with pytest.raises(ValueError, match="regs must be"):
        completion_path(X, [1.0, -1.0])
