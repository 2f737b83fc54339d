"""The estimators TruncatedSVD, PCA and IncrementalPCA against scikit-learn's and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.decomposition as peers

from lrla import PCA, IncrementalPCA, TruncatedSVD
from tests._matrices import matrix_with_spectrum, orthogonality_ratio, sparse_matrix

ALGORITHMS = ["auto", "krylov", "krylov2", "dash", "randomized", "gram", "lapack", "arpack"]
STREAMABLE = pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_array])


def aligned(V, W):
    """V with its rows turned to the signs of W."""
    return V * np.sign(np.sum(V * W, axis=1))[:, None]


def batches(X, size):
    return [X[start : start + size] for start in range(0, X.shape[0], size)]


def stream(estimator, X, size):
    for batch in batches(X, size):
        estimator.partial_fit(batch)
    return estimator


def lost(X, V):
    """||X - X V^T V||_F."""
    return np.linalg.norm(X - X @ V.T @ V)


@pytest.fixture
def fast(rng):
    """160 x 50, values falling by a half, and a mean."""
    return matrix_with_spectrum(160, 50, 100 * 0.5 ** np.arange(50), rng) + rng.standard_normal(50)


@pytest.fixture
def counts(rng):
    """Sparse, like words in documents, with columns of different size."""
    return sp.csr_array(sparse_matrix(200, 60, 0.1, rng) * 0.9 ** np.arange(60))


# -------------------------------------------------------------------------------------------------- TruncatedSVD


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_truncated_svd_equals_scikit_learn(fast, algorithm):
    ours = TruncatedSVD(4, algorithm=algorithm, tol=1e-8, random_state=0).fit(fast)
    theirs = peers.TruncatedSVD(4, algorithm="arpack", tol=0, random_state=0).fit(fast)
    # Both have converged; vectors are known to the tolerance, everything else to its square.
    assert np.max(np.abs(aligned(ours.components_, theirs.components_) - theirs.components_)) <= 1e-6
    assert np.allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-10, atol=0)
    assert np.allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-6, atol=0)
    assert np.allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-6, atol=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("center", [False, True])
@STREAMABLE
def test_fit_transform_equals_transform(counts, algorithm, center, container):
    X = container(counts.toarray())
    svd = TruncatedSVD(3, algorithm=algorithm, center=center, random_state=0)
    Z = svd.fit_transform(X)
    assert np.max(np.abs(Z - svd.transform(X))) <= 1e-10 * np.abs(Z).max()


@pytest.mark.parametrize("center", [False, True])
def test_explained_variance_is_that_of_the_transformed_data(counts, center):
    svd = TruncatedSVD(3, center=center, tol=1e-6, random_state=0)
    Z = svd.fit_transform(counts)
    assert np.allclose(svd.explained_variance_, Z.var(axis=0), rtol=1e-8, atol=0)
    total = counts.toarray().var(axis=0).sum()
    assert np.allclose(svd.explained_variance_ratio_, Z.var(axis=0) / total, rtol=1e-8, atol=0)


def test_center_equals_pca(fast):
    svd = TruncatedSVD(4, center=True, algorithm="krylov", tol=1e-8, random_state=0).fit(sp.csr_array(fast))
    pca = peers.PCA(4, svd_solver="full").fit(fast)
    assert np.allclose(svd.singular_values_, pca.singular_values_, rtol=1e-10, atol=0)
    assert np.max(np.abs(aligned(svd.components_, pca.components_) - pca.components_)) <= 1e-6
    assert np.max(np.abs(svd.mean_ - pca.mean_)) <= 1e-13


@STREAMABLE
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_share_of_the_energy_is_held_by_few_components(counts, share, center, container):
    X = counts.toarray()
    C = X - X.mean(axis=0) if center else X
    svd = TruncatedSVD(share, center=center, random_state=0).fit(container(X))
    energies = np.cumsum(np.linalg.svd(C, compute_uv=False) ** 2) / np.linalg.norm(C) ** 2
    smallest = int(np.argmax(energies >= share)) + 1
    assert np.sum(svd.singular_values_**2) >= share * np.linalg.norm(C) ** 2 * (1 - 1e-12)
    assert (
        smallest <= len(svd.singular_values_) <= smallest + 2
    )  # found by random projection, so not quite the smallest
    assert lost(C, svd.components_) <= np.sqrt(1 - share) * np.linalg.norm(C) * (1 + 1e-10)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reconstruction_error_of_a_fit(counts, algorithm):
    svd = TruncatedSVD(5, algorithm=algorithm, random_state=0).fit(counts)
    true = lost(counts.toarray(), svd.components_)
    if algorithm == "randomized":  # s belongs to the left space there, and says a little less
        assert abs(svd.reconstruction_error_ - true) <= 1e-3 * true
    else:
        assert abs(svd.reconstruction_error_ - true) <= 1e-10 * true


def test_inverse_transform_is_the_projection(counts):
    for center in (False, True):
        svd = TruncatedSVD(5, center=center, random_state=0).fit(counts)
        X = counts.toarray()
        back = svd.inverse_transform(svd.transform(counts))
        assert abs(np.linalg.norm(X - back) - svd.reconstruction_error_) <= 1e-10 * np.linalg.norm(X)


@STREAMABLE
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_stream_within_its_working_rank_equals_the_batch(rng, container, size):
    X = matrix_with_spectrum(100, 40, [9.0, 7.0, 5.0, 3.0, 1.0], rng)
    svd = stream(TruncatedSVD(3, n_oversamples=5), container(X), size)
    batch = TruncatedSVD(3, algorithm="lapack").fit(X)
    # Nothing is truncated, so that only the rounding of up to 100 updates is left.
    assert np.allclose(svd.singular_values_, batch.singular_values_, rtol=1e-11, atol=0)
    assert np.max(np.abs(aligned(svd.components_, batch.components_) - batch.components_)) <= 1e-10
    assert np.allclose(svd.explained_variance_, batch.explained_variance_, rtol=1e-9, atol=0)
    assert np.allclose(svd.explained_variance_ratio_, batch.explained_variance_ratio_, rtol=1e-9, atol=0)
    assert svd.n_samples_seen_ == 100


@STREAMABLE
@pytest.mark.parametrize("size", [1, 13, 50])
def test_reconstruction_error_of_a_stream_bounds_what_the_components_lose(counts, container, size):
    """||X||^2 - sum s^2 holds for the stream's own coefficients; projecting anew can only do better."""
    X = container(counts.toarray())
    svd = stream(TruncatedSVD(5), X, size)
    dense, s = counts.toarray(), svd.singular_values_
    identity = np.sqrt(np.linalg.norm(dense) ** 2 - s @ s)
    assert abs(svd.reconstruction_error_ - identity) <= 1e-8 * identity
    assert lost(dense, svd.components_) <= svd.reconstruction_error_ * (1 + 1e-8)
    best = np.linalg.norm(np.linalg.svd(dense, compute_uv=False)[5:])
    assert best <= svd.reconstruction_error_ <= 1.05 * best  # ten components carried along make up for most


