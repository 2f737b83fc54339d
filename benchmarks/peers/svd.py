"""Truncated SVD side by side with other libraries: `python -m benchmarks.peers.svd [section ...] [--quick]`.

Sections: sparse, dense, updates, flatness, incremental.  Methods run in turns, A B C A B C ...; the first round, which
compiles, is not counted.  An error is the largest relative error of the k singular values.

The sparse section also wants the graph soc-Slashdot0922 (Stanford Network Analysis Project), soc_slashdot0922.npz with
the arrays indptr, indices and shape, in the folder $LRLA_BENCH_DATA or in ../shared/data; else that row is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from sklearn.decomposition import IncrementalPCA, TruncatedSVD
from sklearn.utils.extmath import randomized_svd

import lrla
from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, Row, compare, geometric_mean, once, ratio, show, verdict

DATA = Path(os.environ.get("LRLA_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def error_of(truth: np.ndarray) -> Callable[[Any], float]:
    """Judge a result by its singular values: an array, a (U, s, V) tuple, or a fitted estimator."""

    def error(result: Any) -> float:
        s = result[1] if isinstance(result, tuple) else getattr(result, "singular_values_", result)
        s = np.sort(np.asarray(s, dtype=np.float64))[::-1]
        return float(np.max(np.abs(s[: len(truth)] - truth) / truth))

    return error


# ---------------------------------------------------------------------------------------------------- sparse


def zipf(m: int, n: int, draws: int, seed: int = 0) -> scipy.sparse.csr_array:
    """Counts of `draws` entries per row whose columns and rows follow power laws, as log(1 + count)."""
    rng = np.random.default_rng(seed)
    p, q = np.arange(1, n + 1) ** -0.9, np.arange(1, m + 1) ** -0.6
    rows, columns = rng.choice(m, m * draws, p=q / q.sum()), rng.choice(n, m * draws, p=p / p.sum())
    counts = scipy.sparse.coo_array((np.ones(m * draws), (rows, columns)), shape=(m, n)).tocsr()
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    return counts


def slashdot() -> scipy.sparse.csr_array | None:
    path = DATA / "soc_slashdot0922.npz"
    if not path.exists():
        print(f"\nslashdot graph: left out, there is no {path}; see the docstring of this file")
        return None
    with np.load(path) as graph:
        shape = tuple(int(size) for size in graph["shape"])
        return scipy.sparse.csr_array((np.ones(len(graph["indices"])), graph["indices"], graph["indptr"]), shape=shape)


def sparse_cases(quick: bool) -> Iterator[tuple[str, Any, int]]:
    if quick:
        yield "Zipf 4000 x 800, k=20", zipf(4000, 800, 12), 20
        yield "uniform 1000 x 500, k=10", scipy.sparse.random_array((1000, 500), density=0.01, format="csr", rng=0), 10
        return
    yield "Zipf 40000 x 8000, k=100", zipf(40000, 8000, 12), 100
    yield "Zipf 12000 x 4000, k=50", zipf(12000, 4000, 25), 50
    yield "uniform 6000 x 3000, k=30", scipy.sparse.random_array((6000, 3000), density=0.004, format="csr", rng=0), 30
    graph = slashdot()
    if graph is not None:
        yield "graph soc-Slashdot0922, k=100", graph, 100


def sparse(arguments: argparse.Namespace) -> None:
    """Against scikit-learn's TruncatedSVD at its defaults, and against svds with tol=0."""
    tables: list[list[Row]] = []
    for title, A, k in sparse_cases(arguments.quick):
        truth = np.sort(scipy.sparse.linalg.svds(A, k, tol=0, return_singular_vectors=False))[::-1]
        error = error_of(truth)
        methods = [
            Method("lrla TruncatedSVD(k)", lambda A=A, k=k: lrla.TruncatedSVD(k, random_state=0).fit(A), error),
            Method("scikit-learn TruncatedSVD(k)", lambda A=A, k=k: TruncatedSVD(k, random_state=0).fit(A), error),
            Method(
                "lrla truncated_svd(tol=1e-4)",
                lambda A=A, k=k: lrla.truncated_svd(A, k, tol=1e-4, random_state=0),
                error,
            ),
            Method("scipy svds(tol=0)", lambda A=A, k=k: scipy.sparse.linalg.svds(A, k, tol=0), error),
        ]
        tables.append(compare(methods, arguments.repeats))
        show(f"{title}: {A.shape[0]} x {A.shape[1]}, {A.nnz} entries", tables[-1])
    sklearn = [ratio(rows, "scikit-learn", "lrla TruncatedSVD") for rows in tables]
    arpack = [ratio(rows, "scipy", "lrla truncated_svd") for rows in tables]
    print()
    means = geometric_mean(sklearn), geometric_mean(arpack)
    verdict(
        f"geometric mean against scikit-learn >= 3: {means[0]:.2f}, never slower: least {min(sklearn):.2f}",
        min(means[0] / 3, min(sklearn)) >= 1,
    )
    worst = max(rows[0].error for rows in tables)
    verdict(f"error of TruncatedSVD(k) <= 1e-5: {worst:.1e}", worst <= 1e-5)
    verdict(f"geometric mean against svds(tol=0) >= 2: {means[1]:.2f}", means[1] >= 2)
    worst = max(rows[2].error for rows in tables)
    verdict(f"error of truncated_svd(tol=1e-4) <= 1e-6: {worst:.1e}", worst <= 1e-6)


