"""What every estimator shares: one input door, methods that do all or nothing, and the way home to the host."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from lrla import _arrays
from lrla._estimator import Estimator, all_or_nothing

X = np.arange(12.0).reshape(4, 3)


class Doubling(Estimator):
    """Keeps the column sums of what it has seen, wherever X lives."""

    def __init__(self, fail_with=None):
        self.fail_with = fail_with

    @all_or_nothing
    def fit(self, X, y=None):
        """Sum the columns of X."""
        X = self._check_X(X, reset=True, operator=True)
        if hasattr(X, "matvec"):
            self.sums_ = X.rmatvec(np.ones(X.shape[0]))
        else:
            self.sums_ = X.sum(axis=0) if sp.issparse(X) else _arrays.namespace(X).sum(X, axis=0)
        if self.fail_with is not None:
            raise self.fail_with
        return self

    def transform(self, X):
        return self._check_X(X, reset=False, like=self.sums_)


# ---------------------------------------------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("error", [ValueError("late"), np.linalg.LinAlgError(), KeyboardInterrupt(), SystemExit()])
def test_a_failed_fit_leaves_the_attributes_as_they_were(error):
    pd = pytest.importorskip("pandas")
    estimator = Doubling().fit(pd.DataFrame(X, columns=["a", "b", "c"]))
    estimator.fail_with = error
    before = dict(vars(estimator))
    with pytest.raises(type(error)):
        estimator.fit(pd.DataFrame(2 * X[:, :2], columns=["d", "e"]))
    assert set(vars(estimator)) == set(before)
    assert all(vars(estimator)[name] is before[name] for name in before)


def test_a_failed_first_fit_leaves_an_unfitted_estimator():
    estimator = Doubling(fail_with=ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        estimator.fit(X)
    assert set(vars(estimator)) == {"fail_with"}


def test_the_decorator_keeps_name_signature_and_docstring():
    assert Doubling.fit.__name__ == "fit"
    assert Doubling.fit.__doc__ == "Sum the columns of X."
    assert list(inspect.signature(Doubling.fit).parameters) == ["self", "X", "y"]


# ---------------------------------------------------------------------------------------------------- the door


def test_the_door_keeps_namespace_and_records_the_width(xp):
    estimator = Doubling().fit(xp.asarray(X))
    assert estimator.n_features_in_ == 3
    assert xp.owns(estimator.sums_)
    np.testing.assert_array_equal(xp.to_numpy(estimator.sums_), X.sum(axis=0))


@pytest.mark.parametrize("given", ["float32", "float64", "int64", "bool"])
def test_the_door_lets_float32_and_float64_through_and_makes_the_rest_float64(xp, given):
    X_checked = Doubling()._check_X(xp.asarray(X, dtype=given), reset=True)
    assert str(X_checked.dtype).endswith("float32" if given == "float32" else "float64")


def test_operators_only_where_asked_for():
    estimator = Doubling().fit(aslinearoperator(X))
    np.testing.assert_allclose(estimator.sums_, X.sum(axis=0))
    assert estimator.n_features_in_ == 3
    with pytest.raises((TypeError, ValueError), match="LinearOperator"):
        estimator._check_X(aslinearoperator(X), reset=False)


def test_names_of_columns_are_recorded_and_forgotten(xp):
    pd = pytest.importorskip("pandas")
    estimator = Doubling().fit(pd.DataFrame(X, columns=["a", "b", "c"]))
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(pd.DataFrame(X, columns=["b", "a", "c"]))
    assert not hasattr(estimator.fit(xp.asarray(X)), "feature_names_in_")


def test_another_width_is_refused(xp):
    estimator = Doubling().fit(xp.asarray(X))
    with pytest.raises(ValueError, match="X has 2 features, but Doubling is expecting 3 features as input"):
        estimator.transform(xp.asarray(X[:, :2]))


def test_another_place_is_refused_and_both_are_named(device_xp):
    on_device, on_host = Doubling().fit(device_xp.asarray(X)), Doubling().fit(X)
    # the wording is scikit-learn's; its common checks look for it
    wanted = "must use the same namespace and the same device as those passed to fit"
    with pytest.raises(ValueError, match=rf"{wanted}.*{device_xp.name} on .*numpy.*to_host\(\)"):
        on_device.transform(X)
    with pytest.raises(ValueError, match=rf"{wanted}.*numpy.*{device_xp.name} on "):
        on_host.transform(device_xp.asarray(X))
    assert device_xp.owns(on_device.transform(device_xp.asarray(X)))


def test_another_device_of_the_same_library_is_refused():
    import array_api_strict

    first, second = (array_api_strict.Device(f"device{i}") for i in (1, 2))
    estimator = Doubling().fit(array_api_strict.asarray(X, device=first))
    with pytest.raises(ValueError, match=r"device1.*device2"):
        estimator.transform(array_api_strict.asarray(X, device=second))


# ---------------------------------------------------------------------------------------------------- to_host


def test_to_host_brings_a_copy_home(device_xp):
    estimator = Doubling().fit(device_xp.asarray(X))
    home = estimator.to_host()
    assert type(home) is Doubling
    assert isinstance(home.sums_, np.ndarray)
    np.testing.assert_array_equal(home.sums_, X.sum(axis=0))
    np.testing.assert_array_equal(home.transform(X), X)
    assert home.n_features_in_ == 3
    assert device_xp.owns(estimator.sums_)  # the original stays where it is


def test_to_host_of_an_estimator_on_the_host(transfers):
    estimator = Doubling().fit(X)
    home = estimator.to_host()
    assert home is not estimator
    assert home.sums_ is estimator.sums_
    assert transfers == []


def test_tags_tell_what_is_accepted_and_kept():
    tags = Doubling().__sklearn_tags__()
    assert tags.input_tags.sparse
