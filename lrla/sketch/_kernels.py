"""Compiled sketches with a few entries in every row: the table of the entries, and its products with dense and sparse data.

A table holds one uint32 for each entry of S, ``(column << 1) | (1 if negative)``, in a row for each input coordinate.

For dense data one cache line of them is handled at a time as one value in vector registers (`Line`): a line of a row of A
for S^T A, of several rows of X for X S.  What belongs to a line, n_out lines of sums, stays in the first-level cache, and an
entry of S costs one fused multiply-add.  (S^T A for 100000 x 100, 400 columns, 8 entries a row, one thread: SciPy 179 ms
with S^T in CSR and 31 in CSC, lines 27.  X S for 2000 x 4096: SciPy 146 ms, lines 29.)

Functions that only other kernels call are compiled without a way in from Python, which takes a third less time.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, models, register_model, type_callable

from lrla._jit import kernel

LINE_BYTES = 64
CHUNK = 4096  # coordinates that are transformed in the first-level cache


class Line(types.Type):
    """The Numba type of a cache line of numbers in vector registers; it exists inside kernels only."""

    def __init__(self, dtype):
        self.dtype, self.width = dtype, LINE_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Line({dtype})")


@register_model(Line)
class LineModel(models.PrimitiveModel):
    def __init__(self, manager, line):
        vector = cgutils.ir.VectorType(manager.lookup(line.dtype).get_value_type(), line.width)
        super().__init__(manager, line, vector)


# The functions on lines.  The bodies are what they mean, and what runs under NUMBA_DISABLE_JIT.


def line_at(numbers, i):
    """A line of a contiguous vector, from entry i on."""
    return numbers[i : i + LINE_BYTES // numbers.itemsize].copy()


def line_get(lines, k):
    """Line k of a contiguous vector of lines."""
    width = LINE_BYTES // lines.itemsize
    return lines[k * width : (k + 1) * width].copy()


def line_put(lines, k, x):
    """Write line k of a contiguous vector of lines."""
    width = LINE_BYTES // lines.itemsize
    lines[k * width : (k + 1) * width] = x


def line_axpy(a, x, y):
    """Return a x + y for a number a."""
    return a * x + y


@type_callable(line_at)
@type_callable(line_get)
def _type_get(context):
    return lambda numbers, i: Line(numbers.dtype)


@type_callable(line_put)
def _type_put(context):
    return lambda lines, k, x: types.none


@type_callable(line_axpy)
def _type_axpy(context):
    return lambda a, x, y: y


def _load(context, builder, sig, args, by_line):
    line = sig.return_type
    value = builder.load(_pointer(context, builder, sig, args, line, by_line))
    value.align = line.dtype.bitwidth // 8  # promise no more than NumPy does
    return value


def _pointer(context, builder, sig, args, line, by_line):
    numbers = context.make_array(sig.args[0])(context, builder, args[0])
    i = context.cast(builder, args[1], sig.args[1], types.intp)
    pointer = context.get_value_type(line).as_pointer()
    if by_line:
        return builder.gep(builder.bitcast(numbers.data, pointer), [i])
    return builder.bitcast(builder.gep(numbers.data, [i]), pointer)


@lower_builtin(line_at, types.Array, types.Integer)
def _lower_at(context, builder, sig, args):
    return _load(context, builder, sig, args, False)


@lower_builtin(line_get, types.Array, types.Integer)
def _lower_get(context, builder, sig, args):
    return _load(context, builder, sig, args, True)


@lower_builtin(line_put, types.Array, types.Integer, Line)
def _lower_put(context, builder, sig, args):
    stored = builder.store(args[2], _pointer(context, builder, sig, args, sig.args[2], True))
    stored.align = sig.args[2].dtype.bitwidth // 8
    return context.get_dummy_value()


@lower_builtin(line_axpy, types.Float, Line, Line)
def _lower_axpy(context, builder, sig, args):
    ir, (a, x, y) = cgutils.ir, args
    a = builder.insert_element(ir.Constant(x.type, ir.Undefined), a, ir.IntType(32)(0))
    a = builder.shuffle_vector(a, a, ir.Constant(ir.VectorType(ir.IntType(32), x.type.count), None))
    # "contract" lets the processor's fused multiply-add do both; no other liberty is given
    return builder.fadd(builder.fmul(a, x, flags=("contract",)), y, flags=("contract",))


# ---------------------------------------------------------------------------------------------------- dense data


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _pack(M, layout, n, tiles, c, panels):
    """The lines of n rows of M that belong to tiles first <= tile < last, in a panel for each tile."""
    width = LINE_BYTES // M.itemsize
    start, down, along = layout
    first, last = tiles
    whole = min(last, c // width) if along == 1 else first  # tiles below are contiguous in a row
    for i in range(n):
        for tile in range(first, whole):
            line_put(panels[tile - first], i, line_at(M, start + i * down + tile * width))
    for tile in range(whole, last):
        panel = panels[tile - first]
        for k in range(tile * width, min(c, (tile + 1) * width)):
            for i in range(n):
                panel[i * width + k - tile * width] = M[start + i * down + k * along]


@kernel()
def scatter(table, groups, values, M, layout, tiles, c, panels, totals, out, out_layout):
    """Add S^T M to `out`, for a range of the entries of the rows of S, and a range of the columns of M.

    Sums are in the order of the rows of M.

    Parameters
    ----------
    table : (n, entries) uint32
    groups : (g, 4) int64: first and last entry of a group that is handled together, first and last column of S in it
    values : (2 g,): the value of a positive and of a negative entry of S, for each group
    M : vector that holds (n, c) entries
    layout : M's entry (i, k) is M[layout[0] + i layout[1] + k layout[2]]
    tiles : (first, last), the lines of columns of M to be done
    c : int, columns of M
    panels, totals : scratch of zeros, (some, rows width) and (some, d width): for so many lines at a time
    out, out_layout : the same for (d, c) entries
    """
    width = LINE_BYTES // M.itemsize
    start, down, along = layout
    step = panels.shape[1] // width
    for first in range(tiles[0], tiles[1], totals.shape[0]):
        last = min(first + totals.shape[0], tiles[1])
        for tile in range(first, last):
            _copy_total(out, out_layout, c, tile, groups, totals[tile - first], False)
        for i0 in range(0, table.shape[0], step):
            i1 = min(i0 + step, table.shape[0])
            _pack(M, (start + i0 * down, down, along), i1 - i0, (first, last), c, panels)
            for tile in range(last - first):
                for g in range(len(groups)):
                    _add_panel(table[i0:i1], groups[g], values[2 * g : 2 * g + 2], panels[tile], totals[tile])
        for tile in range(first, last):
            _copy_total(out, out_layout, c, tile, groups, totals[tile - first], True)


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _add_panel(table, group, values, panel, total):
    """Add a panel's part of S^T M to a total; unsigned numbers are not asked whether they count from the end."""
    first, last = np.uint64(group[0]), np.uint64(group[1])
    for i in range(np.uint64(table.shape[0])):
        x = line_get(panel, i)
        for t in range(first, last):
            e = table[i, t]
            j = e >> np.uint32(1)
            line_put(total, j, line_axpy(values[e & np.uint32(1)], x, line_get(total, j)))


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _copy_total(out, layout, c, tile, groups, total, back):
    """The columns of `out` that belong to a tile, into a total or back."""
    width = LINE_BYTES // out.itemsize
    start, down, along = layout
    for g in range(len(groups)):
        for k in range(min(width, c - tile * width)):
            at = start + (tile * width + k) * along
            for j in range(groups[g, 2], groups[g, 3]):
                if back:
                    out[at + j * down] = total[j * width + k]
                else:
                    total[j * width + k] = out[at + j * down]