# ---------------------------------------------------------------------------------------------------- dense


def low_rank_plus_noise(m: int, n: int) -> np.ndarray:
    """Rank 200 from Gaussian factors with singular values that fall by a factor of 20, plus noise of a hundredth."""
    rng = np.random.default_rng(0)
    r = min(200, min(m, n) // 2)
    scale = np.geomspace(1, 0.05, r)
    return (rng.standard_normal((m, r)) * scale) @ rng.standard_normal((r, n)) + 0.01 * rng.standard_normal((m, n))


def inverse_square_root(m: int, n: int) -> np.ndarray:
    """Random singular vectors, s_i = 1 / sqrt(i)."""
    rng = np.random.default_rng(1)
    r = min(m, n)
    U, V = (scipy.linalg.qr(rng.standard_normal((size, r)), mode="economic")[0] for size in (m, n))
    return (U / np.sqrt(np.arange(1, r + 1))) @ V.T


TOLERANCES = (0.5, 0.3, 0.1, 0.03, 1e-3)  # of lrla's truncated_svd: errors from those of the peers down to far below


def gemm_rate(dtype: Any, order: int) -> float:
    """Flops a second of a large square product in this dtype, the best of three: the bound for everything below."""
    B = np.random.default_rng(0).standard_normal((order, order)).astype(dtype)
    method = Method("", lambda: B @ B)
    return 2.0 * order**3 / min(once(method)[1] for _ in range(4))


def dense(arguments: argparse.Namespace) -> None:
    """Against randomized_svd of scikit-learn, torch.svd_lowrank and fbpca."""
    try:
        import fbpca
        import torch
    except ImportError as missing:
        print(f"\ndense: left out, {missing}; install the group peers (make peers)")
        return
    sizes = [(1200, 400), (400, 1200)] if arguments.quick else [(6000, 2000), (2000, 6000)]
    for dtype in (np.float64, np.float32):
        rate = gemm_rate(dtype, 500 if arguments.quick else 3000)
        print(
            f"\n{np.dtype(dtype).name}: square GEMM {rate / 1e9:.0f} GF/s; bound: share of it that A's products reach"
        )
        for make in (low_rank_plus_noise, inverse_square_root):
            for m, n in sizes:
                A = make(m, n).astype(dtype)
                truth = np.linalg.svd(A.astype(np.float64), compute_uv=False)
                tensor = torch.from_numpy(A)
                for k in (5, 20) if arguments.quick else (20, 100):
                    dense_case(
                        f"{make.__name__} {m} x {n}, k={k}",
                        A,
                        tensor,
                        k,
                        truth[:k],
                        rate,
                        (torch, fbpca),
                        arguments.repeats,
                    )


def dense_case(
    title: str, A: np.ndarray, tensor: Any, k: int, truth: np.ndarray, rate: float, modules: Any, repeats: int
) -> None:
    torch, fbpca = modules
    error = error_of(truth)
    m, n = A.shape
    iterations = 7 if k < 0.1 * min(m, n) else 4  # scikit-learn's "auto"

    def bound(columns: float) -> Callable[[Any, float], str]:
        return lambda result, seconds: f"{2.0 * m * n * columns / rate / seconds:.0%}"

    def by_tolerance(tol: float) -> Method:
        name = f"lrla truncated_svd(tol={tol:g})"
        return Method(
            name,
            lambda: lrla.truncated_svd(A, k, tol=tol, random_state=0, return_info=True),
            error,
            note=lambda result, seconds: bound(2 * result[3].n_products)(result, seconds) + f" {result[3].method}",
        )

    methods = [
        *(by_tolerance(tol) for tol in TOLERANCES),
        Method(
            "scikit-learn randomized_svd(k)",
            lambda: randomized_svd(A, k, random_state=0),
            error,
            note=bound((2 * iterations + 2) * (k + 10)),
        ),
        *(
            Method(
                f"torch svd_lowrank(k+10, niter={niter})",
                lambda niter=niter: torch.svd_lowrank(tensor, k + 10, niter),
                error,
                note=bound((2 * niter + 2) * (k + 10)),
            )
            for niter in (4, 2)
        ),
        Method("fbpca pca(k)", lambda: fbpca.pca(A, k, raw=True), error, note=bound(6 * (k + 2))),
    ]
    rows = compare(methods, repeats)
    show(title, rows, "bound")
    count = len(TOLERANCES)
    ours, sklearn, torches = rows[:count], rows[count], rows[count + 1 : count + 3]

    def gain(peer: Row) -> float:
        """Its time over that of the fastest of ours which is no less accurate."""
        return peer.seconds / min((row.seconds for row in ours if row.error <= peer.error), default=np.inf)

    verdict(f">= 5x faster than scikit-learn at no larger error: {gain(sklearn):.1f}x", gain(sklearn) >= 5)
    for peer in torches:
        verdict(f"no slower than {peer.name} at no larger error: {gain(peer):.2f}x", gain(peer) >= 1)


# ---------------------------------------------------------------------------------------------------- updates


def random_rows(s: int, n: int, per_row: int, rng: np.random.Generator) -> scipy.sparse.csr_array:
    """s rows with `per_row` standard normal entries each."""
    columns = np.concatenate([np.sort(rng.choice(n, per_row, replace=False)) for _ in range(s)])
    return scipy.sparse.csr_array((rng.standard_normal(s * per_row), columns, np.arange(s + 1) * per_row), shape=(s, n))


def zipf_rows(s: int, n: int, per_row: int, rng: np.random.Generator) -> scipy.sparse.csr_array:
    """s rows of `per_row` draws from columns that follow a power law, as log(1 + count)."""
    p = np.arange(1, n + 1) ** -0.9
    columns, rows = rng.choice(n, s * per_row, p=p / p.sum()), np.repeat(np.arange(s), per_row)
    counts = scipy.sparse.coo_array((np.ones(s * per_row), (rows, columns)), shape=(s, n)).tocsr()
    counts.data = np.log1p(counts.data)
    return counts


def feed(name: str, blocks: Sequence[Any], add: Callable[[Any], Any]) -> Method:
    """A method whose timed call takes the next block."""
    following = iter(blocks)
    return Method(name, add, prepare=lambda: next(following))


def incsvd(A: Any, k: int, method: str) -> Any:
    from IncSVD.EvolvingMatrix import EvolvingMatrix

    with contextlib.redirect_stdout(io.StringIO()):
        return EvolvingMatrix(A.tocsc(), k, method=method)


def updatable(model: Any) -> lrla.UpdatableSVD:
    """An lrla model that starts from the same triplets as the peer, carries nothing more, and buffers nothing."""
    order = np.argsort(-model.Sigmak)
    U, s, V = model.Uk[:, order], model.Sigmak[order], model.Vk[:, order]
    return lrla.UpdatableSVD.from_svd(U, s, V.T, n_oversamples=0, buffer_size=0)


def updates(arguments: argparse.Namespace) -> None:
    """Adding sparse rows: against the authors' code of the method (IncSVD on PyPI), exact and RPI."""
    try:
        import IncSVD.EvolvingMatrix  # noqa: F401
    except ImportError as missing:
        print(f"\nupdates: left out, {missing}; install the group peers (make peers)")
        return
    for make in (random_rows, zipf_rows):
        for s, repeats in ((100, 4 * arguments.repeats), (1, 40 * arguments.repeats)):
            updates_case(make, s, (500, 1000) if arguments.quick else (10_000, 100_000), repeats)


def updates_case(make: Callable[..., Any], s: int, shape: tuple[int, int], repeats: int, k: int = 32) -> None:
    rng, per_row = np.random.default_rng(0), 20
    start = make(*shape, per_row, rng)
    blocks = [make(s, shape[1], per_row, rng) for _ in range(repeats + 1)]
    theirs = [scipy.sparse.csr_matrix(block) for block in blocks]
    exact, rpi = incsvd(start, k, "ZhaSimon"), incsvd(start, k, "RPI")
    ours = updatable(exact)
    methods = [
        feed("lrla add_rows", blocks, ours.add_rows),
        feed("IncSVD exact", theirs, exact.add_row),
        feed("IncSVD RPI (l=10, t=3)", theirs, lambda E: rpi.add_row(E, min(10, E.shape[0]), 3)),
    ]
    rows = compare(methods, repeats)
    error = error_of(np.sort(exact.Sigmak)[::-1])
    values = (ours.singular_values_, exact.Sigmak, rpi.Sigmak)
    rows = [replace(row, error=error(found)) for row, found in zip(rows, values, strict=True)]
    title = f"{make.__name__}: {s} at a time to {shape[0]} x {shape[1]}, {per_row} entries a row, k={k}"
    show(f"{title}; error against IncSVD exact", rows)
    to_exact, to_rpi = rows[1].seconds / rows[0].seconds, rows[2].seconds / rows[0].seconds
    if s == 100:
        verdict(f">= 20x faster than IncSVD exact: {to_exact:.1f}x", to_exact >= 20)
        verdict(f">= 3x faster than IncSVD RPI: {to_rpi:.1f}x", to_rpi >= 3)
    else:
        verdict(f"no slower than IncSVD (aim 2x): {to_exact:.2f}x exact, {to_rpi:.2f}x RPI", min(to_exact, to_rpi) >= 1)
    verdict(f"singular values equal to 1e-10: {rows[0].error:.1e}", rows[0].error <= 1e-10)


def flatness(arguments: argparse.Namespace) -> None:
    """The time of an update as the matrix grows, in rows and in columns."""
    k, per_row, rng = 32, 20, np.random.default_rng(0)
    small, sizes = (1_000, (1_000, 3_000)) if arguments.quick else (10_000, (10_000, 100_000, 1_000_000))
    for axis in ("rows", "columns"):
        for s, repeats in ((100, 6 * arguments.repeats), (1, 100 * arguments.repeats)):
            methods = []
            for size in sizes:
                m, n = (size, small) if axis == "rows" else (small, size)
                U, V = (np.linalg.qr(rng.standard_normal((length, k)))[0] for length in (m, n))
                s_start = np.linspace(2, 1, k) * np.sqrt(m)
                svd = lrla.UpdatableSVD.from_svd(U, s_start, V.T, n_oversamples=0, buffer_size=0)
                blocks = [random_rows(s, n, per_row, rng) for _ in range(repeats + 1)]
                methods.append(feed(f"{size} {axis}", blocks, svd.add_rows))
            rows = compare(methods, repeats)
            show(f"add_rows, {s} at a time, k={k}, while the {axis} grow", rows)
            spread = max(row.seconds for row in rows) / min(row.seconds for row in rows)
            verdict(f"flat within 30 %: {spread:.2f}", spread <= 1.3)


# ---------------------------------------------------------------------------------------------------- incremental PCA


def incremental(arguments: argparse.Namespace) -> None:
    """IncrementalPCA of sparse batches; scikit-learn's makes each batch dense."""
    m, n, k, batch = (300, 2_000, 5, 50) if arguments.quick else (1_000, 100_000, 20, 200)
    A = scipy.sparse.random_array((m, n), density=0.001, format="csr", rng=0)
    rows = compare(
        [
            Method("lrla IncrementalPCA", lambda: lrla.IncrementalPCA(k, batch_size=batch).fit(A)),
            Method("scikit-learn IncrementalPCA", lambda: IncrementalPCA(k, batch_size=batch).fit(A)),
        ],
        1 if not arguments.quick else 2,
    )
    ours, theirs = lrla.IncrementalPCA(k, batch_size=batch).fit(A), IncrementalPCA(k, batch_size=batch).fit(A)
    show(f"{m} x {n}, density 0.1 %, k={k}, batches of {batch}", rows)
    gain = ratio(rows, "scikit-learn", "lrla")
    verdict(f">= 10x faster: {gain:.1f}x", gain >= 10)
    full = np.linalg.svd(A.toarray() - A.mean(axis=0), compute_uv=False)[:k] if arguments.quick else None
    for name, model in (("lrla", ours), ("scikit-learn", theirs)):
        print(f"  {name}: energy of the {k} components {np.sum(model.singular_values_**2):.6f}")
    if full is not None:
        print(f"  the best possible: {np.sum(full**2):.6f}")


SECTIONS = {"sparse": sparse, "dense": dense, "updates": updates, "flatness": flatness, "incremental": incremental}

if __name__ == "__main__":
    _harness.main(SECTIONS, __doc__.partition("\n")[0])
