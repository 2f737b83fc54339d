"""Updating a truncated SVD: lrla beside IncSVD, the package of the authors of the method (Deng et al., 2024).

    python -m benchmarks.peers.updating [--quick]

Both start from the same sparse matrix and take the same rows in the same blocks, in turns.  Times are medians of one
call, in ms; `error` is the largest difference of a singular value from those of dense Zha-Simon updates, relative to
the first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from lrla import UpdatableSVD

K, ENTRIES = 32, 20


def zipf_rows(s, n, rng):
    """Sparse rows with 20 entries each; column j is drawn with probability ~ j^-0.9."""
    p = np.arange(1, n + 1) ** -0.9
    columns = np.searchsorted(np.cumsum(p) / p.sum(), rng.random(s * ENTRIES))
    rows = np.repeat(np.arange(s), ENTRIES)
    counts = sp.coo_matrix((np.ones(s * ENTRIES), (rows, np.minimum(columns, n - 1))), shape=(s, n)).tocsr()
    counts.data = np.log1p(counts.data)
    return counts


def uniform_rows(s, n, rng):
    """Sparse rows with 20 normal entries in random columns: a flat spectrum."""
    columns = np.concatenate([np.sort(rng.choice(n, ENTRIES, replace=False)) for _ in range(s)])
    indptr = np.arange(0, s * ENTRIES + 1, ENTRIES)
    return sp.csr_matrix((rng.standard_normal(s * ENTRIES), columns, indptr), shape=(s, n))


STREAMS = {"zipf": zipf_rows, "uniform": uniform_rows}


class ZhaSimon:
    """Dense update by QR (Zha and Simon, 1999): the oracle, and what the method replaces."""

    def __init__(self, U, s, V):
        self.U, self.s, self.V = U, s, V

    def add_rows(self, E):
        k, count = len(self.s), E.shape[0]
        C = E @ self.V
        Q, R = np.linalg.qr(E.T.toarray() - self.V @ C.T)
        F, S, Gt = np.linalg.svd(np.block([[np.diag(self.s), np.zeros((k, count))], [C, R.T]]))
        self.U = np.vstack([self.U @ F[:k, :k], F[k:, :k]])
        self.s, self.V = S[:k], self.V @ Gt[:k, :k].T + Q @ Gt[:k, k:].T

    def values(self):
        return self.s


class Ours:
    def __init__(self, U, s, V, **options):
        self.model = UpdatableSVD.from_svd(U, s, V.T, n_oversamples=0, **options)

    def add_rows(self, E):
        self.model.add_rows(E)

    def values(self):
        return self.model.singular_values_


class IncSVD:
    """The published package; `l` and `t` as in the authors' experiments."""

    def __init__(self, U, s, V, method):
        from IncSVD.EvolvingMatrix import EvolvingMatrix

        with contextlib.redirect_stdout(io.StringIO()):
            self.model = EvolvingMatrix(
                sp.random(40, V.shape[0], density=40 / V.shape[0], format="csr"), K, method=method
            )
        # It can only start from svds; give it the same factors as the others.
        self.model._m, self.model._n = len(U), len(V)
        self.model._Uk, self.model._sigmak, self.model._Vk = U.copy(), s.copy(), V.copy()
        self.options = {"l": 10, "t": 3} if method == "RPI" else {}

    def add_rows(self, E):
        self.model.add_row(E, **self.options)

    def values(self):
        return self.model.Sigmak


def start(m, n, rows, rng):
    """Leading factors of a sparse m x n matrix."""
    U, s, Vt = svds(rows(m, n, rng), K, random_state=0)
    order = np.argsort(-s)
    return np.ascontiguousarray(U[:, order]), s[order], np.ascontiguousarray(Vt[order].T)


def race(peers, batches, check):
    """Median times (ms) of the peers, which take every batch in turns, and their errors against `check`."""
    times = {name: [] for name in peers}
    errors = {}
    for batch in batches:
        for name, peer in peers.items():
            begin = time.perf_counter()
            peer.add_rows(batch)
            times[name].append(time.perf_counter() - begin)
    if check is not None:
        for batch in batches:
            check.add_rows(batch)
        errors = {
            name: np.abs(peer.values() - check.values()).max() / check.values()[0] for name, peer in peers.items()
        }
    return {name: 1e3 * np.median(each[2:]) for name, each in times.items()}, errors


def beside_incsvd(stream, s, count, m=10_000, n=100_000):
    rng = np.random.default_rng(0)
    factors = start(m, n, STREAMS[stream], rng)
    batches = [STREAMS[stream](s, n, rng) for _ in range(count)]
    peers = {"lrla": Ours(*factors, buffer_size=0), "IncSVD ZhaSimon": IncSVD(*factors, "ZhaSimon")}
    if s > 10:
        peers["IncSVD RPI"] = IncSVD(*factors, "RPI")
    else:
        peers["lrla, buffered"] = Ours(*factors)
    times, errors = race(peers, batches, ZhaSimon(*factors) if s * count <= 1000 else None)
    print(f"\n{stream}, {m} x {n} + {count} x {s} rows, k = {K}: {peers['lrla'].model.n_folds_} folds")
    for name, each in times.items():
        error = f"{errors[name]:.0e}" if name in errors else ""
        print(f"  {name:18s} {each:9.3f} ms   x {each / times['lrla']:6.1f}   {error}")


def flatness(s, count):
    print(f"\nlrla, {s} row(s) a call, zipf, k = {K}: median ms for m existing rows and n columns")
    for m, n in [(10_000, 10_000), (1_000_000, 10_000), (10_000, 100_000), (10_000, 1_000_000)]:
        rng = np.random.default_rng(0)
        U, V = np.zeros((m, K)), np.zeros((n, K))
        U[rng.permutation(m)[:K], np.arange(K)] = V[np.arange(K), np.arange(K)] = (
            1  # values, not structure, matter here
        )
        model = Ours(U, np.linspace(100, 20, K), V, buffer_size=0)
        times, _ = race({"lrla": model}, [zipf_rows(s, n, rng) for _ in range(count)], None)
        print(f"  {m:9d} {n:9d} {times['lrla']:9.3f} ms   {model.model.n_folds_} folds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few updates, no dense oracle")
    quick = parser.parse_args().quick
    for stream in STREAMS:
        beside_incsvd(stream, 100, 5 if quick else 10)
        beside_incsvd(stream, 1, 50 if quick else 200)
    flatness(1, 100 if quick else 300)
    flatness(100, 10 if quick else 30)


if __name__ == "__main__":
    main()
