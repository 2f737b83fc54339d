"""`truncated_svd`: its residuals bound its errors, for every method, storage, orientation and spectrum."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator, svds
from sklearn.exceptions import ConvergenceWarning

from lrla import truncated_svd
from lrla.exceptions import RankDeficientWarning
from lrla.linalg._operator import as_operator
from lrla.svd import _truncated
from lrla.svd._krylov import GramSpace
from lrla.svd._truncated import METHODS
from tests._matrices import matrix_with_spectrum, orthogonality_ratio, sparse_matrix

EPS = np.finfo(np.float64).eps
KRYLOV = pytest.mark.parametrize("method", ["krylov", "krylov2"])
FORMS = {
    "dense": np.asarray,
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "operator": aslinearoperator,
}


def true_residuals(A, U, s, Vt):
    """||A^T u - s v|| of every triplet, by a product that the library has no part in."""
    return np.linalg.norm(A.T @ U - Vt.T * s, axis=0)


def decaying(m, n, rng, ratio=0.8):
    """Sparse rows whose columns are scaled down geometrically."""
    return sparse_matrix(m, n, 0.2, rng).toarray() * ratio ** np.arange(n)


def values(A, k):
    return np.linalg.svd(A, compute_uv=False)[:k]


# ------------------------------------------------------------------------------------- residuals bound the errors


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(160, 60), (60, 160)], ids=["tall", "wide"])
@pytest.mark.parametrize("center", [False, True])
def test_values_are_within_their_residuals(rng, method, form, shape, center):
    k = 6
    A = decaying(max(shape), min(shape), rng)
    A = A if shape[0] > shape[1] else A.T.copy()
    C = A - A.mean(axis=0) if center else A
    U, s, Vt, info = truncated_svd(
        FORMS[form](A), k, method=method, center=center, random_state=0, return_info=True, tol=1e-2
    )
    exact = values(C, k)
    noise = 100 * EPS * exact[0]
    # Weyl: a singular value of the matrix lies within the residual; the gaps here are wider than that.
    assert np.all(np.abs(s - exact) <= info.residuals + noise)
    # ... and U diag(s) = A V, or the other way round, so that the residual is what it says it is
    left, right = true_residuals(C, U, s, Vt), true_residuals(C.T, Vt.T, s, U.T)
    assert np.all(np.minimum(left, right) <= noise)
    assert np.all(np.maximum(left, right) <= 2 * np.maximum(info.residuals, 1e-5 * s))  # 1e-5: of a float32 basis
    assert orthogonality_ratio(U) <= 30
    assert orthogonality_ratio(Vt.T) <= 30


@KRYLOV
@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-6, 1e-9])
def test_the_tolerance_holds_for_the_true_residuals(rng, method, form, tol):
    A = sparse_matrix(240, 150, 0.1, rng).toarray()  # one large value, then a flat bulk
    U, s, Vt, info = truncated_svd(FORMS[form](A), 8, method=method, tol=tol, random_state=0, return_info=True)
    assert info.status == "converged"
    assert np.all(true_residuals(A, U, s, Vt) <= 2 * tol * s)


@KRYLOV
def test_errors_are_quadratic_in_the_tolerance(rng, method):
    A = matrix_with_spectrum(200, 160, np.arange(1, 161) ** -0.5, rng)
    s = truncated_svd(A, 10, method=method, tol=1e-3, random_state=0)[1]
    # (residual / gap)^2 s: the gap behind s_10 is 5 % of it, so (1e-3 / 0.05)^2 / 2 at the very worst
    assert np.max(np.abs(s / np.arange(1, 11) ** -0.5 - 1)) <= 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_accurate_to_float32(rng, form):
    A = decaying(400, 320, rng).astype(np.float32)
    U, s, Vt = truncated_svd(FORMS[form](A), 5, method="krylov", random_state=0)
    assert U.dtype == s.dtype == Vt.dtype == np.float32
    exact = values(A.astype(np.float64), 5)
    assert (
        np.max(np.abs(s - exact)) <= 1e-5 * exact[0]
    )  # some hundred float32 roundings, and a tolerance of 1e-3 squared
    assert orthogonality_ratio(U) <= 30


def test_centering_by_a_vector_subtracts_that_vector(rng):
    A, shift = decaying(100, 40, rng), rng.standard_normal(40)
    s = truncated_svd(sp.csr_array(A), 4, method="krylov", tol=1e-8, center=shift, random_state=0)[1]
    exact = values(A - shift, 4)
    assert np.max(np.abs(s - exact)) <= 1e-12 * exact[0]


# --------------------------------------------------------------------------------------------------- invariances


@KRYLOV
def test_orthogonal_transforms_leave_the_values(rng, method):
    A = decaying(350, 310, rng)
    Q = np.linalg.qr(rng.standard_normal((310, 310)))[0]
    options = {"method": method, "tol": 1e-7, "random_state": 0}
    s = truncated_svd(A, 5, **options)[1]
    assert np.max(np.abs(truncated_svd(A @ Q, 5, **options)[1] - s)) <= 1e-12 * s[0]  # tolerance squared, and n eps


@KRYLOV
def test_permuted_columns_permute_the_right_vectors(rng, method):
    A = sp.csc_array(decaying(350, 310, rng))
    order = rng.permutation(310)
    options = {"method": method, "tol": 1e-9, "random_state": 0}
    U, s, Vt = truncated_svd(A, 5, **options)
    U2, s2, Vt2 = truncated_svd(A[:, order], 5, **options)
    assert np.max(np.abs(s2 - s)) <= 1e-12 * s[0]
    assert np.max(np.abs(Vt2 - Vt[:, order])) <= 1e-7  # tolerance over the relative gap, which is some 0.1
    assert np.max(np.abs(U2 - U)) <= 1e-7


@KRYLOV
@pytest.mark.parametrize("scale", [3.0, 2.0**-30])
def test_scaling_scales_the_values(rng, method, scale):
    A = decaying(350, 310, rng, 0.9)
    U, s, Vt = truncated_svd(A, 5, method=method, random_state=0)
    U2, s2, Vt2 = truncated_svd(scale * A, 5, method=method, random_state=0)
    # The same steps up to rounding: what the tolerance leaves open is left open in the same way.
    assert np.max(np.abs(s2 / scale - s)) <= 1e-9 * s[0]
    assert np.max(np.abs(Vt2 - Vt)) <= 1e-6


@pytest.mark.parametrize("method", ["krylov", "krylov2", "dash", "randomized", "gram"])
@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float64, 10.0**e) for e in (-250, -100, -70, -20, -12, 9, 20, 70, 100, 200)]
    + [(np.float32, 10.0**e) for e in (-25, -14, -12, -9, 9, 12, 14, 25)],
)
def test_no_power_of_the_data_overflows_or_vanishes(rng, method, form, dtype, scale):
    """Gram matrices of products with A^T A hold fourth powers: float32 has none of 1e-12, nor of 1e12.

    A sparse float64 matrix is worked on in float32, too, at the default tolerance.
    """
    A = decaying(150, 60, rng)
    s = truncated_svd(FORMS[form]((scale * A).astype(dtype)), 4, method=method, random_state=0)[1]
    exact = values(A, 4)
    assert (
        np.max(np.abs(s.astype(np.float64) / scale - exact)) <= 1e-4 * exact[0]
    )  # tolerance squared over a gap of 0.1


def test_the_transpose_exchanges_the_factors(rng):
    A = sp.csr_array(decaying(350, 310, rng))
    U, s, Vt = truncated_svd(A, 5, method="krylov", tol=1e-9, random_state=0)
    U2, s2, Vt2 = truncated_svd(A.T, 5, method="krylov", tol=1e-9, random_state=0)
    assert np.max(np.abs(s2 - s)) <= 1e-12 * s[0]
    assert np.max(np.abs(np.abs(U2) - np.abs(Vt.T))) <= 1e-7


def test_the_largest_entry_of_every_right_vector_is_positive(rng):
    Vt = truncated_svd(rng.standard_normal((350, 310)), 5, method="krylov", random_state=0)[2]
    assert np.all(Vt[np.arange(5), np.abs(Vt).argmax(axis=1)] > 0)


# ------------------------------------------------------------------------------------------------- known spectra


@KRYLOV
@pytest.mark.parametrize("shape", [(900, 500), (500, 900)])
def test_sparse_values_equal_those_of_arpack(rng, method, shape):
    A = sparse_matrix(*shape, 0.02, rng)
    s = truncated_svd(A, 12, method=method, tol=1e-5, random_state=0)[1]
    exact = np.sort(svds(A, 12, tol=0, v0=np.ones(min(shape)), return_singular_vectors=False))[::-1]
    # Random matrices have gaps of 1/n^(2/3), some 1 %: (1e-5 / 0.01)^2 at the very worst
    assert np.max(np.abs(s / exact - 1)) <= 1e-6


@KRYLOV
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_diagonal_matrix(rng, method, form):
    d = np.r_[np.arange(50, 0, -1.0), np.full(310, 0.5)]
    A = FORMS[form](np.diag(rng.permutation(d)))
    s = truncated_svd(A, 10, method=method, random_state=0, tol=1e-6)[1]
    assert np.max(np.abs(s - np.arange(50, 40, -1))) <= 1e-9  # (1e-6 / 0.02)^2 relative, 1e-9 of 50


@KRYLOV
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_power_law_spectrum(rng, method, power):
    exact = np.arange(1, 161) ** -power
    A = matrix_with_spectrum(200, 160, exact, rng)
    s = truncated_svd(A, 15, method=method, tol=1e-6, random_state=0)[1]
    assert np.max(np.abs(s / exact[:15] - 1)) <= 1e-8  # relative gap 0.03: (1e-6 / 0.03)^2


@KRYLOV
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_all_values_equal(method, form):
    A = FORMS[form](np.eye(400))
    U, s, Vt, info = truncated_svd(A, 20, method=method, block_size=8, random_state=0, return_info=True)
    assert np.max(np.abs(s - 1)) <= 1e-6
    assert info.rank == 20
    assert np.linalg.norm(Vt @ Vt.T - np.eye(20), 2) <= 1e-12


@KRYLOV
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_twelve_copies_of_the_largest_value(rng, method, form):
    """A space grown from 8 vectors holds 8 copies; random vectors that join later bring the others."""
    exact = np.r_[np.full(12, 2.0), np.linspace(1.0, 0.1, 338)]
    A = FORMS[form](np.diag(rng.permutation(exact)))
    s = truncated_svd(A, 15, method=method, block_size=8, random_state=0)[1]
    assert np.max(np.abs(s / exact[:15] - 1)) <= 1e-5


@KRYLOV
def test_forty_disjoint_complete_graphs(method):
    sizes = np.tile([6, 8, 10, 12], 10)
    A = sp.block_diag([(np.ones((c, c)) - np.eye(c)) / (c - 1) for c in sizes], format="csr")  # degrees are all c - 1
    s = truncated_svd(sp.csr_array(A), 40, method=method, block_size=8, random_state=0)[1]
    assert np.max(np.abs(s - 1)) <= 1e-6


@KRYLOV
@pytest.mark.parametrize("copies", [18, 29])
def test_every_value_many_times(rng, method, copies):
    """Equal diagonal blocks: each value has more copies than a block has vectors, and the k-th is among the third lot."""
    block = sp.random_array((40, 30), density=0.2, rng=rng)
    A = sp.csr_array(sp.block_diag([block] * copies))
    exact = np.repeat(np.linalg.svd(block.toarray(), compute_uv=False), copies)
    k = 2 * copies + 3
    s = truncated_svd(A, k, method=method, block_size=8, random_state=0)[1]
    assert np.max(np.abs(s / exact[:k] - 1)) <= 1e-5


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("power", [1.0, 1.7, 2.5])
def test_residuals_are_honest_where_rounding_is_near(rng, power, tol):
    """Steep spectra of sparse matrices: what precision cannot tell is handed over, and not called converged."""
    n, k = 900, 40
    A = sp.random_array((2000, n), density=0.01, rng=rng) @ sp.diags_array(np.arange(1.0, n + 1) ** -power)
    A = sp.csr_array(A)
    U, s, Vt, info = truncated_svd(A, k, method="krylov", tol=tol, random_state=0, return_info=True)
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:k]
    assert info.status == "converged"
    assert np.all(true_residuals(A, U, s, Vt) <= 1.1 * tol * s)
    assert np.max(np.abs(s / exact - 1)) <= 10 * tol**2


def test_a_few_huge_columns_do_not_overflow_the_filter(rng):
    scale = np.where(np.arange(560) < 5, 1e5, 1.0)
    A = sp.csr_array(sp.random_array((2600, 560), density=0.006, rng=rng) @ sp.diags_array(scale))
    U, s, Vt, info = truncated_svd(A, 59, method="krylov", tol=1e-2, random_state=0, return_info=True)
    assert info.status == "converged"
    assert np.all(true_residuals(A, U, s, Vt) <= 1.1e-2 * s)


@KRYLOV
def test_incidence_matrix_of_a_path(method):
    n, k = 120, 5
    A = sp.diags_array([np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n)).tocsr()
    s = truncated_svd(A, k, method=method, tol=1e-5, random_state=0)[1]
    exact = 2 * np.sin(np.pi * np.arange(n - 1, n - 1 - k, -1) / (2 * n))
    assert np.max(np.abs(s / exact - 1)) <= 1e-5  # within the residual; gaps are as small as 3e-4


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_a_spectrum_too_steep_for_squaring_is_handed_over(rng, form):
    """The squares of 1 and 1e-7 differ by 1e-14: float32 sees nothing of s_8, float64 noise; two sides see all."""
    exact = np.r_[np.logspace(0, -7, 8), np.full(300, 1e-9)]
    A = matrix_with_spectrum(350, 308, exact, rng)
    U, s, Vt, info = truncated_svd(FORMS[form](A), 8, method="krylov", random_state=0, return_info=True)
    assert info.status == "converged"
    assert np.max(np.abs(s / exact[:8] - 1)) <= 1e-6  # tolerance squared; eps ||A|| / s_8 is 2e-9
    assert np.all(true_residuals(A, U, s, Vt) <= 2e-3 * s)


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("block_size", [2, 4, 10])
def test_values_that_squaring_takes_for_noise_are_not_missing_rank(rng, form, block_size):
    """A^T A has numerical rank 8 of 12 here, A has 12."""
    exact = np.logspace(0, -11, 12)
    A = matrix_with_spectrum(150, 120, exact, rng)
    options = {"method": "krylov", "block_size": block_size, "random_state": 0}
    s = truncated_svd(FORMS[form](A), 10, **options)[1]
    assert np.max(np.abs(s / exact[:10] - 1)) <= 1e-5  # eps ||A|| / s_10 is 2e-7, and some hundred of these


# --------------------------------------------------------------------------------------- rank, and what went wrong


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_missing_rank_is_said_and_the_rest_is_zero(rng, method, form):
    A = matrix_with_spectrum(90, 70, [5.0, 4.0, 3.0], rng)
    with pytest.warns(RankDeficientWarning, match="rank 3"):
        U, s, Vt, info = truncated_svd(FORMS[form](A), 6, method=method, random_state=0, return_info=True)
    assert info.rank == 3
    assert np.max(np.abs(s[:3] - [5.0, 4.0, 3.0])) <= 1e-10
    assert np.array_equal(s[3:], np.zeros(3))
    assert orthogonality_ratio(U) <= 30
    assert orthogonality_ratio(Vt.T) <= 30


@pytest.mark.parametrize("method", METHODS)
def test_a_zero_matrix_has_zero_values_and_orthonormal_vectors(method):
    U, s, Vt = truncated_svd(np.zeros((40, 30)), 3, method=method, random_state=0)
    assert np.array_equal(s, np.zeros(3))
    assert orthogonality_ratio(U) <= 30
    assert orthogonality_ratio(Vt.T) <= 30


@KRYLOV
def test_too_few_steps_warn_and_return_what_there_is(rng, method):
    A = rng.standard_normal((400, 350))
    with pytest.warns(ConvergenceWarning, match=r"^\d+ of 20 singular triplets converged in 1 steps") as caught:
        U, s, Vt, info = truncated_svd(A, 20, method=method, max_iter=1, random_state=0, return_info=True)
    assert info.status == "max_iter"
    assert info.n_iter == 1
    assert f"{info.n_converged} of 20" in str(caught[0].message)
    assert (U.shape, s.shape, Vt.shape) == ((400, 20), (20,), (20, 350))
    assert np.all(s <= values(A, 20) * (1 + 1e-12))  # Ritz values lie below
    assert not [w for w in caught if issubclass(w.category, RankDeficientWarning)]  # nothing is known of the rank


@KRYLOV
def test_the_warning_counts_the_converged_triplets(rng, method):
    A = np.diag(np.r_[1e3, 1e2, 20 + 1e-2 * rng.random(348)])
    with pytest.warns(ConvergenceWarning) as caught:
        info = truncated_svd(A, 10, method=method, max_iter=6, tol=1e-8, random_state=0, return_info=True)[3]
    assert 0 < info.n_converged < 10
    assert f"{info.n_converged} of 10" in str(caught[0].message)


@KRYLOV
@pytest.mark.parametrize("after", [1, 4])
def test_a_callback_stops_the_iteration_without_a_warning(rng, method, after):
    seen = []

    def callback(state):
        seen.append(dict(state))
        return state["iteration"] == after

    A = rng.standard_normal((400, 350))
    *_, info = truncated_svd(A, 5, method=method, tol=1e-9, callback=callback, random_state=0, return_info=True)
    assert info.status == "stopped"
    assert not info.converged
    assert [state["iteration"] for state in seen] == list(range(1, after + 1))
    assert info.n_iter == after


def test_verbose_writes_a_bar(rng, capsys):
    truncated_svd(rng.standard_normal((350, 310)), 3, method="krylov", verbose=1, random_state=0)
    assert "truncated SVD" in capsys.readouterr().err


def test_silent_by_default(rng, capsys):
    truncated_svd(rng.standard_normal((350, 310)), 3, method="krylov", random_state=0)
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------------------------------- options and info


@KRYLOV
def test_a_start_from_the_answer_takes_fewer_steps(rng, method):
    A = sparse_matrix(500, 320, 0.05, rng)
    options = {"method": method, "random_state": 0, "tol": 1e-4, "return_info": True}
    U, s, Vt, cold = truncated_svd(A, 8, **options)
    U2, s2, Vt2, warm = truncated_svd(A, 8, v0=Vt, **options)
    assert warm.n_iter < cold.n_iter
    assert np.max(np.abs(s2 / s - 1)) <= 1e-6


def test_two_triplets_of_a_flat_spectrum_do_not_restart_all_the_time():
    """With a basis of 3 k + 2 b vectors these four took 1632 products, as 1e-3 is reached by a space of about 80."""
    products = 0
    for seed in range(4):
        A = sparse_matrix(3000, 2000, 0.01, np.random.default_rng(seed))
        _, s, _, info = truncated_svd(A, 2, method="krylov", tol=1e-3, random_state=0, return_info=True)
        np.testing.assert_allclose(s, svds(A, 2, random_state=0)[1][::-1], rtol=1e-5)
        products += info.n_products
    assert products <= 900


def test_info_describes_the_run(rng):
    A = sparse_matrix(500, 320, 0.05, rng)
    U, s, Vt, info = truncated_svd(A, 8, method="krylov", block_size=4, random_state=0, return_info=True)
    assert info.method == "krylov"
    assert info.status == "converged"
    assert info.converged
    assert info.n_converged == info.rank == 8
    assert info.n_products >= 4 * info.n_iter
    assert info.residuals.shape == (8,)
    assert np.all(info.residuals <= 1e-3 * s)
    assert "tolerance" in info.message
    assert np.array_equal(info.U, U)
    assert np.array_equal(info.Vt, Vt)


@pytest.mark.parametrize(
    ("method", "status"), [("lapack", "direct"), ("gram", "direct"), ("randomized", "fixed"), ("dash", "converged")]
)
def test_status_of_the_other_methods(rng, method, status):
    *_, info = truncated_svd(decaying(100, 50, rng), 3, method=method, random_state=0, return_info=True)
    assert (info.method, info.status) == (method, status)


def test_auto_takes_lapack_where_the_matrix_is_small_and_krylov_where_not(rng):
    def chosen(shape, k):
        return truncated_svd(sparse_matrix(*shape, 0.05, rng), k, random_state=0, return_info=True)[3].method

    assert chosen((310, 300), 5) == "lapack"
    assert chosen((310, 301), 5) == "krylov"
    assert chosen((310, 301), 150) == "lapack"


def test_gram_on_a_tall_matrix_resolves_what_squaring_loses(rng):
    exact = np.logspace(0, -6, 7)
    A = matrix_with_spectrum(2000, 40, np.r_[exact, np.full(33, 1e-9)], rng)
    s = truncated_svd(A, 7, method="gram")[1]
    # 8e-13 as the specification measured it; eps ||A|| / s_7 = 2e-10 is what the data itself determines
    assert np.max(np.abs(s - exact)) <= 10 * EPS * np.sqrt(2000)


def test_gram_leaves_a_spectrum_that_it_cannot_resolve_to_lapack(rng):
    exact = np.r_[1.0, 1e-3, 1e-9, np.full(20, 1e-10)]
    A = matrix_with_spectrum(300, 40, exact, rng)
    s = truncated_svd(A, 3, method="gram")[1]
    assert np.max(np.abs(s - exact[:3])) <= 100 * EPS


def test_dash_values_settle_within_the_tolerance(rng):
    A = matrix_with_spectrum(150, 110, np.arange(1, 111) ** -1.0, rng)
    s = truncated_svd(A, 10, method="dash", tol=1e-2, random_state=0)[1]
    # The change over one step, relative to lam_11, is below 1e-2; the squared values are off by no more than a few.
    assert np.max(np.abs(s**2 - np.arange(1, 11) ** -2.0)) <= 5e-2 / 11**2


@pytest.mark.parametrize("method", METHODS)
def test_an_int_repeats_the_result(rng, method):
    A = sparse_matrix(120, 100, 0.1, rng)
    first, second = (truncated_svd(A, 4, method=method, random_state=7) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (5, 5), (1, 7), (7, 1)])
def test_every_triplet_of_a_tiny_matrix(rng, method, shape):
    A = rng.standard_normal(shape)
    k = min(shape)
    U, s, Vt = truncated_svd(A, k, method=method, random_state=0)
    assert np.max(np.abs(s - values(A, k))) <= 1e-10 * np.linalg.norm(A)
    assert np.linalg.norm(U * s @ Vt - A) <= 1e-10 * np.linalg.norm(A)


def test_results_stay_on_the_device(rng, device_xp):
    A = decaying(330, 310, rng)
    U, s, Vt = truncated_svd(device_xp.asarray(A), 4, method="krylov", tol=1e-6, random_state=0)
    assert all(device_xp.owns(x) for x in (U, s, Vt))
    exact = values(A, 4)
    assert np.max(np.abs(device_xp.to_numpy(s) - exact)) <= 1e-10 * exact[0]


def test_a_warm_start_needs_the_shorter_side(rng):
    with pytest.raises(ValueError, match=r"Pass A\.T"):
        truncated_svd(rng.standard_normal((5, 9)), 2, v0=np.ones((1, 9)))


@pytest.mark.parametrize("v0", [np.ones((1, 8)), np.ones((10, 9))])
def test_a_warm_start_needs_the_right_shape(rng, v0):
    with pytest.raises(ValueError, match="v0 must have shape"):
        truncated_svd(rng.standard_normal((20, 9)), 2, v0=v0)


def test_no_warning_comes_from_a_good_matrix(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        truncated_svd(sparse_matrix(400, 310, 0.05, rng), 5, random_state=0)


class Counting(LinearOperator):
    """A dense matrix that counts the blocks it is multiplied with."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A, self.products = A, 0

    def _matmat(self, X):
        self.products += 1
        return self.A @ X

    def _rmatmat(self, Y):
        self.products += 1
        return self.A.T @ Y