@kernel()
def gather(table, values, W, first, last, out):
    """Rows first <= i < last of S W; `values` are those of a positive and of a negative entry of S."""
    for i in range(first, last):
        for k in range(W.shape[1]):
            out[i, k] = 0
        for t in range(table.shape[1]):
            e = table[i, t]
            sign = values[e & np.uint32(1)]
            row = W[e >> np.uint32(1)]
            for k in range(W.shape[1]):
                out[i, k] += sign * row[k]


# ---------------------------------------------------------------------------------------------------- sparse data


@kernel()
def scatter_csr_rows(table, values, indptr, indices, data, first, last, out):
    """Add rows first <= i < last of X S to `out` (n, d), for X in CSR.

    `values` are those of a positive and of a negative entry of S, for each column of the table.
    """
    for i in range(first, last):
        row = out[i]
        for p in range(indptr[i], indptr[i + 1]):
            entries, x = table[indices[p]], data[p]
            for t in range(len(entries)):
                e = entries[t]
                row[e >> np.uint32(1)] += values[2 * t + (e & np.uint32(1))] * x


@kernel()
def scatter_csr(table, values, indptr, indices, data, first, last, out):
    """Add S^T A to `out` (d, c), for A in CSR and entries first <= t < last of the rows of S.

    `values` are those of a positive and of a negative entry of S.
    """
    for i in range(table.shape[0]):
        for t in range(first, last):
            e = table[i, t]
            sign = values[e & np.uint32(1)]
            row = out[e >> np.uint32(1)]
            for p in range(indptr[i], indptr[i + 1]):
                row[indices[p]] += sign * data[p]


