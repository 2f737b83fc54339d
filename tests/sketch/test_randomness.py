"""The law of S: exact properties of every draw, and moments over many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.sparse as sp

from lrla import make_sketch
from lrla.sketch._fast_transforms import dct, fwht, idct
from tests.sketch._sketches import EQUAL32, HASHED, KINDS, D, N, close, every_kind, normal, sketch

SEEDS = 2000


@every_kind
def test_norms_are_kept_on_average(kind):
    """E ||S^T x||^2 = ||x||^2, within four standard errors of the mean over many members."""
    x = np.linspace(1.0, 2.0, N)
    norms = np.array([np.sum(sketch(kind, member=k).left(x) ** 2) for k in range(SEEDS)])
    error = norms.std(ddof=1) / SEEDS**0.5
    assert abs(norms.mean() - x @ x) <= 4 * error
    assert error < 0.02 * (x @ x)


@pytest.mark.parametrize("kind", ["sparse_stack", "gaussian", "rademacher", "orthogonal", "srdct", "srht"])
def test_single_coordinates_are_kept_on_average(kind):
    """The diagonal and the off-diagonal of E[S S^T] = I, for a coordinate at either end."""
    total, square = np.zeros((3, 3)), np.zeros((3, 3))
    for k in range(SEEDS // 4):
        S = sketch(kind, member=k).to_array()[[0, 1, -1]]
        total += S @ S.T
        square += (S @ S.T) ** 2
    mean = total / (SEEDS // 4)
    error = np.sqrt(np.maximum(square / (SEEDS // 4) - mean**2, 0) / (SEEDS // 4))
    assert np.all(np.abs(mean - np.eye(3)) <= 4.5 * error + 1e-12)  # nine numbers: 4.5 instead of 4


@pytest.mark.parametrize("nnz", [1, 2, 8, 22, 100])
def test_a_sparse_stack_has_one_entry_in_every_block(nnz):
    op = sketch("sparse_stack", nnz=nnz)
    S, edges = op.to_array(), op.edges
    assert op.nnz == min(nnz, D)
    for i, j in pairwise(edges):
        np.testing.assert_array_equal(np.count_nonzero(S[:, i:j], axis=1), 1)
    np.testing.assert_allclose(np.abs(S[S != 0]), op.nnz**-0.5)


def test_places_and_signs_of_a_sparse_stack_are_uniform():
    table = make_sketch(40_000, 400, random_state=0).table(0, 40_000, np.empty(0))
    counts = np.bincount((table >> 1).ravel(), minlength=400)  # 800 expected in each, standard deviation 28
    assert np.all(np.abs(counts - 800) < 6 * 28)
    chi2 = np.sum((counts - 800) ** 2) / 800  # 392 degrees of freedom, standard deviation 28
    assert abs(chi2 - 392) < 5 * 28
    assert abs(np.mean(table & 1) - 0.5) < 5 * 0.5 / np.sqrt(table.size)


def test_countsketch_is_a_stack_of_one():
    S = sketch("countsketch").to_array()
    np.testing.assert_array_equal(np.count_nonzero(S, axis=1), 1)
    assert set(np.unique(S)) == {-1.0, 0.0, 1.0}
    np.testing.assert_array_equal(S, sketch("sparse_stack", nnz=1).to_array())


@pytest.mark.parametrize("kind", ["orthogonal", "srdct"])
def test_columns_are_orthonormal_to_scale(kind):
    S = sketch(kind).to_array()
    close(S.T @ S, N / D * np.eye(D))


@pytest.mark.parametrize("permute", [True, False])
def test_the_padded_srht_is_orthonormal_to_scale(permute):
    """A size that is a power of two is not padded; of a padded one S is the first rows."""
    S = sketch("srht", n_in=64, permute=permute).to_array()
    close(S.T @ S, 64 / D * np.eye(D))
    close(np.sum(sketch("srht", permute=permute).to_array() ** 2, axis=1), np.ones(N))


def test_transforms_without_permutation_are_signs_times_columns_of_the_transform():
    for kind, F in (
        ("srdct", scipy.fft.dct(np.eye(N), norm="ortho", axis=0)),
        ("srht", scipy.linalg.hadamard(128) / 128**0.5),
    ):
        op = sketch(kind, permute=False)
        columns = F[op.indices, :N].T * op.signs[:N, None] * np.sqrt(op.padded_size / D)
        close(op.to_array(), columns)
        assert len(set(op.indices)) == D
        assert not np.allclose(op.to_array(), sketch(kind).to_array())


def test_permutations_are_permutations():
    for kind in ("srdct", "srht"):
        op = sketch(kind)
        np.testing.assert_array_equal(np.sort(op.permutation), np.arange(op.padded_size))


def test_permutation_keeps_ridge_degrees_of_freedom_of_an_ordered_diagonal():
    """For a diagonal A with an ordered profile S^T A S keeps its structure without the permutation, and loses it with it.

    df of sketched ridge at lam against df of ridge at the mu that the orthogonal law predicts, mean of 20 draws.
    """
    p, q, lam = 800, 200, 0.01
    diagonal = 10.0 / (1.0 + np.arange(p)) ** 1.2
    gaps = {}
    for permute in (True, False):
        gap = []
        for k in range(20):
            op = make_sketch(p, q, "srht", permute=permute, random_state=0, member=k)
            S = op.to_array()
            e = np.linalg.eigvalsh(S.T @ (diagonal[:, None] * S))
            df = np.sum(e / (e + lam))
            mu = (1 - df / op.padded_size) * q / np.sum(1 / (e + lam))
            gap.append(df / np.sum(diagonal / (diagonal + mu)) - 1)
        gaps[permute] = abs(np.mean(gap))
    assert gaps[True] < 0.005
    assert gaps[False] > 2 * gaps[True]


def test_uniform_samples_are_distinct_and_scaled():
    op = sketch("uniform")
    assert len(set(op.indices)) == D
    X = normal(3, N)
    np.testing.assert_array_equal(op.right(X), np.sqrt(N / D) * X[:, op.indices])


def test_every_coordinate_is_sampled_equally_often():
    counts = sum(np.bincount(sketch("uniform", member=k).indices, minlength=N) for k in range(SEEDS))
    expected = SEEDS * D / N
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected * (1 - D / N)))


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_sparse_iid_has_its_density(density):
    S = make_sketch(4000, 200, "sparse_iid", density=density, random_state=0).to_array()
    share = np.count_nonzero(S) / S.size
    assert abs(share - density) <= 5 * np.sqrt(density * (1 - density) / S.size)
    np.testing.assert_allclose(np.abs(S[S != 0]), (density * 200) ** -0.5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("countsketch", "uniform")])
def test_distances_are_kept(kind):
    """Squared distances of 30 coordinate-aligned points: the relative error has standard deviation sqrt(2/d) or less."""
    X = np.eye(30, 512) * 5.0
    op = make_sketch(512, 256, kind, random_state=1, density=0.3)
    i, j = np.triu_indices(30, 1)
    ratio = np.sum((op.right(X)[i] - op.right(X)[j]) ** 2, axis=1) / 50.0
    assert np.all(np.abs(ratio - 1) <= 5 * np.sqrt(2 / 256))


# ---------------------------------------------------------------------------------------------------- namespaces


@pytest.mark.parametrize("kind", HASHED)
@pytest.mark.parametrize("parts", [[0, 1000], [0, 1, 334, 1000], [0, 333, 700, 1000], range(0, 1001, 125)])
def test_tables_are_equal_everywhere_and_for_every_partition(kind, parts, xp):
    op = sketch(kind, n_in=1000)
    parts = list(parts)
    like = xp.asarray(np.empty((0, 0)))
    tables = [op.table(i, j, like) for i, j in pairwise(parts)]
    assert all(xp.owns(table) for table in tables)
    there = np.concatenate([xp.to_numpy(table) for table in tables])
    np.testing.assert_array_equal(there, op._hashed(0, 1000))


def test_orders_and_words_are_equal_in_every_namespace(xp):
    stream = sketch("srht").stream
    for purpose in range(6):
        there = stream.words(5, 300, purpose, xp=xp.namespace, device=xp.device)
        np.testing.assert_array_equal(xp.to_numpy(there), stream.words(5, 300, purpose))
        there = stream.order(300, purpose, xp=xp.namespace, device=xp.device)
        np.testing.assert_array_equal(xp.to_numpy(there), stream.order(300, purpose))


def test_uniform_numbers_are_equal_in_every_namespace_and_partition(xp):
    stream = sketch("srht").stream
    there = xp.to_numpy(stream.uniform(300, xp=xp.namespace, device=xp.device))
    np.testing.assert_array_equal(there, np.concatenate([stream.uniform(7), stream.uniform(293, first=7)]))
    assert 0 < there.min() < there.max() < 1


@every_kind
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_on_a_device(kind, dtype, device_xp):
    op, S = sketch(kind), sketch(kind).to_array()
    X, A, W = normal(5, N, dtype=dtype), normal(N, 4, dtype=dtype), normal(D, 3, dtype=dtype)
    tolerance = 1e-12 if dtype == np.float64 else EQUAL32
    out = device_xp.asarray(np.zeros((D, 4), dtype=dtype))
    op.left_partial(device_xp.asarray(A[:31]), 0, out)
    op.left_partial(device_xp.asarray(A[31:]), 31, out)
    for result, wanted in (
        (op.right(device_xp.asarray(X)), X @ S), (op.left(device_xp.asarray(A)), S.T @ A), (out, S.T @ A),
        (op.expand(device_xp.asarray(W)), S @ W), (op.left(device_xp.asarray(A[:, 0])), S.T @ A[:, 0]),
    ):  # fmt: skip
        assert device_xp.owns(result)
        values = device_xp.to_numpy(result)
        assert values.dtype == dtype
        close(values, wanted, tolerance)


@every_kind
def test_nothing_comes_home_from_a_device(kind, strict, transfers):
    op = sketch(kind)
    op.right(strict.asarray(normal(5, N)))
    op.left(strict.asarray(normal(N, 5)))
    op.expand(strict.asarray(normal(D, 5)))
    assert transfers == []


@pytest.mark.parametrize("n", [1, 2, 3, 16, 75])
def test_cosine_transform_in_any_namespace(n, xp):
    Z = normal(4, n)
    close(xp.to_numpy(dct(xp.asarray(Z))), scipy.fft.dct(Z, norm="ortho"), 1e-12)
    close(xp.to_numpy(idct(xp.asarray(Z))), scipy.fft.idct(Z, norm="ortho"), 1e-12)


@pytest.mark.parametrize("n", [1, 2, 64])
def test_hadamard_transform_in_any_namespace(n, xp):
    Z = normal(4, n)
    close(xp.to_numpy(fwht(xp.asarray(Z))), Z @ scipy.linalg.hadamard(n))


@pytest.mark.parametrize("n", [1, 2, 64, 16384])  # the last is longer than what is done in the first-level cache
def test_compiled_hadamard_transform(n):
    from lrla.sketch._kernels import hadamard

    Z = normal(3, n)
    wanted = fwht(Z) / n**0.5
    hadamard(Z, 0, 3, n**-0.5)
    close(Z, wanted)


def test_sparse_data_of_any_kind_match_dense(rng):
    X = sp.random_array((40, N), density=0.1, rng=rng, format="csr")
    long = X.copy()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    for kind in KINDS:
        op = sketch(kind)
        for A in (X, X.tocsc(), long):
            close(op.right(A), op.right(X.toarray()))
            close(op.left(A.T), op.left(X.T.toarray()))
