"""Ridge regression side by side with scikit-learn: `python -m benchmarks.peers.ridge [section ...] [--quick]`.

Sections: tuned, exact, text.  The error is the mean squared error on fresh rows over that of the best row of the table,
minus 1.  Where RidgeCV would take longer than LIMIT seconds it is run on smaller problems, and its own growth, measured
there, extrapolates its time: the row says so.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
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
LIMIT = 900.0  # seconds that RidgeCV may take


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


# ---------------------------------------------------------------------------------------------------- tuned


def extrapolated(n: int, p: int, noise: float, quick: bool) -> tuple[float, str]:
    """Seconds that RidgeCV would take, from two smaller problems of the same shape and the exponent between them."""
    parts = (0.2, 0.4) if not quick else (0.4, 0.8)
    seconds = []
    for part in parts:
        X, y, *_ = power_law(int(n * part), int(p * part), noise)
        start = time.perf_counter()
        RidgeCV(penalties(X)).fit(X, y)
        seconds.append(time.perf_counter() - start)
    exponent = math.log(seconds[1] / seconds[0]) / math.log(parts[1] / parts[0])
    total = seconds[1] * (1.0 / parts[1]) ** exponent
    return (
        total,
        f"extrapolated from {seconds[0]:.1f} s and {seconds[1]:.1f} s at {parts[0]:g} and {parts[1]:g} of the size",
    )


def tuned_cases(quick: bool) -> Iterator[tuple[int, int, float]]:
    for n, p in ((600, 150), (150, 600)) if quick else ((20000, 5000), (5000, 20000)):
        for noise in (1.0, 0.1):
            yield n, p, noise


def tuned(arguments: argparse.Namespace) -> None:
    """Against RidgeCV with 30 penalties."""
    for n, p, noise in tuned_cases(arguments.quick):
        X, y, X_new, y_new = power_law(n, p, noise)
        grid, error = penalties(X), judge(X_new, y_new)
        options: dict[str, Any] = {"n_components": 32} if arguments.quick else {}
        methods = [
            Method(
                "lrla SketchedRidgeCV",
                quiet(lambda X=X, y=y, o=options: lrla.SketchedRidgeCV(random_state=0, **o).fit(X, y)), error,
                note=described,
            ),
        ]  # fmt: skip
        seconds, note = extrapolated(n, p, noise, arguments.quick)
        title = f"{n} x {p}, power law, noise {noise:g} of the signal, {ALPHAS} penalties"
        if seconds <= LIMIT:
            methods.append(
                Method("scikit-learn RidgeCV", lambda X=X, y=y, g=grid: RidgeCV(g).fit(X, y), error, note=described)
            )
            rows = compare(methods, 1)
        else:
            # plain ridge by lrla's exact path has RidgeCV's accuracy; its own time stands beside it
            methods.append(
                Method("lrla sketch=None", quiet(lambda X=X, y=y, g=grid: lrla.SketchedRidgeCV(g, sketch=None).fit(X, y)),
                       error, note=described)
            )  # fmt: skip
            rows = [*compare(methods, 1), Row("scikit-learn RidgeCV", seconds, 1.0, math.nan, note)]
        rows = relative(rows)
        show(title, rows)
        gain = ratio(rows, "scikit-learn", "lrla SketchedRidgeCV")
        verdict(f">= 10x faster than RidgeCV: {gain:.1f}x", gain >= 10)
        told = "boundary" in rows[0].note
        verdict(
            f"error on fresh rows <= 1.01x, or the warning: {1 + rows[0].error:.4f}x", rows[0].error <= 0.01 or told
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


def _measured(name: str, quick: bool, channel: Any) -> None:
    """In a process of its own: seconds, error on fresh rows and peak memory above that of the data."""
    n, p = (600, 1500) if quick else (20000, 50000)
    A = zipf(n + FRESH, p, 60).tocsr()
    rng = np.random.default_rng(0)
    y = A @ rng.standard_normal(p)
    y = y + y.std() * rng.standard_normal(len(y))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    try:
        if name == "lrla":
            model: Any = quiet(lambda: lrla.SketchedRidgeCV(random_state=0).fit(A[:n], y[:n]))()
        else:
            model = RidgeCV(np.logspace(-1, 4, ALPHAS)).fit(scipy.sparse.csr_matrix(A[:n]), y[:n])
        error = float(np.mean((y[n:] - model.predict(A[n:])) ** 2))
    except MemoryError:
        error = math.nan
    seconds = time.perf_counter() - start
    channel.send((seconds, error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def text(arguments: argparse.Namespace) -> None:
    """Peak memory on sparse data, each library in a process of its own."""
    found: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for name in ("lrla", "scikit-learn RidgeCV"):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_measured, args=(name, arguments.quick, there))
        process.start()
        there.close()
        try:
            found[name] = here.recv()
        except EOFError:  # killed for its memory
            found[name] = (math.nan, math.nan, math.inf)
        process.join()
    print("\nCSR text, Zipf" + (" 600 x 1500" if arguments.quick else " 20000 x 50000"))
    for name, (seconds, error, peak) in found.items():
        print(
            f"  {name:22}  {seconds:9.2f} s  mean squared error {error:.4g}  peak {peak / 1024:.0f} MiB above the data"
        )
    share = found["lrla"][2] / max(found["scikit-learn RidgeCV"][2], 1)
    verdict(f"peak memory below a quarter of RidgeCV's: {share:.2f}", share < 0.25)


SECTIONS = {"tuned": tuned, "exact": exact, "text": text}

if __name__ == "__main__":
    _harness.main(SECTIONS, __doc__.partition("\n")[0])
