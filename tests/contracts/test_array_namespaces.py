"""Device arrays: the same numbers as through NumPy, where they came from, and no hidden way over the host."""

from __future__ import annotations

import numpy as np
import pytest

import lrla
from tests._matrices import matrix_with_spectrum
from tests.contracts._cases import (
    DECOMPOSITIONS,
    DEVICE_ESTIMATORS,
    HOST_ONLY,
    ROUTINES,
    SUBJECTS,
    SUMS,
    apply,
    fit,
    fitted,
    for_each,
    for_each_device_estimator,
    is_array,
    make,
    on_host,
    public_state,
)

EQUAL = 1e-10  # the figure for singular values in float64, relative to the largest
M, N, RANK = 640, 560, 6  # beyond the small matrices (up to order 512) that may be decomposed on the host

DEVICE_ROUTINES = [s for s in ROUTINES if s.name not in HOST_ONLY]


def matrix(shape=(M, N)):
    return matrix_with_spectrum(*shape, 10 * 0.8 ** np.arange(min(shape)), np.random.default_rng(0))


def values(results):
    if "B" in results:
        return np.linalg.svd(on_host(results["B"]), compute_uv=False)
    return on_host(results["s"])


SHAPES = {"square-ish": (M, N), "wide": (N, M), "tall": (6000, 40), "small": (30, 20)}


@for_each(DEVICE_ROUTINES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_routines_give_the_same_values_and_stay(subject, shape, device_xp):
    A = matrix(shape)
    there, here = subject(device_xp.asarray(A), k=RANK), subject(A, k=RANK)
    np.testing.assert_allclose(values(there), values(here), rtol=0, atol=EQUAL * values(here)[0])
    for name, value in there.items():
        if is_array(value) and not (name == "s" and isinstance(value, np.ndarray)):
            assert device_xp.owns(value), f"{name} is {type(value)}"


@for_each(DEVICE_ROUTINES)
def test_float32_stays_float32(subject, device_xp):
    for name, value in subject(device_xp.asarray(matrix(), dtype=np.float32), k=RANK).items():
        if is_array(value) and value.ndim == 2:
            assert str(value.dtype).endswith("float32"), name


@for_each([s for s in SUBJECTS if s.name in HOST_ONLY])
def test_host_only_routines_say_so(subject, device_xp):
    with pytest.raises(TypeError, match=rf"{subject.argument} .*(host.*NumPy|NumPy.*host)"):
        subject(device_xp.asarray(matrix((30, 20))))


METHODS = ["auto", "krylov", "krylov2", "randomized", "gram", "dash", "lapack"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("center", [False, True])
def test_methods_of_truncated_svd(method, center, device_xp):
    A = matrix() + center * 3.0
    s_there = lrla.truncated_svd(device_xp.asarray(A), RANK, method=method, center=center, random_state=0)[1]
    s_here = lrla.truncated_svd(A, RANK, method=method, center=center, random_state=0)[1]
    np.testing.assert_allclose(on_host(s_there), s_here, rtol=0, atol=EQUAL * s_here[0])


@for_each_device_estimator
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_estimators_give_the_same_values_and_stay(cls, shape, device_xp):
    X = matrix(shape)
    there, here = fit(make(cls, n_components=RANK), device_xp.asarray(X)), fitted(cls, X, n_components=RANK)
    if cls in DECOMPOSITIONS:
        atol = EQUAL * here.singular_values_[0]
        np.testing.assert_allclose(on_host(there.singular_values_), here.singular_values_, rtol=0, atol=atol)
    for name, value in public_state(there).items():
        if is_array(value) and value.ndim == 2 and name not in SUMS:
            assert device_xp.owns(value), f"{name} is {type(value)}"
    out = apply(there, device_xp.asarray(X))
    assert device_xp.owns(out)
    # vectors are as good as the default tolerance of 1e-3 on the residual, for both of them
    np.testing.assert_allclose(on_host(out), apply(here, X), rtol=0, atol=0.01 * np.abs(X).max() * np.sqrt(N))
    if hasattr(there, "inverse_transform"):
        assert device_xp.owns(there.inverse_transform(out))


@for_each_device_estimator
def test_to_host(cls, device_xp):
    X = matrix((30, 20))
    there = fit(make(cls), device_xp.asarray(X))
    home = there.to_host()
    for name, value in public_state(home).items():
        assert not is_array(value) or isinstance(value, np.ndarray), name
    np.testing.assert_allclose(apply(home, X), on_host(apply(there, device_xp.asarray(X))), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- transfers


class Traffic:
    """What leaves a device of array-api-strict by other ways than the door: whole arrays, and single numbers."""

    def __init__(self, monkeypatch):
        import array_api_strict

        Array = type(array_api_strict.zeros(1))
        self.exports, self.scalars = [], 0

        def spied(name, note):
            original = getattr(Array, name)

            def spy(x, *args, **kwargs):
                note(x)
                return original(x, *args, **kwargs)

            monkeypatch.setattr(Array, name, spy)

        spied("__dlpack__", lambda x: self.exports.append(tuple(x.shape)))
        for name in ("__float__", "__int__", "__bool__", "__index__"):
            spied(name, lambda x: self.count())

    def count(self):
        self.scalars += 1


def long_copies(shapes, side):
    """Copies of anything as long as a side of the matrix; what is left are small cores."""
    return [shape for shape in shapes if max(shape, default=0) >= side]


RUNS = [
    *((f"truncated_svd-{method}", lambda A, m=method: lrla.truncated_svd(A, RANK, method=m, random_state=0))
      for method in ("auto", "krylov", "krylov2", "randomized", "gram", "dash")),
    ("randomized_svd", lambda A: lrla.randomized_svd(A, RANK, random_state=0)),
    ("qb", lambda A: lrla.qb(A, error=1e-6, max_rank=RANK, random_state=0)),
    *((cls.__name__, lambda A, cls=cls: fit(make(cls, n_components=RANK), A, np.arange(M) % 2)) for cls in DEVICE_ESTIMATORS),
]  # fmt: skip


@pytest.mark.parametrize("run", [run for _, run in RUNS], ids=[name for name, _ in RUNS])
def test_no_long_array_goes_over_the_host(run, strict, transfers, monkeypatch):
    A = strict.asarray(matrix())
    traffic = Traffic(monkeypatch)
    run(A)
    assert long_copies(transfers, N) == []
    assert len(traffic.exports) == len(transfers), "an array left the device by another way than _arrays.to_host"


@pytest.mark.parametrize("method", ["krylov", "krylov2"])
def test_traffic_of_one_iteration(method, strict, transfers, monkeypatch):
    """Issue 2, acceptance 6: beyond the small cores, one number an iteration."""
    A = strict.asarray(matrix())
    traffic = Traffic(monkeypatch)
    info = lrla.truncated_svd(A, RANK, method=method, tol=1e-8, random_state=0, return_info=True)[-1]
    assert info.n_iter >= 3
    # Small cores: coefficients of two projections, Gram matrices of two rounds of Cholesky QR, and their checks.
    assert len(transfers) <= 8 * (info.n_iter + 3)
    assert (
        traffic.scalars <= info.n_iter + 10
    )  # the door asks whether all is finite; the rest belongs to the start and the end
