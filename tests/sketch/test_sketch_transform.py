"""SketchTransform: what it adds to the operator; the common contracts are in tests/contracts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from lrla import SketchTransform, make_sketch
from tests.sketch._sketches import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_operator(kind, rng):
    X = rng.standard_normal((30, 100))
    model = SketchTransform(20, kind=kind, random_state=5).fit(X)
    S = model.operator_.to_array()
    np.testing.assert_allclose(model.transform(X), X @ S, atol=1e-12)
    np.testing.assert_allclose(model.inverse_transform(X[:, :20]), X[:, :20] @ S.T, atol=1e-12)
    np.testing.assert_array_equal(model.components_, S.T)
    assert model.n_components_ == 20
    assert model.n_features_in_ == 100


def test_an_int_seed_names_the_operator(rng):
    model = SketchTransform(20, random_state=5).fit(rng.standard_normal((3, 100)))
    assert model.operator_ == make_sketch(100, 20, random_state=5)


@pytest.mark.parametrize(("n", "eps"), [(50, 0.5), (1000, 0.3), (2, 0.9), (1, 0.5)])
def test_auto_follows_johnson_and_lindenstrauss(n, eps):
    X = sp.csr_array((n, 5000))
    model = SketchTransform(eps=eps, random_state=0).fit(X)
    assert model.n_components_ == max(1, johnson_lindenstrauss_min_dim(n, eps=eps))


def test_auto_is_at_most_the_number_of_features():
    assert SketchTransform(random_state=0).fit(np.ones((50, 30))).n_components_ == 30


def test_auto_keeps_all_distances(rng):
    """The lemma holds with a probability of at least 1 - 1/n for each draw; ten draws of 60 points."""
    X = rng.standard_normal((60, 3000)) * np.geomspace(1, 1e-3, 3000)
    i, j = np.triu_indices(60, 1)
    before = np.sum((X[i] - X[j]) ** 2, axis=1)
    for seed in range(10):
        Z = SketchTransform(eps=0.5, random_state=seed).fit_transform(X)
        assert Z.shape[1] < 300
        np.testing.assert_allclose(np.sum((Z[i] - Z[j]) ** 2, axis=1) / before, 1, atol=0.5)


def test_only_the_shape_counts(rng):
    X = rng.standard_normal((30, 100))
    models = [SketchTransform(9, random_state=0).fit(A) for A in (X, 3 * X + 1, sp.csr_array(X))]
    assert len({model.operator_ for model in models}) == 1
    stream = SketchTransform(9, random_state=0).partial_fit(X[:3]).partial_fit(X[3:])
    assert stream.operator_ == models[0].operator_


def test_batches_without_a_seed_share_the_sketch(rng):
    X = rng.standard_normal((30, 100))
    model = SketchTransform(9).partial_fit(X[:3])
    first = model.operator_
    assert model.partial_fit(X[3:]).operator_ == first


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": 0}, ValueError, r"n_components must be an integer in \[1, 7\]; got 0"),
        ({"n_components": 8}, ValueError, r"n_components must be an integer in \[1, 7\]; got 8.*n_features=7"),
        ({"n_components": "all"}, TypeError, "n_components must be an integer"),
        ({"n_components": 2.0}, TypeError, "n_components must be an integer"),
        ({"eps": 0.0}, ValueError, "eps must be a real number"),
        ({"eps": 1.0}, ValueError, "eps must be a real number"),
        ({"kind": "leverage"}, ValueError, "kind must be one of"),
        ({"nnz": 0}, ValueError, "nnz must be an integer >= 1"),
    ],
)
def test_bad_parameters(options, error, message):
    with pytest.raises(error, match=message):
        SketchTransform(**options).fit(np.ones((5, 7)))
