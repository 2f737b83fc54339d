"""Imputation beside scikit-learn's imputers: `python -m benchmarks.peers.imputation [section ...] [--quick]`.

Sections: wine, masks, noise, cancer, digits.  Holes are punched at random, 30 and 60 %.  An error is the root mean square
error of what was filled in, in standard deviations of a column; the last column is the share of the holes whose value lies in
the 95 % interval that lrla's imputer gives.  Small tables are filled for several patterns of holes, one after the other.
"masks" fills wine for 30 other patterns of holes, on which nothing in lrla was chosen, and tells the standard error of the
difference.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import lrla
from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, Row, compare, ratio, show, verdict
from lrla.exceptions import UnobservedWarning

NEIGHBOURS = (3, 5, 10, 20)


def standardized(X: np.ndarray) -> np.ndarray:
    """Columns that vary, with mean 0 and standard deviation 1."""
    X = X[:, X.std(axis=0) > 0].astype(np.float64)
    return (X - X.mean(axis=0)) / X.std(axis=0)


def uneven_noise(m: int, n: int) -> np.ndarray:
    """Rank 6 of unit variance, and noise whose variance goes from 0.01 to 1 over the columns."""
    rng = np.random.default_rng(0)
    low_rank = rng.standard_normal((m, 6)) @ rng.standard_normal((6, n)) / np.sqrt(6)
    return low_rank + rng.standard_normal((m, n)) * np.sqrt(rng.permutation(np.geomspace(0.01, 1, n)))


def punched(X: np.ndarray, share: float, seed: int) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(X.shape) < share, np.nan, X)


def fill_with_intervals(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return lrla.LowRankImputer(random_state=0).fit(X).transform(X, return_std=True)


def table(title: str, X: np.ndarray, patterns: int, repeats: int, iterative: bool = True) -> list[list[Row]]:
    """Compare all imputers at 30 and 60 % missing; times and errors are means over the patterns of holes."""
    found = []
    for share in (0.3, 0.6):
        tables = [punched(X, share, seed) for seed in range(patterns)]
        holes = [np.isnan(given) for given in tables]

        def error(results: Any, holes: Any = holes) -> float:
            filled = [result[0] if isinstance(result, tuple) else result for result in results]
            squares = [np.mean((found - X)[hole] ** 2) for found, hole in zip(filled, holes, strict=True)]
            return float(np.sqrt(np.mean(squares)))

        def coverage(results: Any, seconds: float, holes: Any = holes) -> str:
            inside = [
                np.abs(filled - X)[hole] <= 1.96 * std[hole] for (filled, std), hole in zip(results, holes, strict=True)
            ]
            return f"{np.concatenate(inside).mean():.1%}"

        def on_all(fill: Callable[[np.ndarray], Any], tables: Any = tables) -> Callable[[], list[Any]]:
            return lambda: [fill(given) for given in tables]

        methods = [Method("lrla LowRankImputer", on_all(fill_with_intervals), error, note=coverage)]
        if iterative:
            methods.append(
                Method("IterativeImputer", on_all(lambda X: IterativeImputer(random_state=0).fit_transform(X)), error)
            )
        methods += [
            Method(f"KNNImputer({k})", on_all(lambda X, k=k: KNNImputer(n_neighbors=k).fit_transform(X)), error)
            for k in NEIGHBOURS
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of IterativeImputer, at its default of 10 rounds
            warnings.simplefilter("ignore", UnobservedWarning)
            found.append(compare(methods, repeats))
        show(f"{title}, {X.shape[0]} x {X.shape[1]}, {share:.0%} missing", found[-1], "in 95 % intervals")
        best = min(row.error for row in found[-1][1:])
        verdict(f"lower error than the best peer: {found[-1][0].error:.4f}, {best:.4f}", found[-1][0].error < best)
    return found


def wine(arguments: argparse.Namespace) -> None:
    """178 rows of three cultivars."""
    table("wine", standardized(load_wine().data), 2 if arguments.quick else 8, arguments.repeats)


def masks(arguments: argparse.Namespace) -> None:
    """Errors on wine for patterns of holes that were never looked at, beside KNNImputer's best over a grid."""
    X, seeds = standardized(load_wine().data), range(100, 103 if arguments.quick else 130)
    peers: dict[str, Callable[[], Any]] = {"IterativeImputer": lambda: IterativeImputer(random_state=0)}
    for k, weights in itertools.product((5, 7, 10, 15, 20, 30), ("uniform", "distance")):
        peers[f"KNNImputer({k}, {weights})"] = functools.partial(KNNImputer, n_neighbors=k, weights=weights)
    for share in (0.3, 0.6):
        ours, covered, theirs = [], [], {name: [] for name in peers}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UnobservedWarning)
            for given in (punched(X, share, seed) for seed in seeds):
                holes = np.isnan(given)
                filled, std = fill_with_intervals(given)
                ours.append(np.sqrt(np.mean((filled - X)[holes] ** 2)))
                covered.append(np.mean(np.abs(filled - X)[holes] <= 1.96 * std[holes]))
                for name, make in peers.items():
                    theirs[name].append(np.sqrt(np.mean((make().fit_transform(given) - X)[holes] ** 2)))
        print(f"\nwine, {share:.0%} missing, patterns {seeds[0]} to {seeds[-1]}: mean error")
        print(f"  lrla LowRankImputer {np.mean(ours):.4f}, {np.mean(covered):.1%} in 95 % intervals")
        best = min((name for name in peers if name.startswith("KNN")), key=lambda name: np.mean(theirs[name]))
        for name in (best, "IterativeImputer"):
            difference = np.array(ours) - theirs[name]
            deviation = difference.std(ddof=1) / np.sqrt(len(seeds))
            print(f"  {name} {np.mean(theirs[name]):.4f}, lrla less that {difference.mean():+.4f} +- {deviation:.4f}")
            verdict(f"lower error than {name}, by two standard errors", difference.mean() < -2 * deviation)


def noise(arguments: argparse.Namespace) -> None:
    """Columns of uneven noise: 20 times less time than IterativeImputer is asked for."""
    m, n = (200, 20) if arguments.quick else (1000, 60)
    for rows in table("uneven noise", uneven_noise(m, n), 1, min(3, arguments.repeats)):
        times = ratio(rows, "IterativeImputer", "lrla")
        verdict(f"at least 20 times faster than IterativeImputer: {times:.0f}", times >= 20)


def cancer(arguments: argparse.Namespace) -> None:
    """569 rows, columns that nearly determine one another."""
    table("breast cancer", standardized(load_breast_cancer().data), 1, 1, iterative=not arguments.quick)


def digits(arguments: argparse.Namespace) -> None:
    """Images of ten kinds: clusters, which neighbours know of, and a linear model does not."""
    X = standardized(load_digits().data)
    table("digits", X[:400] if arguments.quick else X, 1, 1, iterative=False)


if __name__ == "__main__":
    _harness.main({"wine": wine, "masks": masks, "noise": noise, "cancer": cancer, "digits": digits}, __doc__ or "")
