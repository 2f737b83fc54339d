"""Low-rank linear algebra: truncated SVD that reaches a requested accuracy, and SVDs that follow a changing matrix.

Names are loaded when they are first used, so that ``import lrla`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> module that holds it
_PUBLIC = {
    "truncated_svd": "lrla.svd",
    "randomized_svd": "lrla.svd",
    "qb": "lrla.svd",
    "UpdatableSVD": "lrla.svd",
    "TruncatedSVD": "lrla.svd",
    "PCA": "lrla.svd",
    "IncrementalPCA": "lrla.svd",
    "make_sketch": "lrla.sketch",
    "sketch_all": "lrla.sketch",
    "SketchTransform": "lrla.sketch",
    "SketchedRidge": "lrla.ridge",
    "SketchedRidgeCV": "lrla.ridge",
    "SketchedRidgeClassifierCV": "lrla.ridge",
    "sketched_lstsq": "lrla.ridge",
    "approx_leverage_scores": "lrla.ridge",
    "sample_rows": "lrla.ridge",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lrla' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
