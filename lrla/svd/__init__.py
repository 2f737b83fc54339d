"""Truncated SVD: batch to a requested accuracy, updating, and the estimators on top.

Names are loaded when they are first used: dense batch work then needs no compiler, and array routines no scikit-learn
estimators.
"""

from lrla._lazy import lazy

_PUBLIC = {
    "PCA": "lrla.svd._pca",
    "IncrementalPCA": "lrla.svd._incremental_pca",
    "TruncatedSVD": "lrla.svd._truncated_svd",
    "UpdatableSVD": "lrla.svd._updatable_svd",
    "qb": "lrla.svd._qb",
    "randomized_svd": "lrla.svd._randomized",
    "truncated_svd": "lrla.svd._truncated",
}

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
