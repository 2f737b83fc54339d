"""The door: what each check accepts, and the words with which it refuses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.exceptions import ConvergenceWarning

from lrla import _validation as validation

EYE = np.eye(3, 2)


# ---------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("value", [2, np.int32(2), np.uint8(2)])
def test_integers_become_int(value):
    assert type(validation.check_integer(value, "k", 1, 5)) is int


@pytest.mark.parametrize(
    ("value", "maximum", "error", "message"),
    [
        (0, None, ValueError, r"k must be an integer >= 1; got 0\."),
        (6, 5, ValueError, r"k must be an integer in \[1, 5\]; got 6\."),
        (True, None, TypeError, "k must be an integer >= 1; got True of type bool"),
        (np.bool_(True), None, TypeError, "k must be an integer"),
        (2.0, None, TypeError, "got 2.0 of type float"),
        ("2", None, TypeError, "got '2' of type str"),
        (None, None, TypeError, "NoneType"),
        (np.array([2]), None, TypeError, "ndarray"),
    ],
)
def test_check_integer_refuses(value, maximum, error, message):
    with pytest.raises(error, match=message):
        validation.check_integer(value, "k", 1, maximum)


def test_check_rank_names_the_shape():
    assert validation.check_rank(2, (3, 2), "k") == 2
    with pytest.raises(ValueError, match=r"k must be an integer in \[1, 2\]; got 3\. A matrix of shape \(3, 2\)"):
        validation.check_rank(3, (3, 2), "k")


@pytest.mark.parametrize(
    ("value", "closed", "error"),
    [
        (-0.1, (True, True), ValueError),
        (0.0, (False, True), ValueError),
        (1.0, (True, False), ValueError),
        (np.nan, (True, True), ValueError),
        (True, (True, True), TypeError),
        ("0.5", (True, True), TypeError),
        (0.5j, (True, True), TypeError),
        (None, (True, True), TypeError),
    ],
)
def test_check_real_refuses(value, closed, error):
    with pytest.raises(error, match="tol must be a real number in"):
        validation.check_real(value, "tol", 0, 1, closed=closed)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 10**400], ids=["inf", "-inf", "huge"])
def test_check_real_wants_a_finite_number(value):
    with pytest.raises(ValueError, match="tol must be a real number"):
        validation.check_real(value, "tol")


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_real_numbers_become_float(value):
    assert type(validation.check_real(value, "tol", 0, 1)) is float


def test_check_choice():
    assert validation.check_choice("b", "method", ["a", "b", None]) == "b"
    assert validation.check_choice(None, "method", ["a", "b", None]) is None
    assert validation.check_choice(np.bool_(True), "center", (True, False)) is True
    for value in ("c", 1, ["a"], np.array(["a", "b"])):
        with pytest.raises(ValueError, match="method must be one of 'a', 'b', None; got"):
            validation.check_choice(value, "method", ["a", "b", None])


def test_check_memory_refuses_what_no_machine_has():
    validation.check_memory(1e6, "this")
    with pytest.raises(ValueError, match=r"The factors would take about 1e\+30 bytes.*fewer components"):
        validation.check_memory(1e30, "The factors")


def test_not_converged_is_scikit_learns_warning():
    with pytest.warns(ConvergenceWarning, match="2 of 5"):
        validation.warn_not_converged("2 of 5 triplets converged.")


# ---------------------------------------------------------------------------------------------------- matrices

CONTAINERS = [
    sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix, sp.coo_array, sp.coo_matrix, sp.bsr_array, sp.lil_array,
    sp.dok_array, sp.dia_array,
]  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_sparse_format_becomes_csr_or_csc_of_the_same_matrix(container, rng):
    dense = rng.standard_normal((6, 4)) * (rng.random((6, 4)) < 0.4)
    A = validation.check_matrix(container(dense))
    assert A.format in ("csr", "csc")
    np.testing.assert_array_equal(A.toarray(), dense)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f8", ">f4", "bool", "int8", "uint64", object])
def test_other_real_types_become_float64(dtype):
    assert validation.check_matrix(EYE.astype(dtype)).dtype == np.dtype("float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_float32_and_float64_stay_and_are_not_copied(dtype, container):
    A = container(EYE.astype(dtype))
    checked = validation.check_matrix(A)
    assert checked.dtype == dtype
    assert np.shares_memory(getattr(checked, "data", checked), getattr(A, "data", A))


def test_device_matrices_stay_on_the_device(device_xp):
    for given, wanted in (("float32", "float32"), ("float64", "float64"), ("int64", "float64"), ("bool", "float64")):
        A = validation.check_matrix(device_xp.asarray(EYE.astype(given)))
        assert device_xp.owns(A)
        assert str(A.dtype).endswith(wanted)


def test_dtype_converts_and_refuses_what_does_not_fit(xp):
    A = xp.asarray(1e200 * EYE)
    assert str(validation.check_matrix(xp.asarray(EYE), dtype=np.float32).dtype).endswith("float32")
    with pytest.raises(ValueError, match=r"A contains (values too large for float32|NaN or infinity)"):
        validation.check_matrix(A, dtype=np.float32)
    with pytest.raises(ValueError, match="too large for float32"):
        validation.check_matrix(sp.csr_array(1e200 * EYE), dtype=np.float32)


def test_longdouble_beyond_float64_is_refused_without_a_stray_warning():
    if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("longdouble is float64 on this machine")
    with pytest.raises(ValueError, match="A"):
        validation.check_matrix(np.longdouble("1e4000") * EYE)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones(3), "2-dimensional"),
        (np.ones((2, 2, 2)), "2-dimensional"),
        (np.ones((0, 2)), "minimum of 1 row"),
        (np.ones((2, 0)), "minimum of 1 row"),
        (np.array([[1.0, np.nan]]), "Input A contains NaN or infinity"),
        (np.array([[1.0, -np.inf]]), "Input A contains NaN or infinity"),
        (np.array([[1j]]), "A is complex"),
    ],
)
def test_device_matrices_are_refused_like_those_of_the_host(device_xp, A, message):
    with pytest.raises(ValueError, match=message):
        validation.check_matrix(device_xp.asarray(A))


def test_operators_where_the_routine_takes_products():
    A = aslinearoperator(EYE)
    assert validation.check_matrix(A, operator=True) is A
    with pytest.raises(TypeError, match="A is a LinearOperator; this routine needs the entries"):
        validation.check_matrix(A)
    with pytest.raises(ValueError, match="A is complex"):
        validation.check_matrix(aslinearoperator(EYE * 1j), operator=True)
    with pytest.raises(ValueError, match=r"A has shape \(0, 2\)"):
        validation.check_matrix(LinearOperator((0, 2), matvec=lambda x: x, dtype=float), operator=True)


def test_sparse_where_the_routine_takes_none():
    with pytest.raises(TypeError, match="toarray"):
        validation.check_matrix(sp.csr_array(EYE), sparse=False)


# ---------------------------------------------------------------------------------------------------- sparse structure


def _broken(**changes):
    """The CSR matrix [[1, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0]], some of its arrays replaced behind SciPy's back."""
    A = sp.csr_array(([1.0, 2.0, 3.0], [0, 1, 2], [0, 2, 3, 3]), shape=(3, 4))
    for name, value in changes.items():
        setattr(A, name, np.asarray(value, dtype=getattr(A, name).dtype))
    return A


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": [0, 4, 2]}, r"index of A must lie in \[0, 4\); found 4"),
        ({"indices": [0, -1, 2]}, r"index of A must lie in \[0, 4\); found -1"),
        ({"indptr": [0, 2, 5, 5]}, r"A.indptr\[-1\] is 5, but A has 3 indices and 3 stored values"),
        ({"indptr": [0, 2, 2, 2]}, r"A.indptr\[-1\] is 2"),
        ({"indptr": [0, 4, 3, 3]}, "A.indptr must start at 0, never decrease"),
        ({"indptr": [1, 2, 3, 3]}, "A.indptr must start at 0"),
        ({"indptr": [0, 2, 3]}, "and have 4 entries"),
        ({"data": [1.0, 2.0]}, "A has 3 indices and 2 stored values"),
    ],
)
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_inconsistent_sparse_matrices_are_refused(changes, message, layout):
    A = _broken(**changes)
    if layout == "csc":
        A = sp.csc_array.__new__(sp.csc_array)
        B = _broken(**changes)
        A.__dict__.update(B.__dict__)
        A._shape = B.shape[::-1]
    with pytest.raises(ValueError, match=message):
        validation.check_matrix(A)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_coo_indices_out_of_range_are_refused(axis):
    A = sp.coo_array(EYE)
    A.coords[0 if axis == "row" else 1][0] = 7
    with pytest.raises(ValueError, match=f"{axis} index of A must lie in .* found 7"):
        validation.check_matrix(A)


