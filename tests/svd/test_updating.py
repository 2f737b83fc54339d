"""The algebra of updates: each equals the SVD of the matrix that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from lrla.svd import _kernels, _updating
from lrla.svd._updating import Truncation
from tests._matrices import matrix_with_spectrum, orthonormal

EPS = np.finfo(np.float64).eps
TOL = 64 * EPS


def start(m, n, s, rng):
    """U, s, V of an m x n matrix."""
    return orthonormal(m, len(s), rng), np.asarray(s, dtype=float), orthonormal(n, len(s), rng)


def residual_of(E, V, tol=TOL):
    C = E @ V
    N = E @ E.T
    return C, _updating.residual(N, C, np.sqrt(N.diagonal()), tol)


def row_update(U, s, V, E, width, **options):
    """The factors after an update, multiplied out."""
    C, rest = residual_of(E, V)
    new = _updating.append_rows(s, C, rest, Truncation(width, EPS, **options))
    return np.vstack([U @ new.top, new.bottom]), new.s, V @ new.T + E.T @ new.H, new


def errors(U, s, V, A, k):
    """Error of the values, of the product against the best one, and of both orthonormalities, relative to s_1."""
    u, exact, vt = np.linalg.svd(A)
    r = len(s)
    best = (u[:, :k] * exact[:k]) @ vt[:k]
    return (
        np.abs(s - exact[:r]).max() / exact[0],
        np.linalg.norm(U * s @ V.T - best, 2) / exact[0],
        max(np.abs(X.T @ X - np.eye(r)).max() for X in (U, V)),
    )


@pytest.mark.parametrize(("r", "count", "width"), [(4, 3, 7), (4, 3, 5), (1, 1, 1), (5, 1, 5), (3, 20, 6), (0, 4, 6)])
def test_appending_rows_equals_the_svd_of_the_stack(rng, r, count, width):
    U, s, V = start(30, 25, np.arange(r, 0, -1), rng)
    E = rng.standard_normal((count, 25))
    A = np.vstack([U * s @ V.T, E])
    U2, s2, V2, _ = row_update(U, s, V, E, width)
    values, product, orthonormality = errors(U2, s2, V2, A, width)
    assert values <= 10 * EPS
    assert product <= 200 * EPS  # the best product moves by eps over the relative gap behind it, which is some 0.01
    assert orthonormality <= 200 * EPS  # eps over the smallest pivot of the residual, about 0.01


def test_rows_over_twelve_decades_keep_every_direction(rng):
    _, _, V = start(20, 40, [1.0, 0.5], rng)
    E = rng.standard_normal((6, 40)) * 10.0 ** -np.arange(0, 12, 2)[:, None]
    C, rest = residual_of(E, V)
    assert rest.Rt.shape[1] == 6
    Q = (E - C @ V.T).T @ rest.times_B(np.eye(rest.Rt.shape[1]))
    assert np.abs(Q.T @ Q - np.eye(6)).max() <= 100 * EPS
    assert np.all(np.linalg.norm(rest.Rt @ Q.T - (E - C @ V.T), axis=1) <= 10 * EPS * np.linalg.norm(E, axis=1))


def test_rows_in_the_span_have_no_residual(rng):
    _, _, V = start(20, 40, [1.0, 0.5, 0.2], rng)
    E = rng.standard_normal((5, 3)) @ V.T
    _, rest = residual_of(E, V)
    assert rest.Rt.shape == (5, 0)
    assert rest.pivots.size == 0


def test_repeated_and_zero_rows_count_once(rng):
    _, _, V = start(20, 40, [1.0], rng)
    e = rng.standard_normal(40)
    _, rest = residual_of(np.array([e, 0 * e, 2 * e, e]), V)
    assert rest.Rt.shape == (4, 1)
    assert np.array_equal(rest.Rt[1], [0.0])


def test_small_singular_values_stay_accurate_beside_large_ones(rng):
    """The bound knows nothing of s_1 / s_r = 1e7: no formula may divide by small singular values."""
    s = np.geomspace(1, 1e-7, 8)
    U, s, V = start(60, 50, s, rng)
    E = 1e-3 * rng.standard_normal((2, 50))
    U2, s2, V2, _ = row_update(U, s, V, E, 10)
    assert np.abs(V2.T @ V2 - np.eye(10)).max() <= 100 * EPS
    assert np.linalg.norm(U2 * s2 @ V2.T - np.vstack([U * s @ V.T, E])) <= 100 * EPS


def test_signs_follow_the_old_components(rng):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0], rng)
    *_, V2, _ = row_update(U, s, V, 0.1 * rng.standard_normal((4, 25)), 3)
    assert np.all(np.sum(V * V2, axis=0) > 0.9)


def test_lost_energy_is_the_squared_error(rng):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0], rng)
    E = rng.standard_normal((4, 25))
    U2, s2, V2, new = row_update(U, s, V, E, 3)
    error = np.linalg.norm(U2 * s2 @ V2.T - np.vstack([U * s @ V.T, E]))
    assert np.sqrt(new.lost) == pytest.approx(error, rel=1e-12)


def test_shrinkage_subtracts_the_largest_dropped_square():
    kept, lost = Truncation(2, EPS, shrinkage=1.0)(np.array([5.0, 4.0, 3.0, 1.0]))
    assert np.allclose(kept, np.sqrt([16.0, 7.0]), rtol=4 * EPS)
    assert lost == pytest.approx(10 + (5 - 4) ** 2 + (4 - np.sqrt(7)) ** 2, rel=1e-14)


def test_truncation_drops_what_is_below_its_resolution():
    kept, lost = Truncation(5, EPS)(np.array([1.0, 1e-3, 1e-9, 0.0]))
    assert np.array_equal(kept, [1.0, 1e-3])
    assert lost == pytest.approx(1e-18)


def test_truncation_of_nothing():
    kept, lost = Truncation(5, EPS)(np.zeros(3))
    assert kept.size == 0
    assert lost == 0


@pytest.mark.parametrize(("q", "width"), [(2, 9), (2, 4), (6, 16), (1, 1)])
def test_a_low_rank_change_equals_the_svd_of_the_sum(rng, q, width):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0, 1.0], rng)
    D, E = rng.standard_normal((30, q)), rng.standard_normal((25, q))
    A = U * s @ V.T + D @ E.T
    new = _updating.change_low_rank(s, *residual_of(D.T, U), *residual_of(E.T, V), Truncation(width, EPS))
    U2, V2 = U @ new.left_T + D @ new.left_H, V @ new.right_T + E @ new.right_H
    values, product, orthonormality = errors(U2, new.s, V2, A, width)
    assert values <= 20 * EPS
    assert product <= 100 * EPS
    assert orthonormality <= 200 * EPS


def test_subtracting_a_component_lowers_the_rank(rng):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0], rng)
    D, E = -s[1] * U[:, [1]], V[:, [1]]
    new = _updating.change_low_rank(s, *residual_of(D.T, U), *residual_of(E.T, V), Truncation(5, EPS))
    assert np.allclose(new.s, [9.0, 3.0], rtol=0, atol=20 * EPS * 9)


def test_removing_rows_equals_the_svd_of_what_stays(rng):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0], rng)
    gone = np.array([2, 7, 29])
    new = _updating.remove_rows(s, U[gone], Truncation(3, EPS))
    U2, V2 = np.delete(U, gone, axis=0) @ new.left_T, V @ new.right_T
    values, product, orthonormality = errors(U2, new.s, V2, np.delete(U * s @ V.T, gone, axis=0), 3)
    assert max(values, product) <= 20 * EPS
    assert orthonormality <= 20 * EPS


def test_removing_all_rows_of_a_component_is_handed_back(rng):
    s = np.array([9.0, 5.0])
    U = np.vstack([np.eye(2)[:1], np.hstack([np.zeros((20, 1)), orthonormal(20, 1, rng)])])
    assert _updating.remove_rows(s, U[:1], Truncation(2, EPS)) is None


def test_leading_residual_keeps_the_best_directions(rng):
    E = matrix_with_spectrum(10, 40, [5, 4, 3, 2, 1], rng)
    rest = _updating.leading_residual(E @ E.T, np.zeros((10, 0)), np.linalg.norm(E, axis=1), TOL, 2)
    Q = E.T @ rest.times_B(np.eye(rest.Rt.shape[1]))
    assert np.abs(Q.T @ Q - np.eye(2)).max() <= 50 * EPS
    assert np.linalg.norm(E - rest.Rt @ Q.T) ** 2 == pytest.approx(3**2 + 2**2 + 1, rel=1e-12)
    assert rest.lost == pytest.approx(3**2 + 2**2 + 1, rel=1e-12)


def test_leading_residual_of_full_rank_is_the_whole_update(rng):
    U, s, V = start(30, 25, [9.0, 5.0, 3.0], rng)
    E = rng.standard_normal((4, 25))
    C, N = E @ V, E @ E.T
    rest = _updating.leading_residual(N, C, np.sqrt(N.diagonal()), TOL, 4)
    new = _updating.append_rows(s, C, rest, Truncation(7, EPS))
    exact = np.linalg.svd(np.vstack([U * s @ V.T, E]), compute_uv=False)[:7]
    assert np.abs(new.s - exact).max() <= 20 * EPS * exact[0]


def row_matrix(s, C, Rt):
    """The small matrix of a row update."""
    return np.block([[np.diag(s), np.zeros((len(s), Rt.shape[1]))], [C, Rt]])


@pytest.mark.parametrize("decades", [1, 3, 6])
@pytest.mark.parametrize("r", [1, 2, 17, 48])
def test_secular_equation_gives_the_svd_of_an_arrow(rng, r, decades):
    """Rows with entries over many decades, some of them zero; LAPACK's own limits are some 30 eps times the order."""
    for _ in range(30):
        s = np.sort(10.0 ** -(decades * rng.random(r)))[::-1].copy()
        c = rng.standard_normal(r) * 10.0 ** -(16 * rng.random(r)) * (rng.random(r) < 0.8) * 10.0 ** rng.integers(-3, 4)
        rho = abs(rng.standard_normal()) * 10.0 ** -rng.integers(0, 18) * (rng.random() < 0.8)
        F, G = np.zeros((2, r + 1, r + 1))
        S = np.empty(r + 1)
        assert _kernels.arrow_svd(s, c, rho, F, S, G, np.empty((r + 5, r + 1)))
        M = row_matrix(s, c[None], np.array([[rho]]))
        scale = np.abs(M).max()
        assert np.abs(np.sort(S)[::-1] - np.linalg.svd(M, compute_uv=False)).max() <= 30 * EPS * scale
        assert max(np.abs(X.T @ X - np.eye(r + 1)).max() for X in (F, G)) <= 30 * EPS
        assert np.abs(F * S @ G.T - M).max() <= 30 * EPS * scale


