"""One BLAS thread where more do harm, and the parts of a long product in threads of our own.

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

# Multiplications above which two parts in two threads take less time than one product (about half a millisecond).
LARGE = 2**24
MAX_PARTS = 16


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


def mix(C: Any, P: Any, W: Any = None) -> Any:
    """``C P``, (i, n), for a small matrix C (i, j) and long rows P (j, n); or ``W - C P`` for rows W (i, n).

    Inside `one_blas_thread`, a large product is done in parts of n, which depend on the shapes only.
    """
    parts = _parts(C, P)
    if len(parts) == 1:
        return C @ P if W is None else W - C @ P
    result = np.empty((len(C), P.shape[1]), np.result_type(C, P))

    def multiply(first: int, last: int) -> None:
        for part in parts[first:last]:
            out = np.matmul(C, P[:, part], out=result[:, part])
            if W is not None:
                np.subtract(W[:, part], out, out=out)

    share(multiply, len(parts))
    return result


def overlap(W: Any, P: Any) -> Any:
    """``W P^T``, (i, j), for long rows W (i, n) and P (j, n); in parts as in `mix`, which are summed in order."""
    if W.shape[0] < P.shape[0]:  # OpenBLAS takes up to twice the time with the few rows on the left
        return overlap(P, W).T
    parts = _parts(W, P)
    if len(parts) == 1:
        return W @ P.T
    results = np.empty((len(parts), len(W), len(P)), np.result_type(W, P))

    def multiply(first: int, last: int) -> None:
        for i in range(first, last):
            np.matmul(W[:, parts[i]], P[:, parts[i]].T, out=results[i])

    share(multiply, len(parts))
    return np.sum(results, axis=0)


def _parts(left: Any, P: Any) -> list[slice]:
    """An even number of parts of the long side, of at least LARGE / 2 multiplications each; one where that is no gain."""
    work = len(left) * P.size if isinstance(P, np.ndarray) and one_blas_thread.active else 0
    if work < LARGE:
        return [slice(None)]
    count = min(2 * (work // LARGE), MAX_PARTS)
    bounds = [P.shape[1] * part // count for part in range(count + 1)]
    return [slice(*bounds[part : part + 2]) for part in range(count)]