def test_bsr_block_indices_out_of_range_are_refused():
    A = sp.bsr_array(np.eye(4), blocksize=(2, 2))
    A.indices[0] = 2
    with pytest.raises(ValueError, match=r"index of A must lie in \[0, 2\); found 2"):
        validation.check_matrix(A)


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.coo_array])
def test_duplicates_are_summed_and_indices_sorted_on_a_copy(container):
    A = container(sp.coo_array(([1.0, 2.0, 4.0, 8.0], ([1, 0, 0, 0], [0, 1, 0, 1])), shape=(2, 2)))
    if container is sp.csr_array:  # SciPy has summed: put the duplicates back
        A = sp.csr_array(([2.0, 4.0, 8.0, 1.0], [1, 0, 1, 0], [0, 3, 4]), shape=(2, 2))
    elif container is sp.csc_array:
        A = sp.csc_array(([1.0, 4.0, 8.0, 2.0], [1, 0, 0, 0], [0, 2, 4]), shape=(2, 2))
    names = ("row", "col", "data") if container is sp.coo_array else ("indptr", "indices", "data")
    before = [getattr(A, name).copy() for name in names]
    checked = validation.check_matrix(A)
    assert checked.has_canonical_format
    np.testing.assert_array_equal(checked.toarray(), [[4.0, 10.0], [1.0, 0.0]])
    for name, value in zip(names, before, strict=True):
        np.testing.assert_array_equal(getattr(A, name), value)


