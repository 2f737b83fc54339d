"""Ridge regression side by side with scikit-learn: `python -m benchmarks.peers.ridge [section ...] [--quick]`.

Sections: tuned, exact, text.  The error is the mean squared error on fresh rows.  Where RidgeCV would take longer than LIMIT
seconds, or more than MEMORY, it is run on smaller problems, and its own growth, measured there, extrapolates: the row says so.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.linear_model import RidgeCV

import lrla
from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, Row, compare, once, ratio, show, verdict
from benchmarks.peers.svd import zipf

ALPHAS = 30
FRESH = 2000
LIMIT = 300.0  # seconds that RidgeCV may take
MEMORY = 12.0  # GiB that it may
CUBIC = 6e-10  # seconds for its side cubed, to decide whether it is worth trying (its own growth says what it takes)


def power_law(n: int, p: int, noise: float, exponent: float = 1.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features of variances j^-exponent, a dense coefficient vector, and FRESH rows to judge by."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + FRESH, p))
    X *= np.arange(1, p + 1) ** (-0.5 * exponent)
    y = X @ rng.standard_normal(p)
    y += noise * y.std() * rng.standard_normal(n + FRESH)
    return X[:n], y[:n], X[n:], y[n:]


def penalties(X: np.ndarray) -> np.ndarray:
    """A grid around the mean eigenvalue of the covariance, in scikit-learn's scale."""
    return np.logspace(-4, 2, ALPHAS) * float(np.mean(np.var(X, axis=0))) * len(X)


def quiet(fit: Callable[[], Any]) -> Callable[[], Any]:
    """Warnings are told in the last column instead."""

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit()

    return run


def described(model: Any, seconds: float) -> str:
    boundary = ", at the boundary (there was a warning)" if getattr(model, "mu_at_boundary_", False) else ""
    itself = ", X itself" if getattr(model, "sketch_", "") is None else ""
    return f"alpha {model.alpha_:.4g}{itself}{boundary}"


def judge(X: np.ndarray, y: np.ndarray) -> Callable[[Any], float]:
    return lambda model: float(np.mean((y - model.predict(X)) ** 2))


def relative(rows: list[Row]) -> list[Row]:
    """Errors over the least of the table, minus 1."""
    least = min(row.error for row in rows if not math.isnan(row.error))
    return [Row(row.name, row.seconds, row.spread, row.error / least - 1.0, row.note) for row in rows]


def grown(sizes: Sequence[float], values: Sequence[float], size: float) -> tuple[float, float]:
    """What follows at another size from the last two values measured, as a power of the size; and its exponent."""
    exponent = math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])
    return values[-1] * (size / sizes[-1]) ** exponent, exponent


# ---------------------------------------------------------------------------------------------------- tuned


def tuned_cases(quick: bool) -> Iterator[tuple[int, int, float]]:
    """Shapes, and noise with which the best penalty lies above what sketches can tell, and below."""
    for n, p, noises in ((600, 150, (8.0, 0.3)), (150, 600, (3.0, 0.3))) if quick else (
        (5000, 20000, (5.0, 1.0)), (20000, 5000, (8.0, 1.0)),
    ):  # fmt: skip
        for noise in noises:
            yield n, p, noise


def tuned(arguments: argparse.Namespace) -> None:
    """Against RidgeCV with 30 penalties: all parameters of SketchedRidgeCV are its defaults."""
    for n, p, noise in tuned_cases(arguments.quick):
        X, y, X_new, y_new = power_law(n, p, noise)
        grid, error = penalties(X), judge(X_new, y_new)
        options: dict[str, Any] = {"n_components": 32} if arguments.quick else {}
        ours = Method(
            "lrla SketchedRidgeCV", quiet(lambda X=X, y=y, o=options: lrla.SketchedRidgeCV(random_state=0, **o).fit(X, y)),
            error, note=described,
        )  # fmt: skip
        theirs = Method("scikit-learn RidgeCV", lambda X=X, y=y, g=grid: RidgeCV(g).fit(X, y), error, note=described)
        direct = n <= p  # else it costs 2 n p^2 + 2 p^3 for every penalty
        # plain ridge by lrla's exact path has RidgeCV's penalty and error; its own time stands beside it
        itself = Method(
            "lrla sketch=None", quiet(lambda X=X, y=y, g=grid: lrla.SketchedRidgeCV(g, sketch=None).fit(X, y)), error,
            note=described,
        )  # fmt: skip
        rows = around(ours, theirs if direct else itself)
        del X, y
        if not direct:
            rows.append(extrapolated(n, p, noise, arguments.quick))
        show_tuned(n, p, noise, rows)


