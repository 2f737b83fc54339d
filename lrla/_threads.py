"""lrla's own threads: compiled kernels and BLAS release the GIL, so parts of an array can be worked on at the same time.

Kernels are compiled once, without Numba's threads: its parallel form takes twice as long to compile, two Python threads in
its "workqueue" abort the process, and its idle threads keep a core busy that BLAS wants.  Handing half of a product to a
waiting thread costs 20 to 50 microseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_forked = False
_pool: ThreadPoolExecutor | None = None


def _after_fork() -> None:
    global _forked, _pool
    _forked, _pool = True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parallel_allowed() -> bool:
    """Tell whether work called from here may be shared among threads.

    Not wherever somebody else already provides the parallelism: in any thread but the main one (Dask's and joblib's), in a
    worker process, and in a forked child.
    """
    return (
        threading.current_thread() is threading.main_thread()
        and multiprocessing.parent_process() is None
        and not _forked
    )


@cache
def available_threads() -> int:
    """Processors that this process may use: its affinity, its container, and the environment's limits."""
    from joblib import cpu_count

    limits = [os.environ.get(name, "") for name in ("LRLA_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")]
    return max(1, min([cpu_count(), *(int(limit) for limit in limits if limit.isdigit())]))


def share(task: Callable[[int, int], object], count: int) -> None:
    """Call ``task(first, last)`` for consecutive parts of range(count) that cover it, each in a thread of its own.

    The task writes its results where no other part writes.  Which part runs where makes no difference to them.
    """
    global _pool
    parts = min(count, available_threads()) if parallel_allowed() else 1
    if parts <= 1:
        task(0, count)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(available_threads() - 1, "lrla")
    bounds = [count * part // parts for part in range(parts + 1)]
    others = [_pool.submit(task, *bounds[part : part + 2]) for part in range(1, parts)]
    try:
        task(0, bounds[1])
    finally:  # also after Ctrl-C: nobody may go on writing into arrays that are given back
        errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error
