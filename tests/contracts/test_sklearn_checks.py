"""scikit-learn's own common checks, for every estimator of the public API, none excused."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from tests.contracts._cases import ESTIMATORS, for_each_estimator

# class name -> {name of the check: why lrla differs}.  Empty, and meant to stay so.
EXCUSED: dict[str, dict[str, str]] = {}

# scikit-learn skips these without SCIPY_ARRAY_API=1, which must be set before SciPy is imported: below they run in a
# process of their own.
ARRAY_API = {"check_array_api_input", "check_array_api_mixed_inputs", "check_array_api_same_namespace"}
NOT_THERE = {
    "check_classifiers_multilabel_output_format_predict_proba"
}  # ridge has no probabilities, as in scikit-learn
LEAST = 45  # checks that a transformer gets from scikit-learn 1.9; fewer means that tags keep some from running


def instances():
    return [cls() for cls in ESTIMATORS]


# scikit-learn asks for one component, which is too little, or no compression, for some of its data ...
small = (
    pytest.mark.filterwarnings("ignore:The smallest penalty was the best"),
    pytest.mark.filterwarnings("ignore:n_(out=.* is not below n_in|components=.* is not below n_features)"),
    # and takes zeros of sparse data to be known, where to a completion they are not observed
    pytest.mark.filterwarnings("ignore::lrla.exceptions.UnobservedWarning"),
    pytest.mark.filterwarnings("ignore::lrla.exceptions.NotIdentifiableWarning"),
)


@small[0]
@small[1]
@small[2]
@small[3]
@parametrize_with_checks(
    instances(), expected_failed_checks=lambda estimator: EXCUSED.get(type(estimator).__name__, {}), xfail_strict=True
)
def test_sklearn(estimator, check):
    check(estimator)


def test_nothing_is_excused_without_a_reason():
    assert set(EXCUSED) <= {cls.__name__ for cls in ESTIMATORS}
    assert all(len(reason) > 10 for checks in EXCUSED.values() for reason in checks.values())
    assert EXCUSED == {}


@for_each_estimator
@small[0]
@small[1]
@small[2]
@small[3]
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_the_checks_really_run(cls):
    results = check_estimator(cls(), on_fail=None, on_skip=None)
    by_status = {
        status: [result["check_name"] for result in results if result["status"] == status]
        for status in {result["status"] for result in results}
    }
    assert set(by_status) <= {"passed", "skipped"}, by_status
    assert set(by_status.get("skipped", [])) <= ARRAY_API | NOT_THERE
    assert len(by_status["passed"]) >= LEAST


ARRAY_API_RUN = """
import unittest, warnings
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.contracts._cases import ESTIMATORS

for cls in ESTIMATORS:
    passed, skipped = 0, []
    for estimator, check in estimator_checks_generator(cls()):
        if check.func.__name__ in NAMES:
            try:
                check(estimator)
                passed += 1
            except unittest.SkipTest as reason:
                skipped.append(str(reason))
    print(cls.__name__, passed, len(skipped), *{reason.split()[0] for reason in skipped})
"""


@pytest.mark.skipif(
    not any(cls().__sklearn_tags__().array_api_support for cls in ESTIMATORS), reason="no estimator has the tag"
)
def test_array_api_checks_run_where_scipy_lets_them(run_python):
    out = run_python(ARRAY_API_RUN.replace("NAMES", repr(ARRAY_API)), SCIPY_ARRAY_API="1")
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == len(ESTIMATORS)
    for name, passed, _, *_missing in rows:
        assert int(passed) >= 5, f"{name}: {out}"  # array-api-strict and torch CPU; the rest needs hardware