def test_a_read_only_sparse_matrix_with_duplicates():
    A = sp.csr_array(([2.0, 4.0, 8.0], [1, 0, 1], [0, 3]), shape=(1, 2))
    for array in (A.data, A.indices, A.indptr):
        array.flags.writeable = False
    np.testing.assert_array_equal(validation.check_matrix(A).toarray(), [[4.0, 10.0]])


def test_long_indices_are_accepted():
    A = sp.csr_array(EYE)
    A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    np.testing.assert_array_equal(validation.check_matrix(A).toarray(), EYE)


@pytest.mark.parametrize("shape", [(2, 2, 2), (4,)])
def test_sparse_arrays_of_other_dimension_are_refused(shape):
    with pytest.raises(ValueError, match=f"A must be a 2-dimensional sparse matrix; got a {len(shape)}-dimensional"):
        validation.check_matrix(sp.coo_array(np.ones(shape)))


# ---------------------------------------------------------------------------------------------------- other libraries


def test_masked_arrays_are_refused_even_without_a_masked_entry():
    with pytest.raises(TypeError, match=r"A is a masked array.*A\.filled\(0\)"):
        validation.check_matrix(np.ma.masked_array(EYE, mask=False))


def test_dask_is_refused_and_not_computed():
    da = pytest.importorskip("dask.array")

    def explode(block):
        raise AssertionError("computed")

    A = da.ones((4, 2), chunks=2).map_blocks(explode, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(TypeError, match=r"A is a Dask collection.*A\.compute\(\)"):
        validation.check_matrix(A)
    with pytest.raises(TypeError, match=r"unknown chunk sizes; call A\.compute_chunk_sizes\(\)"):
        validation.check_matrix(A[A[:, 0] > 0])


def test_jax_is_recognised_by_its_module_alone():
    array = type("ArrayImpl", (), {"__module__": "jaxlib._jax", "shape": (2, 2)})()
    with pytest.raises(TypeError, match=r"A is a JAX array.*numpy\.asarray\(A\)"):
        validation.check_matrix(array)


def test_torch_with_a_graph_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"A\.detach\(\)"):
        validation.check_matrix(torch.ones((2, 2), requires_grad=True))


def test_polars_lazy_frame_is_refused():
    pl = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"A\.collect\(\)"):
        validation.check_matrix(pl.LazyFrame({"a": [1.0]}))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_text_columns_are_named(library):
    frame = pytest.importorskip(library).DataFrame({"size": [1.0, 2.0], "colour": ["red", "blue"]})
    with pytest.raises(ValueError, match="A has a column that is not numeric: 'colour'"):
        validation.check_matrix(frame)


def test_text_columns_of_the_same_name_are_named():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([["red", "blue"]], columns=["colour", "colour"])
    with pytest.raises(ValueError, match="A has a column that is not numeric: 'colour'"):
        validation.check_matrix(frame)


def test_object_columns_of_numbers_are_accepted():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.array([1, 2], dtype=object), "b": pd.Categorical([3, 4])})
    np.testing.assert_array_equal(validation.check_matrix(frame), [[1.0, 3.0], [2.0, 4.0]])


# ---------------------------------------------------------------------------------------------------- vectors


def test_vectors(xp):
    A = xp.asarray(EYE)
    v = validation.check_vector(xp.asarray(np.array([1, 2])), 2, "center", like=A)
    np.testing.assert_array_equal(v, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"center must have shape \(2,\); got \(3,\)"):
        validation.check_vector(xp.asarray(np.ones(3)), 2, "center", like=A)
    with pytest.raises(ValueError, match="NaN"):
        validation.check_vector(xp.asarray(np.array([1.0, np.nan])), 2, "center", like=A)


def test_vectors_on_another_device_are_refused(device_xp):
    with pytest.raises(ValueError, match=f"center is on {device_xp.name}.*but the matrix on numpy"):
        validation.check_vector(device_xp.asarray(np.ones(2)), 2, "center", like=EYE)


def test_nothing_warns_on_good_input():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for A in (EYE, EYE.tolist(), sp.csr_array(EYE), sp.coo_matrix(EYE)):
            validation.check_matrix(A)
