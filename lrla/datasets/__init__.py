"""Matrices with known truth: ratings, low-rank matrices seen in part, tables with holes."""

from lrla.datasets._low_rank import (
    LowRankObservations,
    LowRankTable,
    make_low_rank_observations,
    make_low_rank_table,
)
from lrla.datasets._ratings import Ratings, make_ratings

__all__ = [
    "LowRankObservations",
    "LowRankTable",
    "Ratings",
    "make_low_rank_observations",
    "make_low_rank_table",
    "make_ratings",
]
