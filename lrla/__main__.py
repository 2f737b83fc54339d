"""`python -m lrla`: versions, threads and GPU of this machine, as a bug report needs them, and the way to the tour."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import lrla
from lrla._threads import available_threads

LIBRARIES = ("numpy", "scipy", "scikit-learn", "numba", "array-api-compat", "threadpoolctl")
OPTIONAL = ("pandas", "polars", "torch", "dask", "matplotlib")


def main() -> None:
    """Print versions, threads and GPU, and where the tour is."""
    print(f"lrla {lrla.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("libraries:", ", ".join(f"{name} {found(name)}" for name in LIBRARIES))
    print("optional: ", ", ".join(f"{name} {found(name)}" for name in OPTIONAL))
    print("threads:  ", threads())
    print("GPU:      ", gpu())
    print("tour:      python examples/tour.py in a checkout of the repository, or `make demo`")


def found(name: str) -> str:
    """The installed version of a distribution, or a dash."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def threads() -> str:
    """How many threads lrla's kernels and BLAS may use."""
    import numpy  # noqa: F401 (threadpoolctl sees the libraries that are loaded)
    from threadpoolctl import threadpool_info

    blas = ", ".join(
        f"{pool['num_threads']} in {pool['internal_api']}" for pool in threadpool_info() if pool["user_api"] == "blas"
    )
    return f"{available_threads()} for lrla's kernels; {blas or 'BLAS unknown'}; {os.cpu_count()} processors"


def gpu() -> str:
    """The devices that CuPy finds, or why it finds none."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (extras gpu-cuda12 and gpu-cuda13)"
    import cupy

    try:
        names = [
            cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(cupy.cuda.runtime.getDeviceCount())
        ]
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__} finds no device: {error}"
    return f"{', '.join(names)} (CuPy {cupy.__version__})"


if __name__ == "__main__":
    sys.exit(main())
