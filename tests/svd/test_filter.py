"""The Chebyshev filter of the sparse Krylov solver: the polynomial, its inverse, its choice, and honest residuals."""

from contextlib import nullcontext

import numpy as np
import pytest
import scipy.sparse

from lrla import truncated_svd
from lrla.exceptions import RankDeficientWarning
from lrla.linalg._sparse import SparseOperator
from lrla.svd import _filter, _krylov
from lrla.svd._filter import Filter, choose


def flat(m=1500, n=900, density=0.02, seed=0):
    """Uniform entries: a singular value from the mean, and then hundreds close to each other."""
    return scipy.sparse.random_array((m, n), density=density, format="csr", rng=seed)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("degree", "count"), [(1, 5), (2, 8), (3, 5), (6, 41)])
def test_apply_is_the_polynomial_of_the_gram_matrix(rng, degree, count, centred, turned):
    A = flat(400, 40, 0.5)
    mean = rng.standard_normal(40) if centred else None
    dense = A.toarray() - (mean if centred else 0.0)
    op = SparseOperator(A, mean).T if turned else SparseOperator(A, mean)
    B = dense.T if turned else dense
    theta, V = np.linalg.eigh(B.T @ B)
    poly = Filter(degree, 0.3 * theta[-1])
    X = rng.standard_normal((count, B.shape[1]))
    expected = X @ (V * poly.values(theta)) @ V.T
    np.testing.assert_allclose(poly.apply(op, X), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("degree", [1, 2, 6])
def test_invert_undoes_values_above_the_cut_and_knows_nothing_below(degree):
    poly = Filter(degree, 2.0)
    theta = np.array([50.0, 3.0, 2.01])
    np.testing.assert_allclose(poly.invert(poly.values(theta))[0], theta, rtol=1e-12)
    if degree > 1:
        assert np.all(np.isinf(poly.invert(np.array([0.9, -1.0]))[1]))


@pytest.mark.parametrize("degree", [1, 2, 4, 6])
def test_the_residual_factor_is_a_bound(rng, degree):
    """For any vector, with theta the inverse of its Rayleigh quotient of f, near an eigenvector above the cut."""
    lam = np.sort(rng.uniform(0, 10, 80))[::-1]
    poly = Filter(degree, 4.0)
    for i in range(10):
        y = np.zeros(80)
        y[i] = 1.0
        y += 1e-5 * rng.standard_normal(80)
        y /= np.linalg.norm(y)
        value = np.sum(poly.values(lam) * y * y)
        (theta,), (factor,) = poly.invert(np.array([value]))
        filtered = np.linalg.norm((poly.values(lam) - value) * y)
        assert np.linalg.norm((lam - theta) * y) <= 1.01 * factor * filtered


def test_the_density_of_states_finds_the_cut():
    """Ritz values that stand for 1, 2, 7 and 990 eigenvalues."""
    theta, weights = np.array([100.0, 50.0, 20.0, 1.0]), np.array([1.0, 2.0, 7.0, 990.0])
    poly = choose(theta, weights, 3, orthogonalization=10.0, worst=1e12, largest=1e150)
    assert poly.degree == _filter.MAX_DEGREE
    assert 20.0 < poly.cut < 50.0  # above it 6 = 2 k eigenvalues are expected
    assert choose(theta, weights, 4, orthogonalization=0.0, worst=1e12, largest=1e150).degree == 1
    assert choose(theta, weights, 4, orthogonalization=10.0, worst=1.0, largest=1e150).degree == 1
    assert choose(theta, weights, 4, orthogonalization=10.0, worst=1e12, largest=1.0).degree == 1


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("seed", range(3))
def test_residuals_of_the_filtered_iteration_are_honest(tol, seed, monkeypatch):
    degrees = []
    monkeypatch.setattr(_krylov, "choose", lambda *args: degrees.append(choose(*args)) or degrees[-1])
    A = flat(seed=seed)
    U, s, Vt, info = truncated_svd(A, 25, tol=tol, random_state=seed, return_info=True)
    assert degrees[0].degree > 1
    assert info.status == "converged"
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:25]
    assert np.max(np.abs(s / exact - 1)) <= 20 * tol**2 + 1e-13  # quadratic, over the relative gaps
    assert np.max(np.linalg.norm(A.T @ U - Vt.T * s, axis=0) / s) <= 1.5 * tol


def test_a_cut_above_what_is_wanted_is_noticed(monkeypatch):
    A = flat()
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:25]
    monkeypatch.setattr(_krylov, "choose", lambda *args: Filter(4, 1.2 * exact[24] ** 2))
    _, s, _, info = truncated_svd(A, 25, random_state=0, return_info=True)
    assert info.status == "converged"
    assert np.max(np.abs(s / exact - 1)) <= 1e-5


def test_a_cut_above_what_is_wanted_in_single_precision_costs_one_more_filter(monkeypatch):
    A = flat()
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:25]
    cuts = [1.2 * exact[24] ** 2, 0.8 * exact[24] ** 2]
    monkeypatch.setattr(_krylov, "choose", lambda *args: Filter(4, cuts.pop(0)))
    _, s, _, info = truncated_svd(A, 25, random_state=0, return_info=True)
    assert not cuts
    assert info.status == "converged"
    assert info.n_iter <= 60
    assert np.max(np.abs(s / exact - 1)) <= 1e-5


def test_the_start_does_not_decide_how_long_a_flat_spectrum_takes():
    A = flat(4000, 2000, 0.01, seed=1)
    steps = [truncated_svd(A, 60, random_state=seed, return_info=True)[3].n_iter for seed in range(4)]
    assert max(steps) <= 1.5 * min(steps)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("seed", [12, 27])
def test_a_filtered_space_that_holds_the_whole_row_space_ends(seed, tol):
    """Rank 97 with k = 94, and 25 with k = 34: what is left of a block is amplified by up to 1e20."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(320, 900)), int(rng.integers(310, 900))
    rank, k = int(rng.integers(5, 100)), int(rng.integers(5, 100))
    left, right = (scipy.sparse.random_array(shape, density=0.05, rng=rng) for shape in ((m, rank), (rank, n)))
    A = scipy.sparse.csr_array(left @ right)
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:k]
    found = np.linalg.matrix_rank(A.toarray())
    with pytest.warns(RankDeficientWarning) if found < k else nullcontext():
        _, s, _, info = truncated_svd(A, k, tol=tol, method="krylov", random_state=seed, return_info=True)
    assert info.status in ("converged", "exhausted")
    assert info.rank == min(k, found)
    assert np.abs(s - exact).max() <= (20 * tol**2 + 1e-13) * exact[0]
