"""A tour of lrla on real data: `make demo`, or `python examples/tour.py` with matplotlib for the pictures.

The data is what every machine has: the source files of Python's standard library as a corpus of text, and the
handwritten digits, a table and a photograph that come with scikit-learn (the photograph needs Pillow, which matplotlib
brings).  Tables go to the terminal, and with pictures to build/tour/index.html.

A section is a function that returns a `Section`; the list SECTIONS at the end says which are shown.
"""

from __future__ import annotations

import functools
import itertools
import keyword
import sysconfig
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from report import Picture, Section, Table, publish
from scipy.linalg import subspace_angles
from scipy.sparse.linalg import norm, svds
from sklearn.datasets import load_breast_cancer, load_digits, load_sample_image
from sklearn.decomposition import TruncatedSVD as SklearnTruncatedSVD
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import lrla
from lrla.plotting import CompletionPathDisplay, RiskDisplay

OUTPUT = Path(__file__).parents[1] / "build" / "tour"
QUERIES = ("http/client.py", "json/decoder.py", "random.py", "zipfile.py", "zipfile/__init__.py", "calendar.py")
PACKAGES = ("tkinter/", "asyncio/", "unittest/", "email/", "ctypes/")
RANK = 100
BATCH = 32  # files in a batch of the stream

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2c6fbb", "#d9731a", "#3a8f5c", "#8a55b5", "#c23b52", "#c4c4c4"


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


# ---------------------------------------------------------------------------------------------------- the corpus


@dataclass(frozen=True)
class Corpus:
    names: list[str]  # of the files, like "http/client.py"
    words: np.ndarray
    counts: scipy.sparse.csr_array  # files x words
    weights: scipy.sparse.csr_array  # the same as TF-IDF in rows of length 1


