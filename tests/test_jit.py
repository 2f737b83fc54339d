"""The Numba policy: compiled once, cached on disk, and a cache that may fail."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from lrla import _jit

# A kernel in a file of its own, as the library has them.
KERNEL_FILE = """
from lrla._jit import kernel

@kernel()
def row_sums(A, out):
    "Sum each row of A into out."
    for i in range(A.shape[0]):
        total = 0.0
        for j in range(A.shape[1]):
            total += A[i, j]
        out[i] = total
"""


@pytest.fixture
def kernel_folder(tmp_path):
    (tmp_path / "kernels.py").write_text(KERNEL_FILE)
    return tmp_path


def test_a_kernel_is_cached(run_python, kernel_folder):
    code = """
import numpy as np
from kernels import row_sums
row_sums(np.ones((3, 2)), np.empty(3))
print(sum(row_sums.stats.cache_hits.values()), sum(row_sums.stats.cache_misses.values()), row_sums.__doc__)
"""
    environment = {"NUMBA_CACHE_DIR": str(kernel_folder / "cache")}
    assert run_python(code, **environment) == "0 1 Sum each row of A into out.\n"
    assert run_python(code, **environment) == "1 0 Sum each row of A into out.\n"


def test_without_a_folder_to_cache_in_it_warns_and_works():
    scope = {"numba": numba}
    exec("def double(x):\n    return 2 * x", scope)  # a function without a file has no place for a cache
    with pytest.warns(RuntimeWarning, match=r"cannot cache its compiled kernels.*NUMBA_CACHE_DIR"):
        double = _jit.compile_cached(scope["double"], nogil=True)
    assert double(21) == 42


def test_a_full_disk_is_a_warning(run_python, kernel_folder):
    pytest.importorskip("resource", reason="this system has no resource limits to imitate a full disk with")
    code = """
import resource, warnings
import numpy as np
from kernels import row_sums
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))  # no byte can be written
A = np.ones((3, 2))
for call in range(2):
    out = np.empty(3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        row_sums(A, out)
    assert out.tolist() == [2.0, 2.0, 2.0], out
    print([str(w.message) for w in seen])
"""
    first, second = run_python(code, NUMBA_CACHE_DIR=str(kernel_folder / "cache")).splitlines()
    assert first.count("cannot cache its compiled kernels") == 1
    assert second == "[]"


def test_kernels_run_uncompiled_for_a_debugger(run_python, kernel_folder):
    code = """
import numpy as np
from kernels import row_sums
out = np.empty(3)
row_sums(np.ones((3, 2)), out)
print(out.tolist(), type(row_sums).__name__)
"""
    assert run_python(code, NUMBA_DISABLE_JIT="1") == "[2.0, 2.0, 2.0] function\n"


@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, lambda a: a[::-1, ::-1], np.ma.asarray])
def test_frozen_is_a_read_only_contiguous_view_of_the_same_values(make):
    a = make(np.arange(12.0).reshape(3, 4))
    view = _jit.frozen(a)
    assert type(view) is np.ndarray
    assert view.flags.c_contiguous
    assert not view.flags.writeable
    assert a.flags.writeable
    np.testing.assert_array_equal(view, a)


def test_frozen_does_not_copy_what_is_contiguous():
    a = np.arange(12.0).reshape(3, 4)
    assert np.shares_memory(_jit.frozen(a), a)
    a.flags.writeable = False
    assert np.shares_memory(_jit.frozen(a), a)