def around(ours: Method, other: Method) -> list[Row]:
    """The other method once, ours before it and twice after it, and once before all that compiles; errors as they are."""
    once(ours)
    model, first = once(ours)
    judged, seconds = once(other)
    mine = [first, once(ours)[1], once(ours)[1]]
    return [
        Row(ours.name, median(mine), max(mine) / min(mine), ours.error(model), ours.note(model, first)),
        Row(other.name, seconds, 1.0, other.error(judged), other.note(judged, seconds)),
    ]  # fmt: skip


def extrapolated(n: int, p: int, noise: float, quick: bool) -> Row:
    """RidgeCV's time from two smaller problems of the same shape and its growth between them."""
    parts, seconds = (0.5, 1.0) if quick else (0.25, 0.5), []
    for part in parts:
        X, y, *_ = power_law(int(n * part), int(p * part), noise)
        seconds.append(once(Method("", lambda X=X, y=y: RidgeCV(penalties(X)).fit(X, y)))[1])
    total, exponent = grown(parts, seconds, 1.0)
    sizes = " and ".join(f"{s:.1f} s at {int(n * f)} x {int(p * f)}" for s, f in zip(seconds, parts, strict=True))
    note = f"extrapolated by its own growth: {sizes}, exponent {exponent:.2f}"
    return Row("scikit-learn RidgeCV", total, 1.0, math.nan, note)


def show_tuned(n: int, p: int, noise: float, rows: list[Row]) -> None:
    ours, plain = rows[0], rows[1]
    show(f"{n} x {p}, power law, noise {noise:g} times the signal, {ALPHAS} penalties; error: mean squared, on fresh rows",
         [Row(row.name, row.seconds, row.spread, row.error, row.note) for row in rows])  # fmt: skip
    gain, share = ratio(rows, "scikit-learn", "lrla SketchedRidgeCV"), ours.error / plain.error
    verdict(f">= 10x faster than RidgeCV: {gain:.1f}x", gain >= 10)
    told = "boundary" in ours.note
    where = "below the floor, and there was the warning" if told else "above the floor"
    verdict(
        f"the best penalty lies {where}; {ours.error:.5g} against {plain.error:.5g}: {share:.4f}x",
        share <= 1.01 or told,
    )


# ---------------------------------------------------------------------------------------------------- exact


def exact(arguments: argparse.Namespace) -> None:
    """sketch=None against RidgeCV: the same penalty, and leave-one-out errors equal to rounding."""
    for n, p in ((600, 100), (300, 80)) if arguments.quick else ((20000, 2000), (8000, 1500)):
        X, y, X_new, y_new = power_law(n, p, 1.0)
        grid, error = penalties(X), judge(X_new, y_new)
        ours = lambda X=X, y=y, g=grid: lrla.SketchedRidgeCV(g, sketch=None, store_cv_results=True).fit(X, y)  # noqa: E731
        theirs = lambda X=X, y=y, g=grid: RidgeCV(g, store_cv_results=True).fit(X, y)  # noqa: E731
        rows = relative(
            compare(
                [
                    Method("lrla sketch=None", ours, error, note=described),
                    Method("scikit-learn RidgeCV", theirs, error, note=described),
                ],
                1,
            )
        )
        show(f"{n} x {p}, exact, {ALPHAS} penalties", rows)
        gain = ratio(rows, "scikit-learn", "lrla")
        verdict(f">= 10x faster than RidgeCV: {gain:.1f}x", gain >= 10)
        a, b = once(Method("", ours))[0], once(Method("", theirs))[0]
        difference = float(np.max(np.abs(a.cv_results_ - b.cv_results_)) / np.max(b.cv_results_))
        verdict(
            f"same penalty, leave-one-out equal to 1e-8: {difference:.1e}", a.alpha_ == b.alpha_ and difference <= 1e-8
        )


