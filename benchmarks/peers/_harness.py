"""Run several methods side by side: interleaved, medians, the error beside the time, and the machine named."""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from lrla._threads import available_threads

DISTRIBUTIONS = ("lrla", "numpy", "scipy", "scikit-learn", "numba", "torch", "fbpca", "IncSVD",
                 "cmfrec", "libmf", "implicit")  # fmt: skip
# BLAS threads of the one before go on spinning for some 30 ms, on the processors that the next one needs
PAUSE = 0.1


@dataclass(frozen=True)
class Method:
    """One competitor: `run` is timed, `error` judges what it returned, `prepare` (not timed) makes its argument."""

    name: str
    run: Callable[..., Any]
    error: Callable[[Any], float] | None = None
    prepare: Callable[[], Any] | None = None
    note: Callable[[Any, float], str] | None = None  # (result, seconds) -> last column


@dataclass(frozen=True)
class Row:
    name: str
    seconds: float
    spread: float  # slowest round over fastest
    error: float
    note: str


def compare(methods: Sequence[Method], repeats: int) -> list[Row]:
    """Time the methods in the order A B C A B C ..., after one round that compiles, fills caches and is judged."""
    errors, results = {}, {}
    for method in methods:
        results[method.name] = once(method)[0]
        errors[method.name] = method.error(results[method.name]) if method.error else math.nan
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    for _ in range(repeats):
        for method in methods:
            seconds[method.name].append(once(method)[1])
    return [
        Row(
            name := method.name,
            middle := median(seconds[name]),
            max(seconds[name]) / min(seconds[name]),
            errors[name],
            method.note(results[name], middle) if method.note else "",
        )
        for method in methods
    ]


def once(method: Method) -> tuple[Any, float]:
    arguments = () if method.prepare is None else (method.prepare(),)
    gc.collect()
    time.sleep(PAUSE)
    start = time.perf_counter()
    result = method.run(*arguments)
    return result, time.perf_counter() - start


def show(title: str, rows: Sequence[Row], note: str = "") -> None:
    """Print a table; the ratio is that row's time over the time of the first row, which is lrla's."""
    width = max(len(row.name) for row in rows)
    print(f"\n{title}")
    print(f"  {'':{width}}  {'median':>10}  {'max/min':>7}  {'error':>8}  {'x first':>7}  {note}".rstrip())
    for row in rows:
        time_taken, error = format_seconds(row.seconds), "" if math.isnan(row.error) else f"{row.error:.1e}"
        factor = row.seconds / rows[0].seconds
        line = f"  {row.name:{width}}  {time_taken:>10}  {row.spread:7.2f}  {error:>8}  {factor:7.2f}  {row.note}"
        print(line.rstrip())


def ratio(rows: Sequence[Row], slow: str, fast: str) -> float:
    """How many times faster the row whose name starts with `fast` is than that which starts with `slow`."""
    by_name = {name: row.seconds for row in rows for name in (slow, fast) if row.name.startswith(name)}
    return by_name[slow] / by_name[fast]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def verdict(text: str, holds: bool) -> None:
    print(f"  {'holds' if holds else 'FAILS'}: {text}")


def format_seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.3f} ms"


# ---------------------------------------------------------------------------------------------------- the command


def main(sections: dict[str, Callable[[argparse.Namespace], None]], description: str) -> None:
    """Run the sections named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("section", nargs="*", default=[], help=f"any of: {', '.join(sections)}; all when none is named")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that the script runs, not who is faster"
    )
    parser.add_argument("--repeats", type=int, default=None, help="timed rounds (5, or 2 with --quick)")
    arguments = parser.parse_args()
    unknown = set(arguments.section) - set(sections)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
    arguments.repeats = arguments.repeats or (2 if arguments.quick else 5)
    print(machine())
    if arguments.quick:
        print("--quick: what holds or fails below says nothing about the sizes that it is meant for")
    for name in arguments.section or sections:
        sections[name](arguments)


def machine() -> str:
    """Processor, cores, threads and library versions."""
    import numpy  # noqa: F401 (loads the BLAS that is asked for its threads)
    from threadpoolctl import threadpool_info

    pools = ", ".join(f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info())
    libraries = ", ".join(f"{name} {found}" for name in DISTRIBUTIONS if (found := installed(name)))
    return (
        f"{processor()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n"
        f"threads: lrla {available_threads()}, {pools}\n"
        f"Python {platform.python_version()}, {libraries}"
    )


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
