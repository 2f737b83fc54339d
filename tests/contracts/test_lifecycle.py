"""Estimators among their users: pickles, clones, names, frames, pipelines, searches and threads."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import OneToOneFeatureMixin, clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import lrla
from tests.contracts._cases import (
    ESTIMATORS,
    add_batch,
    fit,
    fitted,
    for_each_estimator,
    for_each_streaming_estimator,
    good,
    make,
    public_state,
    same,
    sparse_good,
)

NAMES = list("abcdef")
COPIES = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "deepcopy": copy.deepcopy}
for_each_transformer = pytest.mark.parametrize(
    "cls", [cls for cls in ESTIMATORS if hasattr(cls, "transform")], ids=lambda cls: cls.__name__
)
for_each_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())


@for_each_estimator
@for_each_copy
def test_a_copy_is_the_same_model(cls, duplicate):
    model = fitted(cls, good())
    twin = duplicate(model)
    assert type(twin) is cls
    same(public_state(model), public_state(twin))
    if hasattr(model, "transform"):
        same(model.transform(good()), twin.transform(good()))


@for_each_streaming_estimator
@for_each_copy
@pytest.mark.parametrize("build", [good, sparse_good], ids=["dense", "sparse"])
def test_a_copy_in_mid_stream_continues_identically(cls, duplicate, build):
    model = add_batch(add_batch(make(cls), build(seed=0)), build((3, 6), seed=1))  # the last rows may be in a buffer
    twin = duplicate(model)
    for seed in (2, 3):
        add_batch(model, build(seed=seed))
        add_batch(twin, build(seed=seed))
    same(public_state(model), public_state(twin))


@for_each_copy
def test_an_updatable_svd_continues_identically(duplicate):
    model = lrla.UpdatableSVD(3).fit(good()).add_rows(good((3, 6), 1))
    twin = duplicate(model)
    for one in (model, twin):
        one.add_rows(sparse_good((50, 6), 2)).add_columns(good((73, 2), 3)).remove_rows([0, 5]).update_entries(
            [1], [2], [1.0]
        )
    same(public_state(model), public_state(twin))


@for_each_estimator
def test_a_copy_shares_nothing_that_is_written(cls):
    model = fitted(cls, good())
    before = copy.deepcopy(public_state(model))
    twin = copy.deepcopy(model)
    fit(twin, 2 * good(seed=5) + 1)
    same(before, public_state(model))


@for_each_estimator
def test_a_clone_is_unfitted_with_the_same_parameters(cls):
    model = fitted(cls, good())
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not [name for name in vars(fresh) if name.endswith("_")]
    same(public_state(fitted(cls, good())), public_state(fit(fresh, good())))


@for_each_estimator
def test_fit_forgets_what_was_before(cls):
    X = good()
    model = fitted(cls, 3 * good(seed=4) + 1)
    if hasattr(model, "partial_fit"):
        add_batch(model, good(seed=5))
    same(public_state(fitted(cls, X)), public_state(fit(model, X)))


@for_each_transformer
def test_fit_transform_is_fit_and_transform(cls):
    X = good()
    at_once, one_by_one = make(cls).fit_transform(X), fitted(cls, X).transform(X)
    np.testing.assert_allclose(at_once, one_by_one, rtol=0, atol=1e-12 * np.abs(X).max())


@for_each_transformer
def test_names_out(cls):
    model = fitted(cls, good())
    names = list(model.get_feature_names_out())
    prefix = "x" if issubclass(cls, OneToOneFeatureMixin) else cls.__name__.lower()
    assert names == [f"{prefix}{i}" for i in range(model.transform(good()).shape[1])]


@for_each_transformer
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_and_names_in(cls, library):
    frames = pytest.importorskip(library)
    X = frames.DataFrame(dict(zip(NAMES, good().T, strict=True)))
    model = make(cls).set_output(transform=library).fit(X)
    assert list(model.feature_names_in_) == NAMES
    out = model.transform(X)
    assert isinstance(out, frames.DataFrame)
    assert list(out.columns) == list(model.get_feature_names_out())
    np.testing.assert_allclose(out.to_numpy(), fitted(cls, good()).transform(good()), rtol=0, atol=1e-12)


@for_each_transformer
def test_in_a_pipeline_and_a_search(cls):
    X = good((60, 6))
    y = X[:, 0] - X[:, 1]
    search = GridSearchCV(
        make_pipeline(make(cls), Ridge()),
        {f"{cls.__name__.lower()}__n_components": [1, 3, 6]},
        cv=3,
        error_score="raise",
    )
    search.fit(X, y)
    if issubclass(cls, OneToOneFeatureMixin):  # nothing is missing: all give the same
        return
    assert search.best_params_ == {f"{cls.__name__.lower()}__n_components": 6}  # y needs all of the columns
    sparse = make_pipeline(make(cls), Ridge()).fit(sparse_good((60, 6)), y)
    assert np.all(np.isfinite(sparse.predict(sparse_good((60, 6)))))


THREADS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import scipy.sparse as sp
import lrla

rng = np.random.default_rng(0)
sparse = sp.random_array((1500, 500), density=0.02, rng=rng, format="csr")
dense = rng.standard_normal((600, 400)) * np.geomspace(1, 1e-3, 400)
takes_sparse = {name: getattr(lrla, name)(n_components=4).__sklearn_tags__().input_tags.sparse for name in NAMES}
jobs = [(name, X) for name in NAMES for X in (sparse, dense) if X is dense or takes_sparse[name]]

def run(job):
    name, X = job
    model = getattr(lrla, name)(n_components=4)
    if "random_state" in model.get_params():
        model.set_params(random_state=0)
    return model.fit(X).components_, model.transform(X[:5])

def agree(a, b):
    for x, y in zip(a, b):
        assert np.abs(x - y).max() <= 1e-6 * np.abs(x).max(), np.abs(x - y).max()

expected = [run(job) for job in jobs]
with ThreadPoolExecutor(3) as pool:  # what a Dask worker does
    futures = [pool.submit(run, job) for job in jobs * 2]
    mine = [run(job) for job in jobs]  # while the main thread runs parallel kernels
    for got, wanted in zip([f.result() for f in futures], expected * 2):
        agree(got, wanted)
for got, wanted in zip(mine, expected):
    agree(got, wanted)
model = lrla.TruncatedSVD(4, random_state=0).fit(sparse)
with ThreadPoolExecutor(4) as pool:
    for out in pool.map(model.transform, [sparse] * 12):
        agree([out], [model.transform(sparse)])
print("done")
"""


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_threads_fit_and_transform_at_once(run_python, layer):
    names = [cls.__name__ for cls in ESTIMATORS if hasattr(cls, "components_") or hasattr(cls, "transform")]
    environment = {"NUMBA_NUM_THREADS": "2"}
    if layer != "default":
        environment["NUMBA_THREADING_LAYER"] = layer
    assert run_python(THREADS.replace("NAMES", repr(names)), **environment) == "done\n"