# ---------------------------------------------------------------------------------------------------- text


def documents(n: int, p: int) -> tuple[Any, np.ndarray]:
    """Zipf text of n rows and FRESH more, and a response with as much noise as signal."""
    A = zipf(n + FRESH, p, 60).tocsr()
    rng = np.random.default_rng(0)
    y = A @ rng.standard_normal(p)
    return A, y + y.std() * rng.standard_normal(len(y))


def _fit(name: str, A: Any, y: np.ndarray) -> Any:
    if name == "lrla":
        return quiet(lambda: lrla.SketchedRidgeCV(random_state=0).fit(A, y))()
    return RidgeCV(np.logspace(-1, 4, ALPHAS)).fit(scipy.sparse.csr_matrix(A), y)


def _measured(name: str, n: int, p: int, channel: Any) -> None:
    """In a process of its own: seconds, error on fresh rows, and peak memory above what it was before."""
    _fit(name, *documents(100, 300))  # what is imported and compiled is not counted
    A, y = documents(n, p)
    rows = A[:n]
    before, start = resident(), time.perf_counter()
    model = _fit(name, rows, y[:n])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
    channel.send((seconds, float(np.mean((y[n:] - model.predict(A[n:])) ** 2)), peak, described_text(model)))


def described_text(model: Any) -> str:
    return f"{model.n_components_} columns, {described(model, 0.0)}" if hasattr(model, "sketch_") else ""


def resident() -> float:
    """MiB of this process."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20


def child(name: str, n: int, p: int) -> tuple[float, float, float, str] | None:
    """What `_measured` finds; None if the process was killed for its memory."""
    here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(name, n, p, there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return None
    finally:
        process.join()


def text(arguments: argparse.Namespace) -> None:
    """Peak memory on sparse data, each fit in a process of its own."""
    n, p = (1600, 3000) if arguments.quick else (20000, 50000)
    print(f"\nCSR text, Zipf {n} x {p}; error: mean squared, on fresh rows; peak: MiB above the data")
    ours, theirs = told("lrla", n, p), None
    side = min(n, p)
    if 3 * 8 * side**2 < MEMORY * 2**30 and CUBIC * side**3 < LIMIT:  # the kernel, its eigenvectors, and room for them
        theirs = told("scikit-learn RidgeCV", n, p)
    if theirs is None:
        sizes = [n // 16, n // 8, n // 4]
        found = [told("scikit-learn RidgeCV", size, p) for size in sizes]
        if None in found:
            print("  RidgeCV was killed for its memory")
            return
        seconds, peaks = ([one[column] for one in found if one] for column in (0, 2))
        (more, e_time), (theirs, e_peak) = grown(sizes, seconds, n), grown(sizes, peaks, n)
        print(f"  {'scikit-learn RidgeCV':22}{n:7}{more:9.0f} s{theirs:25.0f} MiB  extrapolated by its own growth, exponents "
              f"{e_time:.2f} and {e_peak:.2f}")  # fmt: skip
    else:
        theirs = theirs[2]
    if ours is not None:
        share = ours[2] / theirs
        verdict(f"peak memory below a quarter of RidgeCV's: {share:.3f}", share < 0.25)


def told(name: str, n: int, p: int) -> tuple[float, float, float, str] | None:
    """A row of the table."""
    found = child(name, n, p)
    if found is None:
        print(f"  {name:22}{n:7} rows: killed for its memory")
        return None
    print(f"  {name:22}{n:7}{found[0]:9.1f} s  error {found[1]:8.4g}{found[2]:10.0f} MiB  {found[3]}".rstrip())
    return found


SECTIONS = {"tuned": tuned, "exact": exact, "text": text}

if __name__ == "__main__":
    _harness.main(SECTIONS, __doc__.partition("\n")[0])