@STREAMABLE
def test_reconstruction_error_of_a_stream_is_what_the_components_lose(rng, container):
    """Within the working rank the two are the same number."""
    X = matrix_with_spectrum(100, 40, np.arange(12, 0, -1.0), rng)
    svd = stream(TruncatedSVD(5, n_oversamples=7), container(X), 9)
    true = lost(X, svd.components_)
    assert abs(svd.reconstruction_error_ - true) <= 1e-8 * true


@pytest.mark.parametrize("center", [False, True])
def test_a_centred_or_raw_stream_keeps_orthonormal_components(counts, center):
    svd = stream(TruncatedSVD(5, center=center), counts, 10)
    assert orthogonality_ratio(svd.components_.T) <= 100  # of twenty updates


def test_a_centred_stream_equals_pca_within_its_working_rank(rng):
    X = matrix_with_spectrum(100, 40, [9.0, 7.0, 5.0, 3.0, 1.0], rng) + 2.0
    svd = stream(TruncatedSVD(3, center=True, n_oversamples=7), X, 8)
    batch = TruncatedSVD(3, center=True, algorithm="lapack").fit(X)
    assert np.allclose(svd.singular_values_, batch.singular_values_, rtol=1e-10, atol=0)
    assert np.allclose(svd.explained_variance_, batch.explained_variance_, rtol=1e-9, atol=0)
    assert np.max(np.abs(svd.mean_ - X.mean(axis=0))) <= 1e-13
    assert abs(svd.reconstruction_error_ - batch.reconstruction_error_) <= 1e-8 * batch.reconstruction_error_


@STREAMABLE
def test_a_growing_vocabulary_equals_padding_with_zeros(counts, container):
    parts = batches(counts.toarray(), 50)
    widths = [40, 40, 55, 60]
    cut = [part[:, :width] for part, width in zip(parts, widths, strict=True)]
    padded = [np.pad(part, ((0, 0), (0, 60 - part.shape[1]))) for part in cut]
    growing, fixed = TruncatedSVD(5), TruncatedSVD(5)
    for small, large in zip(cut, padded, strict=True):
        growing.partial_fit(container(small), allow_new_features=True)
        fixed.partial_fit(container(large))
    assert growing.n_features_in_ == 60
    assert growing.components_.shape == (5, 60)
    assert np.allclose(growing.singular_values_, fixed.singular_values_, rtol=1e-11, atol=0)
    assert np.max(np.abs(aligned(growing.components_, fixed.components_) - fixed.components_)) <= 1e-9
    assert np.allclose(growing.explained_variance_, fixed.explained_variance_, rtol=1e-9, atol=0)
    assert abs(growing.reconstruction_error_ - fixed.reconstruction_error_) <= 1e-10 * fixed.reconstruction_error_


