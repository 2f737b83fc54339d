"""Fixtures for all tests: array libraries, seeds, matrices with a known spectrum, and a count of device transfers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lrla import _arrays
from tests import _matrices


@dataclass(frozen=True)
class Library:
    """An array library on one of its devices."""

    name: str
    namespace: Any
    device: Any

    def asarray(self, a, dtype=None):
        """The values of a NumPy array, on the device."""
        a = np.asarray(a, dtype=dtype)
        return a if self.name == "numpy" else self.namespace.asarray(a, device=self.device)

    def to_numpy(self, x):
        """The values of an array of this library, without the door that the library under test uses."""
        if self.name == "array_api_strict":
            return np.from_dlpack(x.to_device(self.namespace.Device("CPU_DEVICE")))
        return x.get() if self.name == "cupy" else np.asarray(x)

    def owns(self, x):
        """Whether x is an array of this library on this device."""
        return _arrays.library(x) == self.name and (self.name == "numpy" or _arrays.device(x) == self.device)


def _open(name):
    if name == "array_api_strict":
        import array_api_strict

        # Any device but the CPU refuses np.asarray and mixing, as CuPy does.
        return Library(name, array_api_strict, array_api_strict.Device("device1"))
    if name == "torch":
        import array_api_compat.torch as torch

        return Library(name, torch, torch.device("cpu"))
    if name == "cupy":
        import array_api_compat.cupy as cupy

        return Library(name, cupy, cupy.cuda.Device(0))
    import array_api_compat.numpy as numpy

    return Library(name, numpy, None)


def _has_cuda():
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return cupy.cuda.is_available()


DEVICE_LIBRARIES = ["array_api_strict"]
if importlib.util.find_spec("torch") is not None:
    DEVICE_LIBRARIES.append("torch")
if _has_cuda():
    DEVICE_LIBRARIES.append(pytest.param("cupy", marks=pytest.mark.gpu))


def pytest_report_header():
    names = ["numpy", *(getattr(name, "values", [name])[0] for name in DEVICE_LIBRARIES)]
    return f"array libraries under test: {', '.join(names)}"


@pytest.fixture(params=["numpy", *DEVICE_LIBRARIES])
def xp(request):
    """Every array library that lrla accepts and this machine has, NumPy included."""
    return _open(request.param)


@pytest.fixture(params=DEVICE_LIBRARIES)
def device_xp(request):
    """Every array library of this machine whose arrays stay where they are."""
    return _open(request.param)


@pytest.fixture
def strict():
    """array-api-strict on a device whose arrays NumPy cannot read."""
    return _open("array_api_strict")


class Transfers(list):
    """Shapes of the arrays that were copied to the host, in order."""

    def larger_than(self, size):
        """The copies of more than `size` numbers."""
        return [shape for shape in self if np.prod(shape, dtype=int) > size]


@pytest.fixture
def transfers(monkeypatch):
    """What goes from the device to the host through `_arrays.to_host` during a test."""
    seen, copy = Transfers(), _arrays._copy_to_host

    def spy(x):
        seen.append(tuple(x.shape))
        return copy(x)

    monkeypatch.setattr(_arrays, "_copy_to_host", spy)
    return seen


def _seeds():
    """LRLA_TEST_SEEDS: a seed, or "all" for 0..99; every test must hold for each of them."""
    wanted = os.environ.get("LRLA_TEST_SEEDS", "0")
    return list(range(100)) if wanted == "all" else [int(wanted)]


@pytest.fixture(params=_seeds())
def seed(request):
    """One seed; set LRLA_TEST_SEEDS to another one, or to "all"."""
    return request.param


@pytest.fixture
def rng(seed):
    """A generator for the data of a test."""
    return np.random.default_rng(seed)


@pytest.fixture
def matrix_with_spectrum():
    """`matrix_with_spectrum(m, n, s, rng)`: see tests/_matrices.py."""
    return _matrices.matrix_with_spectrum


@pytest.fixture
def run_python(pytestconfig, tmp_path):
    """`run_python(code, **environment)`: the standard output of a fresh interpreter where warnings are errors."""

    def run(code, check=True, **environment):
        script = tmp_path / "script.py"
        script.write_text(code)
        root = os.pathsep.join(filter(None, [str(pytestconfig.rootpath), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, "PYTHONPATH": root, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
