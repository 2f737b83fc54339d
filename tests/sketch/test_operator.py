"""Sketch operators: their products are those of their entries, and their entries depend on seed and coordinates only."""

from __future__ import annotations

import copy
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from lrla import make_sketch, sketch_all
from lrla.sketch import _make_sketch, _sparse
from tests.sketch._sketches import EQUAL32, HASHED, KINDS, D, N, close, every_hashed_kind, every_kind, normal, sketch

STORAGE = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "list": lambda A: A.tolist(),
}
every_storage = pytest.mark.parametrize("store", STORAGE.values(), ids=STORAGE.keys())


# ---------------------------------------------------------------------------------------------------- products


@every_kind
@every_storage
@pytest.mark.parametrize("n", [1, 8, 37])
def test_right_is_the_product(kind, store, n):
    op, X = sketch(kind), normal(n, N)
    close(op.right(store(X)), X @ op.to_array())


@every_kind
@every_storage
@pytest.mark.parametrize("c", [1, 8, 37])
def test_left_is_the_product(kind, store, c):
    op, A = sketch(kind), normal(N, c)
    close(op.left(store(A)), op.to_array().T @ A)


@every_kind
@every_storage
@pytest.mark.parametrize("t", [1, 5])
def test_expand_is_the_product(kind, store, t):
    op, W = sketch(kind), normal(D, t)
    close(op.expand(store(W)), op.to_array() @ W)


@every_kind
def test_vectors(kind):
    op, S = sketch(kind), sketch(kind).to_array()
    a, w = normal(N), normal(D)
    assert op.left(a).shape == (D,)
    close(op.left(a), S.T @ a)
    close(op.expand(w), S @ w)


@every_kind
def test_float32_in_float32_out(kind):
    op, S = sketch(kind), sketch(kind).to_array()
    X, W = normal(37, N, dtype=np.float32), normal(D, 3, dtype=np.float32)
    for result, wanted in (
        (op.right(X), X @ S), (op.right(sp.csr_array(X)), X @ S), (op.left(X.T), S.T @ X.T),
        (op.left(sp.csr_array(X.T)), S.T @ X.T), (op.expand(W), S @ W),
    ):  # fmt: skip
        assert result.dtype == np.float32
        close(result, wanted, EQUAL32)


@every_kind
def test_integers_are_computed_in_float64(kind):
    op, X = sketch(kind), np.arange(2 * N).reshape(2, N)
    close(op.right(X), X @ op.to_array())


@every_kind
def test_it_is_a_matrix_among_matrices(kind):
    op, S = sketch(kind), sketch(kind).to_array()
    X, A, W = normal(4, N), normal(N, 3), normal(D, 2)
    for result, wanted in (
        (op @ W, S @ W), (X @ op, X @ S), (X[0] @ op, X[0] @ S), (W[:, 0] @ op.T, S @ W[:, 0]),
        (sp.csr_array(X) @ op, X @ S), (op.T @ A, S.T @ A), (W.T @ op.T, W.T @ S.T),
        (op.T.T @ W, S @ W),
    ):  # fmt: skip
        close(result, wanted)
    assert op.shape == op.T.shape[::-1] == S.shape
    L = aslinearoperator(op)
    close(L @ W, S @ W)
    close(L.T @ A, S.T @ A)
    close(L.rmatvec(A[:, 0]), S.T @ A[:, 0])
    close(aslinearoperator(op.T) @ A, S.T @ A)


@every_kind
def test_entries_by_rows_and_as_sparse(kind):
    op = sketch(kind)
    S = op.to_array()
    assert S.shape == (N, D)
    close(np.concatenate([op.rows(0, 31), op.rows(31, 31), op.rows(31, 32), op.rows(32, N)]), S)
    close(op.to_csr().toarray(), S)
    assert (
        sketch(kind, dtype=np.float32).to_array().dtype == sketch(kind, dtype=np.float32).to_csr().dtype == np.float32
    )


@every_kind
def test_out_is_written_and_returned(kind):
    op, X, A = sketch(kind), normal(4, N), normal(N, 3)
    for product, M, shape in ((op.right, X, (4, D)), (op.left, A, (D, 3))):
        out = np.full(shape, np.nan)
        assert product(M, out=out) is out
        np.testing.assert_array_equal(out, product(M))


