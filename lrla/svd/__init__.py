"""Truncated SVD: batch to a requested accuracy, updating, and the estimators on top.

Names are loaded when they are first used: dense batch work then needs no compiler, and array routines no scikit-learn
estimators.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "PCA": "_pca",
    "IncrementalPCA": "_incremental_pca",
    "TruncatedSVD": "_truncated_svd",
    "UpdatableSVD": "_updatable_svd",
    "qb": "_qb",
    "randomized_svd": "_randomized",
    "truncated_svd": "_truncated",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(f"lrla.svd.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lrla.svd' has no attribute {name!r}")