def test_new_features_are_refused_unless_allowed(counts):
    svd = TruncatedSVD(3).partial_fit(counts[:, :50])
    with pytest.raises(ValueError, match="features"):
        svd.partial_fit(counts)


@STREAMABLE
def test_partial_fit_goes_on_after_fit(rng, container):
    X = matrix_with_spectrum(120, 40, [9.0, 7.0, 5.0, 3.0], rng)
    svd = TruncatedSVD(4, algorithm="lapack").fit(container(X[:70]))
    stream(svd, container(X[70:]), 10)
    batch = TruncatedSVD(4, algorithm="lapack").fit(X)
    assert svd.n_samples_seen_ == 120
    assert np.allclose(svd.singular_values_, batch.singular_values_, rtol=1e-11, atol=0)
    assert np.allclose(svd.explained_variance_, batch.explained_variance_, rtol=1e-9, atol=0)
    assert np.max(np.abs(aligned(svd.components_, batch.components_) - batch.components_)) <= 1e-10


def test_going_on_after_a_truncating_fit_keeps_count_of_what_it_lost(counts):
    svd = TruncatedSVD(5, algorithm="lapack").fit(counts[:120])
    svd.partial_fit(counts[120:])
    identity = np.sqrt(np.linalg.norm(counts.toarray()) ** 2 - np.sum(svd.singular_values_**2))
    assert abs(svd.reconstruction_error_ - identity) <= 1e-8 * identity


def test_fit_starts_anew(counts):
    svd = stream(TruncatedSVD(3, random_state=0), counts, 50).fit(counts)
    once = TruncatedSVD(3, random_state=0).fit(counts)
    assert np.array_equal(svd.components_, once.components_)
    assert svd.n_samples_seen_ == 200


# ----------------------------------------------------------------------------------------------------------- PCA


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("solver", ["auto", "krylov", "krylov2", "gram", "lapack", "full", "covariance_eigh", "arpack"])
def test_pca_equals_scikit_learn(fast, solver, whiten):
    ours = PCA(4, svd_solver=solver, whiten=whiten, tol=1e-8, random_state=0)
    theirs = peers.PCA(4, svd_solver="full", whiten=whiten)
    Z, W = ours.fit_transform(fast), theirs.fit_transform(fast)
    signs = np.sign(np.sum(ours.components_ * theirs.components_, axis=1))
    assert np.max(np.abs(ours.components_ * signs[:, None] - theirs.components_)) <= 1e-6
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12), name
    assert np.max(np.abs(Z * signs - W)) <= 1e-6 * np.abs(W).max()
    assert np.max(np.abs(ours.transform(fast) - Z)) <= 1e-10 * np.abs(Z).max()
    back = theirs.inverse_transform(W)
    assert np.max(np.abs(ours.inverse_transform(Z) - back)) <= 1e-6 * np.abs(back).max()


def test_pca_of_all_components(rng):
    X = rng.standard_normal((40, 9))
    ours, theirs = PCA().fit(X), peers.PCA().fit(X)
    assert ours.n_components_ == 9
    assert ours.noise_variance_ == 0.0
    assert np.allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-12, atol=0)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_pca_holds_the_share_of_the_variance(counts, share):
    X = counts.toarray()
    ours, theirs = PCA(share, random_state=0).fit(counts), peers.PCA(share, svd_solver="full").fit(X)
    assert ours.explained_variance_ratio_.sum() >= share
    assert theirs.n_components_ <= ours.n_components_ <= theirs.n_components_ + 2


@pytest.mark.parametrize("solver", ["krylov", "krylov2", "dash", "randomized", "gram", "lapack", "arpack"])
def test_sparse_pca_equals_dense_pca(counts, solver):
    X = counts + sp.csr_array(np.outer(np.ones(200), np.r_[50.0, np.zeros(59)]))  # a mean that is all of one column
    sparse = PCA(3, svd_solver=solver, tol=1e-6, iterated_power=30, random_state=0).fit(X)
    dense = PCA(3, svd_solver="full").fit(X.toarray())
    # The gaps here are some 5 %, so the vectors are known to 20 times the tolerance.
    assert np.max(np.abs(aligned(sparse.components_, dense.components_) - dense.components_)) <= 1e-3
    assert np.allclose(sparse.explained_variance_, dense.explained_variance_, rtol=1e-5, atol=0)
    assert np.max(np.abs(sparse.mean_ - dense.mean_)) <= 1e-12


