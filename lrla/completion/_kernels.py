"""Compiled loops of alternating least squares over the observed entries of a matrix.

Factors are held as rows of a whole number of cache lines (zeros at the end), and a *line* is handled as one value in
vector registers.  Four entries are taken at a time: their four dot products share the loads of the row's vector and one
reduction, and their four contributions one load and one store of the row's sum.  The numbers of four entries are a *four*,
one value as well.

The first fit waits for the compiler, so little is left to it.  All passes over the entries of a row go through one place in
one kernel, arrays are brought down to the places where they start, loops over lines are written out as they are to be, and
functions that only other kernels call have no way in from Python: half the time of a function for each kind of pass.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, models, register_model, type_callable

from lrla._jit import emit_fetch, kernel

LINE_BYTES = 64
# unsigned numbers are not asked whether they count from the end
NONE, ONE, TWO, THREE, FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
AHEAD = np.uint64(8)  # entries between that which is worked on and those whose features are fetched into the cache
CHUNK = np.uint64(1024)  # entries whose contributions are summed before they join the sum of the row
# The rows of lines that a row is worked on in: x, r, p, A p, M, lam, the sum of a chunk, and then gathered features.
X0, R, P, AP, M, LAM, PART, KEPT = (np.uint64(row) for row in range(8))
WORK_ROWS = 7 + 4  # with those that the last four gathered features may take too many
SUMS_ONLY = -1  # as the largest number of steps


class Line(types.Type):
    """The Numba type of a few numbers in vector registers, a cache line or four; it exists inside kernels only."""

    def __init__(self, dtype, width):
        self.dtype, self.width = dtype, width
        super().__init__(f"CompletionLine({dtype} x {width})")


@register_model(Line)
class LineModel(models.PrimitiveModel):
    def __init__(self, manager, line):
        vector = cgutils.ir.VectorType(manager.lookup(line.dtype).get_value_type(), line.width)
        super().__init__(manager, line, vector)


def _line(dtype):
    return Line(dtype, LINE_BYTES * 8 // dtype.bitwidth)


# The functions on lines.  The bodies are what they mean, and what runs under NUMBA_DISABLE_JIT.  Vectors are told by where
# they start.


def one_version():
    """Have no loop compiled once more for every condition in it: where lines are values there is nothing to gain."""


def start_of(array):
    """A contiguous array as no more than the place where it starts: a value that takes far less time to compile."""
    return array


def number(numbers, p):
    """Number p."""
    return numbers[p]


def line_zero(numbers):
    """A line of zeros of the vector's dtype."""
    return np.zeros(LINE_BYTES // numbers.itemsize, numbers.dtype)


def line_get(numbers, k):
    """Line k of a contiguous vector of lines."""
    width = LINE_BYTES // numbers.itemsize
    return numbers[int(k) * width : (int(k) + 1) * width].copy()


def line_put(numbers, k, x):
    """Write line k of a contiguous vector of lines."""
    width = LINE_BYTES // numbers.itemsize
    numbers[int(k) * width : (int(k) + 1) * width] = x


def line_axpy(a, x, y):
    """Return a x + y for a number a."""
    return a * x + y


def line_fma(x, y, z):
    """Return x y + z, entry by entry."""
    return x * y + z


def line_ratio(x, y):
    """Return x / y, entry by entry."""
    return x / y


def line_sums(a, b, c, d):
    """The sums of four lines, as a four."""
    return np.array([a.sum(), b.sum(), c.sum(), d.sum()])


def lines_clear(numbers, k, lines):
    """Make a row of lines zero that starts at line k."""
    numbers[_row(numbers, k, lines)] = 0


def lines_copy(numbers, j, out, k, lines):
    """Copy a row of lines from line j of one vector to line k of another."""
    out[_row(out, k, lines)] = numbers[_row(numbers, j, lines)]


def lines_fetch(numbers, a, b, c, d, lines):
    """Say that the rows of lines at a, b, c and d are read soon."""


def lines_gather(numbers, a, b, c, d, out, k, lines):
    """Copy the rows of lines at a, b, c and d one after the other to line k of another vector."""
    for place, j in enumerate((a, b, c, d)):
        lines_copy(numbers, j, out, k + place * lines, lines)


def lines_products(numbers, a, b, c, d, x, k, lines):
    """The four of the products of the rows of lines at a, b, c and d with that of x at k."""
    x = x[_row(x, k, lines)]
    return np.array([numbers[_row(numbers, j, lines)] @ x for j in (a, b, c, d)])


def lines_add(numbers, a, b, c, d, t, out, k, lines):
    """Add to the row of `out` at k those at a, b, c and d times the numbers of the four t."""
    for j, factor in zip((a, b, c, d), t, strict=True):
        out[_row(out, k, lines)] += factor * numbers[_row(numbers, j, lines)]


def lines_scatter(x, k, t, out, a, b, c, d, lines):
    """Add the row of lines of x at k, times the numbers of the four t, to the rows of `out` at a, b, c and d."""
    for j, factor in zip((a, b, c, d), t, strict=True):
        out[_row(out, j, lines)] += factor * x[_row(x, k, lines)]


def _row(numbers, k, lines):
    width = LINE_BYTES // numbers.itemsize
    return slice(int(k) * width, (int(k) + int(lines)) * width)


def rows_of(indices, p, q, r, s, lines):
    """The first lines of the rows whose numbers stand at four places."""
    return tuple(np.uint64(indices[place]) * lines for place in (p, q, r, s))


def four_get(numbers, p, n):
    """The four of the numbers from p on, zero where there are but n < 4."""
    x = np.zeros(4, numbers.dtype)
    x[: min(n, 4)] = numbers[p : p + min(n, 4)]
    return x


def four_put(numbers, p, n, x):
    """Write the four x to the numbers from p on, or n < 4 of them."""
    numbers[p : p + min(n, 4)] = x[: min(n, 4)]


def four_ones(numbers, n):
    """A four of ones, zero where there are but n < 4."""
    return (np.arange(4) < n).astype(numbers.dtype)


def four_sum(x):
    """The sum of a four."""
    return x.sum()


def _typed(function, result):
    """Tell the type of the result by those of the arguments."""
    type_callable(function)(lambda context: result)


_typed(one_version, lambda: types.none)
_typed(start_of, lambda array: types.CPointer(array.dtype))
_typed(number, lambda numbers, p: numbers.dtype)
_typed(line_zero, lambda numbers: _line(numbers.dtype))
_typed(line_get, lambda numbers, k: _line(numbers.dtype))
_typed(line_put, lambda numbers, k, x: types.none)
_typed(line_axpy, lambda a, x, y: y)
_typed(line_fma, lambda x, y, z: z)
_typed(line_ratio, lambda x, y: y)
_typed(line_sums, lambda a, b, c, d: Line(a.dtype, 4))
_typed(lines_clear, lambda numbers, k, lines: types.none)
_typed(lines_copy, lambda numbers, j, out, k, lines: types.none)
_typed(lines_fetch, lambda numbers, a, b, c, d, lines: types.none)
_typed(lines_gather, lambda numbers, a, b, c, d, out, k, lines: types.none)
_typed(lines_products, lambda numbers, a, b, c, d, x, k, lines: Line(numbers.dtype, 4))
_typed(lines_add, lambda numbers, a, b, c, d, t, out, k, lines: types.none)
_typed(lines_scatter, lambda x, k, t, out, a, b, c, d, lines: types.none)
_typed(four_get, lambda numbers, p, n: Line(numbers.dtype, 4))
_typed(rows_of, lambda indices, p, q, r, s, lines: types.UniTuple(types.uint64, 4))
_typed(four_put, lambda numbers, p, n, x: types.none)
_typed(four_ones, lambda numbers, n: Line(numbers.dtype, 4))
_typed(four_sum, lambda x: x.dtype)


@lower_builtin(one_version)
def _lower_one_version(context, builder, sig, args):
    builder.function.attributes.add("optsize")
    return context.get_dummy_value()


@lower_builtin(start_of, types.Array)
def _lower_start_of(context, builder, sig, args):
    return context.data_model_manager[sig.args[0]].get(builder, args[0], "data")


@lower_builtin(number, types.CPointer, types.Integer)
def _lower_number(context, builder, sig, args):
    return builder.load(builder.gep(args[0], [args[1]]))


@lower_builtin(line_zero, types.CPointer)
def _lower_zero(context, builder, sig, args):
    return cgutils.ir.Constant(context.get_value_type(sig.return_type), None)


def _place(context, builder, numbers, k, dtype):
    return builder.gep(builder.bitcast(numbers, context.get_value_type(_line(dtype)).as_pointer()), [k])


def _get(context, builder, numbers, k, dtype):
    value = builder.load(_place(context, builder, numbers, k, dtype))
    value.align = dtype.bitwidth // 8  # promise no more than NumPy does
    return value


def _put(context, builder, numbers, k, x, dtype):
    builder.store(x, _place(context, builder, numbers, k, dtype)).align = dtype.bitwidth // 8
    return context.get_dummy_value()


@lower_builtin(line_get, types.CPointer, types.Integer)
def _lower_get(context, builder, sig, args):
    return _get(context, builder, *args, sig.args[0].dtype)


@lower_builtin(line_put, types.CPointer, types.Integer, Line)
def _lower_put(context, builder, sig, args):
    return _put(context, builder, *args, sig.args[0].dtype)


# "contract" lets the processor's fused multiply-add do both operations; no other liberty is given.


def _multiply_add(builder, x, y, z):
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def _lanes(builder, x, lanes):
    """These lanes of a vector, as a vector."""
    kind = cgutils.ir.VectorType(cgutils.ir.IntType(32), len(lanes))
    return builder.shuffle_vector(x, x, cgutils.ir.Constant(kind, lanes))


@lower_builtin(line_axpy, types.Float, Line, Line)
def _lower_axpy(context, builder, sig, args):
    ir, (a, x, y) = cgutils.ir, args
    a = context.cast(builder, a, sig.args[0], sig.args[1].dtype)
    a = builder.insert_element(ir.Constant(x.type, ir.Undefined), a, ir.IntType(32)(0))
    return _multiply_add(builder, _lanes(builder, a, [0] * x.type.count), x, y)


@lower_builtin(line_fma, Line, Line, Line)
def _lower_fma(context, builder, sig, args):
    return _multiply_add(builder, *args)


@lower_builtin(line_ratio, Line, Line)
def _lower_ratio(context, builder, sig, args):
    return builder.fdiv(*args)


@lower_builtin(line_sums, Line, Line, Line, Line)
def _lower_sums(context, builder, sig, args):
    return _sums(builder, *args)


def _sums(builder, a, b, c, d):
    """Add lines in pairs while they are interleaved: 9 shuffles and adds each for four lines, where four sums take 16."""
    ir = cgutils.ir

    def pick(x, y, lanes):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return builder.shuffle_vector(x, y, mask)

    def together(x, y, low, high):
        width = x.type.count
        places = [[group + lane if lane < 4 else width + group + lane - 4 for group in range(0, width, 4) for lane in lanes]
                  for lanes in (low, high)]  # fmt: skip
        return builder.fadd(pick(x, y, places[0]), pick(x, y, places[1]))

    ab = together(a, b, (0, 4, 1, 5), (2, 6, 3, 7))  # in every group of four lanes: a, b, a, b
    cd = together(c, d, (0, 4, 1, 5), (2, 6, 3, 7))
    total = together(ab, cd, (0, 1, 4, 5), (2, 3, 6, 7))  # a, b, c, d
    while total.type.count > 4:
        half = total.type.count // 2
        low, high = (_lanes(builder, total, list(range(start, start + half))) for start in (0, half))
        total = builder.fadd(low, high)
    return total


@lower_builtin(lines_clear, types.VarArg(types.Any))
def _lower_clear(context, builder, sig, args):
    (numbers, k, lines), dtype = args, sig.args[0].dtype
    zero = cgutils.ir.Constant(context.get_value_type(_line(dtype)), None)
    with cgutils.for_range(builder, lines) as loop:
        _put(context, builder, numbers, builder.add(k, loop.index), zero, dtype)
    return context.get_dummy_value()


@lower_builtin(lines_copy, types.VarArg(types.Any))
def _lower_copy(context, builder, sig, args):
    (numbers, j, out, k, lines), dtype = args, sig.args[0].dtype
    with cgutils.for_range(builder, lines) as loop:
        x = _get(context, builder, numbers, builder.add(j, loop.index), dtype)
        _put(context, builder, out, builder.add(k, loop.index), x, dtype)
    return context.get_dummy_value()


@lower_builtin(lines_fetch, types.VarArg(types.Any))
def _lower_fetch(context, builder, sig, args):
    numbers, *rows, lines = args
    with cgutils.for_range(builder, lines) as loop:
        for row in rows:
            emit_fetch(builder, _place(context, builder, numbers, builder.add(row, loop.index), sig.args[0].dtype))
    return context.get_dummy_value()


@lower_builtin(lines_gather, types.VarArg(types.Any))
def _lower_gather(context, builder, sig, args):
    (numbers, *rows, out, k, lines), dtype = args, sig.args[0].dtype
    with cgutils.for_range(builder, lines) as loop:
        place = builder.add(k, loop.index)
        for row in rows:
            x = _get(context, builder, numbers, builder.add(row, loop.index), dtype)
            _put(context, builder, out, place, x, dtype)
            place = builder.add(place, lines)
    return context.get_dummy_value()


@lower_builtin(lines_products, types.VarArg(types.Any))
def _lower_products(context, builder, sig, args):
    (numbers, *rows, x, k, lines), dtype = args, sig.args[0].dtype
    line = context.get_value_type(_line(dtype))
    totals = [cgutils.alloca_once(builder, line) for _ in rows]
    for total in totals:
        builder.store(cgutils.ir.Constant(line, None), total)
    with cgutils.for_range(builder, lines) as loop:
        y = _get(context, builder, x, builder.add(k, loop.index), dtype)
        for row, total in zip(rows, totals, strict=True):
            value = _get(context, builder, numbers, builder.add(row, loop.index), dtype)
            builder.store(_multiply_add(builder, value, y, builder.load(total)), total)
    return _sums(builder, *(builder.load(total) for total in totals))


@lower_builtin(lines_add, types.VarArg(types.Any))
def _lower_add(context, builder, sig, args):
    (numbers, *rows, t, out, k, lines), dtype = args, sig.args[0].dtype
    factors = [_lanes(builder, t, [lane] * _line(dtype).width) for lane in range(4)]
    with cgutils.for_range(builder, lines) as loop:
        place = builder.add(k, loop.index)
        y = _get(context, builder, out, place, dtype)
        for row, factor in zip(rows, factors, strict=True):
            value = _get(context, builder, numbers, builder.add(row, loop.index), dtype)
            y = _multiply_add(builder, factor, value, y)
        _put(context, builder, out, place, y, dtype)
    return context.get_dummy_value()


@lower_builtin(lines_scatter, types.VarArg(types.Any))
def _lower_scatter(context, builder, sig, args):
    (x, k, t, out, *rows, lines), dtype = args, sig.args[0].dtype
    factors = [_lanes(builder, t, [lane] * _line(dtype).width) for lane in range(4)]
    with cgutils.for_range(builder, lines) as loop:
        value = _get(context, builder, x, builder.add(k, loop.index), dtype)
        for row, factor in zip(rows, factors, strict=True):  # one after the other: the last rows may be the same
            place = builder.add(row, loop.index)
            y = _multiply_add(builder, factor, value, _get(context, builder, out, place, dtype))
            _put(context, builder, out, place, y, dtype)
    return context.get_dummy_value()


@lower_builtin(rows_of, types.VarArg(types.Any))
def _lower_rows_of(context, builder, sig, args):
    indices, *places, lines = args
    rows = (builder.zext(builder.load(builder.gep(indices, [place])), lines.type) for place in places)
    return context.make_tuple(builder, sig.return_type, [builder.mul(row, lines) for row in rows])


def _few(builder, n, lane):
    """Whether there are no more than `lane` numbers."""
    return builder.icmp_unsigned("<=", n, n.type(lane))


@lower_builtin(four_get, types.CPointer, types.Integer, types.Integer)
def _lower_four_get(context, builder, sig, args):
    ir, four = cgutils.ir, context.get_value_type(sig.return_type)
    first = builder.gep(args[0], [args[1]])
    result = cgutils.alloca_once(builder, four)
    with builder.if_else(_few(builder, args[2], 3)) as (some, all_four):
        with some:
            x = ir.Constant(four, None)
            for lane in range(3):  # the first number stands in for those that are not there
                absent = _few(builder, args[2], lane)
                place = builder.select(absent, args[1].type(0), args[1].type(lane))
                value = builder.load(builder.gep(first, [place]))
                value = builder.select(absent, four.element(0.0), value)
                x = builder.insert_element(x, value, ir.IntType(32)(lane))
            builder.store(x, result)
        with all_four:
            value = builder.load(builder.bitcast(first, four.as_pointer()))
            value.align = sig.return_type.dtype.bitwidth // 8
            builder.store(value, result)
    return builder.load(result)


@lower_builtin(four_put, types.CPointer, types.Integer, types.Integer, Line)
def _lower_four_put(context, builder, sig, args):
    ir = cgutils.ir
    first = builder.gep(args[0], [args[1]])
    with builder.if_else(_few(builder, args[2], 3)) as (some, all_four):
        with some:
            for lane in range(3):
                with builder.if_then(builder.not_(_few(builder, args[2], lane))):
                    value = builder.extract_element(args[3], ir.IntType(32)(lane))
                    builder.store(value, builder.gep(first, [args[1].type(lane)]))
        with all_four:
            stored = builder.store(args[3], builder.bitcast(first, args[3].type.as_pointer()))
            stored.align = sig.args[3].dtype.bitwidth // 8
    return context.get_dummy_value()


@lower_builtin(four_ones, types.CPointer, types.Integer)
def _lower_four_ones(context, builder, sig, args):
    ir, four = cgutils.ir, context.get_value_type(sig.return_type)
    n = builder.select(_few(builder, args[1], 4), args[1], args[1].type(4))
    n = builder.trunc(n, ir.IntType(32))
    n = builder.insert_element(ir.Constant(ir.VectorType(ir.IntType(32), 4), ir.Undefined), n, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 1, 2, 3])
    there = builder.icmp_signed("<", lanes, _lanes(builder, n, [0] * 4))
    return builder.select(there, ir.Constant(four, [1.0] * 4), ir.Constant(four, None))


