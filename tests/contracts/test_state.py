"""A failed call leaves the model as it was, and no call changes its input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.sparse as sp

import lrla
from tests.contracts import _faults
from tests.contracts._cases import (
    FITTING,
    SUBJECTS,
    add_batch,
    arrays_of,
    fit,
    fitted,
    for_each,
    for_each_estimator,
    for_each_streaming_estimator,
    good,
    has_holes,
    public_state,
    read_only,
    same,
    sparse_good,
    started,
    streaming,
)

ROWS = 30  # of one batch: more than any buffer of small updates keeps back
NAMES = list("abcdef")


def batch(seed, kind="dense"):
    return (sparse_good if kind == "sparse" else good)((ROWS, len(NAMES)), seed)


def frame(X, names=NAMES):
    return pytest.importorskip("pandas").DataFrame(X, columns=names)


def step(model):
    """One more good batch, for whatever kind of model."""
    if hasattr(model, "partial_fit"):
        add_batch(model, frame(batch(7)) if hasattr(model, "feature_names_in_") else batch(7))
    elif hasattr(model, "add_rows"):
        model.add_rows(good((ROWS, model.shape[1]), 7))


def unchanged(model, before):
    """The model looks like its copy `before`, and goes on like it."""
    same(public_state(before), public_state(model))
    step(model)
    step(before)
    same(public_state(before), public_state(model))


def with_nan(X):
    X = X.copy()
    X[-1, -1] = np.nan
    return X


def spoiled(X, cls):
    """With an entry that cls refuses: NaN, or Inf where NaN is an entry that is not observed."""
    X = with_nan(X)
    return np.where(np.isnan(X), np.inf, X) if has_holes(cls) else X


def out_of_range(X):
    A = sp.csr_array(X)
    A.indices[-1] = 99
    return A


# ---------------------------------------------------------------------------------------------------- refused input

REFUSED = {
    "NaN": lambda cls: spoiled(batch(1), cls),
    "NaN in columns of other names": lambda cls: frame(spoiled(batch(1), cls), list("uvwxyz")),
    "text": lambda cls: frame(batch(1).astype(str) + "?"),
    "3-D": lambda cls: batch(1)[None],
    "index out of range": lambda cls: out_of_range(batch(1)),
    "sparse NaN": lambda cls: sp.csr_array(with_nan(batch(1))),
    "masked": lambda cls: np.ma.masked_array(spoiled(batch(1), cls)),
}


@for_each_estimator
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED.keys())
def test_refused_input_changes_nothing(cls, method, bad):
    if not hasattr(cls(), method):
        pytest.skip(f"{cls.__name__} has no {method}")
    model = fitted(cls, frame(batch(0)))
    before = copy.deepcopy(model)
    with pytest.raises((ValueError, TypeError)):
        {"fit": fit, "partial_fit": add_batch}[method](model, bad(cls))
    model_names, names = (list(m.feature_names_in_) for m in (model, before))
    assert model_names == names
    unchanged(model, before)


@for_each_estimator
def test_refused_parameters_change_nothing(cls):
    model = fitted(cls, batch(0))
    if "n_components" not in model.get_params():
        pytest.skip(f"{cls.__name__} has no n_components")
    before = copy.deepcopy(model).set_params(n_components=-1)
    model.set_params(n_components=-1)
    with pytest.raises(ValueError, match="n_components"):
        fit(model, batch(1))
    same(public_state(before), public_state(model))


@for_each_streaming_estimator
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_refused_batch_is_not_counted_and_the_stream_goes_on(cls, kind):
    clean, disturbed = started(cls, batch(0, kind)), started(cls, batch(0, kind))
    for seed in (1, 2, 3):
        add_batch(clean, batch(seed, kind))
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            add_batch(disturbed, spoiled(batch(9), cls))
        with pytest.raises(ValueError, match="features"):
            add_batch(disturbed, batch(9)[:, :4])
        add_batch(disturbed, batch(seed, kind))
    same(public_state(clean), public_state(disturbed))
    if hasattr(clean, "n_samples_seen_"):
        assert clean.n_samples_seen_ == 4 * ROWS


def consume(model, batches):
    for X in batches:
        add_batch(model, X)


@for_each_streaming_estimator
def test_a_source_that_fails_at_batch_three(cls):
    def source():
        yield batch(0)
        yield batch(1)
        raise OSError("connection lost")

    model = cls(**fitted(cls, batch(0)).get_params())
    with pytest.raises(OSError, match="connection lost"):
        consume(model, source())
    assert getattr(model, "n_samples_seen_", 2 * ROWS) == 2 * ROWS
    add_batch(model, batch(2))
    undisturbed = cls(**model.get_params())
    for seed in range(3):
        add_batch(undisturbed, batch(seed))
    same(public_state(undisturbed), public_state(model))


@for_each_streaming_estimator
def test_the_same_batch_twice_counts_twice(cls):
    model = add_batch(started(cls, batch(0)), batch(0))
    assert getattr(model, "n_samples_seen_", 2 * ROWS) == 2 * ROWS


# ---------------------------------------------------------------------------------------------------- faults inside


def fit_again(model):
    fit(model, batch(1))


def partial_fit(model):
    add_batch(model, batch(1))


def partial_fit_sparse(model):
    add_batch(model, batch(1, "sparse"))


CALLS = [fit_again, partial_fit, partial_fit_sparse]


def _applies(cls, call):
    if call is not fit_again and not streaming(cls):
        pytest.skip(f"{cls.__name__} has no partial_fit")


@for_each_estimator
@pytest.mark.parametrize("call", CALLS)
def test_a_failing_factorization(cls, call, monkeypatch):
    _applies(cls, call)
    start = fitted(cls, batch(0))
    check_failing_factorizations(start, call, monkeypatch)


def survives(call, model):
    """Whether no LinAlgError came out of the call."""
    try:
        call(model)
    except np.linalg.LinAlgError:
        return False
    return True


def check_failing_factorizations(start, call, monkeypatch):
    """Whichever factorization fails: LinAlgError and the model as it was, or another way to the same numbers."""
    complete = copy.deepcopy(start)
    with _faults.failing_factorization(monkeypatch, None) as all_of_them:
        call(complete)
        public_state(complete)
    for at in _faults.sample(all_of_them.seen, 12):
        model, before = copy.deepcopy(start), copy.deepcopy(start)
        with _faults.failing_factorization(monkeypatch, at):
            done = survives(call, model)
            survives(public_state, model)  # what waits in a buffer is worked in when it is read, and may be read again
        if not done:
            unchanged(model, before)
        else:  # within what another algorithm for the same factorization may differ by
            found, wanted = (getattr(m, "singular_values_", getattr(m, "coef_", None)) for m in (model, complete))
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


@for_each_estimator
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c(cls, call):
    _applies(cls, call)
    check_interrupts(fitted(cls, batch(0)), call)


def check_interrupts(start, call):
    """Ctrl-C at any call of one function of the library by another: the model is as before, or the work was done."""
    complete, counted = copy.deepcopy(start), copy.deepcopy(start)
    call(complete)
    with _faults.interrupt(None) as all_of_them:
        call(counted)
    assert all_of_them.seen > 0
    for at in _faults.sample(all_of_them.seen, 40):
        model, before = copy.deepcopy(start), copy.deepcopy(start)
        with _faults.interrupt(at), pytest.raises(KeyboardInterrupt):
            call(model)
        if at > 0.9 * all_of_them.seen and equal(model, complete):
            continue  # it came while the work was being put away
        unchanged(model, before)


def equal(a, b):
    try:
        same(public_state(a), public_state(b))
    except AssertionError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------- UpdatableSVD


def updatable(n_components=4):
    return lrla.UpdatableSVD(n_components).fit(batch(0))


def rows():
    return good((5, 6), 3)


def columns():
    return good((ROWS, 3), 3)


BAD_UPDATES = [
    ("add_rows", lambda: (with_nan(rows()),)),
    ("add_rows", lambda: (rows()[:, :4],)),
    ("add_rows", lambda: (out_of_range(rows()),)),
    ("add_columns", lambda: (with_nan(columns()),)),
    ("add_columns", lambda: (columns()[:7],)),
    ("add_low_rank", lambda: (good((ROWS, 2)), good((6, 3)))),
    ("add_low_rank", lambda: (good((ROWS, 2)), good((5, 2)))),
    ("add_low_rank", lambda: (with_nan(good((ROWS, 2))), good((6, 2)))),
    ("update_entries", lambda: ([0, ROWS + 9], [0, 1], [1.0, 1.0])),
    ("update_entries", lambda: ([0, -ROWS - 9], [0, 1], [1.0, 1.0])),
    ("update_entries", lambda: ([0, 1], [0, 6], [1.0, 1.0])),
    ("update_entries", lambda: ([0, 1], [0], [1.0, 1.0])),
    ("update_entries", lambda: ([0, 1], [0, 1], [1.0, np.nan])),
    ("update_entries", lambda: ([0.5, 1], [0, 1], [1.0, 1.0])),
    ("remove_rows", lambda: ([0, ROWS + 9],)),
    ("remove_rows", lambda: (list(range(ROWS + 2)),)),
    ("remove_columns", lambda: ([6],)),
    ("remove_columns", lambda: (list(range(6)),)),
    ("merge", lambda: (lrla.UpdatableSVD(4).fit(good((8, 5))),)),
    ("merge", lambda: ("model",)),
    ("refine", lambda: (batch(0)[:, :4],)),
    ("refine", lambda: (with_nan(batch(0)),)),
    ("from_svd", lambda: (np.eye(3, 2), np.array([1.0, np.nan]), np.eye(2, 3))),
    ("from_svd", lambda: (np.eye(3, 2), np.array([2.0, 1.0]), np.eye(3))),
    ("fit", lambda: (with_nan(batch(0)),)),
]


@pytest.mark.parametrize(("method", "args"), BAD_UPDATES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_refused_update_changes_nothing(method, args):
    model = updatable()
    model.add_rows(good((2, 6), 5))  # waits in the buffer
    before = copy.deepcopy(model)
    with pytest.raises((ValueError, TypeError, IndexError)):
        getattr(model, method)(*args())
    unchanged(model, before)


GOOD_UPDATES = {
    "add_rows": lambda model: model.add_rows(batch(1)),
    "add sparse rows": lambda model: model.add_rows(batch(1, "sparse")),
    "add_columns": lambda model: model.add_columns(good((ROWS, 3), 1)),
    "add_low_rank": lambda model: model.add_low_rank(good((ROWS, 2), 1), good((6, 2), 2)),
    "update_entries": lambda model: model.update_entries([0, 3], [1, 2], [0.5, -0.5]),
    "remove_rows": lambda model: model.remove_rows([1, 4]),
    "remove_columns": lambda model: model.remove_columns([2]),
    "merge": lambda model: model.merge(updatable()),
    "refine": lambda model: model.refine(batch(0)),
}


@pytest.mark.parametrize("update", GOOD_UPDATES.values(), ids=GOOD_UPDATES.keys())
def test_a_failing_factorization_in_an_update(update, monkeypatch):
    check_failing_factorizations(updatable(), update, monkeypatch)


@pytest.mark.parametrize("update", GOOD_UPDATES.values(), ids=GOOD_UPDATES.keys())
def test_ctrl_c_in_an_update(update):
    check_interrupts(updatable(), update)


# ---------------------------------------------------------------------------------------------------- inputs


def unsorted(A):
    """The same CSR matrix with each row's entries in descending order."""
    order = np.concatenate([np.arange(b, a, -1) - 1 for a, b in zip(A.indptr[:-1], A.indptr[1:], strict=True)])
    return sp.csr_array((A.data[order], A.indices[order], A.indptr), shape=A.shape)