def test_whitened_training_data_has_unit_variance(counts):
    Z = PCA(3, whiten=True, svd_solver="lapack").fit_transform(counts)
    assert np.max(np.abs(np.cov(Z.T) - np.eye(3))) <= 1e-12


def test_float32_pca_with_a_mean_a_thousand_times_its_spread(rng):
    X = (matrix_with_spectrum(1000, 320, 0.7 ** np.arange(320), rng) * 30 + 1e3).astype(np.float32)
    pca = PCA(5, svd_solver="krylov", random_state=0).fit(X)
    C = X.astype(np.float64) - X.astype(np.float64).mean(axis=0)
    exact = np.linalg.svd(C, compute_uv=False)[:5]
    assert pca.components_.dtype == np.float32
    assert np.max(np.abs(pca.singular_values_ / exact - 1)) <= 1e-5  # not the 1e-4 of float32 beside 1e3


# ------------------------------------------------------------------------------------------------ IncrementalPCA


@STREAMABLE
@pytest.mark.parametrize("whiten", [False, True])
def test_incremental_pca_equals_scikit_learn_after_every_batch(rng, container, whiten):
    X = matrix_with_spectrum(150, 30, 50 * 0.8 ** np.arange(30), rng) + rng.standard_normal(30)
    X[rng.random(X.shape) < 0.5] = 0.0
    ours, theirs = IncrementalPCA(6, n_oversamples=0, whiten=whiten), peers.IncrementalPCA(6, whiten=whiten)
    for batch in batches(X, 30):
        ours.partial_fit(container(batch))
        theirs.partial_fit(batch)
        assert np.max(np.abs(ours.mean_ - theirs.mean_)) <= 1e-9
        assert np.max(np.abs(ours.var_ - theirs.var_)) <= 1e-9
        assert np.max(np.abs(aligned(ours.components_, theirs.components_) - theirs.components_)) <= 1e-9
        assert np.allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-9, atol=0)
        assert np.allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-9, atol=0)
        assert np.allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-9, atol=0)
        assert ours.n_samples_seen_ == theirs.n_samples_seen_
    signs = np.sign(np.sum(ours.components_ * theirs.components_, axis=1))
    W = theirs.transform(X)
    assert np.max(np.abs(ours.transform(container(X)) * signs - W)) <= 1e-8 * np.abs(W).max()


@pytest.mark.parametrize("batch_size", [None, 20, 37])
def test_incremental_fit_works_in_batches(counts, batch_size):
    fit = IncrementalPCA(4, batch_size=batch_size).fit(counts)
    by_hand = stream(IncrementalPCA(4), counts, fit.batch_size_)
    assert fit.n_samples_seen_ == 200
    assert np.max(np.abs(fit.components_ - by_hand.components_)) <= 1e-12


@STREAMABLE
@pytest.mark.parametrize("size", [1, 3, 40])
def test_incremental_pca_within_its_working_rank_equals_pca(rng, container, size):
    X = matrix_with_spectrum(80, 30, [9.0, 7.0, 5.0, 3.0], rng) + rng.standard_normal(30)
    ours = stream(IncrementalPCA(3), container(X), size)  # ten more are carried along; batches below k rows are fine
    theirs = peers.PCA(3, svd_solver="full").fit(X)
    assert np.max(np.abs(aligned(ours.components_, theirs.components_) - theirs.components_)) <= 1e-9
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12), name


def test_oversampling_brings_incremental_pca_nearer_to_pca(counts):
    exact = np.linalg.svd(counts.toarray() - counts.toarray().mean(axis=0), compute_uv=False)[:4]
    missing = [
        np.sum(exact**2) - np.sum(stream(IncrementalPCA(4, n_oversamples=p), counts, 10).singular_values_ ** 2)
        for p in (0, 10, 30)
    ]
    assert missing[0] > missing[1] > missing[2] >= -1e-9


def test_incremental_reconstruction_error_is_the_energy_that_is_not_in_the_components(counts):
    X = counts.toarray()
    pca = stream(IncrementalPCA(4), counts, 20)
    C = X - X.mean(axis=0)
    identity = np.sqrt(np.linalg.norm(C) ** 2 - np.sum(pca.singular_values_**2))
    assert abs(pca.reconstruction_error_ - identity) <= 1e-8 * identity
    assert lost(C, pca.components_) <= identity * (1 + 1e-8)


def test_incremental_mean_and_variance_are_exact(counts):
    pca = stream(IncrementalPCA(2), counts, 7)
    X = counts.toarray()
    assert np.max(np.abs(pca.mean_ - X.mean(axis=0))) <= 1e-13
    assert np.max(np.abs(pca.var_ - X.var(axis=0))) <= 1e-13
