"""One BLAS thread for small matrices.

Up to some hundred rows a second thread saves nothing, and where other work keeps the cores busy it costs ten times the
time: the threads of one small product wait for each other.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class _OneThread:
    """Context in which BLAS runs on one thread; it may be entered again, and from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

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


_one_thread = _OneThread()


def small_blas(order: int) -> AbstractContextManager[None]:
    """Context for work on matrices of that order: BLAS uses threads from about 50 on."""
    return _one_thread if order > 48 else nullcontext()
