"""Faults on demand: a factorization that fails, and Ctrl-C in the middle of a computation."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np
import scipy.linalg

import lrla

FACTORIZATIONS = ("svd", "eigh", "qr", "cholesky", "lu_factor", "solve_triangular", "cho_factor", "solve", "inv")
LIBRARY = str(Path(lrla.__file__).parent)


class Faults:
    """Counts the events of a computation and raises at one of them."""

    def __init__(self, at: int | None, error: BaseException):
        self.at, self.error, self.seen = at, error, 0

    def event(self) -> None:
        self.seen += 1
        if self.seen - 1 == self.at:
            raise self.error


@contextlib.contextmanager
def failing_factorization(monkeypatch: Any, at: int | None) -> Iterator[Faults]:
    """The factorization number `at` that is asked of NumPy or SciPy raises LinAlgError; none does for None."""
    faults = Faults(at, np.linalg.LinAlgError("injected"))

    def spied(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def spy(*args: Any, **kwargs: Any) -> Any:
            faults.event()
            return original(*args, **kwargs)

        return spy

    with monkeypatch.context() as patch:
        spies = {}
        for module in (np.linalg, scipy.linalg, array_api_compat.numpy.linalg):
            for name in FACTORIZATIONS:
                if hasattr(module, name):
                    original = getattr(module, name)
                    spies[original] = spied(original)
                    patch.setattr(module, name, spies[original])
        for module in [
            m for name, m in sys.modules.items() if name.startswith("lrla.")
        ]:  # `from scipy.linalg import qr`
            for name, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in spies:
                    patch.setattr(module, name, spies[value])
        yield faults


@contextlib.contextmanager
def interrupt(at: int | None) -> Iterator[Faults]:
    """Ctrl-C arrives when the library calls its function number `at`; never for None."""
    faults = Faults(at, KeyboardInterrupt())

    def trace(frame: Any, event: str, arg: Any) -> None:
        code = frame.f_code  # generators are left out: they are also called to be closed, where nothing can be raised
        if event == "call" and code.co_filename.startswith(LIBRARY) and not code.co_flags & inspect.CO_GENERATOR:
            faults.event()

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield faults
    finally:
        sys.settrace(before)


def sample(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..n-1, the first and the last among them, evenly spread."""
    return sorted({round(x) for x in np.linspace(0, n - 1, min(n, most))}) if n else []
