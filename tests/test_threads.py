"""lrla's own threads: parts that cover the whole, serial where others provide the parallelism, errors that come back."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lrla import _threads


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(_threads, "available_threads", lambda: 3)
    monkeypatch.setattr(_threads, "_pool", None)


def parts_of(count):
    """The parts that `share` makes, and the threads that did them."""
    parts, names, lock = [], set(), threading.Lock()

    def task(first, last):
        with lock:
            parts.append((first, last))
            names.add(threading.current_thread().name)

    _threads.share(task, count)
    return sorted(parts), names


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 1000])
def test_parts_cover_the_range_once_in_as_many_parts_as_threads(three_threads, count):
    parts, _ = parts_of(count)
    assert len(parts) == min(count, 3)
    assert [first for first, _ in parts] == [0] + [last for _, last in parts[:-1]]
    assert parts[-1][1] == count
    assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_one_part_in_a_thread_of_somebody_else(three_threads):
    assert in_thread(lambda: parts_of(9))[0] == [(0, 9)]


def test_one_part_in_a_worker_process(three_threads, monkeypatch):
    monkeypatch.setattr(_threads.multiprocessing, "parent_process", lambda: object())
    assert parts_of(9)[0] == [(0, 9)]


def test_the_main_thread_takes_part(three_threads):
    assert threading.current_thread().name in parts_of(9)[1]


@pytest.mark.parametrize("failing", [0, 8])
def test_an_error_comes_back_when_all_parts_have_ended(three_threads, failing):
    done = []

    def task(first, last):
        if first <= failing < last:
            raise ArithmeticError("of this part")
        done.append(last - first)

    with pytest.raises(ArithmeticError, match="of this part"):
        _threads.share(task, 9)
    assert done == [3, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_one_part_in_a_forked_child(run_python):
    code = """
import os
from lrla import _threads
_threads.available_threads = lambda: 3
parts = []
_threads.share(lambda *part: parts.append(part), 3)  # the pool exists before the fork
assert len(parts) == 3
pid = os.fork()
if pid == 0:
    parts.clear()
    _threads.share(lambda *part: parts.append(part), 3)
    os._exit(0 if parts == [(0, 3)] else 10)
assert os.waitpid(pid, 0)[1] == 0
assert _threads.parallel_allowed()  # the parent stays as it was
"""
    run_python(code)


@pytest.mark.parametrize("name", ["LRLA_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_limits_the_threads(run_python, name):
    assert run_python("from lrla import _threads; print(_threads.available_threads())", **{name: "1"}) == "1\n"