@pytest.mark.parametrize("s", [[1.0, 1.0], [1.0, 1e-16], [1.0, 1.0 - 1e-16]])
def test_secular_equation_hands_equal_values_back(s):
    F, G = np.zeros((2, 3, 3))
    assert not _kernels.arrow_svd(np.array(s), np.array([0.3, 0.2]), 0.1, F, np.empty(3), G, np.empty((7, 3)))


@pytest.mark.parametrize("spread", [1.0, 10.0, 150.0])
@pytest.mark.parametrize(("k", "count"), [(2, 30), (32, 100), (48, 32)])
def test_leading_triplets_are_those_of_the_svd(rng, k, count, spread):
    s = np.linspace(spread, 1.0, k) if spread > 1 else 1.0 + np.arange(k, 0, -1) * 1e-6
    M = row_matrix(10 * s, rng.standard_normal((count, k)), np.tril(rng.standard_normal((count, count))))
    F, S, G, lost = _updating._leading(M, k)
    exact = np.linalg.svd(M, compute_uv=False)
    assert np.abs(S - exact[:k]).max() <= 200 * EPS * exact[0]
    assert max(np.abs(X.T @ X - np.eye(k)).max() for X in (F, G)) <= 30 * EPS
    assert np.abs(F.T @ M - S[:, None] * G.T).max() <= 30 * EPS * exact[0]
    assert lost == pytest.approx(np.sum(exact[k:] ** 2), rel=1e-9)


