"""Truncated SVD: batch to a requested accuracy, updating, and the estimators on top."""

from lrla.svd._incremental_pca import IncrementalPCA
from lrla.svd._pca import PCA
from lrla.svd._qb import qb
from lrla.svd._randomized import randomized_svd
from lrla.svd._truncated import truncated_svd
from lrla.svd._truncated_svd import TruncatedSVD
from lrla.svd._updatable_svd import UpdatableSVD

__all__ = ["PCA", "IncrementalPCA", "TruncatedSVD", "UpdatableSVD", "qb", "randomized_svd", "truncated_svd"]