@every_kind
def test_what_cannot_be_written_into_is_refused(kind):
    op, X, A = sketch(kind), normal(4, N), normal(N, 3)
    frozen = np.zeros((D, 3))
    frozen.flags.writeable = False
    for out, error, message in (
        (np.zeros((D, 3), dtype=int), ValueError, "out must be of type float64 or float32; got int64"),
        ([[0.0] * 3] * D, TypeError, "out must be an array; got list"),
        (frozen, ValueError, "out is read-only"),
        (np.zeros((D, 2)), ValueError, rf"out must have shape \({D}, 3\)"),
    ):
        with pytest.raises(error, match=message):
            op.left(A, out=out)
        with pytest.raises(error, match=message):
            op.left_partial(A, 0, out)
    with pytest.raises(ValueError, match="out must be of type"):
        op.right(X, out=np.zeros((4, D), dtype=int))


@every_kind
def test_inputs_are_not_changed(kind):
    op = sketch(kind)
    for product, shape in ((op.right, (9, N)), (op.left, (N, 9)), (op.expand, (D, 9))):
        A = normal(*shape)
        A.flags.writeable = False
        product(A)
        np.testing.assert_array_equal(A, normal(*shape))


@every_kind
@pytest.mark.parametrize("empty", [(0, N), (N, 0)])
def test_no_rows_or_no_columns(kind, empty):
    op, A = sketch(kind), np.zeros(empty)
    result = op.right(A) if empty[0] == 0 else op.left(A)
    assert result.shape == ((0, D) if empty[0] == 0 else (D, 0))


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "sparse_iid"])
def test_tiles_of_dense_sketches_add_up(kind, monkeypatch):
    op, X, A, W = sketch(kind), normal(4, N), normal(N, 3), normal(D, 2)
    S = op.to_array()
    monkeypatch.setattr("lrla.sketch._operator.TILE_BYTES", 8 * D * 10)  # ten rows at a time
    assert len(op._tiles(0, N)) == 8
    close(op.right(X), X @ S)
    close(op.right(sp.csr_array(X)), X @ S)
    close(op.left(A), S.T @ A)
    close(op.expand(W), S @ W)


# ---------------------------------------------------------------------------------------------------- members together


@pytest.mark.parametrize("store", [np.ascontiguousarray, np.asfortranarray, sp.csr_array], ids=["C", "F", "csr"])
def test_one_sweep_is_one_by_one(store):
    X = store(normal(37, N))
    ops = [sketch("sparse_stack", member=k) for k in range(3)]
    ops += [sketch("gaussian"), sketch("countsketch", n_out=7), sketch("sparse_stack", n_out=50, nnz=4)]
    for op, Z in zip(ops, sketch_all(X, ops), strict=True):
        np.testing.assert_array_equal(Z, op.right(X))


def test_one_sweep_of_nothing_and_of_another_size():
    assert sketch_all(normal(3, N), []) == []
    with pytest.raises(ValueError, match="X has 75 columns; the sketch has n_in=80"):
        sketch_all(normal(3, N), [sketch("gaussian"), sketch("gaussian", n_in=80)])


def test_members_are_independent_of_each_other_and_equal_to_themselves():
    assert sketch("gaussian", member=1) == sketch("gaussian", member=1)
    assert not np.any(sketch("gaussian", member=1).to_array() == sketch("gaussian").to_array())


# ---------------------------------------------------------------------------------------------------- rows in parts


