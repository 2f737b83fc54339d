"""The Numba policy of lrla: one body, a serial and a parallel twin, and which of them runs where.

A kernel is a plain function on arrays and numbers, decorated with `kernel`.  It is compiled on its first call, cached
on disk, and releases the GIL.  `numba.prange` in the body runs in parallel in one twin and as `range` in the other.

Calling a kernel picks the twin.  Serial is the rule wherever somebody else already provides the parallelism: in any
thread but the main one (Dask and joblib threads; two threads in Numba's workqueue layer abort the process), in a worker
process, in a forked child, and when Numba may use one thread only.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


def parallel_allowed() -> bool:
    """Tell whether a kernel called from here may start Numba's threads."""
    return (
        threading.current_thread() is threading.main_thread()
        and multiprocessing.parent_process() is None
        and not _forked
        and numba.get_num_threads() > 1
    )


class Kernel:
    """A body in two compilations, `serial` and `parallel`; calling it picks one of them."""

    def __init__(self, body: Callable[..., Any], **options: Any):
        self.__name__ = body.__name__
        self.__doc__ = body.__doc__
        self.__wrapped__ = body
        self.serial = compile_cached(body, nogil=True, **options)
        # Numba's cache files are named after the function: the twin needs a name of its own, or they share one entry.
        twin = types.FunctionType(body.__code__, body.__globals__, body.__name__ + "_parallel", body.__defaults__)
        twin.__qualname__ = body.__qualname__ + "_parallel"
        twin.__module__ = body.__module__
        self.parallel = compile_cached(twin, nogil=True, parallel=True, **options)

    def __call__(self, *args: Any) -> Any:
        return self.parallel(*args) if parallel_allowed() else self.serial(*args)


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorate a kernel body that has `prange` loops; `options` go to `numba.njit`."""
    return lambda body: Kernel(body, **options)


def compile_cached(body: Callable[..., Any], **options: Any) -> Any:
    """`numba.njit` with the disk cache, or without it and with a warning where nothing can be written."""
    try:
        compiled = numba.njit(cache=True, **options)(body)
    except RuntimeError as error:  # "cannot cache function ...: no locator available for file ..."
        _warn_uncached(error)
        return numba.njit(**options)(body)
    if compiled is body:  # NUMBA_DISABLE_JIT
        return compiled
    save = compiled._cache.save_overload

    def save_or_warn(*args: Any) -> None:
        try:
            save(*args)
        except OSError as error:  # the folder was writable when the kernel was defined
            _warn_uncached(error)

    compiled._cache.save_overload = save_or_warn
    return compiled


def _warn_uncached(error: Exception) -> None:
    warnings.warn(
        f"lrla cannot cache its compiled kernels ({error}); they are compiled again in every process. "
        "Set NUMBA_CACHE_DIR to a writable folder.",
        RuntimeWarning,
        stacklevel=3,
    )


def frozen(array: np.ndarray) -> np.ndarray:
    """A C-contiguous read-only view: kernels see every input like this, so each is compiled once for a dtype."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    if view is array:
        view = array.view()
    view.flags.writeable = False
    return view
