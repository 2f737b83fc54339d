"""Sketched ridge regression with its risk, and sketched least squares.

Names are loaded when they are first used.
"""

from lrla._lazy import lazy

_PUBLIC = {
    "SketchedRidge": "lrla.ridge._sketched_ridge",
    "SketchedRidgeCV": "lrla.ridge._sketched_ridge_cv",
    "SketchedRidgeClassifierCV": "lrla.ridge._sketched_ridge_classifier_cv",
    "approx_leverage_scores": "lrla.ridge._leverage",
    "sample_rows": "lrla.ridge._leverage",
    "sketched_lstsq": "lrla.ridge._least_squares",
}

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