def odd_splits(n, seed):
    """Three parts of odd sizes, and whatever is left."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(2 * rng.integers(0, n // 6, 3) + 1)
    return [*np.unique(np.clip([0, *cuts], 0, n)), n]


@every_kind
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("store", [np.ascontiguousarray, sp.csr_array], ids=["dense", "csr"])
def test_left_by_parts_is_left(kind, seed, store):
    op, A, edges = sketch(kind), normal(N, 19), odd_splits(N, seed)
    out = np.zeros((D, 19))
    for i, j in pairwise(edges):
        assert op.left_partial(store(A[i:j]), i, out) is out
    if kind in HASHED:
        np.testing.assert_array_equal(out, op.left(store(A)))
    else:
        close(out, op.left(A))


@every_hashed_kind
@pytest.mark.parametrize(
    "make", [np.asfortranarray, lambda A: A[:, ::-1], lambda A: A[:, 0]], ids=["F", "view", "vector"]
)
def test_left_by_parts_into_any_array(kind, make):
    op, A = sketch(kind), normal(N, 9)
    A = A[:, 0] if make(A).ndim == 1 else A
    out = make(np.zeros((D, 9)))
    op.left_partial(A[:40], 0, out)
    op.left_partial(A[40:], 40, out)
    np.testing.assert_array_equal(out, op.left(A))


@every_hashed_kind
def test_rows_beyond_a_kept_table(kind, monkeypatch):
    op, A = sketch(kind, n_in=1000), normal(1000, 9)
    kept = op.left(A), op.left(np.asfortranarray(A)), op.left(sp.csr_array(A))
    monkeypatch.setattr(_sparse, "SMALL", 0)
    monkeypatch.setattr(_sparse, "ROWS", 137)
    made = op.left(A), op.left(np.asfortranarray(A)), op.left(sp.csr_array(A))
    for a, b in zip(kept, made, strict=True):
        np.testing.assert_array_equal(a, b)


@every_hashed_kind
@pytest.mark.parametrize("c", [1, 9, 200])
def test_results_do_not_depend_on_the_number_of_threads(kind, c, monkeypatch):
    op, A, C = sketch(kind, n_in=500), normal(500, c), sp.random_array((500, 60), density=0.1, rng=0, format="csr")
    results = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr("lrla._threads.available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_sparse, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr("lrla._threads._pool", None)
        fresh = sketch(kind, n_in=500, member=0)
        results.append([op.left(A), op.right(A.T), op.left(C), op.right(C.T), op.expand(A[:D]), fresh._hashed(0, 500)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("d", [600, 2000])
def test_sums_beyond_the_first_level_cache(d):
    """Groups of columns, and lines one after the other, as for large sketches."""
    op = sketch("sparse_stack", n_in=2500, n_out=d)
    assert len(_sparse.groups_of([op])) > 1
    X, S = normal(20, 2500), op.to_array()
    close(op.right(X), X @ S)
    close(op.left(X.T), S.T @ X.T)


# ---------------------------------------------------------------------------------------------------- values


@every_kind
def test_a_pickle_is_small_and_the_same(kind):
    op = sketch(kind, n_in=100_000 if kind != "orthogonal" else N)
    op.left(np.ones(op.n_in))  # tables are made
    text = pickle.dumps(op)
    assert len(text) < 1000
    twin = pickle.loads(text)
    assert twin == op
    assert hash(twin) == hash(op)
    assert copy.deepcopy(op) == op
    np.testing.assert_array_equal(twin.rows(0, 50), op.rows(0, 50))


@every_kind
def test_the_seed_of_an_operator_makes_it_again(kind):
    for random_state in (7, np.random.default_rng(0), None, np.random.SeedSequence([1, 2], spawn_key=(3,))):
        op = sketch(kind, random_state=random_state)
        assert sketch(kind, random_state=op.seed) == op


def test_prefixes_are_sketches_of_fewer_columns():
    for kind in ("gaussian", "rademacher", "srdct", "srht", "uniform"):
        op = sketch(kind)
        close(op.prefix(9).to_array(), op.to_array()[:, :9] * np.sqrt(D / 9))
        close(op.prefix(D).to_array(), op.to_array())


def test_a_prefix_of_a_sparse_stack_ends_with_a_block():
    op = sketch("sparse_stack")
    edges = op.edges
    np.testing.assert_array_equal(edges, [D * j // 8 for j in range(9)])
    for j in range(1, 9):
        short = op.prefix(int(edges[j]))
        close(short.to_array(), op.to_array()[:, : edges[j]] * np.sqrt(8 / j))
        close(short.right(normal(3, N)), normal(3, N) @ short.to_array())
    with pytest.raises(ValueError, match=r"end of a block.*\[2, 5, 8, 11, 13, 16, 19, 22\]; got 3"):
        op.prefix(3)


def test_spectral_laws():
    laws = {kind: sketch(kind).law for kind in KINDS}
    gaussian, orthogonal = ("sparse_stack", "gaussian", "rademacher"), ("orthogonal", "srdct", "srht", "uniform")
    assert laws == {
        **dict.fromkeys(KINDS), **dict.fromkeys(gaussian, "gaussian"), **dict.fromkeys(orthogonal, "orthogonal")
    }  # fmt: skip
    assert sketch("sparse_stack", nnz=2).law is None
    assert sketch("srht").padded_size == 128
    assert sketch("srdct").padded_size == N


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", ["orthogonal", "srdct", "uniform"])
def test_more_columns_than_coordinates(kind):
    with pytest.raises(ValueError, match=rf"n_out must be at most {N} for kind='{kind}'"):
        sketch(kind, n_out=N + 1)


def test_more_columns_than_the_padded_size():
    with pytest.warns(UserWarning, match="no compression"):
        sketch("srht", n_out=128)
    with pytest.raises(ValueError, match="n_out must be at most 128"):
        sketch("srht", n_out=129)


@pytest.mark.parametrize("kind", ["sparse_stack", "gaussian", "rademacher", "countsketch"])
def test_no_compression_is_told(kind):
    with pytest.warns(UserWarning, match="n_out=80 is not below n_in=75.*no compression"):
        op = sketch(kind, n_out=80)
    close(op.right(normal(3, N)), normal(3, N) @ op.to_array())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sketch(kind, n_out=N - 1)


def test_a_density_that_loses_coordinates_is_told():
    with pytest.warns(UserWarning, match=r"probability of 88%.*sparse_stack.*density >= 0\.035"):
        make_sketch(10**6, 128, "sparse_iid", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_sketch(10**6, 128, "sparse_iid", density=0.036, random_state=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_in": 0}, ValueError, "n_in must be an integer >= 1"),
        ({"n_in": 7.0}, TypeError, "n_in must be an integer"),
        ({"n_out": 0}, ValueError, "n_out must be an integer"),
        ({"n_out": True}, TypeError, "n_out must be an integer"),
        ({"n_out": 1 << 30}, ValueError, "n_out must be an integer in"),
        ({"kind": "count"}, ValueError, "kind must be one of 'sparse_stack'"),
        ({"nnz": 0}, ValueError, "nnz must be an integer >= 1"),
        ({"density": 0.0, "kind": "sparse_iid"}, ValueError, "density must be a real number in"),
        ({"density": 1.1, "kind": "sparse_iid"}, ValueError, "density must be a real number in"),
        ({"permute": "no"}, ValueError, "permute must be one of True, False"),
        ({"member": -1}, ValueError, "member must be an integer >= 0"),
        ({"random_state": "0"}, TypeError, "random_state must be"),
        ({"dtype": np.int32}, ValueError, "dtype must be float64 or float32"),
    ],
)
def test_bad_parameters(options, error, message):
    with pytest.raises(error, match=message):
        make_sketch(**{"n_in": N, "n_out": D, **options})


def broken_csr():
    A = sp.csr_array(normal(3, N))
    A.indices[4] = 10**6
    return A


@every_kind
def test_bad_factors(kind):
    op = sketch(kind)
    for product, bad, error, message in (
        (op.right, normal(3, N + 1), ValueError, "X has 76 columns; the sketch has n_in=75"),
        (op.right, normal(N), ValueError, "X must be a 2-dimensional array; got 1"),
        (op.left, normal(N + 1, 3), ValueError, "A has 76 rows; the sketch has n_in=75"),
        (op.expand, normal(D + 1, 3), ValueError, "W has 23 rows; the sketch has n_out=22"),
        (op.right, broken_csr(), ValueError, "index of X must lie in"),
        (op.right, normal(3, N) + 1j, ValueError, "X is complex"),
        (op.right, aslinearoperator(normal(3, N)), TypeError, "X is a LinearOperator"),
        (op.right, np.ma.masked_array(normal(3, N)), TypeError, "X is a masked array"),
        (op.prefix, D + 1, ValueError, "n_out must be an integer in"),
    ):
        with pytest.raises(error, match=message):
            product(bad)
    with pytest.raises(ValueError, match=r"out must have shape \(3, 22\); got \(3, 21\)"):
        op.right(normal(3, N), out=np.zeros((3, 21)))
    with pytest.raises(ValueError, match=r"offset must be an integer in \[0, 70\]; got 71"):
        op.left_partial(normal(5, 2), 71, np.zeros((D, 2)))
    with pytest.raises(ValueError, match=r"out must have shape \(22, 2\)"):
        op.left_partial(normal(5, 2), 0, np.zeros((D, 3)))
    with pytest.raises(ValueError, match="last must be an integer in"):
        op.rows(5, N + 1)


def test_every_kind_is_documented():
    for kind in KINDS:
        assert f'"{kind}"' in _make_sketch.make_sketch.__doc__
