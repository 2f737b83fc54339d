"""What must not change the result: precision, scale, layout, order of rows and columns, and how zeros are stored."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lrla
from tests._matrices import matrix_with_spectrum, orthogonality_ratio, orthonormal, residual_ratio
from tests.contracts._cases import (
    DECOMPOSITIONS,
    DETERMINED,
    FACTORS,
    FITTING,
    ROUTINES,
    SHAPE,
    SUBJECTS,
    SUMS,
    close,
    finite,
    fit,
    fitted,
    for_each,
    for_each_decomposition,
    for_each_estimator,
    good,
    is_array,
    make,
    numbers,
    pick,
    public_state,
    same,
    sparse_good,
)

few = settings(
    max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EQUAL = 1e-9  # two ways to the same numbers on matrices whose gaps are about 0.4 of the values: rounding times 1/gap


# ---------------------------------------------------------------------------------------------------- precision


@for_each(SUBJECTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", [good, sparse_good])
def test_precision_in_is_precision_out(subject, dtype, build):
    if subject.name.endswith((".transform", ".add_rows", ".add_columns")):
        pytest.skip("the model was fitted in float64, which decides")
    for name, value in subject(build().astype(dtype)).items():
        if is_array(value) and value.ndim == 2 and name not in SUMS:  # sums of squares may be kept in float64
            assert value.dtype == dtype, name


@for_each_estimator
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transform_keeps_precision_and_the_tag_says_so(cls, dtype):
    model = fitted(cls, good().astype(dtype))
    if not hasattr(model, "transform"):
        pytest.skip(f"{cls.__name__} has no transform")
    assert model.transform(good().astype(dtype)).dtype == dtype
    assert dtype in model.__sklearn_tags__().transformer_tags.preserves_dtype


@for_each(SUBJECTS)
def test_float32_is_float64_to_its_precision(subject):
    single, double = (pick(subject(good().astype(dtype)), FACTORS) for dtype in (np.float32, np.float64))
    close(single, double, rtol=1e-4)  # eps 1e-7, gaps of 0.4, twenty rows


# ---------------------------------------------------------------------------------------------------- scale

SCALES = [("float64", 1e150), ("float64", 1e-150), ("float32", 1e18), ("float32", 1e-18)]
# power of the scale in each result; what is missing here does not change with it
DEGREE = {
    "s": 1, "product": 1, "singular_values_": 1, "transform": 1, "mean_": 1, "reconstruction_error_": 1,
    "explained_variance_": 2, "var_": 2, "noise_variance_": 2,
}  # fmt: skip
SCALED = (*DEGREE, "U", "Vt", "components_", "explained_variance_ratio_", "error")


@for_each(SUBJECTS)
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
@pytest.mark.parametrize("build", [good, sparse_good])
def test_scale_changes_nothing_but_the_scale(subject, dtype, scale, build):
    if subject.name.endswith((".transform", ".add_rows", ".add_columns")):
        check_scale_of_a_stream(subject, dtype, scale, build)
        return
    check_scale(subject, dtype, scale, build)


def check_scale(subject, dtype, scale, build=good):
    A = build().astype(dtype)
    plain, scaled = subject(A), subject((A * scale).astype(dtype))
    finite(scaled)
    # The scaled entries are rounded anew, each by half an eps: 20 rows and gaps of 0.4 make of it less than 1000 eps.
    tolerance = 1000 * np.finfo(dtype).eps
    for name in plain.keys() & set(SCALED):
        wanted = np.asarray(plain[name], dtype=np.float64) * np.float64(scale) ** DEGREE.get(name, 0)
        if np.abs(wanted).max() > np.finfo(dtype).max / 10 or np.abs(wanted).max() < np.finfo(dtype).tiny:
            continue  # a square that this precision cannot hold; it was finite
        got = np.asarray(scaled[name], dtype=np.float64)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=name)


def check_scale_of_a_stream(subject, dtype, scale, build):
    """What comes later may be of another size than what came first: nothing overflows."""
    finite(subject((build() * scale).astype(dtype)))


# ---------------------------------------------------------------------------------------------------- layout and seed

LAYOUTS = {
    "negative strides": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "every second column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "subclass": lambda A: A.view(type("Subclass", (np.ndarray,), {})),
    "list": np.ndarray.tolist,
    "unaligned": lambda A: _unaligned(A),
}


def _unaligned(A):
    buffer = np.empty(A.nbytes + 1, dtype=np.uint8)
    view = buffer[1:].view(A.dtype).reshape(A.shape)
    view[...] = A
    return view


@for_each(SUBJECTS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_changes_no_bit(subject, layout):
    same(subject(good()), subject(layout(good())))


@for_each(SUBJECTS)
@pytest.mark.parametrize("build", [good, sparse_good])
def test_the_same_seed_gives_the_same_bits(subject, build):
    same(subject(build((400, 310))), subject(build((400, 310)))) if subject in LARGE else same(
        subject(build()), subject(build())
    )


LARGE = [s for s in FITTING if not s.name.endswith((".add_rows", ".add_columns"))]  # beyond the size that LAPACK gets


@for_each([s for s in SUBJECTS if s.sparse and not s.holes])
@pytest.mark.parametrize("container", [sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix, sp.coo_array])
def test_sparse_is_dense(subject, container):
    A = sparse_good()
    sparse, dense = (pick(subject(X), FACTORS) for X in (container(A), A.toarray()))
    assert dense
    close(sparse, dense, rtol=EQUAL)


@for_each([s for s in LARGE if s.decomposes and s.name.split(".")[-1] not in ("partial_fit", "qb")])
def test_sparse_is_dense_beyond_lapack(subject):
    A = sp.random_array((420, 330), density=0.2, rng=np.random.default_rng(0)) * np.geomspace(1, 1e-2, 330)
    names = ("s", "singular_values_", "explained_variance_")  # vectors differ by the tolerance of the iteration
    sparse, dense = (pick(subject(X), names) for X in (A.tocsr(), A.toarray()))
    assert dense
    close(sparse, dense, rtol=1e-5)  # errors of values are quadratic in the default tolerance of 1e-3


# ---------------------------------------------------------------------------------------------------- order


@for_each([s for s in ROUTINES if s.name != "qb"])  # whose result depends on what the random rows meet
@few
@given(seed=st.integers(0, 10_000))
def test_permuted_rows_and_columns_permute_the_factors(subject, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(SHAPE[0]), rng.permutation(SHAPE[1])
    A = good()
    close({"A_k": approximation(subject(A[p][:, q]))}, {"A_k": approximation(subject(A))[p][:, q]}, rtol=EQUAL)


def approximation(results):
    """The rank-k matrix that the factors stand for."""
    return (results["U"] * results["s"]) @ results["Vt"]


EXACT = [s for s in ROUTINES if s.name in ("truncated_svd", "UpdatableSVD.fit")]  # the others approximate the best A_k


@for_each(EXACT)
@few
@given(seed=st.integers(0, 10_000), shape=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_transposition(subject, seed, shape):
    A = good(shape, seed)
    close({"A_k": approximation(subject(A.T))}, {"A_k": approximation(subject(A)).T}, rtol=EQUAL)


@for_each(EXACT)
@few
@given(seed=st.integers(0, 10_000))
def test_rotation_of_columns_leaves_the_values(subject, seed):
    Q = orthonormal(SHAPE[1], SHAPE[1], np.random.default_rng(seed))
    close({"s": subject(good() @ Q)["s"]}, {"s": subject(good())["s"]}, rtol=EQUAL)


@for_each_estimator
@few
@given(seed=st.integers(0, 10_000))
def test_order_of_rows_does_not_matter_to_fit(cls, seed):
    p = np.random.default_rng(seed).permutation(SHAPE[0])
    X = good()
    params = DETERMINED.get(cls.__name__, {})
    # an objective that is iterated down to its rounding has its minimiser to the root of that
    rtol = 1e-7 if params else EQUAL
    close(numbers(fitted(cls, X[p], **params), X), numbers(fitted(cls, X, **params), X), rtol=rtol)


@for_each_decomposition
@few
@given(seed=st.integers(0, 10_000))
def test_permuted_columns_permute_the_components(cls, seed):
    p = np.random.default_rng(seed).permutation(SHAPE[1])
    X = good()
    plain, permuted = fitted(cls, X), fitted(cls, X[:, p])
    if not hasattr(plain, "components_"):
        pytest.skip(f"{cls.__name__} has no components_")
    got, wanted = permuted.components_, plain.components_[:, p]
    close({"V": got * np.sign(np.sum(got * wanted, axis=1))[:, None]}, {"V": wanted}, rtol=EQUAL)


@for_each_estimator
@few
@given(exponent=st.integers(-60, 60))
def test_powers_of_two_are_exact(cls, exponent):
    X, scale = good(), 2.0**exponent
    plain, scaled = fitted(cls, X), fitted(cls, X * scale)
    for name in pick(public_state(plain), ("components_", "singular_values_", "mean_")):
        wanted = getattr(plain, name) * scale ** DEGREE.get(name, 0)
        np.testing.assert_allclose(getattr(scaled, name), wanted, rtol=1e-13, err_msg=name)


# ---------------------------------------------------------------------------------------------------- hard matrices


def hilbert(rng):
    return scipy.linalg.hilbert(120)


def kahan(rng, n=150, theta=1.2):
    """Upper triangular, and its pivoted QR hides how small the last singular value is."""
    c, s = np.cos(theta), np.sin(theta)
    return np.diag(s ** np.arange(n)) @ (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def vandermonde(rng):
    return np.vander(np.linspace(-1, 1, 330), 310)


def graded_rows(rng):
    return rng.standard_normal((340, 320)) * np.geomspace(1e150, 1e-150, 340)[:, None]


def huge_outlier_row(rng):
    A = rng.standard_normal((400, 320))
    A[17] *= 1e12
    return A


def near_tie_at_the_cut(rng):
    s = np.r_[10.0, 9.0, 8.0, 7.0, 1.0, 1.0 - 1e-10, 0.5 ** np.arange(1, 300)]
    return matrix_with_spectrum(400, 320, s, rng)


def gap_at_the_cut(rng):
    return matrix_with_spectrum(400, 320, np.r_[np.full(5, 1.0), np.full(300, 1e-6)], rng)


def flat(rng):
    return orthonormal(400, 320, rng)


def identity(rng):
    return np.eye(320)


def staircase(rng):
    return matrix_with_spectrum(400, 320, np.repeat(10.0 ** -np.arange(8), 40), rng)


def exact_integer_rank(rng):
    return (rng.integers(-3, 4, (400, 3)) @ rng.integers(-3, 4, (3, 330))).astype(float)


def signed_copies(rng):
    column = rng.standard_normal((400, 1))
    return column * rng.choice([-1.0, 1.0], 320)


def rank_one_and_noise(rng):
    return rng.standard_normal((400, 1)) @ rng.standard_normal((1, 320)) + 1e-12 * rng.standard_normal((400, 320))


def gram_overflow(rng):
    return 1e200 * matrix_with_spectrum(400, 320, 0.7 ** np.arange(300), rng)


def cholesky_qr_breaker(rng):
    """Values that a Gram matrix in float64 cannot hold together."""
    return matrix_with_spectrum(400, 320, np.r_[1.0, 1e-8 * 0.5 ** np.arange(40)], rng)


def coherent(rng):
    A = 1e-3 * rng.standard_normal((400, 320))
    A[:4] += 10 * rng.standard_normal((4, 320))
    return A


def very_tall(rng):
    return rng.standard_normal((50_000, 6)) * 0.5 ** np.arange(6)


def very_wide(rng):
    return very_tall(rng).T


HARD = [
    hilbert, kahan, vandermonde, graded_rows, huge_outlier_row, near_tie_at_the_cut, gap_at_the_cut, flat, identity,
    staircase, exact_integer_rank, signed_copies, rank_one_and_noise, gram_overflow, cholesky_qr_breaker, coherent,
    very_tall, very_wide,
]  # fmt: skip
RATIO = 35.0  # LAPACK's own limit in its tests of singular value decompositions


@functools.cache
def hard(build, seed):
    """The matrix, and its singular values by LAPACK; tall ones through their triangle, whose values are the same."""
    A = build(np.random.default_rng(seed))
    tall = A if A.shape[0] >= A.shape[1] else A.T
    scale = np.abs(A).max()
    R = np.linalg.qr(tall / scale, mode="r") if tall.shape[0] > 2000 else tall / scale
    A.flags.writeable = False
    return A, scipy.linalg.svd(R, compute_uv=False) * scale


@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
@pytest.mark.parametrize("build", HARD)
@pytest.mark.parametrize("as_sparse", [False, True], ids=["dense", "sparse"])
def test_truncated_svd_of_hard_matrices(build, as_sparse, seed):
    (A, values), tol, k = hard(build, seed), 1e-6, 5
    U, s, Vt = lrla.truncated_svd(sp.csr_array(A) if as_sparse else A, k, tol=tol, random_state=0)
    assert orthogonality_ratio(U) < RATIO
    assert orthogonality_ratio(Vt.T) < RATIO
    assert residual_ratio(A, U, s, Vt) < RATIO
    reference = values[:k]
    rounding = RATIO * max(A.shape) * np.finfo(float).eps
    # Found values are right to the square of the tolerance, or to the tolerance where values nearly coincide.
    np.testing.assert_allclose(s, reference, rtol=tol, atol=rounding * reference[0])
    left = np.abs((A / reference[0]).T @ U - Vt.T * (s / reference[0])).max()
    assert left <= max(tol, rounding)


@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
@pytest.mark.parametrize("build", HARD)
def test_updatable_svd_of_hard_matrices(build, seed):
    (A, reference), k = hard(build, seed), 5
    model = lrla.UpdatableSVD(k).fit(A)
    finite(public_state(model))
    # An updating SVD keeps values above sqrt(eps) of the largest; below it is allowed to say zero.
    np.testing.assert_allclose(model.singular_values_, reference[:k], rtol=1e-5, atol=2e-8 * reference[0])
    kept = slice(0, model.rank_)
    assert orthogonality_ratio(model.U[:, kept]) < RATIO
    assert orthogonality_ratio(model.Vt.T[:, kept]) < RATIO


@pytest.mark.parametrize("build", HARD)
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
@pytest.mark.parametrize("routine", ["randomized_svd", "qb"])
def test_randomized_routines_stay_close_to_the_best_rank_k(build, routine, seed):
    (A, values), k = hard(build, seed), 5
    scale = np.abs(A).max()
    A_scaled, tail = A / scale, np.linalg.norm(values[k:] / scale)
    if routine == "qb":
        Q, B, _ = lrla.qb(A, error=1e-6, max_rank=min(k + 10, *A.shape), n_iter=2, random_state=0)
        assert orthogonality_ratio(Q) < RATIO
        error = np.linalg.norm(A_scaled - Q @ (B / scale))
        tail = max(tail, 1e-6 * np.linalg.norm(A_scaled))  # what was asked for
    else:
        U, s, Vt = lrla.randomized_svd(A, k, n_iter=4, random_state=0)
        assert orthogonality_ratio(U) < RATIO
        assert orthogonality_ratio(Vt.T) < RATIO
        error = np.linalg.norm(A_scaled - (U * (s / scale)) @ Vt)
    # Ten extra directions and power steps: the expected error is within sqrt(1 + k/9) < 1.3 of the best (Halko et al.).
    assert error <= 1.3 * tail + RATIO * max(A.shape) * np.finfo(float).eps * np.linalg.norm(A_scaled)


@for_each_estimator
@pytest.mark.filterwarnings("ignore::lrla.exceptions.RankDeficientWarning")
@pytest.mark.parametrize("build", [huge_outlier_row, exact_integer_rank, signed_copies, flat])
def test_estimators_of_hard_matrices_are_finite(cls, build, rng):
    A = build(rng)
    model = fit(make(cls), A)
    finite(public_state(model))
    if cls in DECOMPOSITIONS:
        kept = slice(0, getattr(model, "rank_", len(model.components_)))
        assert orthogonality_ratio(np.asarray(model.components_)[kept].T) < RATIO
