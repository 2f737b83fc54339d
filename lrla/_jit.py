"""The Numba policy of lrla: kernels are compiled once, cached on disk, and release the GIL.

A kernel is a plain function on arrays and numbers, decorated with `kernel`.  One that is worth several threads takes the
range of blocks that it is to do, and its caller shares the blocks among threads with `lrla._threads.share`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel body; `options` go to `numba.njit`."""
    return lambda body: compile_cached(body, nogil=True, **options)


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


def fetch(array: np.ndarray, p: int) -> None:
    """In a kernel: have the processor bring entry p of a vector into its caches, in time for when it is read."""


@type_callable(fetch)
def _type_fetch(context: Any) -> Any:
    return lambda array, p: types.none


@lower_builtin(fetch, types.Array, types.Integer)  # type: ignore[no-untyped-call]
def _lower_fetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.data_model_manager[sig.args[0]].get(builder, args[0], "data")
    emit_fetch(builder, builder.gep(data, [args[1]]))
    return context.get_dummy_value()


def emit_fetch(builder: Any, place: Any) -> None:
    """The instruction itself, for functions that write theirs."""
    ir = cgutils.ir  # type: ignore[attr-defined]
    byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    how = integer(0), integer(3), integer(1)  # to read, into the first cache, data
    builder.call(function, [builder.bitcast(place, byte), *how])
