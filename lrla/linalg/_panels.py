"""Block vectors as columns of a panel, the layout of the kernels; elsewhere they are rows."""

from __future__ import annotations

import numpy as np

# Vectors' elements that are copied at a time: a tile stays in cache.
COPY_TILE = 1024


def copy_transposed(source: np.ndarray, target: np.ndarray) -> None:
    """``target[:] = source.T``, tiles of the longer side at a time."""
    for low in range(0, max(source.shape), COPY_TILE):
        tile = slice(low, low + COPY_TILE)
        if source.shape[0] < source.shape[1]:
            target[tile] = source[:, tile].T
        else:
            target[:, tile] = source[tile].T
