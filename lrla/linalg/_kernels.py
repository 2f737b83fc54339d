"""Compiled products of a sparse matrix with a few vectors: A X, A^T Y, and A^T (A X) in one pass over A.

The vectors are the columns of a *panel*, a C-contiguous (n, width) array: entry a_ij meets `width` contiguous numbers,
and `Lanes` is that group of numbers as one value, which the compiler keeps in vector registers.  Written as a plain
inner loop the same product takes 2 to 3 times as long, in places longer than SciPy's: Numba unrolls a short loop to
scalars, and keeps the accumulators of a long one in memory.  (Gram product of a 40000 x 8000 matrix, 430k entries, with
64 vectors in float64, one thread: SciPy 79 ms, plain loops 50, lanes 25.)

Rows are split among blocks fixed by the matrix alone, each with its own accumulator, which the caller sums in order:
the result is equal to the bit for any number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, models, register_model, type_callable

from lrla._jit import kernel

# The widths of a panel.  A vector costs half as much in the widest panel as in the narrowest one: a row's entries are
# read once, its loop is entered (and its end mispredicted) once, and neighbouring cache lines come together.  Wider
# ones would not fit the vector registers.  Without 16, products with 9 to 16 vectors take 1.4 times as long, in places
# longer than SciPy's.
WIDTHS = (8, 16, 32)


class Lanes(types.Type):
    """The Numba type of `width` numbers in vector registers; it exists inside kernels only."""

    def __init__(self, dtype, width):
        self.dtype, self.width = dtype, width
        super().__init__(f"Lanes({dtype} x {width})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        vector = cgutils.ir.VectorType(manager.lookup(lanes.dtype).get_value_type(), lanes.width)
        super().__init__(manager, lanes, vector)


# The four functions on lanes.  The bodies are what they mean, and what runs under NUMBA_DISABLE_JIT.


def lanes_zero(array, width):
    """`width` zeros of the array's dtype."""
    return np.zeros(width, array.dtype)


def lanes_load(array, i, like):
    """Row i of a C-contiguous (., width) array; `like` gives the width."""
    return array[i]


def lanes_store(array, i, x):
    """Write row i of a C-contiguous (., width) array."""
    array[i] = x


def lanes_axpy(a, x, y):
    """Return a x + y for a number a."""
    return a * x + y


@type_callable(lanes_zero)
def _type_zero(context):
    return lambda array, width: (
        Lanes(array.dtype, width.literal_value) if isinstance(width, types.IntegerLiteral) else None
    )


@type_callable(lanes_load)
def _type_load(context):
    return lambda array, i, like: like


@type_callable(lanes_store)
def _type_store(context):
    return lambda array, i, x: types.none


@type_callable(lanes_axpy)
def _type_axpy(context):
    return lambda a, x, y: y


@lower_builtin(lanes_zero, types.Array, types.IntegerLiteral)
def _lower_zero(context, builder, sig, args):
    return cgutils.ir.Constant(context.get_value_type(sig.return_type), None)


def _row_pointer(context, builder, sig, args, lanes):
    array = context.make_array(sig.args[0])(context, builder, args[0])
    row = context.cast(builder, args[1], sig.args[1], types.intp)
    start = builder.gep(array.data, [builder.mul(row, row.type(lanes.width))])
    return builder.bitcast(start, context.get_value_type(lanes).as_pointer())


@lower_builtin(lanes_load, types.Array, types.Integer, Lanes)
def _lower_load(context, builder, sig, args):
    value = builder.load(_row_pointer(context, builder, sig, args, sig.return_type))
    value.align = sig.return_type.dtype.bitwidth // 8  # promise no more than NumPy does
    return value


@lower_builtin(lanes_store, types.Array, types.Integer, Lanes)
def _lower_store(context, builder, sig, args):
    stored = builder.store(args[2], _row_pointer(context, builder, sig, args, sig.args[2]))
    stored.align = sig.args[2].dtype.bitwidth // 8
    return context.get_dummy_value()


@lower_builtin(lanes_axpy, types.Float, Lanes, Lanes)
def _lower_axpy(context, builder, sig, args):
    ir, (a, x, y) = cgutils.ir, args
    a = context.cast(builder, a, sig.args[0], sig.args[1].dtype)
    a = builder.insert_element(ir.Constant(x.type, ir.Undefined), a, ir.IntType(32)(0))
    a = builder.shuffle_vector(a, a, ir.Constant(ir.VectorType(ir.IntType(32), x.type.count), None))
    # "contract" lets the processor's fused multiply-add do both; no other liberty is given
    return builder.fadd(builder.fmul(a, x, flags=("contract",)), y, flags=("contract",))


