"""The Numba policy: two twins of one body, which of them runs where, and a cache that may fail."""

from __future__ import annotations

import os
import threading

import numba
import numpy as np
import pytest

from lrla import _jit

threads = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2,
    reason="Numba may use one thread only on this machine: there is no parallel case",
)

# A kernel in a file of its own, as the library has them.
KERNEL_FILE = """
import numba
from lrla._jit import kernel

@kernel()
def row_sums(A, out):
    "Sum each row of A into out."
    for i in numba.prange(A.shape[0]):
        total = 0.0
        for j in range(A.shape[1]):
            total += A[i, j]
        out[i] = total
"""


@pytest.fixture
def kernel_folder(tmp_path):
    (tmp_path / "kernels.py").write_text(KERNEL_FILE)
    return tmp_path


@pytest.fixture
def row_sums(kernel_folder, monkeypatch):
    monkeypatch.syspath_prepend(kernel_folder)
    import kernels

    yield kernels.row_sums
    del __import__("sys").modules["kernels"]


def _call(kernel, A):
    out = np.empty(len(A))
    kernel(A, out)
    return out


def test_twins_and_body_are_equal_to_the_bit(row_sums, rng):
    A = rng.standard_normal((300, 70))
    expected = _call(row_sums.__wrapped__, A)
    np.testing.assert_array_equal(_call(row_sums.serial, A), expected)
    np.testing.assert_array_equal(_call(row_sums.parallel, A), expected)
    np.testing.assert_array_equal(_call(row_sums, A), expected)
    assert row_sums.__name__ == "row_sums"
    assert row_sums.__doc__ == "Sum each row of A into out."


class _Recorder(_jit.Kernel):
    """A kernel that says which twin it took."""

    def __init__(self):
        self.serial, self.parallel = lambda: "serial", lambda: "parallel"


def _in_thread(call):
    result = []
    thread = threading.Thread(target=lambda: result.append(call()))
    thread.start()
    thread.join()
    return result[0]


@threads
def test_parallel_in_the_main_thread():
    assert _Recorder()() == "parallel"


def test_serial_in_another_thread():
    assert _in_thread(_Recorder()) == "serial"


def test_serial_where_numba_may_use_one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert _Recorder()() == "serial"
    finally:
        numba.set_num_threads(before)


def test_serial_in_a_worker_process(monkeypatch):
    monkeypatch.setattr(_jit.multiprocessing, "parent_process", lambda: object())
    assert _Recorder()() == "serial"


@threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_serial_in_a_forked_child(run_python):
    code = """
import os
from lrla import _jit
assert _jit.parallel_allowed()
pid = os.fork()
if pid == 0:
    os._exit(10 if _jit.parallel_allowed() else 0)
assert os.waitpid(pid, 0)[1] == 0
assert _jit.parallel_allowed()  # the parent stays as it was
"""
    run_python(code)


def test_both_twins_are_cached_under_names_of_their_own(run_python, kernel_folder):
    code = """
import numpy as np
from kernels import row_sums
A, out = np.ones((3, 2)), np.empty(3)
row_sums.serial(A, out); row_sums.parallel(A, out)
for twin in (row_sums.serial, row_sums.parallel):
    print(sum(twin.stats.cache_hits.values()), sum(twin.stats.cache_misses.values()))
"""
    environment = {"NUMBA_CACHE_DIR": str(kernel_folder / "cache")}
    assert run_python(code, **environment).split() == ["0", "1", "0", "1"]
    assert run_python(code, **environment).split() == ["1", "0", "1", "0"]
    indices = [path.name for path in (kernel_folder / "cache").rglob("*.nbi")]
    assert len(indices) == 2
    assert sum("row_sums_parallel" in name for name in indices) == 1


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
for call in (row_sums.serial, row_sums):
    out = np.empty(3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        row_sums(A, out)
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
print(out.tolist(), type(row_sums.serial).__name__)
"""
    assert run_python(code, NUMBA_DISABLE_JIT="1") == "[2.0, 2.0, 2.0] function\n"


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_two_threads_at_once_do_not_abort(run_python, kernel_folder, layer):
    # Two threads inside Numba's workqueue layer abort the process (SIGABRT) if both run the parallel twin.
    code = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from kernels import row_sums

A = np.random.default_rng(0).standard_normal((2000, 200))
def sums(_):
    out = np.empty(len(A))
    row_sums(A, out)
    return out
expected = sums(0)
with ThreadPoolExecutor(4) as pool:
    results = [pool.submit(sums, i) for i in range(200)]
    mine = [sums(i) for i in range(50)]  # the main thread takes the parallel twin meanwhile
    mine += [future.result() for future in results]
assert all(np.array_equal(expected, result) for result in mine)
print("done")
"""
    environment = {"NUMBA_CACHE_DIR": str(kernel_folder / "cache"), "NUMBA_NUM_THREADS": "2"}
    if layer != "default":
        environment["NUMBA_THREADING_LAYER"] = layer
    assert run_python(code, **environment) == "done\n"


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