@pytest.mark.parametrize(
    "M", [np.eye(60), np.diag(np.repeat([3.0, 2.0, 1.0], 20)), np.diag(np.geomspace(1, 1e-9, 60)), np.zeros((60, 60))]
)
def test_leading_triplets_are_left_to_the_svd_where_squares_would_cost_accuracy(M):
    assert _updating._leading(M, 20) is None


def test_leading_triplets_are_left_to_the_svd_where_lapack_fails(rng, monkeypatch):
    M = rng.standard_normal((60, 60))
    for name, result in (("dsterf", (np.zeros(60), 1)), ("dstein", (np.zeros((60, 20)), 1))):
        with monkeypatch.context() as patch:
            patch.setattr(_updating.lapack, name, lambda *args, result=result: result)
            assert _updating._leading(M, 20) is None
    assert _updating._leading(M, 20) is not None


@pytest.mark.parametrize("spread", [1.0, 1e3])
@pytest.mark.parametrize("size", [0.0, 1e-6, 0.03, 0.3])
@pytest.mark.parametrize("known", [0.0, 0.1, 10.0])
def test_rows_with_a_small_residual_have_the_same_leading_vectors(rng, spread, size, known):
    """The Riccati equation's solution against LAPACK's, for new rows small and large beside what is known."""
    r, count = 12, 40
    s = np.geomspace(spread, 1.0, r)
    C = known * rng.standard_normal((count, r)) * s / np.sqrt(count)
    Rt = size * rng.standard_normal((count, count)) / (4.0 * np.sqrt(count))
    M = np.block([[np.diag(s), np.zeros((r, count))], [C, Rt]])
    values, F = _updating._leading_of_rows(s, C, Rt)
    exact, vectors = np.linalg.eigh(M @ M.T)
    exact, vectors = exact[-r:], vectors[:, -r:]
    np.testing.assert_allclose(values, exact, rtol=0, atol=50 * EPS * exact[-1])
    assert np.linalg.norm(F - vectors @ (vectors.T @ F), 2) <= 100 * EPS * exact[-1] / exact[0]
    assert np.linalg.norm(F.T @ F - np.eye(r), 2) <= 100 * EPS


