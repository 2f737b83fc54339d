"""Sketched ridge regression with its risk, and sketched least squares.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "SketchedRidge": "_sketched_ridge",
    "SketchedRidgeCV": "_sketched_ridge_cv",
    "SketchedRidgeClassifierCV": "_sketched_ridge_classifier_cv",
    "approx_leverage_scores": "_leverage",
    "sample_rows": "_leverage",
    "sketched_lstsq": "_least_squares",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(f"lrla.ridge.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lrla.ridge' has no attribute {name!r}")
