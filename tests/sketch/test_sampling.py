"""Coordinates drawn with known probabilities: a sketch like the others, whose size is random."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from lrla import SketchTransform, approx_leverage_scores, make_sketch
from lrla.sketch._sampling import capped_probabilities
from tests.sketch._sketches import N, close, normal

Q = np.linspace(0.1, 3.0, N) ** 2


def sampled(expected=22, probabilities=Q, n_in=N, **options):
    return make_sketch(n_in, expected, "leverage", probabilities=probabilities, **{"random_state": 3, **options})


def test_products_are_those_of_the_entries(xp):
    op, S = sampled(), sampled().to_array()
    assert op.shape == S.shape == (N, len(op.indices))
    A, W = normal(N, 5), normal(op.n_out, 3)
    for product, wanted in ((op.left, S.T @ A), (lambda A: op.right(A.T), A.T @ S), (op.expand, S @ W)):
        got = product(xp.asarray(A if wanted.shape != (N, 3) else W))
        assert xp.owns(got)
        close(xp.to_numpy(got), wanted)
    out = xp.asarray(np.zeros((op.n_out, 5)))
    for first in (0, 31, 40):
        op.left_partial(xp.asarray(A[first : min([e for e in (31, 40, N) if e > first])]), first, out)
    close(xp.to_numpy(out), S.T @ A)


def test_sparse_data_and_single_precision():
    op, X = sampled(), sp.random_array((N, 40), density=0.2, rng=0, format="csr")
    for A in (X, X.tocsc()):
        close(op.left(A), op.left(X.toarray()))
        close(op.right(A.T), op.right(X.toarray().T))
    single = op.left(X.toarray().astype(np.float32))
    assert single.dtype == np.float32
    close(single, op.left(X.toarray()), 1e-6)


def test_coordinates_come_as_often_as_they_should_and_are_scaled_for_it():
    p = capped_probabilities(Q, 22)
    draws = [sampled(member=k) for k in range(2000)]
    counts = sum(np.bincount(op.indices, minlength=N) for op in draws)
    assert np.all(np.abs(counts - 2000 * p) <= 5 * np.sqrt(2000 * p * (1 - p)) + 1e-9)
    assert np.mean([op.n_out for op in draws]) == pytest.approx(22, abs=5 * np.sqrt(p @ (1 - p) / 2000))
    np.testing.assert_allclose(draws[0].scales, p[draws[0].indices] ** -0.5)
    x = np.linspace(1.0, 2.0, N)
    norms = np.array([np.sum(op.left(x) ** 2) for op in draws])  # E[S S^T] = I
    assert abs(norms.mean() - x @ x) <= 4 * norms.std() / np.sqrt(2000)


def test_leverage_scores_find_the_row_that_counts(rng):
    A = rng.standard_normal((3000, 10))
    A[7] *= 100.0
    op = sampled(300, approx_leverage_scores(A, random_state=0), 3000)
    B = op.left(A)
    assert 7 in op.indices
    assert np.linalg.norm(B.T @ B - A.T @ A) < 0.05 * np.linalg.norm(A.T @ A)


def test_it_is_a_value():
    op = sampled()
    assert pickle.loads(pickle.dumps(op)) == op == sampled(random_state=op.seed)
    assert hash(op) == hash(sampled())
    assert op != sampled(member=1)
    assert op.law is None
    np.testing.assert_array_equal(op.rows(3, 30), op.to_array()[3:30])
    certain = sampled(50, np.where(np.arange(N) < 20, 1.0, 0.0))  # fewer than asked for: all of them
    np.testing.assert_array_equal(certain.to_array(), np.eye(N)[:, :20])


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (None, "kind='leverage' needs probabilities"),
        (np.ones(N - 1), r"probabilities must have shape \(75,\)"),
        (-Q, "probabilities must be >= 0"),
        (np.zeros(N), "not all zero"),
        (np.full(N, np.nan), "NaN"),
    ],
)
def test_refused_probabilities(probabilities, message):
    with pytest.raises(ValueError, match=message):
        sampled(probabilities=probabilities)


def test_what_it_cannot_do_is_said(rng):
    with pytest.raises(ValueError, match="no prefixes"):
        sampled().prefix(3)
    with pytest.raises(ValueError, match="kind must be one of"):
        SketchTransform(5, kind="leverage").fit(rng.standard_normal((20, 10)))
