"""What `import lrla` and a first fit load: counted in modules, not in seconds."""

from __future__ import annotations

import json

import pytest

OPTIONAL = ("torch", "cupy", "dask", "matplotlib", "polars", "tqdm", "array_api_strict")

CODE = """
import json, sys
import lrla
after_import = sorted(name.partition(".")[0] for name in sys.modules)
ours = sorted(name for name in sys.modules if name.startswith("lrla"))
import numpy as np, scipy.sparse
import sklearn.utils.validation, sklearn.base  # what every estimator needs
before = set(sys.modules)
rng = np.random.default_rng(0)
{use}
print(json.dumps([after_import, ours, sorted(set(sys.modules) - before)]))
"""


def loaded(run_python, use):
    after_import, ours, by_use = json.loads(run_python(CODE.format(use=use)))
    return set(after_import), ours, {name.partition(".")[0] for name in by_use}


def test_import_loads_nothing_but_the_package_itself(run_python):
    after_import, ours, _ = loaded(run_python, "")
    assert ours == ["lrla", "lrla._lazy"]
    assert not after_import & {"numpy", "scipy", "sklearn", "numba", "pandas", *OPTIONAL}


@pytest.mark.parametrize(
    "use",
    [
        "lrla.TruncatedSVD(3).fit_transform(rng.standard_normal((600, 400)))",
        "lrla.PCA(3).fit(rng.standard_normal((50, 40))).transform(rng.standard_normal((5, 40)))",
        "lrla.truncated_svd(rng.standard_normal((600, 400)), 3)",
        "lrla.randomized_svd(rng.standard_normal((600, 400)), 3)",
    ],
)
def test_dense_work_needs_no_compiler(run_python, use):
    by_use = loaded(run_python, use)[2]
    assert not by_use & {"numba", "llvmlite", *OPTIONAL}


@pytest.mark.parametrize(
    "use",
    [
        "lrla.TruncatedSVD(3).fit(scipy.sparse.random_array((600, 400), density=0.05, rng=rng, format='csr'))",
        "lrla.IncrementalPCA(3).partial_fit(rng.standard_normal((50, 40)))",
    ],
)
def test_no_work_loads_what_the_user_did_not(run_python, use):
    assert not loaded(run_python, use)[2] & set(OPTIONAL)