INPUTS = {
    "C order": good,
    "F order": lambda: np.asfortranarray(good()),
    "float32": lambda: good().astype(np.float32),
    "int64": lambda: np.round(10 * good()).astype(np.int64),
    "csr": sparse_good,
    "csc": lambda: sp.csc_matrix(sparse_good()),
    "coo": lambda: sp.coo_array(sparse_good()),
    "unsorted csr": lambda: unsorted(sparse_good()),
    "csr float32": lambda: sparse_good().astype(np.float32),
}


@for_each(SUBJECTS)
@pytest.mark.parametrize("build", INPUTS.values(), ids=INPUTS.keys())
def test_input_is_not_changed(subject, build):
    A, frozen = build(), read_only(build())
    before = [array.copy() for array in arrays_of(A)]
    writable = subject(A)
    for array, copied in zip(arrays_of(A), before, strict=True):
        np.testing.assert_array_equal(array, copied, strict=True)
    same(writable, subject(frozen))


@for_each(FITTING)
def test_results_share_no_memory_with_the_input(subject):
    A = good()
    for name, value in subject(A).items():
        assert not (isinstance(value, np.ndarray) and np.shares_memory(value, A)), name


@for_each_estimator
def test_transform_does_not_change_the_model(cls):
    model = fitted(cls, batch(0))
    if not hasattr(model, "transform"):
        pytest.skip(f"{cls.__name__} has no transform")
    before = copy.deepcopy(model)
    model.transform(batch(1))
    unchanged(model, before)
