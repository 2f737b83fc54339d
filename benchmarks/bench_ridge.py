"""Sketched ridge: time, peak memory and distance from plain ridge with the same parameters."""

from __future__ import annotations

import warnings

import numpy as np

import lrla

SIZES = ((2_000, 1_000), (1_000, 3_000))


def data(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of variances 1 / j, and as much noise as signal."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)) / np.sqrt(np.arange(1, p + 1))
    y = X @ rng.standard_normal(p)
    return X, y + y.std() * rng.standard_normal(n)


class Tuning:
    """`SketchedRidgeCV`, sketched and exact."""

    params = (("auto", "sparse_stack", "gaussian", "srdct", None), SIZES)
    param_names = ("sketch", "size")
    timeout = 300

    def setup(self, sketch, size):
        self.X, self.y = data(*size)
        self.fit(sketch)

    def fit(self, sketch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the boundary of the penalties is no matter here
            return lrla.SketchedRidgeCV(sketch=sketch, random_state=0).fit(self.X, self.y)

    def time_fit(self, sketch, size):
        self.fit(sketch)

    def peakmem_fit(self, sketch, size):
        self.fit(sketch)

    def track_error_of_the_risk(self, sketch, size):
        """Relative distance of the risk of plain ridge, as the sketches estimate it, from leave-one-out."""
        model = self.fit(sketch)
        exact = lrla.SketchedRidge(alpha=model.alpha_, sketch=None).fit(self.X, self.y)
        return abs(-model.best_score_ / float(exact.risk_ridge_[0]) - 1.0)
