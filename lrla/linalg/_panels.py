"""Block vectors as columns of a panel, the layout of the kernels; elsewhere they are rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrla._threads import share

# Vectors' elements that are copied at a time: a tile stays in cache.
COPY_TILE = 1024
# Numbers above which a pass over a panel, or over a few, is shared among threads.
SHARED = 10**5


def copy_transposed(source: np.ndarray, target: np.ndarray) -> None:
    """``target[:] = source.T``, tiles of the longer side at a time."""

    def copy(tile: slice) -> None:
        if source.shape[0] < source.shape[1]:
            target[tile] = source[:, tile].T
        else:
            target[:, tile] = source[tile].T

    by_tiles(copy, max(source.shape), source.size)


def by_tiles(task: Callable[[slice], None], length: int, size: int) -> None:
    """Call ``task(tile)`` for every tile of a side of this length; `size` numbers in all tell whether threads share it."""

    def work(first: int, last: int) -> None:
        for tile in range(first, last):
            task(slice(tile * COPY_TILE, min((tile + 1) * COPY_TILE, length)))

    count = -(-length // COPY_TILE)
    share(work, count) if size > SHARED else work(0, count)