def test_rows_with_a_large_residual_are_not_taken_for_small(rng):
    """Copies of a row outside the space: each is small, together they lead."""
    s, C = np.ones(4), np.zeros((100, 4))
    Rt = np.zeros((100, 100))
    Rt[:, 0] = 0.2
    assert _updating._leading_of_rows(s, C, Rt) is None
    assert _updating._leading_of_rows(s, C, Rt / 10) is not None
    assert _updating._leading_of_rows(s, C, np.eye(100)) is None


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0, 1.1])
def test_unlike_rows_may_have_a_residual_as_large_as_the_last_value(rng, share):
    """Nearly orthogonal rows, one of them nearly as long as what is known: taken as long as it cannot lead."""
    r, count = 6, 40
    s, C = np.linspace(3.0, 2.0, r), 1e-3 * rng.standard_normal((count, r))
    Rt = np.diag(np.linspace(0.1, 1.0, count) * share * s[-1])
    Rt[1, 0] = 0.01
    found = _updating._leading_of_rows(s, C, Rt)
    assert (found is not None) == (share < 1.0)
    if found is not None:
        M = np.block([[np.diag(s), np.zeros((r, count))], [C, Rt]])
        F, S, G, _ = _updating._leading(M, r, found)
        np.testing.assert_allclose(S, np.linalg.svd(M, compute_uv=False)[:r], rtol=0, atol=20 * EPS * S[0])
        assert np.linalg.norm(M.T @ F - G * S, 2) <= 20 * EPS * S[0]


def test_values_too_small_to_be_squared_are_left_to_the_svd():
    s, C = np.array([1.0, 1e-9]), np.full((10, 2), 1e-12)
    assert _updating._leading_of_rows(s, C, np.zeros((10, 10))) is None


def test_divide_and_conquer_may_fail(rng, monkeypatch):
    def fail(*args, **kwargs):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fail)
    M = rng.standard_normal((5, 4))
    F, S, Gt = _updating.svd(M)
    assert np.allclose(F * S @ Gt, M, rtol=0, atol=20 * EPS * scipy.linalg.norm(M))
