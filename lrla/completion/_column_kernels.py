"""The compiled loop that turns rows of observed entries into columns, some at a time."""

from __future__ import annotations

import numpy as np

from lrla._jit import fetch, kernel

AHEAD = 6  # rows between that which is read and the one whose entries are fetched into the cache
NEXT = np.uint64(16)  # entries of a row after which they are likely to stand in another cache line


@kernel(error_model="numpy")
def gather_columns(
    indptr, indices, values, weights, left_out, cursors, skipped, columns, places, out_indices, out_values, out_weights
):
    """The entries of some columns by columns, from rows that have been read up to the first of these columns.

    Parameters
    ----------
    indptr, indices, values, weights : CSR arrays of the observations, columns ascending in every row; weights may be empty
    left_out : places of entries that are left out, ascending, and then the number of entries
    cursors, skipped : (m,), changed: where in every row the columns begin, and how many are left out before
    columns : (first, last)
    places : (last - first,), changed: where in the results every column begins
    out_indices, out_values, out_weights : the rows, values and weights of the entries; the last one may be empty
    """
    first, last = columns
    m = len(cursors)
    for i in range(m):
        if i + AHEAD < m:
            p = np.uint64(cursors[i + AHEAD])
            fetch(indices, p)
            fetch(values, p)
            fetch(indices, p + NEXT)
            fetch(values, p + NEXT)
        p, h, stop = np.uint64(cursors[i]), np.uint64(skipped[i]), np.uint64(indptr[i + 1])
        while p < stop and indices[p] < last:
            if np.uint64(left_out[h]) == p:
                h += np.uint64(1)
            else:
                j = np.uint64(indices[p] - first)
                q = np.uint64(places[j])
                places[j] += 1
                out_indices[q] = i
                out_values[q] = values[p]
                if len(weights):
                    out_weights[q] = weights[p]
            p += np.uint64(1)
        cursors[i], skipped[i] = p, h
