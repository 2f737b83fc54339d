"""Matrix completion of ratings side by side: `python -m benchmarks.peers.completion [section ...] [--quick]`.

Sections: ratings (rank 50, 15 sweeps, against cmfrec, LIBMF and implicit; and estimated penalties), automatic (no parameter
given, against the best of a grid of cmfrec and LIBMF).  An error is the root mean square error on ratings that were kept
back.  The sizes of ratings are those of MovieLens-10M; LRLA_BENCH_RATINGS="rows,columns,entries" changes them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.peers import _harness
from benchmarks.peers._harness import Method, compare, once, ratio, show, verdict
from lrla._threads import available_threads
from lrla.completion import complete_als
from lrla.completion._als import Fitted
from lrla.datasets import make_ratings

K, SWEEPS = 50, 15
SEEDS = 10  # of the small set
Prediction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sizes(quick: bool) -> tuple[int, int, int]:
    given = os.environ.get("LRLA_BENCH_RATINGS")
    if given:
        rows, columns, entries = (int(float(part)) for part in given.split(","))
        return rows, columns, entries
    return (2_000, 800, 60_000) if quick else (70_000, 10_000, 10_000_000)


class Judge:
    """Ratings with their test set; errors and objectives of whatever predicts."""

    def __init__(self, shape_and_entries: tuple[int, int, int], seed: int = 0):
        self.X, self.values, self.rows, self.columns = make_ratings(*shape_and_entries, random_state=seed)
        self.triplets = self.X.tocoo()

    def rmse(self, predict: Prediction) -> float:
        predicted = predict(self.rows, self.columns)
        predicted = np.where(np.isfinite(predicted), predicted, self.triplets.data.mean())  # rows never seen
        return float(np.sqrt(np.mean(np.square(predicted - self.values))))

    def objective(self, parts: tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray], reg: float) -> float:
        """Squared errors plus reg times the squares of factors and offsets, which is what cmfrec minimises too."""
        loss = sum(
            float(
                np.square(
                    self.triplets.data[part] - predictor(*parts)(self.triplets.row[part], self.triplets.col[part])
                ).sum()
            )
            for part in (slice(start, start + (1 << 18)) for start in range(0, self.X.nnz, 1 << 18))
        )
        return loss + reg * sum(float(np.square(part, dtype=np.float64).sum()) for part in parts[1:])


def predictor(mean: float, b: np.ndarray, c: np.ndarray, U: np.ndarray, V: np.ndarray) -> Prediction:
    return lambda rows, columns: mean + b[rows] + c[columns] + np.einsum("ij,ij->i", U[rows], V[columns])


# ---------------------------------------------------------------------------------------------------- the methods


def lrla_parts(fitted: Fitted) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return fitted.mean, fitted.row_bias, fitted.column_bias, fitted.U, fitted.V


def lrla_method(judge: Judge, dtype: Any, reg: float, sweeps: int = SWEEPS) -> Method:
    """Some of the sweeps on a steep path down to the penalty, and the others there."""
    X = judge.X.astype(dtype)

    def run() -> Fitted:
        calls = iter(range(1, 10_000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sweeps are counted, not awaited
            return complete_als(
                X, K, reg, fit_bias=True, reg_bias=reg, path_ratio=2.0, sweeps_per_level=1, max_iter=sweeps, tol=0.0,
                random_state=0, callback=lambda info: next(calls) >= sweeps,
            )[3]  # fmt: skip

    return Method(
        f"lrla complete_als, {sweeps} sweeps, {np.dtype(dtype).name}",
        run,
        lambda fitted: judge.rmse(predictor(*lrla_parts(fitted))),
        note=lambda fitted, seconds: (
            f"error {judge.rmse(predictor(*lrla_parts(fitted))):.4f} objective {judge.objective(lrla_parts(fitted), reg):.4e}"
        ),
    )


def bayes_method(judge: Judge, k: int, sweeps: int) -> Method:
    """Estimated penalties: a few sweeps after a short path, in single precision like LIBMF."""
    X = judge.X.astype(np.float32)

    def run() -> Fitted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return complete_als(X, k, "bayes", fit_bias=True, max_iter=sweeps, tol=0.0, random_state=0)[3]

    return Method(
        f'lrla complete_als, reg="bayes", k={k}, {sweeps} sweeps, float32',
        run,
        lambda fitted: judge.rmse(predictor(*lrla_parts(fitted))),
        note=lambda fitted, seconds: f"error {judge.rmse(predictor(*lrla_parts(fitted))):.4f} rank {fitted.U.shape[1]}",
    )


def automatic_method(judge: Judge, dtype: Any = np.float64) -> Method:
    from lrla import MatrixCompletion

    X = judge.X.astype(dtype)
    return Method(
        f"lrla MatrixCompletion(), {np.dtype(dtype).name}",
        lambda: MatrixCompletion(random_state=0).fit(X),
        lambda model: judge.rmse(model.predict_entries),
        note=lambda model, seconds: f"error {judge.rmse(model.predict_entries):.4f} rank {model.n_components_}",
    )


def cmfrec_method(judge: Judge, dtype: Any, reg: float, sweeps: int = SWEEPS, k: int = K) -> Method:
    from cmfrec import CMF

    X = judge.X.astype(dtype).tocoo()

    def run() -> Any:
        return CMF(
            k=k, lambda_=reg, method="als", use_cg=True, finalize_chol=False, niter=sweeps, verbose=False,
            use_float=dtype == np.float32, nthreads=available_threads(), precompute_for_predictions=False,
        ).fit(scipy.sparse.coo_matrix(X))  # fmt: skip

    def parts(model: Any) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return float(model.glob_mean_), model.user_bias_, model.item_bias_, model.A_, model.B_

    return Method(
        f"cmfrec CMF, CG, {sweeps} iterations, {np.dtype(dtype).name}",
        run,
        lambda model: judge.rmse(predictor(*parts(model))),
        note=lambda model, seconds: (
            f"error {judge.rmse(predictor(*parts(model))):.4f} objective {judge.objective(parts(model), reg):.4e}"
        ),
    )


def libmf_method(judge: Judge, reg: float, iterations: int, k: int = K) -> Method:
    """LIBMF has no offsets: it is given what is left after the mean, which helps it."""
    with contextlib.redirect_stdout(io.StringIO()):
        from libmf import mf
    coo, mean = judge.triplets, judge.triplets.data.mean()
    table = np.column_stack([coo.row, coo.col, coo.data - mean]).astype(np.float32)

    def run() -> Any:
        model = mf.MF(
            k=k, nr_threads=available_threads(), nr_iters=iterations, lambda_p1=0.0, lambda_q1=0.0, lambda_p2=reg,
            lambda_q2=reg, eta=0.1, quiet=True,
        )  # fmt: skip
        model.fit(table)
        return model

    def parts(model: Any) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        P, Q = model.p_factors(), model.q_factors()  # the predict of the wrapper gives other numbers than their product
        return mean + float(model.model.b), np.zeros(len(P)), np.zeros(len(Q)), P, Q

    def rmse(model: Any) -> float:
        b = parts(model)
        known = (judge.rows < len(b[3])) & (judge.columns < len(b[4]))
        predict = predictor(*b)
        return judge.rmse(
            lambda rows, columns: np.where(
                known, predict(np.where(known, rows, 0), np.where(known, columns, 0)), np.nan
            )
        )

    return Method(
        f"LIBMF, {iterations} epochs, penalty {reg:g}",
        run,
        rmse,
        note=lambda model, seconds: f"error {rmse(model):.4f}",
    )


def implicit_method(judge: Judge) -> Method:
    """Another problem (all cells, weighted) on the same pattern: for the time only."""
    from implicit.als import AlternatingLeastSquares

    X = scipy.sparse.csr_matrix(judge.X.astype(np.float32))

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AlternatingLeastSquares(K, iterations=SWEEPS, num_threads=available_threads(), use_gpu=False)
            model.fit(X, show_progress=False)
        return model

    return Method(f"implicit ALS, CG, {SWEEPS} iterations, float32 (another problem)", run)


# ---------------------------------------------------------------------------------------------------- the sections


def ratings(arguments: argparse.Namespace) -> None:
    """Rank 50 at a fixed penalty, in both precisions."""
    shape = sizes(arguments.quick)
    judge = Judge(shape)
    reg = 12.0 if arguments.quick else 50.0
    for dtype in (np.float32, np.float64):
        methods = [lrla_method(judge, dtype, reg)]
        if dtype == np.float32:
            methods += [bayes_method(judge, 30, sweeps) for sweeps in (3, 8)] + [automatic_method(judge, dtype)]
        methods.append(cmfrec_method(judge, dtype, reg))
        if dtype == np.float32:
            methods += [libmf_method(judge, penalty, epochs) for penalty in (0.05, 0.1) for epochs in (6, 10, 20)]
            methods.append(implicit_method(judge))
        rows = compare(methods, arguments.repeats)
        show(f"{shape[0]} x {shape[1]}, {shape[2]} ratings, k={K}, penalty {reg:g}, {np.dtype(dtype).name}", rows)
        gain = ratio(rows, "cmfrec", rows[0].name)
        verdict(f"times faster than cmfrec >= 3: {gain:.2f}", gain >= 3)
        theirs = next(row for row in rows if row.name.startswith("cmfrec"))
        verdict(f"held-out error no larger: {rows[0].error:.4f}, {theirs.error:.4f}", rows[0].error <= theirs.error)
        objectives = [float(row.note.split()[-1]) for row in (rows[0], theirs)]
        verdict(f"objective no larger: {objectives[0]:.4e}, {objectives[1]:.4e}", objectives[0] <= objectives[1])
        sgd = [row for row in rows if row.name.startswith("LIBMF")]
        if sgd:
            for ours in (row for row in rows if "bayes" in row.name or "MatrixCompletion" in row.name):
                as_good = [row.seconds for row in sgd if row.error <= ours.error]
                best = min(sgd, key=lambda row: row.error)
                verdict(f"{ours.name}: LIBMF's best error reached: {ours.error:.4f}, {best.error:.4f}", not as_good)
                gain = min([best.seconds, *as_good]) / ours.seconds
                verdict(f"times faster than LIBMF at its best error >= 1.5: {gain:.2f}", gain >= 1.5)


def grid(judge: Judge) -> Iterator[Method]:
    for k in (2, 3, 4, 6, 10):
        for reg in (3.0, 4.0, 5.5, 8.0):
            method = cmfrec_method(judge, np.float64, reg, k=k)
            yield replace(method, name=f"cmfrec k={k}, penalty {reg:g}")
        for penalty in (0.03, 0.06, 0.1, 0.15):
            yield replace(libmf_method(judge, penalty, 20, k=k), name=f"LIBMF k={k}, penalty {penalty:g}")


def automatic(arguments: argparse.Namespace) -> None:
    """Nothing chosen by hand, at the size of MovieLens-100k, against the best of a grid that saw the test set."""
    for seed in range(1 if arguments.quick else SEEDS):
        judge = Judge((943, 1682, 100_000), seed)
        ours = automatic_method(judge)
        found = {}
        for method in list(grid(judge))[: 3 if arguments.quick else None]:
            result, seconds = once(method)
            assert method.error is not None
            found[method.name] = (method.error(result), seconds)
        rows = compare([ours], arguments.repeats)
        show(f"943 x 1682, 100000 ratings, seed {seed}", rows)
        for peer in ("cmfrec", "LIBMF"):
            names = [name for name in found if name.startswith(peer)]
            best = min(names, key=lambda name: found[name][0])
            print(f"  best of {len(names)}: {best}, error {found[best][0]:.4f}, {found[best][1]:.2f} s each")
            verdict(f"error no larger than {peer}: {rows[0].error:.4f}", rows[0].error <= found[best][0])
        verdict(f"seconds <= 1: {rows[0].seconds:.2f}", rows[0].seconds <= 1)


if __name__ == "__main__":
    _harness.main({"ratings": ratings, "automatic": automatic}, __doc__.splitlines()[0])