@pytest.mark.parametrize("shape", [(900, 500), (500, 900)])
def test_the_last_block_is_used_at_the_cost_of_half_a_step(rng, shape):
    A = matrix_with_spectrum(*shape, 1.0 / np.sqrt(np.arange(1, 501)), rng)
    operator = Counting(A)
    *_, info = truncated_svd(operator, 10, tol=0.2, method="krylov", random_state=0, return_info=True)
    assert operator.products == 2 * info.n_iter + 1


def test_the_last_block_is_in_the_space_of_the_result(rng):
    """Three steps and half of one give the best values that a space of four blocks has."""
    A = matrix_with_spectrum(900, 500, 1.0 / np.sqrt(np.arange(1, 501)), rng)
    start = np.random.default_rng(1).standard_normal((500, 24))

    def best_in_space(blocks):
        X, basis = np.linalg.qr(start)[0], np.empty((500, 0))
        for _ in range(blocks):
            basis = np.linalg.qr(np.hstack((basis, X)))[0]
            X = np.linalg.qr(A.T @ (A @ X))[0]
        return np.linalg.svd(A @ basis, compute_uv=False)[:10]

    space = GramSpace(as_operator(A), 10, 24, np.ascontiguousarray(np.linalg.qr(start)[0].T), keep_images=True)
    for _ in range(2):
        space.right.append(space.multiply())
    X = space.multiply()
    space.decompose(1e-3)
    V, images, _ = space.finish(X)
    np.testing.assert_allclose(images, V @ A.T, atol=1e-13)
    np.testing.assert_allclose(V @ V.T, np.eye(10), atol=1e-13)
    np.testing.assert_allclose(np.linalg.svd(images, compute_uv=False), best_in_space(4), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_iter", [1, 3, 9, 300])
def test_images_survive_restarts_and_their_own_limit(rng, dtype, max_iter):
    """A V = U diag(s) to rounding, whether the images were kept, combined at a restart, or given up."""
    A = matrix_with_spectrum(700, 640, 1.0 / np.sqrt(np.arange(1, 641)), rng).astype(dtype)
    for k in (4, 30, 90):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            U, s, Vt = truncated_svd(A, k, tol=1e-3, method="krylov", max_iter=max_iter, random_state=0)
        eps = np.finfo(dtype).eps
        assert np.abs(A @ Vt.T - U * s).max() <= 100 * eps * s[0]
        assert orthogonality_ratio(U) <= 30
        assert orthogonality_ratio(Vt.T) <= 30


@pytest.fixture
def large(monkeypatch):
    """Takes small arrays for those over which no pass is made before the first product."""
    monkeypatch.setattr(_truncated, "LARGE", 1000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["auto", "krylov", "krylov2", "randomized", "lapack"])
@pytest.mark.parametrize("shape", [(500, 400), (400, 500)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_entry_that_is_no_number_is_found_without_a_pass(rng, large, dtype, method, shape, value):
    A = rng.standard_normal(shape).astype(dtype)
    A[123, 321] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            truncated_svd(A, 5, tol=0.1, method=method, random_state=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-110, -70, -20, 0, 20, 60, 110])
def test_the_scale_is_known_from_the_first_product(rng, large, dtype, exponent):
    """From entries whose squares vanish to those whose squares overflow."""
    A = matrix_with_spectrum(500, 400, 0.8 ** np.arange(400), rng).astype(dtype)
    power = 2.0 ** (exponent * (1 if dtype == np.float32 else 8))
    with np.errstate(under="ignore"):
        scaled = (A * dtype(power)).astype(dtype)
    exact = np.linalg.svd(scaled.astype(np.longdouble).astype(np.float64), compute_uv=False)[:8]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = truncated_svd(scaled, 8, tol=1e-4, method="krylov", random_state=0)[1]
    np.testing.assert_allclose(s.astype(np.float64) / power, exact / power, rtol=1e-5)


def test_a_large_matrix_of_zeros(large):
    U, s, Vt = truncated_svd(np.zeros((500, 400)), 5, method="krylov", random_state=0)
    assert not s.any()
    np.testing.assert_allclose(U.T @ U, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize("spectrum", ["decay", "steps", "flat"])
@pytest.mark.parametrize("tol", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("block_size", [16, 24, 32])
def test_a_low_accuracy_is_the_one_asked_for(rng, large, spectrum, tol, block_size):
    """Residuals of both sides below tol, and no value wrong by more, with blocks that are narrower than k as well."""
    j = np.arange(1, 401)
    values = {"decay": j**-0.5, "steps": 0.8 ** (j // 5), "flat": 1.0 + 0.5 * (400 - j) / 400}[spectrum]
    A = matrix_with_spectrum(600, 400, values, rng)
    for matrix in (A, A.astype(np.float32).T):
        U, s, Vt = truncated_svd(matrix, 20, tol=tol, method="krylov", block_size=block_size, random_state=0)
        assert np.all(true_residuals(matrix, U, s, Vt) <= 1.1 * tol * s)
        assert np.all(np.abs(s / values[:20] - 1.0) <= tol)