# ---------------------------------------------------------------------------------------------------- transform


@kernel()
def hadamard(Z, first, last, scale):
    """Walsh-Hadamard transform of rows first <= i < last of Z, in place and times `scale`; their length is a power of two."""
    size = Z.shape[1]
    chunk = min(size, CHUNK)
    for i in range(first, last):
        for start in range(0, size, chunk):  # all stages that stay in the first-level cache
            part = Z[i, start : start + chunk]
            part *= scale
            h = 1
            while h < chunk:
                _butterflies(part, h)
                h *= 2
        h = chunk
        while h < size:
            _butterflies(Z[i], h)
            h *= 2


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _butterflies(x, h):
    for j in range(0, len(x), 2 * h):
        a, b = x[j : j + h], x[j + h : j + 2 * h]
        for k in range(h):
            a[k], b[k] = a[k] + b[k], a[k] - b[k]


# ---------------------------------------------------------------------------------------------------- random numbers


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _philox(i, group, purpose, k0, k1):
    """The four words of a counter of Philox4x32-10, in uint64."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1, c2, c3 = i & low, i >> half, group, purpose
    for _ in range(10):
        p, q = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (q >> half) ^ c1 ^ k0, q & low, (p >> half) ^ c3 ^ k1, p & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@kernel()
def hash_rows(k0, k1, purpose, first, last, offset, edges, table):
    """Rows first <= i < last of a table, which belong to the input coordinates from `offset` on.

    Parameters
    ----------
    k0, k1, purpose : uint64, the key of the stream and the purpose of the numbers
    edges : (entries + 1,) int64, bounds of the blocks of columns
    table : (n, entries) uint32
    """
    entries = table.shape[1]
    for i in range(first, last):
        for group in range((entries + 3) // 4):
            words = _philox(np.uint64(i + offset), np.uint64(group), purpose, k0, k1)
            for k in range(min(4, entries - 4 * group)):
                t = 4 * group + k
                w = words[k]
                length = np.uint64(edges[t + 1] - edges[t])
                column = edges[t] + np.int64(((w >> np.uint64(1)) * length) >> np.uint64(31))
                table[i, t] = (column << 1) | np.int64(w & np.uint64(1))
