"""Products of `SparseOperator` against dense float64 arithmetic, and the promises of its kernel."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import scipy.sparse

from lrla import _threads
from lrla.linalg import _sparse
from lrla.linalg._kernels import WIDTHS, multiply_panel
from lrla.linalg._sparse import SparseOperator

BLOCKS = [1, *WIDTHS, *(width + 1 for width in WIDTHS), 50, 64]


def random_matrix(m, n, density=0.1, dtype=np.float64, fmt="csr", seed=0):
    rng = np.random.default_rng(seed)
    A = scipy.sparse.random_array((m, n), density=density, format="coo", rng=rng, data_sampler=rng.standard_normal)
    return A.astype(dtype).asformat(fmt)


def with_int64(A):
    A = A.copy()
    A.indptr, A.indices = A.indptr.astype(np.int64), A.indices.astype(np.int64)
    return A


def one_dense_row():
    A = random_matrix(60, 40, 0.02).tolil()
    A[7] = np.linspace(-1, 1, 40)
    return A.tocsr()


def empty_rows_and_columns():
    A = np.zeros((50, 30))
    A[10:20, 5:9] = np.random.default_rng(1).standard_normal((10, 4))
    return scipy.sparse.csr_array(A)


def explicit_zeros():
    A = random_matrix(40, 25, 0.2)
    A.data[::3] = 0.0
    return A


def unsorted_indices():
    A = random_matrix(40, 25, 0.2)
    for i in range(40):
        row = slice(A.indptr[i], A.indptr[i + 1])
        A.indices[row], A.data[row] = A.indices[row][::-1].copy(), A.data[row][::-1].copy()
    A.has_sorted_indices = False
    return A


def spare_room():
    A = random_matrix(40, 25, 0.2)
    room = np.full(10, 3)
    return scipy.sparse.csr_array((np.r_[A.data, room], np.r_[A.indices, room], A.indptr), shape=A.shape)


MATRICES = {
    "wide": lambda: random_matrix(70, 230),
    "tall, several blocks": lambda: random_matrix(900, 17, 0.4),
    "one row": lambda: random_matrix(1, 33, 0.5),
    "one column": lambda: random_matrix(33, 1, 0.5),
    "one entry": lambda: scipy.sparse.csr_array([[2.5]]),
    "nothing stored": lambda: scipy.sparse.csr_array((20, 30)),
    "one dense row": one_dense_row,
    "empty rows and columns": empty_rows_and_columns,
    "explicit zeros": explicit_zeros,
    "unsorted indices": unsorted_indices,
    "arrays longer than needed": spare_room,
    "spmatrix": lambda: scipy.sparse.csr_matrix(random_matrix(30, 20)),
}


def check_products(op, A, mean, b, seed=0):
    """Componentwise: |error| <= (terms + 4) eps (|A| + 1 |mean|^T) |X|, the bound of a sum in any order."""
    rng = np.random.default_rng(seed)
    (m, n), eps = A.shape, np.finfo(op.dtype).eps
    shift = np.zeros(n) if mean is None else mean
    B, size = A - shift, np.abs(A) + np.abs(shift)
    X = rng.standard_normal((b, n)).astype(op.dtype)
    Y = rng.standard_normal((b, m)).astype(op.dtype)
    rows, columns = np.abs(X) @ size.T, np.abs(Y) @ size
    for got, exact, bound in [
        (op.forward(X), X @ B.T, (n + 4) * eps * rows),
        (op.adjoint(Y), Y @ B, (m + 4) * eps * columns),
        (op.gram(X), X @ B.T @ B, (m + n + 8) * eps * rows @ size),
    ]:
        assert got.dtype == op.dtype
        assert got.flags.c_contiguous
        assert np.all(np.abs(got - exact) <= bound)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("fmt", ["csr", "csc"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MATRICES)
def test_products_equal_dense_ones(name, dtype, fmt, centred):
    A = MATRICES[name]().astype(dtype)
    A = A if fmt == "csr" else A.asformat(fmt)
    mean = np.linspace(-1, 2, A.shape[1]) if centred else None
    op, dense = SparseOperator(A, mean), A.toarray().astype(np.float64)
    assert (op.shape, op.dtype, op.xp) == (A.shape, dtype, np)
    check_products(op, dense, mean, b=11)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("b", BLOCKS)
def test_any_number_of_vectors(b, centred):
    A = random_matrix(90, 70)
    mean = np.linspace(-1, 2, 70) if centred else None
    check_products(SparseOperator(A, mean), A.toarray(), mean, b)


def test_no_vectors():
    op = SparseOperator(random_matrix(9, 7))
    assert op.gram(np.empty((0, 7))).shape == (0, 7)
    assert op.forward(np.empty((0, 7))).shape == (0, 9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_int64_indices_give_the_same_bits(dtype):
    A, X = random_matrix(300, 40, dtype=dtype), np.ones((9, 40), dtype)
    wide = SparseOperator(with_int64(A))
    assert wide._storage.given.indices.dtype == np.int64
    np.testing.assert_array_equal(wide.gram(X), SparseOperator(A).gram(X))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("fmt", ["csr", "csc"])
def test_transpose_is_an_operator(fmt, centred):
    A = random_matrix(60, 45, fmt=fmt)
    mean = np.linspace(-1, 2, 45) if centred else None
    op = SparseOperator(A, mean)
    B = A.toarray() - (0 if mean is None else mean)
    turned = op.T
    assert turned.shape == (45, 60)
    assert turned.T.shape == (60, 45)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((5, 60)), rng.standard_normal((5, 45))
    # 60 + 45 terms of size up to about 10: 1e-12 is a hundred times their rounding
    for _ in range(2):  # the second time with both orientations there
        np.testing.assert_allclose(turned.forward(X), X @ B, rtol=0, atol=1e-12)
        np.testing.assert_allclose(turned.adjoint(Y), Y @ B.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(turned.gram(X), X @ B @ B.T, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(turned.T.forward(Y), op.forward(Y))


def test_transposes_share_the_other_orientation():
    op = SparseOperator(random_matrix(60, 45))
    op.T.gram(np.ones((1, 60)))
    assert op._storage.has(True)
    assert op.T._storage is op._storage


def test_astype_rounds_values_and_shares_indices():
    A = random_matrix(60, 45)
    op = SparseOperator(A, np.ones(45))
    single = op.astype(np.float32)
    assert op.astype(np.float64) is op
    assert single.dtype == np.float32
    assert np.shares_memory(single._storage.given.indices, A.indices)
    check_products(single, A.astype(np.float32).toarray().astype(np.float64), np.ones(45), b=3)
    assert op.T.astype("float32").shape == (45, 60)


@pytest.mark.parametrize("orient", [lambda op: op, lambda op: op.T])
def test_float32_centring_with_a_large_mean(orient):
    """Mean 1000 times the spread: A^T A X - m mean (mean^T X) would lose everything (relative error 8)."""
    rng = np.random.default_rng(0)
    A = (1000 + rng.standard_normal((400, 60))).astype(np.float32)
    mean = A.mean(axis=0, dtype=np.float64)
    B = A - mean
    op = orient(SparseOperator(scipy.sparse.csr_array(A), mean))
    B = B if op.shape == B.shape else B.T
    X = rng.standard_normal((4, B.shape[1])).astype(np.float32)
    exact = X @ B.T @ B
    # each of the two products rounds sums of 1000 x: 1000 eps sqrt(terms) is some 1e-3
    assert np.linalg.norm(op.gram(X) - exact) <= 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize("fmt", ["csr", "csc"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_norm(dtype, fmt):
    A = random_matrix(80, 30, 0.3, dtype, fmt)
    dense = A.toarray().astype(np.float64)
    mean = dense.mean(axis=0)
    for op, exact in [(SparseOperator(A), dense), (SparseOperator(A, mean), dense - mean)]:
        assert op.squared_norm == pytest.approx(np.square(exact).sum(), rel=1e-14)  # 2400 terms, all positive
        assert op.T.squared_norm == op.squared_norm


def test_squared_norm_of_a_constant_matrix_is_zero():
    """||A||^2 - m ||mean||^2 would leave rounding of the order of ||A||^2 eps."""
    A = scipy.sparse.csr_array(np.full((50, 20), 1e3))
    assert SparseOperator(A, np.full(20, 1e3)).squared_norm == 0.0


def test_inputs_are_not_changed_and_may_be_read_only():
    A, mean = random_matrix(60, 45), np.ones(45)
    X = np.asfortranarray(np.random.default_rng(0).standard_normal((12, 45)))
    arrays = [A.data, A.indices, A.indptr, mean, X]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    op = SparseOperator(A, mean)
    result = op.gram(X)
    np.testing.assert_array_equal(result, op.gram(X.copy(order="C")))
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_results_are_not_overwritten_by_the_next_call():
    op, X = SparseOperator(random_matrix(60, 45)), np.random.default_rng(0).standard_normal((12, 45))
    first = op.gram(X)
    copy = first.copy()
    op.gram(2 * X)
    op.T.forward(np.ones((40, 60)))
    np.testing.assert_array_equal(first, copy)


def test_unused_lanes_do_not_carry_over():
    """Infinities of one call must not reach the next through the reused work arrays, nor warn there."""
    op, X = SparseOperator(random_matrix(60, 45), np.ones(45)), np.ones((3, 45))
    expected = op.gram(X)
    with np.errstate(all="ignore"):
        op.gram(np.full((8, 45), np.inf))
    np.testing.assert_array_equal(op.gram(X), expected)


@pytest.mark.parametrize("wrong", [np.ones(7), np.ones((2, 9)), np.ones((2, 7), np.float32)])
def test_wrong_block_vectors_are_refused(wrong):
    with pytest.raises(ValueError, match=r"shape \(b, 7\) and dtype float64"):
        SparseOperator(random_matrix(9, 7)).gram(wrong)


def all_products(A, mean):
    op, rng = SparseOperator(A, mean), np.random.default_rng(0)
    X, Y = (rng.standard_normal((43, length)).astype(A.dtype) for length in A.shape[::-1])
    return [op.gram(X), op.forward(X), op.adjoint(Y), op.T.gram(Y), op.adjoint(Y)]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_number_of_threads(dtype, centred, monkeypatch):
    A = random_matrix(2000, 30, 0.5, dtype)
    mean = np.linspace(-1, 2, 30) if centred else None
    assert _sparse._block_count(SparseOperator(A)._storage.given, WIDTHS[-1]) == 16
    results = []
    for threads in (1, 2, 3, 16):
        monkeypatch.setattr(_threads, "available_threads", lambda threads=threads: threads)
        monkeypatch.setattr(_threads, "_pool", None)
        results.append(all_products(A, mean))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_two_python_threads_with_an_operator_each():
    A, X = random_matrix(2000, 30, 0.5), np.random.default_rng(0).standard_normal((43, 30))
    expected = SparseOperator(A).gram(X)

    def repeat(_):
        op = SparseOperator(A)
        return [op.gram(X) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for results in pool.map(repeat, range(2)):
            for result in results:
                np.testing.assert_array_equal(result, expected)


def test_blocks_are_fixed_by_the_matrix_and_fit_the_budget(monkeypatch):
    csr = SparseOperator(random_matrix(2000, 30, 0.5))._storage.given
    bounds = csr.bounds(16)
    assert (bounds[0], bounds[-1]) == (0, 2000)
    # equal but for the entries of a row at either end
    assert np.all(np.abs(np.diff(csr.indptr[bounds]) - csr.data.size / 16) <= 30)
    monkeypatch.setattr(_sparse, "WORK_BUDGET", 4 * 30 * WIDTHS[-1] * 8)
    assert _sparse._block_count(csr, WIDTHS[-1]) == 4
    monkeypatch.setattr(_sparse, "WORK_BUDGET", 1)
    assert _sparse._block_count(csr, WIDTHS[-1]) == 1


def test_work_arrays_are_reused_and_start_on_a_cache_line():
    op, X = SparseOperator(random_matrix(60, 45)), np.ones((8, 45))
    op.gram(X)
    memory = dict(op._storage.work)
    op.gram(X)
    assert all(op._storage.work[name] is array for name, array in memory.items())
    panel = op._storage.work_array("panel", (45, 8), np.dtype(np.float64))
    assert panel.ctypes.data % _sparse.CACHE_LINE == 0


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_few_variants_are_compiled():
    """Two dtypes and two index widths, whatever the layout, the flags or the shift."""
    for fmt in ("csr", "csc"):
        for dtype in (np.float32, np.float64):
            A = random_matrix(50, 20, 0.5, dtype, fmt)
            for variant in (A, with_int64(A)):
                for mean in (None, np.ones(20)):
                    op = SparseOperator(variant, mean)
                    op.gram(np.ones((40, 20), dtype))
                    op.forward(np.asfortranarray(np.ones((2, 20), dtype)))
                    op.T.gram(np.ones((2, 50), dtype))
    for compiled in multiply_panel.values():
        assert len(compiled.signatures) <= 4
