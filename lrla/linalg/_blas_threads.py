"""One BLAS thread where more do harm, and the two halves of a long product in two threads of our own.

BLAS threads wait for each other in busy loops.  Up to some hundred rows a second one saves nothing, and where other work
keeps the cores busy it costs ten times the time; beside lrla's parallel kernels it slows these by half.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from lrla._threads import share

# Multiplications above which two halves in two threads take less time than one product (about half a millisecond).
LARGE = 2**24


class _OneThread:
    """Context in which BLAS runs on one thread; it may be entered again, and from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    @property
    def active(self) -> bool:
        """Whether anybody is inside."""
        return self._inside > 0

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:
                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            if self._inside == 0:
                self._before = [library.get_num_threads() for library in self._libraries]
                self._set([1] * len(self._libraries))
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for library, count, before in zip(self._libraries or (), counts, self._before, strict=True):
            if before != 1:
                library.set_num_threads(count)


one_blas_thread = _OneThread()


@cache
def openblas_cores() -> frozenset[str]:
    """The kinds of processor that the loaded copies of OpenBLAS have chosen their kernels for."""
    libraries = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return frozenset(str(library.architecture) for library in libraries)


def small_blas(order: int) -> AbstractContextManager[None]:
    """Context for work on matrices of that order: BLAS uses threads from about 50 on."""
    return one_blas_thread if order > 48 else nullcontext()


def mix(C: Any, P: Any) -> Any:
    """``C P``, (i, n), for a small matrix C (i, j) and long rows P (j, n).

    Inside `one_blas_thread`, a large product is done in two halves of n, which depend on the shapes only.
    """
    if not _in_halves(C, P):
        return C @ P
    result = np.empty((len(C), P.shape[1]), np.result_type(C, P))

    def multiply(first: int, last: int) -> None:
        for half in range(first, last):
            part = _half(P, half)
            np.matmul(C, P[:, part], out=result[:, part])

    share(multiply, 2)
    return result


def overlap(W: Any, P: Any) -> Any:
    """``W P^T``, (i, j), for long rows W (i, n) and P (j, n); in halves as in `mix`."""
    if not _in_halves(W, P):
        return W @ P.T
    results = np.empty((2, len(W), len(P)), np.result_type(W, P))

    def multiply(first: int, last: int) -> None:
        for half in range(first, last):
            part = _half(P, half)
            np.matmul(W[:, part], P[:, part].T, out=results[half])

    share(multiply, 2)
    return results[0] + results[1]


def _half(P: Any, half: int) -> slice:
    middle = P.shape[1] // 2
    return slice(middle, None) if half else slice(0, middle)


def _in_halves(left: Any, P: Any) -> bool:
    return isinstance(P, np.ndarray) and len(left) * P.size >= LARGE and one_blas_thread.active
