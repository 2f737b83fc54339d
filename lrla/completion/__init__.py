"""Matrix completion: ratings, tables with holes, and the second moment where rows show two entries each.

Names are loaded when they are first used.
"""

from lrla._lazy import lazy

_PUBLIC = {
    "complete_als": "lrla.completion._als",
    "completion_path": "lrla.completion._automatic",
    "half_sweep": "lrla.completion._half_sweep",
    "LowRankImputer": "lrla.completion._low_rank_imputer",
    "MatrixCompletion": "lrla.completion._matrix_completion",
    "OneSidedCompletion": "lrla.completion._one_sided_completion",
    "hajek_second_moment": "lrla.completion._moments",
}

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