@lower_builtin(four_sum, Line)
def _lower_four_sum(context, builder, sig, args):
    (x,) = args
    half = builder.fadd(_lanes(builder, x, [0, 1]), _lanes(builder, x, [2, 3]))
    a, b = (builder.extract_element(half, cgutils.ir.IntType(32)(lane)) for lane in range(2))
    return builder.fadd(a, b)


# ---------------------------------------------------------------------------------------------------- one row

_part = numba.njit(
    nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # of a kernel


@_part
def _begin(work, shape, weight, count, tiny, lines):
    """Start of a row: lam += penalty, r = -lam x, the preconditioner M = 1 / D, p = A p = 0.

    lam begins as what is added to the penalties.  Returns the penalty of x, and x D x.
    """
    one_version()
    total = size = zero = line_zero(work)
    for k in range(lines):
        x, free = line_get(work, k), line_get(shape, lines + k)
        lam = line_axpy(weight, line_get(shape, k), line_get(work, LAM * lines + k))
        lam_x = line_fma(lam, x, zero)
        curvature = line_axpy(count, line_get(shape, TWO * lines + k), line_axpy(tiny, free, lam))
        total, size = line_fma(lam_x, x, total), line_fma(line_fma(curvature, x, zero), x, size)
        line_put(work, LAM * lines + k, lam)
        line_put(work, R * lines + k, line_axpy(-1.0, lam_x, zero))
        line_put(work, M * lines + k, line_ratio(free, curvature))
        line_put(work, P * lines + k, zero)
        line_put(work, AP * lines + k, zero)
    return four_sum(line_sums(total, zero, zero, zero)), four_sum(line_sums(size, zero, zero, zero))


@_part
def _pass(F, indices, values, weights, entries, kinds, form, work, at, out, lines, span):
    """The row of `work` at `out` += sum w t f over some entries; returns sum w t^2 where there are targets.

    Parameters
    ----------
    F, indices, values, weights : starts of the features, the entries' columns, values and weights
    entries : (start, stop, fetched): start <= p < stop, and features of entries before `fetched` are fetched ahead
    kinds : (weighted, targets, products, keep, gathered).  t is scale y - mean, or less f x, or f x alone: with targets,
        products or both.  keep: the features are gathered in `work`; gathered: they are there
    form : (scale, mean)
    work : start of the rows of lines that a row is worked on in
    at : row of `work` where x is
    span : (inner, skip, outer): x and f are multiplied in their first `inner` lines, and summed are the `outer` lines of f
        after the first `skip`
    """
    one_version()
    start, stop, fetched = entries
    inner, skip, outer = span
    weighted, targets, products, keep, gathered = kinds
    scale, mean = form
    none = four_ones(work, np.uint64(0))
    minus = line_axpy(-mean, four_ones(work, FOUR), none)
    loss = 0.0
    source = work if gathered else F
    for first in range(start, stop, CHUNK):
        squares = none
        last = first + CHUNK if stop - first > CHUNK else stop
        lines_clear(work, PART * lines, outer)
        for p in range(first, last, FOUR):
            n = stop - p
            if p + AHEAD + FOUR <= fetched:
                a, b, c, d = rows_of(indices, p + AHEAD, p + AHEAD + ONE, p + AHEAD + TWO, p + AHEAD + THREE, lines)
                lines_fetch(F, a, b, c, d, lines)
            q1, q2, q3 = p + ONE, p + TWO, p + THREE
            if n < FOUR:  # the last entry stands in for those that are not there
                q1 = q1 if n > ONE else p
                q2 = q2 if n > TWO else q1
                q3 = q2
            kept = KEPT * lines + (p - start) * lines
            if gathered:
                a, b, c, d = kept, kept + (q1 - p) * lines, kept + (q2 - p) * lines, kept + (q3 - p) * lines
            else:
                a, b, c, d = rows_of(indices, p, q1, q2, q3, lines)
            t = none
            if products:
                t = lines_products(source, a, b, c, d, work, at * lines, inner)
            w = four_get(weights, p, n) if weighted else four_ones(work, n)
            if targets:
                t = line_axpy(-1.0, t, line_axpy(scale, four_get(values, p, n), minus))
                squares = line_fma(line_fma(w, t, none), t, squares)
            t = line_fma(w, t, none)
            lines_add(source, a + skip, b + skip, c + skip, d + skip, t, work, PART * lines, outer)
            if keep:
                lines_gather(F, a, b, c, d, work, kept, lines)
        for k in range(outer):
            y = line_axpy(1.0, line_get(work, PART * lines + k), line_get(work, out * lines + k))
            line_put(work, out * lines + k, y)
        loss += four_sum(squares)
    return loss


@_part
def _unseen(X, base, shape, lines):
    """The row of X that begins at `base`, which has no entry: zero where it is free, and else as it is."""
    zero = line_zero(X)
    for k in range(lines):
        x = line_get(X, base + k)
        line_put(X, base + k, line_fma(line_axpy(-1.0, line_get(shape, lines + k), zero), x, x))


@_part
def _direct(work, beta, lines):
    """p = M r + beta p and A p = lam p."""
    zero = line_zero(work)
    for k in range(lines):
        y = line_axpy(beta, line_get(work, P * lines + k), zero)
        y = line_fma(line_get(work, M * lines + k), line_get(work, R * lines + k), y)
        line_put(work, P * lines + k, y)
        line_put(work, AP * lines + k, line_fma(line_get(work, LAM * lines + k), y, zero))


@_part
def _step(work, alpha, lines):
    """x += alpha p and r -= alpha A p; returns r M r."""
    total = zero = line_zero(work)
    for k in range(lines):
        line_put(work, X0 * lines + k, line_axpy(alpha, line_get(work, P * lines + k), line_get(work, X0 * lines + k)))
        y = line_axpy(-alpha, line_get(work, AP * lines + k), line_get(work, R * lines + k))
        line_put(work, R * lines + k, y)
        total = line_fma(line_fma(line_get(work, M * lines + k), y, zero), y, total)
    return four_sum(line_sums(total, zero, zero, zero))


@_part
def _curvature(work, lines):
    """The product of p and A p."""
    total = zero = line_zero(work)
    for k in range(lines):
        total = line_fma(line_get(work, P * lines + k), line_get(work, AP * lines + k), total)
    return four_sum(line_sums(total, zero, zero, zero))


# ---------------------------------------------------------------------------------------------------- half-sweep


@kernel(error_model="numpy")
def half_sweep_rows(
    indptr, indices, values, weights, counts, row_weights, F, X, spread, shape, numbers, most, tail, bounds, blocks, work,
    sums,
):  # fmt: skip
    """Conjugate gradients for the rows of a few blocks, each from where it is, with the features F fixed.

    Row i minimises sum_p w_p (scale values_p - mean - f_p x)^2 + sum_a (row_weights_i penalty_a + spread_ia) x_a^2 over the
    free x_a.  It can also just add up features, with most = `SUMS_ONLY`: X_i = sum_p w_p (scale values_p - mean) f_p, or of
    residuals, where the last lines of features and of X are a `tail`: tail of X_i = sum_p w_p (scale values_p - mean - f_p x_i)
    tail of f_p, with the product over the lines before.

    Parameters
    ----------
    indptr, indices, values : CSR arrays of the observations
    weights : (nnz,), or empty: all are 1
    counts, row_weights : (m,); a row whose count is 0 gets zeros.  Not used for sums
    F, X : (n lines width,), (m lines width,), the rows of lines; X is changed
    spread : in the shape of X, overwritten by the variances of X, or empty: zero
    shape : (3 lines width,): of every coordinate the penalty, whether it is free (1 or 0), and d, the mean square of the
        feature, which is positive where the coordinate is not free
    numbers : six numbers of the dtype: scale; mean; the smallest one by which may be divided; the square of rounding noise (a
        row is done when its residual is noise beside its terms, since further steps would lead along directions that no
        entry sees); the variance of the noise of the observations; the tolerance
    most : largest number of steps
    tail : number of lines, 0 unless most = `SUMS_ONLY`
    bounds : first row of every block, and m
    blocks : (first, last), the blocks to be done
    work : vector of lines: room for `WORK_ROWS` rows of lines, and for the features of a row where they shall be gathered
    sums : (blocks, 4) float64: of every block the loss and the penalty before, what they went down by, and entries x steps
    """
    one_version()
    lines = np.uint64(len(shape) * F.itemsize // (3 * LINE_BYTES))
    room = np.uint64(len(work) * F.itemsize // LINE_BYTES) // lines - np.uint64(WORK_ROWS)
    scale, mean, tiny, rounding, variance, tolerance = numbers
    spreads, weighted, last = len(spread) > 0, len(weights) > 0, np.uint64(len(indices))
    solve, tail = most >= 0, np.uint64(tail)
    outer = tail if tail > NONE else lines
    span = lines - tail, lines - outer, outer
    indptr, indices, values, weights, counts, row_weights, F, X, spread, shape, bounds, work = (
        start_of(indptr), start_of(indices), start_of(values), start_of(weights), start_of(counts), start_of(row_weights),
        start_of(F), start_of(X), start_of(spread), start_of(shape), start_of(bounds), start_of(work),
    )  # fmt: skip
    line, zero = line_zero(F), scale - scale
    for block in range(blocks[0], blocks[1]):
        loss, ridge, gain, products = 0.0, 0.0, 0.0, 0.0
        for i in range(number(bounds, block), number(bounds, block + 1)):
            start, stop = np.uint64(number(indptr, i)), np.uint64(number(indptr, i + 1))
            base, size = np.uint64(i) * lines, zero
            if solve and not number(counts, i) > 0:
                _unseen(X, base, shape, lines)
                if spreads:
                    lines_clear(spread, base, lines)
                continue
            lines_copy(X, base, work, X0 * lines, lines)
            if solve:
                lines_clear(work, LAM * lines, lines)
                if spreads:
                    lines_copy(spread, base, work, LAM * lines, lines)
                penalty, size = _begin(work, shape, number(row_weights, i), number(counts, i), tiny, lines)
                ridge += penalty
                if spreads:
                    for k in range(lines):
                        line_put(spread, base + k, line_axpy(variance, line_get(work, M * lines + k), line))
            else:
                lines_clear(work, R * lines, lines)
            keep = (stop - start <= room) & (most > 0)
            rho, least, beta, step = zero, zero, zero, 0
            while True:  # the residual first, then the steps
                first = step == 0
                at, out, fetched = (X0, R, last) if first else (P, AP, NONE if keep else stop)
                kinds = weighted, first, solve | (tail > NONE), keep & first, keep & (not first)
                total = _pass(
                    F, indices, values, weights, (start, stop, fetched), kinds, (scale, mean), work, at, out, lines, span
                )  # fmt: skip
                alpha = zero
                if first:
                    loss += total
                    if not solve:
                        break
                else:
                    s = _curvature(work, lines)
                    if not s > 0:
                        step -= 1
                        break
                    alpha = rho / s
                    gain += alpha * rho
                after = _step(work, alpha, lines)
                if first:
                    wanted, noise = tolerance * tolerance * after, rounding * (after + size)
                    least = wanted if wanted > noise else noise
                else:
                    beta = after / rho
                rho = after
                if not (step < most and rho > least and rho > 0):
                    break
                _direct(work, beta, lines)
                step += 1
            if solve:
                lines_copy(work, X0 * lines, X, base, lines)
            else:
                lines_copy(work, R * lines, X, base + (lines - outer), outer)
            products += step * (stop - start)
        sums[block, 0], sums[block, 1], sums[block, 2], sums[block, 3] = loss, ridge, gain, products


@kernel(error_model="numpy")
def scatter_residuals(indptr, indices, values, weights, F, X, form, tail, rows, squares, kept, out):
    """Sums over the entries of columns, from entries by rows: out_j += sum_i w_ij (scale x_ij - mean - f_j x_i) tail of x_i.

    With `squares` the tail of x_i is first made the like sum over the entries of row i, with that of f_j, times squares_i.

    Parameters
    ----------
    indptr, indices, values, weights, F, X : as for `half_sweep_rows`
    form : (scale, mean, of the dtype, and number of lines of a row)
    tail : the number of lines at the end of a row that are left out of the product
    rows : (first, last)
    squares : (m,) or empty
    kept : room for as many numbers as the longest row has entries
    out : (n tail width,)
    """
    one_version()
    scale, mean, lines = form
    lines, tail, both, size = np.uint64(lines), np.uint64(tail), len(squares) > 0, np.uint64(len(indices))
    weighted = len(weights) > 0
    indptr, indices, values, weights, F, X, squares, kept, out = (
        start_of(indptr), start_of(indices), start_of(values), start_of(weights), start_of(F), start_of(X),
        start_of(squares), start_of(kept), start_of(out),
    )  # fmt: skip
    inner, none, zero = lines - tail, four_ones(X, NONE), line_zero(X)
    minus = line_axpy(-mean, four_ones(X, FOUR), none)
    for i in range(rows[0], rows[1]):
        base, start, stop = np.uint64(i) * lines, np.uint64(number(indptr, i)), np.uint64(number(indptr, i + 1))
        at = base + inner
        if both:
            lines_clear(X, at, tail)
        for again in range(2):
            for p in range(start, stop, FOUR):
                n = stop - p
                q1, q2, q3 = p + ONE, p + TWO, p + THREE
                if n < FOUR:  # the last entry stands in for those that are not there
                    q1 = q1 if n > ONE else p
                    q2 = q2 if n > TWO else q1
                    q3 = q2
                if again:
                    a, b, c, d = rows_of(indices, p, q1, q2, q3, tail)
                    lines_scatter(X, at, four_get(kept, p - start, n), out, a, b, c, d, tail)
                    continue
                if p + AHEAD + FOUR <= size:
                    a, b, c, d = rows_of(indices, p + AHEAD, p + AHEAD + ONE, p + AHEAD + TWO, p + AHEAD + THREE, lines)
                    lines_fetch(F, a, b, c, d, lines)
                a, b, c, d = rows_of(indices, p, q1, q2, q3, lines)
                t = lines_products(F, a, b, c, d, X, base, inner)
                w = four_get(weights, p, n) if weighted else four_ones(X, n)
                t = line_fma(w, line_axpy(-1.0, t, line_axpy(scale, four_get(values, p, n), minus)), none)
                four_put(kept, p - start, n, t)
                if both:
                    lines_add(F, a + inner, b + inner, c + inner, d + inner, t, X, at, tail)
            if both and not again:
                for k in range(tail):
                    line_put(X, at + k, line_axpy(number(squares, i), line_get(X, at + k), zero))


# ---------------------------------------------------------------------------------------------------- pairs


@kernel(error_model="numpy")
def pair_products(rows, columns, X, F, lines, out):
    """out_p = f x for pairs of rows of X and F, in rows of so many lines."""
    one_version()
    size, lines = np.uint64(len(rows)), np.uint64(lines)
    rows, columns, X, F, out = start_of(rows), start_of(columns), start_of(X), start_of(F), start_of(out)
    for p in range(NONE, size, FOUR):
        n = size - p
        if n >= AHEAD + FOUR:
            a, b, c, d = rows_of(columns, p + AHEAD, p + AHEAD + ONE, p + AHEAD + TWO, p + AHEAD + THREE, lines)
            lines_fetch(F, a, b, c, d, lines)
        a0 = a1 = a2 = a3 = line_zero(F)
        q1, q2, q3 = p + ONE, p + TWO, p + THREE
        if n < FOUR:  # the last pair stands in for those that are not there
            q1 = q1 if n > ONE else p
            q2 = q2 if n > TWO else q1
            q3 = q2
        i0, i1, i2, i3 = rows_of(rows, p, q1, q2, q3, lines)
        j0, j1, j2, j3 = rows_of(columns, p, q1, q2, q3, lines)
        for k in range(lines):
            a0 = line_fma(line_get(F, j0 + k), line_get(X, i0 + k), a0)
            a1 = line_fma(line_get(F, j1 + k), line_get(X, i1 + k), a1)
            a2 = line_fma(line_get(F, j2 + k), line_get(X, i2 + k), a2)
            a3 = line_fma(line_get(F, j3 + k), line_get(X, i3 + k), a3)
        four_put(out, p, n, line_sums(a0, a1, a2, a3))
