"""Least squares side by side with LAPACK: `python -m benchmarks.peers.least_squares [section ...] [--quick]`.

Sections: dense, conditioned, sparse, leverage.  Methods run in turns, A B C A B C ...; the first round, which compiles, is not
counted.  The error is the backward error of the solution, by the formula of Karlson and Walden from an SVD of A: about 1e-16 is
what a stable solver reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

import lrla
from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, compare, ratio, show, verdict


class Judge:
    """Backward errors for one problem: one QR factorization serves all solutions."""

    def __init__(self, A: Any, b: np.ndarray):
        self.A, self.b = A, b
        dense = A if isinstance(A, np.ndarray) else A.toarray()
        Q, R = np.linalg.qr(dense)
        U, self.s, _ = np.linalg.svd(R)
        self.U = Q @ U

    def __call__(self, result: Any) -> float:
        x = result.x if hasattr(result, "x") else result[0] if isinstance(result, tuple) else result
        r = self.b - self.A @ x
        size, residual = np.linalg.norm(x), np.linalg.norm(r)
        parts = self.s * (self.U.T @ r) / np.sqrt((self.s * size) ** 2 + residual**2)
        return float(np.linalg.norm(parts) / np.linalg.norm(self.s))


def note(result: Any, seconds: float) -> str:
    return f"{result.method}, {result.n_iter} iterations" if hasattr(result, "n_iter") else ""


def ours(name: str, A: Any, b: np.ndarray, judge: Callable[[Any], float], **options: Any) -> Method:
    return Method(name, lambda: lrla.sketched_lstsq(A, b, random_state=0, **options), judge, note=note)


def lapack(A: np.ndarray, b: np.ndarray, judge: Callable[[Any], float]) -> list[Method]:
    return [
        Method("numpy lstsq", lambda: np.linalg.lstsq(A, b), judge),
        Method("scipy lstsq (gelsd)", lambda: scipy.linalg.lstsq(A, b, lapack_driver="gelsd"), judge),
        Method("scipy lstsq (gelsy)", lambda: scipy.linalg.lstsq(A, b, lapack_driver="gelsy"), judge),
    ]


def report(title: str, methods: list[Method], repeats: int, aim: float) -> None:
    rows = compare(methods, repeats)
    show(f"{title}; error: backward error", rows)
    for peer in ("numpy", "scipy lstsq (gelsd)"):
        gain = ratio(rows, peer, "lrla sketched_lstsq")
        verdict(f">= {aim:g}x faster than {peer}: {gain:.1f}x", gain >= aim)
    limit = 10.0 * next(row.error for row in rows if row.name == "scipy lstsq (gelsd)") + 1e-15
    verdict(f"backward error <= 10 times that of gelsd plus 1e-15: {rows[0].error:.1e}", rows[0].error <= limit)


def dense(arguments: argparse.Namespace) -> None:
    """Gaussian matrices, well conditioned."""
    rng = np.random.default_rng(0)
    for m, n in ((20_000, 80), (10_000, 120)) if arguments.quick else ((200_000, 500), (50_000, 1000), (100_000, 200)):
        A = rng.standard_normal((m, n))
        b = A @ rng.standard_normal(n) + rng.standard_normal(m)
        judge = Judge(A, b)
        methods = [ours("lrla sketched_lstsq", A, b, judge)]
        methods += [ours(f"lrla, {method}", A, b, judge, method=method) for method in ("cholesky", "lsqr", "polyak")]
        report(f"{m} x {n}", [*methods, *lapack(A, b, judge)], arguments.repeats, 4.0)


def conditioned(arguments: argparse.Namespace) -> None:
    """Condition 1e10 and a residual of 1e-3, where a plain sketch-and-precondition iteration loses digits."""
    m, n = (10_000, 120) if arguments.quick else (100_000, 300)
    rng = np.random.default_rng(0)
    Q, V = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((m, n + 1), (n, n)))
    A = (Q[:, :n] * np.logspace(0, -10, n)) @ V.T
    b = A @ (V @ rng.standard_normal(n)) + 1e-3 * Q[:, n]
    judge = Judge(A, b)
    methods = [ours("lrla sketched_lstsq", A, b, judge)]
    methods += [ours(f"lrla, {method}", A, b, judge, method=method) for method in ("lsqr", "polyak")]
    report(f"{m} x {n}, condition 1e10", [*methods, *lapack(A, b, judge)], arguments.repeats, 2.0)


def sparse(arguments: argparse.Namespace) -> None:
    """Sparse rows with columns of very different weight, against SciPy's iterations at their tightest tolerance."""
    m, n = (20_000, 80) if arguments.quick else (400_000, 500)
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((m, n), density=20 / n, format="csr", rng=rng)
    A = (A @ scipy.sparse.diags_array(np.logspace(0, -4, n))).tocsr()
    b = A @ rng.standard_normal(n) + 1e-3 * rng.standard_normal(m)
    judge = Judge(A, b)
    tight = {"atol": 1e-15, "btol": 1e-15, "conlim": 0.0}
    rows = compare(
        [
            ours("lrla sketched_lstsq", A, b, judge),
            Method("scipy lsqr", lambda: scipy.sparse.linalg.lsqr(A, b, iter_lim=2000, **tight)[0], judge),
            Method("scipy lsmr", lambda: scipy.sparse.linalg.lsmr(A, b, maxiter=2000, **tight)[0], judge),
        ],
        arguments.repeats,
    )
    show(f"{m} x {n}, {A.nnz} entries, weights of columns over four decades; error: backward error", rows)


def leverage(arguments: argparse.Namespace) -> None:
    """Leverage scores against the rows of Q; the error is that of the median row."""
    m, n = (20_000, 40) if arguments.quick else (200_000, 300)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((m, n)) * np.exp(rng.standard_normal(m))[:, None]
    exact = np.sum(np.linalg.qr(A)[0] ** 2, axis=1)

    def error(scores: Any) -> float:
        return float(np.median(np.abs(scores / exact - 1.0)))

    rows = compare(
        [
            Method("lrla, 16 directions", lambda: lrla.approx_leverage_scores(A, random_state=0), error),
            Method("lrla, all directions", lambda: lrla.approx_leverage_scores(A, n_proj=0, random_state=0), error),
            Method("numpy qr", lambda: np.sum(np.linalg.qr(A)[0] ** 2, axis=1), error),
        ],
        arguments.repeats,
    )
    show(f"leverage scores, {m} x {n}", rows)


SECTIONS = {"dense": dense, "conditioned": conditioned, "sparse": sparse, "leverage": leverage}

if __name__ == "__main__":
    _harness.main(SECTIONS, __doc__.partition("\n")[0])