@functools.cache
def corpus() -> Corpus:
    """The standard library's modules and test modules, without tables of characters and the data that tests read."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(root.rglob("*.py")) if is_wanted(path.relative_to(root).parts)]
    vectorizer = CountVectorizer(
        token_pattern=r"[A-Za-z_]\w{2,}", lowercase=False, min_df=2, max_df=0.5, stop_words=keyword.kwlist
    )
    counts = scipy.sparse.csr_array(vectorizer.fit_transform(path.read_text("utf-8", "replace") for path in paths))
    weights = scipy.sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))
    names = [path.relative_to(root).as_posix() for path in paths]
    return Corpus(names, vectorizer.get_feature_names_out(), counts, weights)


def is_wanted(parts: tuple[str, ...]) -> bool:
    if {"site-packages", "dist-packages", "encodings", "tests", "idle_test", "__pycache__"} & set(parts):
        return False
    return parts[0] != "test" or len(parts) == 2


@functools.cache
def batch_fit() -> lrla.TruncatedSVD:
    return lrla.TruncatedSVD(RANK, tol=1e-6, random_state=0).fit(corpus().weights)


# ---------------------------------------------------------------------------------------------------- like files


def neighbours() -> Section:
    c = corpus()
    pipeline = make_pipeline(
        TfidfTransformer(sublinear_tf=True),
        lrla.TruncatedSVD(RANK, random_state=0),
        Normalizer(),
        NearestNeighbors(n_neighbors=5),
    )
    _, seconds = timed(lambda: pipeline.fit(c.counts))
    points = pipeline[:-1].transform(c.counts)
    queries = [c.names.index(query) for query in QUERIES if query in c.names]
    distances, found = pipeline[-1].kneighbors(points[queries])
    alike = [
        tuple(c.names[j] if j == js[0] else f"{c.names[j]} {1 - d**2 / 2:.2f}" for j, d in zip(js, ds, strict=True))
        for js, ds in zip(found, distances, strict=True)
    ]
    hits, tests = matched_tests(c.names, points)
    rows, columns = c.counts.shape
    return Section(
        "Files that are like each other",
        f"The corpus: {rows} source files of Python's standard library, {columns} different identifiers and words, "
        f"{c.counts.nnz} entries ({c.counts.nnz / (rows * columns):.1%}). A scikit-learn pipeline of TF-IDF weights, "
        f"lrla.TruncatedSVD({RANK}), rows of unit length and a nearest-neighbour search was fitted in {seconds:.1f} s, "
        "compilation on the first call included. With each file stands its cosine to the one on the left.",
        [Table(("the files most like", "1st", "2nd", "3rd", "4th"), alike, left=True)],
        [
            f"A check: for {hits} of {tests} test modules test_X.py ({hits / max(tests, 1):.0%}), the file X.py "
            "that they test is among the three nearest library files."
        ],
        [
            Picture("words", "The eight words with the largest weight in six of the components", draw_words, (8, 4.2)),
            Picture(
                "map",
                "All files, seen from where five packages differ most: two principal components of these",
                draw_map,
            ),
        ],
    )


def matched_tests(names: list[str], points: np.ndarray) -> tuple[int, int]:
    """How often the file that a test module is about is among its three nearest, of how many that have such a file."""
    library = [i for i, name in enumerate(names) if "test" not in name]
    position = {names[i]: place for place, i in enumerate(library)}
    target = {}
    for i, name in enumerate(names):
        subject = name.removesuffix(".py").removeprefix("test/test_")
        place = position.get(f"{subject}.py", position.get(f"{subject}/__init__.py"))
        if name.startswith("test/test_") and place is not None:
            target[i] = place
    if not target:
        return 0, 0
    found = NearestNeighbors(n_neighbors=3).fit(points[library]).kneighbors(points[list(target)], return_distance=False)
    return int(np.sum(found == np.array(list(target.values()))[:, None])), len(target)


def draw_words(figure: Any) -> None:
    words, V = corpus().words, batch_fit().components_
    for axes, i in zip(figure.subplots(2, 3).ravel(), range(1, 7), strict=True):
        order = np.argsort(-np.abs(V[i]))[7::-1]
        axes.barh(range(8), V[i, order], color=np.where(V[i, order] > 0, BLUE, ORANGE))
        axes.set_yticks(range(8), words[order], fontsize=7)
        axes.set_xticks([])
        axes.set_title(f"component {i + 1}", fontsize=9)


def draw_map(figure: Any) -> None:
    c = corpus()
    points = Normalizer().fit_transform(batch_fit().transform(c.weights))
    members = {package: [i for i, name in enumerate(c.names) if name.startswith(package)] for package in PACKAGES}
    x, y = lrla.PCA(2, random_state=0).fit(points[list(itertools.chain(*members.values()))]).transform(points).T
    axes = figure.subplots()
    axes.scatter(x, y, s=6, color=GREY, linewidths=0)
    for (package, chosen), color in zip(members.items(), (BLUE, ORANGE, GREEN, PURPLE, RED), strict=True):
        axes.scatter(x[chosen], y[chosen], s=14, color=color, label=package, linewidths=0)
    axes.set_axis_off()
    axes.legend(frameon=False, fontsize=8)


# ---------------------------------------------------------------------------------------------------- accuracy


@functools.cache
def fits() -> dict[str, tuple[np.ndarray, str, float]]:
    """Method -> singular values, the largest residual relative to its singular value where it is known, seconds."""
    A = corpus().weights
    exact, seconds = timed(lambda: np.sort(svds(A, RANK, tol=0, return_singular_vectors=False))[::-1])
    found = {"scipy svds, tol=0": (exact, "", seconds)}
    peer, seconds = timed(lambda: SklearnTruncatedSVD(RANK, random_state=0).fit(A))
    found["scikit-learn, defaults"] = (np.sort(peer.singular_values_)[::-1], "", seconds)
    for tol in (1e-1, 1e-3, 1e-6):
        svd, seconds = timed(lambda tol=tol: lrla.TruncatedSVD(RANK, tol=tol, random_state=0).fit(A))
        residual = np.max(svd.residuals_ / svd.singular_values_)
        found[f"lrla, tol={tol:g}"] = (svd.singular_values_, f"{residual:.0e}", seconds)
    return found


def accuracy() -> Section:
    exact = fits()["scipy svds, tol=0"][0]
    rows = [
        (name, residual, "reference" if s is exact else f"{np.max(np.abs(s / exact - 1)):.0e}", f"{seconds:.2f} s")
        for name, (s, residual, seconds) in fits().items()
    ]
    third = lrla.TruncatedSVD(0.3, random_state=0).fit(corpus().weights)
    return Section(
        "Accuracy is what is asked for",
        f"The {RANK} leading singular values of the corpus. The tolerance bounds the residual of every triplet "
        "relative to its singular value; the error of the singular value itself is about the square of that.",
        [Table(("method", "largest residual", "worst error in a singular value", "time"), rows)],
        [
            "Asked for 30 % of the energy instead of a rank, TruncatedSVD(0.3) takes "
            f"{third.components_.shape[0]} components."
        ],
        [
            Picture("spectrum", "Left: the singular values. Right: how far each is off", draw_spectrum, (9, 3.8)),
            Picture("error", "What the best approximation of rank k leaves over, relative to the matrix", draw_error),
        ],
    )


def draw_spectrum(figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    index, exact = np.arange(1, RANK + 1), fits()["scipy svds, tol=0"][0]
    left.semilogx(index, exact, "o", ms=3, color="black")
    left.set(xlabel="index", ylabel="singular value", ylim=(0, None))
    for (name, (s, _, _)), color in zip(list(fits().items())[1:], (RED, GREEN, BLUE, PURPLE), strict=True):
        right.semilogy(index, np.maximum(np.abs(s / exact - 1), 1e-16), "o", ms=3, color=color, label=name)
    right.set(xlabel="index", ylabel="relative error", ylim=(5e-17, 1e1))
    right.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")


def draw_error(figure: Any) -> None:
    left = np.sqrt(1 - np.cumsum(batch_fit().singular_values_ ** 2) / norm(corpus().weights) ** 2)
    axes = figure.subplots()
    axes.plot(np.arange(RANK + 1), [1, *left], color=BLUE)
    axes.set(xlabel="rank k", ylabel="relative error", xlim=(0, RANK), ylim=(0, 1.02))
    axes.grid(alpha=0.3)


# ---------------------------------------------------------------------------------------------------- streaming


@functools.cache
def in_order_of_appearance() -> scipy.sparse.csr_array:
    """The files in random order, and the words in the order in which they first turn up."""
    A = corpus().weights
    A = A[np.random.default_rng(0).permutation(A.shape[0])].tocoo()
    first = np.full(A.shape[1], A.shape[0])
    np.minimum.at(first, A.col, A.row)
    return A.tocsr()[:, np.argsort(first, kind="stable")]


@functools.cache
def stream(n_oversamples: int | str) -> tuple[lrla.TruncatedSVD, list[tuple[int, float]], float]:
    """The model after all batches, its own relative error after each, and the seconds."""
    A = in_order_of_appearance()
    svd = lrla.TruncatedSVD(RANK, n_oversamples=n_oversamples, random_state=0)
    energy = np.cumsum(A.multiply(A).sum(axis=1))
    errors, known, seconds = [], 0, 0.0
    for start in range(0, A.shape[0], BATCH):
        rows = A[start : start + BATCH]
        known = max(known, rows.indices.max() + 1)  # columns that exist by now
        _, spent = timed(lambda rows=rows, known=known: svd.partial_fit(rows[:, :known], allow_new_features=True))
        seconds += spent
        stop = start + rows.shape[0]
        errors.append((stop, svd.reconstruction_error_ / np.sqrt(energy[stop - 1])))
    return svd, errors, seconds


@functools.cache
def best_of_stream() -> tuple[lrla.TruncatedSVD, float]:
    return timed(lambda: lrla.TruncatedSVD(RANK, tol=1e-6, random_state=0).fit(in_order_of_appearance()))


def streaming() -> Section:
    A = in_order_of_appearance()
    best, seconds = best_of_stream()
    rows = [stream_row("batch fit", best, best, A, seconds)]
    for n_oversamples in ("auto", RANK):
        svd, errors, seconds = stream(n_oversamples)
        rows.append(stream_row(f"stream, n_oversamples={n_oversamples}", svd, best, A, seconds))
    return Section(
        "One pass in small batches, with a growing vocabulary",
        f"partial_fit reads the files once, in {len(errors)} batches of {BATCH} in random order, and a word gets its "
        f"column when it first turns up, {A.shape[1]} in the end. The model knows its error without the data: "
        "reconstruction_error_.",
        [
            Table(
                ("", "its own error", "error on the data", "worst singular value", "angle of the first 10", "time"),
                rows,
            )
        ],
        [
            "Both errors are relative to the matrix. An updated SVD is that of what it kept plus the new rows: what it "
            "dropped on the way is lost, is counted in its own error, and becomes less with more oversampling."
        ],
        [Picture("streaming", "The stream against batch fits of the same files", draw_stream, (9, 3.8))],
    )


def stream_row(name: str, svd: Any, best: Any, A: Any, seconds: float) -> tuple[str, ...]:
    total = norm(A)
    own = svd.reconstruction_error_ / total
    measured = np.sqrt(1 - (np.linalg.norm(A @ svd.components_.T) / total) ** 2)
    angle = np.degrees(np.max(subspace_angles(svd.components_[:10].T, best.components_[:10].T)))
    lost = np.max(1 - svd.singular_values_ / best.singular_values_)
    return (name, f"{own:.4f}", f"{measured:.4f}", f"{abs(lost):.0e}", f"{angle:.1e}°", f"{seconds:.2f} s")


def draw_stream(figure: Any) -> None:
    A = in_order_of_appearance()
    left, right = figure.subplots(1, 2)
    index = np.arange(1, RANK + 1)
    for n_oversamples, color in (("auto", ORANGE), (RANK, BLUE)):
        svd, errors, _ = stream(n_oversamples)
        left.plot(*zip(*errors, strict=True), color=color, label=f"stream, n_oversamples={n_oversamples}")
        below = 1 - svd.singular_values_ / best_of_stream()[0].singular_values_
        right.semilogy(index, np.maximum(below, 1e-16), ".", color=color)
    stops = [stop for stop, _ in errors][5::8]
    fits = [lrla.TruncatedSVD(RANK, random_state=0).fit(A[:stop]) for stop in stops]
    optima = [fit.reconstruction_error_ / norm(A[:stop]) for fit, stop in zip(fits, stops, strict=True)]
    left.plot(stops, optima, "o", ms=4, color="black", label="batch fit")
    left.set(xlabel="files read", ylabel="relative error, by its own account", ylim=(0, 1))
    left.legend(frameon=False, fontsize=8)
    right.set(xlabel="index of the singular value", ylabel="stream below batch, relative")


# ---------------------------------------------------------------------------------------------------- digits


def digits() -> Section:
    X, y = load_digits(return_X_y=True)
    rows = []
    for k in (2, 5, 10, 20, 40):
        pca = lrla.PCA(k, random_state=0)
        score = cross_val_score(make_pipeline(pca, KNeighborsClassifier(3)), X, y).mean()
        rows.append((f"PCA({k})", f"{pca.fit(X).explained_variance_ratio_.sum():.1%}", f"{score:.1%}"))
    score = cross_val_score(KNeighborsClassifier(3), X, y).mean()
    rows.append(("all 64 pixels", "100.0%", f"{score:.1%}"))
    variances = lrla.PCA(20, random_state=0).fit(X).explained_variance_
    off = [np.max(np.abs(streamed_variances(X, p) / variances - 1)) for p in ("auto", 44)]
    return Section(
        "Handwritten digits",
        f"{len(X)} images of 8 x 8 pixels: PCA and a classifier that asks the 3 nearest neighbours, in one pipeline, "
        "scored by 5-fold cross-validation.",
        [Table(("features", "variance explained", "digits recognised"), rows)],
        [
            f"IncrementalPCA(20), fed 13 images at a time, has the variances of PCA(20) to {off[0]:.0e}; carrying all "
            f"64 directions along (n_oversamples=44), to {off[1]:.0e}."
        ],
        [Picture("digits", "Components of the digits, and one digit rebuilt from k of them", draw_digits, (8, 3.2))],
    )


def streamed_variances(X: np.ndarray, n_oversamples: int | str) -> np.ndarray:
    pca = lrla.IncrementalPCA(20, n_oversamples=n_oversamples)
    for start in range(0, len(X), 13):
        pca.partial_fit(X[start : start + 13])
    return pca.explained_variance_


def draw_digits(figure: Any) -> None:
    X, _ = load_digits(return_X_y=True)
    pca = lrla.PCA(40, random_state=0).fit(X)
    score = pca.transform(X[:1])[0]
    above, below = figure.subplots(2, 6)
    draw_image(above[0], pca.mean_, "mean", "gray_r", (0, 16))
    for i, axes in enumerate(above[1:]):
        draw_image(axes, pca.components_[i], f"component {i + 1}", "RdBu", (-0.4, 0.4))
    draw_image(below[0], X[0], "a digit", "gray_r", (0, 16))
    for k, axes in zip((2, 5, 10, 20, 40), below[1:], strict=True):
        draw_image(axes, pca.mean_ + score[:k] @ pca.components_[:k], f"k = {k}", "gray_r", (0, 16))


def draw_image(axes: Any, image: np.ndarray, title: str, colors: str, limits: tuple[float, float]) -> None:
    axes.imshow(image.reshape(8, 8), cmap=colors, vmin=limits[0], vmax=limits[1])
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


# ---------------------------------------------------------------------------------------------------- ridge


@functools.cache
def lengths() -> tuple[Any, np.ndarray, np.ndarray]:
    """TF-IDF rows of the files, the logarithm of their number of words, and which third of them is kept for a test."""
    c = corpus()
    y = np.log10(1 + np.asarray(c.counts.sum(axis=1)).ravel())
    return c.weights, y, np.random.default_rng(0).permutation(len(y)) % 3 == 0


@functools.cache
def sketched() -> tuple[lrla.SketchedRidgeCV, float]:
    X, y, test = lengths()
    return timed(
        lambda: lrla.SketchedRidgeCV(n_components=300, refit="ensemble", random_state=0).fit(X[~test], y[~test])
    )


def ridge() -> Section:
    X, y, test = lengths()
    exact, seconds = timed(lambda: lrla.SketchedRidgeCV(sketch=None).fit(X[~test], y[~test]))
    rows = [length_row("all words, sketch=None", exact, seconds)]
    rows.append(length_row("4 sketches of 300 columns", *sketched()))
    penalties = np.logspace(-6, 2, 30)
    classifiers = {
        "scikit-learn RidgeClassifierCV": RidgeClassifierCV(penalties),
        "lrla, sketch=None": lrla.SketchedRidgeClassifierCV(penalties, sketch=None),
        "lrla, sketched, then exact": lrla.SketchedRidgeClassifierCV(penalties, random_state=0),
    }
    covered = sketched()[0].predict_interval(X[test], coverage=0.9)
    inside = np.mean((covered[0] <= y[test]) & (y[test] <= covered[1]))
    return Section(
        "A penalty tuned, and the error known, without a second set of data",
        f"Ridge regression from {X.shape[1]} words: how long is a file (its number of words, as a logarithm with a "
        f"standard deviation of {np.std(y):.2f}), judged by which words it has? Two thirds of the files are for the fit. "
        "Below, ten digits from 1000 random features.",
        [
            Table(("file lengths", "penalty", "error by leave-one-out", "error on the other files", "time"), rows),
            Table(("digits", "penalty", "right on the other third", "time"), digit_rows(classifiers)),
        ],
        [f"Of the other files, {inside:.0%} have a length within the intervals that promise 90 %."],
        [Picture("risk", "The risk of sketches over the penalty, and that of plain ridge that they imply", draw_risk)],
    )


def length_row(name: str, model: Any, seconds: float) -> tuple[str, ...]:
    X, y, test = lengths()
    error = np.sqrt(np.mean((model.predict(X[test]) - y[test]) ** 2))
    return (name, f"{model.alpha_:.2g}", f"{np.sqrt(-model.best_score_):.3f}", f"{error:.3f}", f"{seconds:.2f} s")


def digit_rows(classifiers: dict[str, Any]) -> list[tuple[str, ...]]:
    X, y = load_digits(return_X_y=True)
    features = RBFSampler(gamma=5e-4, n_components=1000, random_state=0).fit_transform(X)
    fit_X, test_X, fit_y, test_y = train_test_split(features, y, test_size=1 / 3, random_state=0)
    rows = []
    for name, model in classifiers.items():
        _, seconds = timed(lambda model=model: model.fit(fit_X, fit_y))
        rows.append((name, f"{model.alpha_:.2g}", f"{model.score(test_X, test_y):.1%}", f"{seconds:.2f} s"))
    return rows


def draw_risk(figure: Any) -> None:
    RiskDisplay.from_estimator(sketched()[0], ax=figure.subplots())


# ---------------------------------------------------------------------------------------------------- holes


@dataclass(frozen=True)
class Holes:
    """What is known of a table, where it has holes, and what is behind them."""

    X: np.ndarray
    mask: np.ndarray
    truth: np.ndarray

    def error(self, filled: np.ndarray) -> float:
        return float(np.sqrt(np.mean((filled - self.truth)[self.mask] ** 2)))


def punched(truth: np.ndarray, share: float) -> Holes:
    mask = np.random.default_rng(0).random(truth.shape) < share
    return Holes(np.where(mask, np.nan, truth), mask, truth)


@functools.cache
def photograph() -> Holes:
    """A temple, in grey from 0 to 1; half of its pixels are lost."""
    return punched(load_sample_image("china.jpg").mean(axis=2) / 255.0, 0.5)


@functools.cache
def photograph_filled() -> dict[str, tuple[np.ndarray, float]]:
    X = photograph().X
    fills = {
        "column means": SimpleImputer().fit_transform,
        "scikit-learn KNNImputer": KNNImputer().fit_transform,
        "lrla.MatrixCompletion": lambda X: photograph_model().complete(),
    }
    return {name: timed(lambda fill=fill: fill(X)) for name, fill in fills.items()}


@functools.cache
def photograph_model() -> lrla.MatrixCompletion:
    return lrla.MatrixCompletion(random_state=0, clip=(0.0, 1.0)).fit(photograph().X)


@functools.cache
def tables() -> dict[str, Holes]:
    """Two tables in standard deviations of their columns; three tenths of the entries are lost."""
    found = {}
    for name, data in (("breast cancer", load_breast_cancer().data), ("500 digits", load_digits().data[:500])):
        data = data[:, data.std(axis=0) > 0.0]
        found[name] = punched((data - data.mean(axis=0)) / data.std(axis=0), 0.3)
    return found


@functools.cache
def tables_filled() -> dict[str, dict[str, tuple[np.ndarray, float]]]:
    imputers = {
        "column means": SimpleImputer(),
        "scikit-learn KNNImputer": KNNImputer(),
        "scikit-learn IterativeImputer, 5 rounds": IterativeImputer(random_state=0, max_iter=5, tol=0.1),
        "lrla.LowRankImputer": lrla.LowRankImputer(random_state=0),
    }
    found: dict[str, dict[str, tuple[np.ndarray, float]]] = {}
    for table, punched_table in tables().items():
        fills = {name: imputer.fit_transform for name, imputer in imputers.items()}
        found[table] = {name: timed(functools.partial(fill, punched_table.X)) for name, fill in fills.items()}
    return found


def holes() -> Section:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IterativeImputer does not converge in five rounds
        filled, photo, model = tables_filled(), photograph_filled(), photograph_model()
    rows = [
        (name, *itertools.chain(*(measured(tables()[table], *filled[table][name]) for table in filled)))
        for name in filled["500 digits"]
    ]
    (_, std), cancer = with_deviation(), tables()["breast cancer"]
    off = np.abs(filled["breast cancer"]["lrla.LowRankImputer"][0] - cancer.truth)[cancer.mask]
    inside = np.mean(off < 1.96 * std[cancer.mask])
    return Section(
        "Holes",
        f"A photograph of {photograph().X.shape[0]} x {photograph().X.shape[1]} pixels of which half are lost, and two tables "
        "of which three tenths are. The errors are root mean squares over the holes: of grey from 0 to 1, and of standard "
        "deviations of a column. Times include loading compiled code.",
        [
            Table(
                ("the photograph", "error", "time"),
                [(name, *measured(photograph(), *found)) for name, found in photo.items()],
            ),
            Table(("tables", "breast cancer", "time", "500 digits", "time"), rows),
        ],
        [
            f"MatrixCompletion took rank {model.n_components_} by itself, and said from held-out pixels that its error would "
            f"be {model.validation_rmse_:.3f}. It knows nothing of neighbouring pixels: columns could be in any order.",
            f"LowRankImputer promises 95 % intervals; in the breast-cancer table {inside:.0%} of the lost values lie within "
            "them. Digits come in clusters, where asking neighbours can be better than any linear model.",
        ],
        [
            Picture(
                "photograph", "Half of the pixels, what was made of them, and the photograph", draw_photograph, (9, 6.4)
            ),
            Picture(
                "completion",
                "The way to the penalty and the rank: error on fitted and held-out pixels",
                draw_completion,
            ),
            Picture(
                "digit_holes", "Digits with holes, filled by LowRankImputer, and as they were", draw_digit_holes, (8, 3)
            ),
        ],
    )


def measured(holes: Holes, filled: np.ndarray, seconds: float) -> tuple[str, str]:
    return f"{holes.error(filled):.3f}", f"{seconds:.2f} s"


@functools.cache
def with_deviation() -> tuple[np.ndarray, np.ndarray]:
    X = tables()["breast cancer"].X
    return lrla.LowRankImputer(random_state=0).fit(X).transform(X, return_std=True)


def draw_photograph(figure: Any) -> None:
    A = photograph()
    filled = {name: image for name, (image, _) in photograph_filled().items() if name != "column means"}
    images = {"half of the pixels": np.where(A.mask, 1.0, A.X), "the photograph": A.truth, **filled}
    for axes, (name, image) in zip(figure.subplots(2, 2).ravel(), images.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_title(f"{name}, error {A.error(image):.3f}" if name in filled else name, fontsize=9)
        axes.set_axis_off()


def draw_completion(figure: Any) -> None:
    CompletionPathDisplay.from_estimator(photograph_model(), ax=figure.subplots())


def draw_digit_holes(figure: Any) -> None:
    data = load_digits().data[:500]
    varies = data.std(axis=0) > 0.0
    table = tables()["500 digits"]
    filled = tables_filled()["500 digits"]["lrla.LowRankImputer"][0]
    for row, (name, A) in zip(
        figure.subplots(3, 10), {"with holes": table.X, "filled": filled, "as it was": table.truth}.items(), strict=True
    ):
        for i, axes in enumerate(row):
            image = np.zeros(64)
            image[varies] = A[i] * data[:, varies].std(axis=0) + data[:, varies].mean(axis=0)
            draw_image(axes, np.nan_to_num(image, nan=-8.0), name if i == 0 else "", "gray_r", (-8, 16))


SECTIONS = [neighbours, accuracy, streaming, digits, ridge, holes]

if __name__ == "__main__":
    publish(f"lrla {lrla.__version__}: a tour", SECTIONS, OUTPUT)