@numba.njit(nogil=True)
def _do_rows(indptr, indices, data, u, first, last, panel, total, gather, scatter, zero):
    """What `_multiply` does, for the rows of one block."""
    shift = panel.shape[0] - 1 if gather else total.shape[0] - 1  # the row that belongs to u
    for i in range(first, last):
        if gather:
            y = zero
            if u.size > 0:
                y = lanes_axpy(u[i], lanes_load(panel, shift, zero), y)
            for p in range(indptr[i], indptr[i + 1]):
                y = lanes_axpy(data[p], lanes_load(panel, indices[p], zero), y)
        else:
            y = lanes_load(panel, i, zero)
        if scatter:
            if u.size > 0:
                lanes_store(total, shift, lanes_axpy(u[i], y, lanes_load(total, shift, zero)))
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                lanes_store(total, j, lanes_axpy(data[p], y, lanes_load(total, j, zero)))
        else:
            lanes_store(total, i, y)


@numba.njit(nogil=True)
def _multiply(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter, zero):
    """Products of [A, u] (A in CSR, (m, n)) with the columns of a panel.

    gather only: totals[0] = [A, u] panel.  scatter only: the sum of `totals` is [A, u]^T panel.
    Both: it is [A, u]^T ([A, u] panel), and the product in the middle is never stored.

    Parameters
    ----------
    indptr, indices, data : CSR arrays of A
    u : (m,) float64, a dense last column of the matrix; empty: there is none, and the last rows below are not used
    bounds : first row of every block of rows, and m
    blocks : (first, last), the blocks to be done: first <= block < last
    panel : (n + 1, width), or (m, width) without `gather`; the width is that of the lanes
    totals : (len(bounds) - 1, n + 1, width), or (1, m, width) without `scatter`; overwritten
    gather, scatter : bool
    """
    for block in range(blocks[0], blocks[1]):
        first, last = bounds[block], bounds[block + 1]
        total = totals[block * scatter]
        if scatter:
            for j in range(total.shape[0]):
                lanes_store(total, j, zero)
        _do_rows(indptr, indices, data, u, first, last, panel, total, gather, scatter, zero)


@numba.njit(nogil=True)
def _recur(totals, blocks, first, last, x, y, a, b, zero):
    """Rows first <= j < last of ``y = a (totals[0] + totals[1] + ...) - b x - y``, for panels x and y.

    Parameters
    ----------
    totals : (blocks (n + 1), width), one total after the other
    x, y : (n + 1, width)
    a, b : numbers
    """
    for j in range(first, last):
        total = zero
        for r in range(blocks):
            total = lanes_axpy(1.0, lanes_load(totals, r * x.shape[0] + j, zero), total)
        rest = lanes_axpy(b, lanes_load(x, j, zero), lanes_load(y, j, zero))
        lanes_store(y, j, lanes_axpy(a, total, lanes_axpy(-1.0, rest, zero)))


# A function for each width: what is not used is not compiled.


@kernel()
def _multiply_8(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter):
    _multiply(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter, lanes_zero(data, 8))


@kernel()
def _multiply_16(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter):
    _multiply(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter, lanes_zero(data, 16))


@kernel()
def _multiply_32(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter):
    _multiply(indptr, indices, data, u, bounds, blocks, panel, totals, gather, scatter, lanes_zero(data, 32))


@kernel()
def _recur_8(totals, blocks, first, last, x, y, a, b):
    _recur(totals, blocks, first, last, x, y, a, b, lanes_zero(x, 8))


@kernel()
def _recur_16(totals, blocks, first, last, x, y, a, b):
    _recur(totals, blocks, first, last, x, y, a, b, lanes_zero(x, 16))


@kernel()
def _recur_32(totals, blocks, first, last, x, y, a, b):
    _recur(totals, blocks, first, last, x, y, a, b, lanes_zero(x, 32))


# `_multiply` and `_recur` for panels of a width, without their last argument
multiply_panel = {8: _multiply_8, 16: _multiply_16, 32: _multiply_32}
recur_panel = {8: _recur_8, 16: _recur_16, 32: _recur_32}
