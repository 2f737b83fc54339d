"""Low-rank linear algebra: truncated SVD that reaches a requested accuracy, and SVDs that follow a changing matrix.

Names are loaded when they are first used, so that ``import lrla`` costs next to nothing.
"""

from __future__ import annotations

from lrla._lazy import lazy

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
    "MatrixCompletion": "lrla.completion",
    "LowRankImputer": "lrla.completion",
    "OneSidedCompletion": "lrla.completion",
    "complete_als": "lrla.completion",
    "completion_path": "lrla.completion",
    "half_sweep": "lrla.completion",
    "hajek_second_moment": "lrla.completion",
}

__all__ = [*_PUBLIC, "__version__"]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
