"""Ridge estimators that take their rows in batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import seed_sequence
from lrla.linalg._exponent import values_of
from lrla.ridge._design import power_of_two
from lrla.ridge._ensemble import LARGEST
from lrla.ridge._estimator import RidgeEstimator, stacked
from lrla.ridge._moments import WIDEST, Moments, tune_moments
from lrla.sketch import sketch_all

STREAMED = 512  # columns of a sketch in a stream, whose length nobody knows
KEPT_NAMES = ("n_features_in_", "feature_names_in_")  # by a stream that starts after fit


class StreamingRidgeEstimator(RidgeEstimator):
    """Base of the ridge estimators with `partial_fit`."""

    _moments: Moments
    n_samples_seen_: int
    _units: tuple[float, float]  # powers of two that X and y are divided by before they are summed up
    _centred: bool  # whether means are taken off the rows seen

    def _stream(self, X: Any, y: Any, sample_weight: Any, alphas: np.ndarray | None, members: int, grid: Any) -> None:
        """Add the rows of a batch, and set the fitted attributes from all rows seen."""
        first = not hasattr(self, "_moments")
        fresh = not hasattr(self, "coef_")
        if first:
            for name in [name for name in vars(self) if name.endswith("_") and name not in KEPT_NAMES]:
                delattr(self, name)
        _validation.refuse_unsupported(X, "X")
        X = self._check_X(
            X, reset=fresh, like=None if first else getattr(self, "coef_", None), method="partial_fit"
        )  # fmt: skip
        X = self._cast(X)
        y, flat = self._check_response(X, y)
        w = self._check_weights(X, sample_weight, positive=1)
        if first:
            self._operators_of_stream(X, members)
            self._centred = bool(self.fit_intercept)
        elif self._centred != bool(self.fit_intercept):
            raise ValueError(
                f"fit_intercept was {self._centred} for the rows seen before, and sums of centred and other rows do not add up: "
                "set it back, or start with a clone."
            )
        elif flat != self._flat or y.shape[1] != len(self._moments.y):
            raise ValueError(
                f"y has {y.shape[1]} target(s), but the rows seen before had {len(self._moments.y)}; pass the same targets."
            )
        like = values_of(X)
        if first:
            self._units = power_of_two(X), power_of_two(y)
        X, y = map(_divided, (X, y), self._units)
        Z = self._sketched_rows(X)
        with np.errstate(over="ignore", invalid="ignore"):
            batch = Moments.of(
                _arrays.astype(Z, np.float64), _arrays.from_host(y, like),
                None if w is None else _arrays.from_host(w, like), bool(self.fit_intercept),
            )  # fmt: skip
        if not (np.all(np.isfinite(batch.M)) and np.all(np.isfinite(batch.s))):
            raise ValueError("X or y is too large for its squares to be numbers, or for the first batch: rescale it.")
        self._flat = flat
        self._moments = batch if first else self._moments.merge(batch, bool(self.fit_intercept))
        self.n_samples_seen_ = int(X.shape[0]) + (0 if first else self.n_samples_seen_)
        self._from_moments(alphas, grid, like)

    def _cast(self, X: Any) -> Any:
        """X in the type that the estimator was asked to compute in."""
        return X

    def _operators_of_stream(self, X: Any, members: int) -> None:
        p = int(X.shape[1])
        kind = self._kind()
        if kind == "rows":
            raise ValueError("sketch='rows' needs all rows at once: use fit, or another sketch.")
        q = None if kind is None or self._is_automatic() else self._size((p, p))
        if kind is not None and self._is_automatic():
            q = min(STREAMED, max(64, math.ceil(p / 5)), WIDEST // members)
            q = None if q >= p else q
        members = 1 if q is None else members
        if members * (q or p) > WIDEST:
            raise ValueError(
                f"partial_fit keeps the products of all columns of the sketches: n_estimators * n_components = "
                f"{members * (q or p)} must be at most {WIDEST}. Take fewer of one of them."
            )
        self.operators_ = [] if q is None else self._operators(p, q, members, seed_sequence(self.random_state), X)
        self.n_components_, self.sketch_ = (p, None) if q is None else (q, kind)

    def _sketched_rows(self, X: Any) -> Any:
        if not self.operators_:
            return X.toarray() if _arrays.kind(X) in ("sparse", "device_sparse") else X
        parts = sketch_all(X, self.operators_)
        return _arrays.namespace(parts[0]).concat(parts, axis=1)

    def _from_moments(self, alphas: np.ndarray | None, grid: Any, like: Any) -> None:
        """Everything fitted, from the cross-products."""
        seen = self._moments
        found = seen.decompose(self.n_components_)
        unit, unit_y = self._units
        with np.errstate(over="ignore"):
            alphas = None if alphas is None else np.clip(alphas / unit / unit, -LARGEST, LARGEST)
            tuned = tune_moments(seen, found, alphas, bool(self.fit_intercept), self.operators_, grid)
            self.eigenvalues_, mu = (v * unit * unit for v in (stacked([one.e for one in found]), tuned.mu))
            tuned = replace(
                tuned, alphas=tuned.alphas * unit * unit, lowest=tuned.lowest * unit * unit,
                curves=tuned.curves.times(unit_y * unit_y), score=tuned.score * unit_y * unit_y,
            )  # fmt: skip
        if not (np.all(np.isfinite(self.eigenvalues_)) and np.all(np.isfinite(tuned.alphas))):
            raise ValueError("X is too large for its squares to be numbers: rescale X.")
        self._store_curves(tuned, mu, self._flat)
        chosen = tuned.lambdas[tuned.index[:1]]
        W = seen.coefficients(found, chosen)[:, 0, :]
        width, K = self.n_components_, len(found)
        parts = [_arrays.from_host(W[k * width : (k + 1) * width], like) for k in range(K)]
        beta = sum(
            part if op is None else op.expand(part) for part, op in zip(parts, self.operators_ or [None], strict=True)
        )
        intercept = seen.y - (seen.z @ W) / K if self.fit_intercept else np.zeros(len(seen.y))
        self._set_coef(beta * (unit_y / unit / K), intercept * unit_y, _arrays.real_dtype(like))
        self._path, self._residuals = None, None
        self._chosen_by(tuned)


def _divided(A: Any, unit: float) -> Any:
    """A by a power of two; in float64, since its inverse may be no number of a smaller type."""
    if unit == 1.0:
        return A
    sparse = _arrays.kind(A) in ("sparse", "device_sparse")
    return (A.astype("float64") if sparse else _arrays.astype(A, np.float64)) * (1.0 / unit)
