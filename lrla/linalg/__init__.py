"""Building blocks: products with a matrix however it is stored, and orthonormalisation of blocks of vectors."""

from lrla.linalg._operator import Operator, as_operator, column_means, gram_matrix
from lrla.linalg._orthonormalize import complete_rows, orthonormalize

__all__ = ["Operator", "as_operator", "column_means", "complete_rows", "gram_matrix", "orthonormalize"]
