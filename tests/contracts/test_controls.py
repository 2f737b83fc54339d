"""The contracts can fail: a correct reference passes each of them, and an estimator with one known fault does not."""

from __future__ import annotations

import pytest
import scipy.sparse as sp

from tests.contracts import _reference
from tests.contracts import test_array_namespaces as namespaces
from tests.contracts import test_bad_input as bad_input
from tests.contracts import test_invariance as invariance
from tests.contracts import test_lifecycle as lifecycle
from tests.contracts import test_state as state
from tests.contracts._cases import good, subjects_of

BACKWARDS = invariance.LAYOUTS["negative strides"]
OTHER_NAMES = "NaN in columns of other names"


def fit_of(cls):
    return next(subject for subject in subjects_of(cls) if subject.name.endswith(".fit"))


def transform_of(cls):
    return next(subject for subject in subjects_of(cls) if subject.name.endswith(".transform"))


def refused(label):
    return next(case for case in bad_input.REFUSED if case.label == label)


# A contract as a function of the class, and the class that must break it.
CONTROLS = [
    ("HalfFitted", lambda c, m: state.test_refused_input_changes_nothing(c, "fit", state.REFUSED[OTHER_NAMES])),
    ("HalfFitted", lambda c, m: state.test_ctrl_c(c, state.fit_again)),
    ("HalfFitted", lambda c, m: state.test_a_failing_factorization(c, state.fit_again, m)),
    ("WritesIntoState", lambda c, m: state.test_a_failing_factorization(c, state.partial_fit, m)),
    ("WritesIntoState", lambda c, m: state.test_ctrl_c(c, state.partial_fit)),
    ("ChangesInput", lambda c, m: state.test_input_is_not_changed(fit_of(c), state.INPUTS["C order"])),
    ("KeepsInput", lambda c, m: state.test_results_share_no_memory_with_the_input(fit_of(c))),
    ("KeepsInput", lambda c, m: bad_input.test_outputs_are_always_fresh(fit_of(c), "29")),
    ("FillsNaN", lambda c, m: bad_input.test_refused(fit_of(c), refused("NaN"))),
    ("FillsNaN", lambda c, m: bad_input.test_refused(transform_of(c), refused("Inf"))),
    ("FillsNaN", lambda c, m: state.test_a_refused_batch_is_not_counted_and_the_stream_goes_on(c, "dense")),
    ("Squares", lambda c, m: bad_input.test_squares_beyond_float64(fit_of(c), "21")),
    ("Upcasts", lambda c, m: invariance.test_precision_in_is_precision_out(fit_of(c), "float32", good)),
    ("Upcasts", lambda c, m: invariance.test_transform_keeps_precision_and_the_tag_says_so(c, "float32")),
    ("AbsoluteTolerance", lambda c, m: invariance.check_scale(fit_of(c), "float64", 1e-150)),
    ("Unseeded", lambda c, m: invariance.test_the_same_seed_gives_the_same_bits(fit_of(c), good)),
    ("LayoutDependent", lambda c, m: invariance.test_layout_changes_no_bit(fit_of(c), BACKWARDS)),
    ("DropsStored", lambda c, m: invariance.test_sparse_is_dense(fit_of(c), sp.csr_array)),
    ("Unpicklable", lambda c, m: lifecycle.test_a_copy_is_the_same_model(c, lifecycle.COPIES["pickle"])),
    ("ForgetsStream", lambda c, m: lifecycle.test_a_copy_in_mid_stream_continues_identically(
        c, lifecycle.COPIES["pickle"], good)),
    ("NoNamesOut", lambda c, m: lifecycle.test_names_out(c)),
    ("NoNamesOut", lambda c, m: lifecycle.test_set_output_and_names_in(c, "pandas")),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "contract"), CONTROLS, ids=[f"{i}-{c[0]}" for i, c in enumerate(CONTROLS)])
def test_a_contract_accepts_the_reference_and_catches_the_fault(fault, contract, monkeypatch):
    contract(_reference.Reference, monkeypatch)
    # a failed assertion, or what the fault makes NumPy (a warning) or pickle (AttributeError) say
    with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeWarning, ValueError, AttributeError)):
        contract(getattr(_reference, fault), monkeypatch)


def test_a_result_that_leaves_the_device_is_caught(device_xp):
    contract = namespaces.test_estimators_give_the_same_values_and_stay
    contract(_reference.Reference, (30, 20), device_xp)
    with pytest.raises(AssertionError, match="components_"):
        contract(_reference.ComesHome, (30, 20), device_xp)


def test_a_long_transfer_is_caught(strict, transfers, monkeypatch):
    def run(cls):
        namespaces.test_no_long_array_goes_over_the_host(cls().fit, strict, transfers, monkeypatch)

    run(_reference.Reference)
    with pytest.raises(AssertionError):
        run(_reference.CopiesEverything)
