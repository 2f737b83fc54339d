"""Random sketches side by side with SciPy and scikit-learn: `python -m benchmarks.peers.sketch [section ...] [--quick]`.

Sections: left, right, members, sparse.  Methods run in turns, A B C A B C ...; the first round, which compiles and makes
tables, is not counted.  SciPy and scikit-learn get their matrix S ready made.  The error is the distortion: the largest
relative error of the norm of a random direction of the row or column space, 20 of them.

One core: OPENBLAS_NUM_THREADS=1 LRLA_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from scipy.linalg import clarkson_woodruff_transform
from sklearn.random_projection import SparseRandomProjection

import lrla
from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, compare, ratio, show, verdict

DTYPES = (np.float64, np.float32)


def dense_of(A: Any) -> np.ndarray:
    return A.toarray() if scipy.sparse.issparse(A) else np.asarray(A)


def distortion(A: np.ndarray) -> Callable[[Any], float]:
    """Judge B = S^T A by the norms of B v for random v, against those of A v."""
    V = np.random.default_rng(1).standard_normal((A.shape[1], 20)).astype(A.dtype)
    true = np.linalg.norm(A @ V, axis=0)
    return lambda B: float(np.max(np.abs(np.linalg.norm(dense_of(B) @ V, axis=0) / true - 1)))


def row_distortion(X: Any) -> Callable[[Any], float]:
    """Judge Z = X S by the norms of random combinations of rows."""
    V = np.random.default_rng(1).standard_normal((20, X.shape[0])).astype(X.dtype)
    true = np.linalg.norm(V @ X, axis=1)
    return lambda Z: float(np.max(np.abs(np.linalg.norm(V @ dense_of(Z), axis=1) / true - 1)))


def scaled_projection(X: Any, d: int) -> SparseRandomProjection:
    return SparseRandomProjection(d, random_state=0).fit(X)


# ---------------------------------------------------------------------------------------------------- sections


def left(arguments: argparse.Namespace) -> None:
    """S^T A for a tall dense A."""
    for dtype in DTYPES:
        left_case(dtype, arguments)


def left_case(dtype: Any, arguments: argparse.Namespace) -> None:
    m, c, d = (5000, 30, 80) if arguments.quick else (100_000, 100, 400)
    A = np.random.default_rng(0).standard_normal((m, c)).astype(dtype)
    op, one = (lrla.make_sketch(m, d, kind, random_state=0) for kind in ("sparse_stack", "countsketch"))
    S = op.to_csr().astype(dtype)
    rows_of_S = S.T.tocsr()
    methods = [
        Method("lrla sparse_stack, 8 entries", lambda: op.left(A), distortion(A)),
        Method("scipy S^T as CSR, @ A", lambda: rows_of_S @ A, distortion(A)),
        Method("scipy S.T @ A, S in CSR", lambda: S.T @ A, distortion(A)),
        Method("lrla countsketch", lambda: one.left(A), distortion(A)),
        Method("scipy clarkson_woodruff", lambda: clarkson_woodruff_transform(A, d, seed=0), distortion(A)),
    ]
    rows = compare(methods, arguments.repeats)
    show(f"left, {np.dtype(dtype).name}: A {m} x {c}, d={d}", rows)
    gain = ratio(rows, "scipy S^T as CSR", "lrla sparse_stack")
    verdict(f">= 5x SciPy's CSR @ dense: {gain:.1f}x", gain >= 5)
    gain = ratio(rows, "scipy S.T @ A", "lrla sparse_stack")
    verdict(f"no slower than SciPy's CSC @ dense: {gain:.2f}x", gain >= 1)
    gain = ratio(rows, "scipy clarkson", "lrla countsketch")
    verdict(f"countsketch no slower than clarkson_woodruff_transform: {gain:.2f}x", gain >= 1)


def right(arguments: argparse.Namespace) -> None:
    """X S for a dense X, and all kinds beside each other."""
    for dtype in DTYPES:
        right_case(dtype, arguments)


def right_case(dtype: Any, arguments: argparse.Namespace) -> None:
    n, p, d = (200, 512, 60) if arguments.quick else (2000, 4096, 400)
    X = np.random.default_rng(0).standard_normal((n, p)).astype(dtype)
    op = lrla.make_sketch(p, d, random_state=0)
    S, peer = op.to_csr().astype(dtype), scaled_projection(X, d)
    dense = S.toarray()
    error = row_distortion(X)
    methods = [
        Method("lrla sparse_stack, 8 entries", lambda: op.right(X), error),
        Method("scipy X @ S", lambda: X @ S, error),
        Method("numpy X @ S, S dense", lambda: X @ dense, error),
        Method("scikit-learn SparseRandomProjection", lambda: peer.transform(X), error),
        *(
            Method(f"lrla {kind}", lambda kind=kind: lrla.make_sketch(p, d, kind, random_state=0).right(X), error)
            for kind in ("srht", "srdct", "rademacher", "gaussian")
        ),
    ]
    rows = compare(methods, arguments.repeats)
    show(f"right, {np.dtype(dtype).name}: X {n} x {p}, d={d}", rows)
    gain = ratio(rows, "scipy X @ S", "lrla sparse_stack")
    verdict(f">= 2.5x SciPy's X @ S: {gain:.1f}x", gain >= 2.5)
    gain = ratio(rows, "scikit-learn", "lrla sparse_stack")
    verdict(f"scikit-learn's SparseRandomProjection: {gain:.1f}x", gain >= 1)


def members(arguments: argparse.Namespace) -> None:
    """Several sketches of one X, in one sweep and one by one."""
    n, p, d, count = (200, 512, 60, 3) if arguments.quick else (4000, 4000, 400, 8)
    X = np.random.default_rng(0).standard_normal((n, p))
    ops = [lrla.make_sketch(p, d, random_state=0, member=k) for k in range(count)]
    matrices = [op.to_csr() for op in ops]
    methods = [
        Method("lrla sketch_all", lambda: lrla.sketch_all(X, ops)),
        Method("lrla one by one", lambda: [op.right(X) for op in ops]),
        Method("scipy one by one", lambda: [X @ S for S in matrices]),
    ]
    show(f"{count} members: X {n} x {p}, d={d}", compare(methods, arguments.repeats))


def sparse(arguments: argparse.Namespace) -> None:
    """A CSR matrix from either side; results are dense, as whoever goes on with them wants them."""
    n, p, d = (300, 1000, 60) if arguments.quick else (20_000, 50_000, 400)
    X = scipy.sparse.random_array((n, p), density=0.001 if not arguments.quick else 0.05, format="csr", rng=0)
    op = lrla.make_sketch(p, d, random_state=0)
    S, peer = op.to_csr(), scaled_projection(X, d)
    methods = [
        Method("lrla sparse_stack, 8 entries", lambda: op.right(X), row_distortion(X)),
        Method("scipy (X @ S).toarray()", lambda: (X @ S).toarray(), row_distortion(X)),
        Method("scikit-learn SparseRandomProjection", lambda: peer.transform(X).toarray(), row_distortion(X)),
    ]
    show(f"right, CSR: X {n} x {p}, {X.nnz} entries, d={d}", compare(methods, arguments.repeats))
    A = X[:, : p // 25].tocsr()
    op = lrla.make_sketch(n, d, random_state=0)
    S = op.to_csr()
    methods = [
        Method("lrla sparse_stack, 8 entries", lambda: op.left(A)),
        Method("scipy (S.T @ A).toarray()", lambda: (S.T @ A).toarray()),
    ]
    show(f"left, CSR: A {n} x {A.shape[1]}, {A.nnz} entries, d={d}", compare(methods, arguments.repeats))


if __name__ == "__main__":
    sections = {"left": left, "right": right, "members": members, "sparse": sparse}
    _harness.main(sections, __doc__.partition("\n")[0])
