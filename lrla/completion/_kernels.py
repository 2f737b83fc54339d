"""Compiled loops of alternating least squares over the observed entries of a matrix.

Factors are held as rows of a whole number of cache lines (zeros at the end), and a *line* is handled as one value in
vector registers.  Four entries are taken at a time: their four dot products share the loads of the row's vector and one
reduction, and their four contributions one load and one store of the row's sum.

Functions that only other kernels call are compiled without a way in from Python, which takes a third less time.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, models, register_model, type_callable

from lrla._jit import kernel

LINE_BYTES = 64
# unsigned numbers are not asked whether they count from the end
ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
AHEAD = np.uint64(8)  # entries between that which is worked on and those whose features are fetched into the cache
CHUNK = np.uint64(1024)  # entries whose contributions are summed before they join the sum of the row


class Line(types.Type):
    """The Numba type of a cache line of numbers in vector registers; it exists inside kernels only."""

    def __init__(self, dtype):
        self.dtype, self.width = dtype, LINE_BYTES * 8 // dtype.bitwidth
        super().__init__(f"CompletionLine({dtype})")


@register_model(Line)
class LineModel(models.PrimitiveModel):
    def __init__(self, manager, line):
        vector = cgutils.ir.VectorType(manager.lookup(line.dtype).get_value_type(), line.width)
        super().__init__(manager, line, vector)


# The functions on lines.  The bodies are what they mean, and what runs under NUMBA_DISABLE_JIT.


def line_zero(numbers):
    """A line of zeros of the vector's dtype."""
    return np.zeros(LINE_BYTES // numbers.itemsize, numbers.dtype)


def line_get(numbers, k):
    """Line k of a contiguous vector of lines."""
    width = LINE_BYTES // numbers.itemsize
    return numbers[k * width : (k + 1) * width].copy()


def line_put(numbers, k, x):
    """Write line k of a contiguous vector of lines."""
    width = LINE_BYTES // numbers.itemsize
    numbers[k * width : (k + 1) * width] = x


def line_fetch(numbers, k):
    """Say that line k of a contiguous vector of lines is read soon."""


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
    """The sums of four lines."""
    return a.sum(), b.sum(), c.sum(), d.sum()


@type_callable(line_zero)
def _type_zero(context):
    return lambda numbers: Line(numbers.dtype)


@type_callable(line_get)
def _type_get(context):
    return lambda numbers, k: Line(numbers.dtype)


@type_callable(line_put)
def _type_put(context):
    return lambda numbers, k, x: types.none


@type_callable(line_fetch)
def _type_fetch(context):
    return lambda numbers, k: types.none


@type_callable(line_axpy)
def _type_axpy(context):
    return lambda a, x, y: y


@type_callable(line_fma)
def _type_fma(context):
    return lambda x, y, z: z


@type_callable(line_ratio)
def _type_ratio(context):
    return lambda x, y: y


@type_callable(line_sums)
def _type_sums(context):
    return lambda a, b, c, d: types.UniTuple(a.dtype, 4)


@lower_builtin(line_zero, types.Array)
def _lower_zero(context, builder, sig, args):
    return cgutils.ir.Constant(context.get_value_type(sig.return_type), None)


def _pointer(context, builder, sig, args, line):
    numbers = context.make_array(sig.args[0])(context, builder, args[0])
    k = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.gep(builder.bitcast(numbers.data, context.get_value_type(line).as_pointer()), [k])


@lower_builtin(line_get, types.Array, types.Integer)
def _lower_get(context, builder, sig, args):
    value = builder.load(_pointer(context, builder, sig, args, sig.return_type))
    value.align = sig.return_type.dtype.bitwidth // 8  # promise no more than NumPy does
    return value


@lower_builtin(line_put, types.Array, types.Integer, Line)
def _lower_put(context, builder, sig, args):
    stored = builder.store(args[2], _pointer(context, builder, sig, args, sig.args[2]))
    stored.align = sig.args[2].dtype.bitwidth // 8
    return context.get_dummy_value()


@lower_builtin(line_fetch, types.Array, types.Integer)
def _lower_fetch(context, builder, sig, args):
    ir = cgutils.ir
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    pointer = builder.bitcast(_pointer(context, builder, sig, args, Line(sig.args[0].dtype)), byte)
    builder.call(fetch, [pointer, number(0), number(3), number(1)])  # to read, into the first cache, data
    return context.get_dummy_value()


# "contract" lets the processor's fused multiply-add do both operations; no other liberty is given.


@lower_builtin(line_axpy, types.Float, Line, Line)
def _lower_axpy(context, builder, sig, args):
    ir, (a, x, y) = cgutils.ir, args
    a = context.cast(builder, a, sig.args[0], sig.args[1].dtype)
    a = builder.insert_element(ir.Constant(x.type, ir.Undefined), a, ir.IntType(32)(0))
    a = builder.shuffle_vector(a, a, ir.Constant(ir.VectorType(ir.IntType(32), x.type.count), None))
    return builder.fadd(builder.fmul(a, x, flags=("contract",)), y, flags=("contract",))


@lower_builtin(line_fma, Line, Line, Line)
def _lower_fma(context, builder, sig, args):
    x, y, z = args
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@lower_builtin(line_ratio, Line, Line)
def _lower_ratio(context, builder, sig, args):
    return builder.fdiv(*args)


@lower_builtin(line_sums, Line, Line, Line, Line)
def _lower_sums(context, builder, sig, args):
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

    a, b, c, d = args
    ab = together(a, b, (0, 4, 1, 5), (2, 6, 3, 7))  # in every group of four lanes: a, b, a, b
    cd = together(c, d, (0, 4, 1, 5), (2, 6, 3, 7))
    total = together(ab, cd, (0, 1, 4, 5), (2, 3, 6, 7))  # a, b, c, d
    while total.type.count > 4:
        half = total.type.count // 2
        total = builder.fadd(pick(total, total, list(range(half))), pick(total, total, list(range(half, 2 * half))))
    return context.make_tuple(
        builder, sig.return_type, [builder.extract_element(total, ir.IntType(32)(lane)) for lane in range(4)]
    )


# ---------------------------------------------------------------------------------------------------- one row


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _four(indices, p, n, lines):
    """The first lines of the features of four entries from p on; the last of n < 4 stands in for those that are not there."""
    if n >= FOUR:
        q1, q2, q3 = p + ONE, p + TWO, p + THREE
    else:
        q3 = p + n - ONE
        q1, q2 = min(p + ONE, q3), min(p + TWO, q3)
    return (
        np.uint64(indices[p]) * lines,
        np.uint64(indices[q1]) * lines,
        np.uint64(indices[q2]) * lines,
        np.uint64(indices[q3]) * lines,
    )


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _take_four(numbers, p, n):
    """Four numbers from p on, zero where there are but n < 4."""
    zero = numbers[p] - numbers[p]
    if n >= FOUR:
        return numbers[p], numbers[p + ONE], numbers[p + TWO], numbers[p + THREE]
    return numbers[p], numbers[p + ONE] if n > ONE else zero, numbers[p + TWO] if n > TWO else zero, zero


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _dots(F, j, x, base, lines):
    """The products of four features with a vector that starts at line `base` of x."""
    a0 = a1 = a2 = a3 = line_zero(F)
    j0, j1, j2, j3 = j
    for k in range(lines):
        y = line_get(x, base + k)
        a0 = line_fma(line_get(F, j0 + k), y, a0)
        a1 = line_fma(line_get(F, j1 + k), y, a1)
        a2 = line_fma(line_get(F, j2 + k), y, a2)
        a3 = line_fma(line_get(F, j3 + k), y, a3)
    return line_sums(a0, a1, a2, a3)


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _add_four(F, j, t, g, lines):
    """g += the four features times the four numbers t."""
    j0, j1, j2, j3 = j
    t0, t1, t2, t3 = t
    for k in range(lines):
        y = line_axpy(t0, line_get(F, j0 + k), line_get(g, k))
        y = line_axpy(t1, line_get(F, j1 + k), y)
        y = line_axpy(t2, line_get(F, j2 + k), y)
        line_put(g, k, line_axpy(t3, line_get(F, j3 + k), y))


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _copy_four(F, j, scratch, row, lines):
    j0, j1, j2, j3 = j
    at = row * lines
    for k in range(lines):
        line_put(scratch, at + k, line_get(F, j0 + k))
        line_put(scratch, at + lines + k, line_get(F, j1 + k))
        line_put(scratch, at + TWO * lines + k, line_get(F, j2 + k))
        line_put(scratch, at + THREE * lines + k, line_get(F, j3 + k))


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _fetch_four(F, j, lines):
    for k in range(lines):
        for first in j:
            line_fetch(F, first + k)


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _residual_pass(F, entries, start, stop, target, x, base, g, part, scratch, keep, lines):
    """g += sum w (y - f x) f over entries start <= p < stop; returns sum w (y - f x)^2."""
    indices, values, weights = entries
    scale, mean = target
    loss = 0.0
    zero = line_zero(g)
    for first in range(start, stop, CHUNK):
        for k in range(lines):
            line_put(part, k, zero)
        for p in range(first, min(first + CHUNK, stop), FOUR):
            n = stop - p
            if p + AHEAD + FOUR <= len(indices):
                _fetch_four(F, _four(indices, p + AHEAD, FOUR, lines), lines)
            j = _four(indices, p, n, lines)
            d0, d1, d2, d3 = _dots(F, j, x, base, lines)
            y0, y1, y2, y3 = _take_four(values, p, n)
            t0, t1, t2, t3 = (
                y0 * scale - mean - d0,
                y1 * scale - mean - d1,
                y2 * scale - mean - d2,
                y3 * scale - mean - d3,
            )
            if n < FOUR:
                t3 = t3 - t3
                t2 = t2 if n > TWO else t3
                t1 = t1 if n > ONE else t3
            if len(weights):
                w0, w1, w2, w3 = _take_four(weights, p, n)
                loss += w0 * t0 * t0 + w1 * t1 * t1 + (w2 * t2 * t2 + w3 * t3 * t3)
                t0, t1, t2, t3 = w0 * t0, w1 * t1, w2 * t2, w3 * t3
            else:
                loss += t0 * t0 + t1 * t1 + (t2 * t2 + t3 * t3)
            _add_four(F, j, (t0, t1, t2, t3), part, lines)
            if keep:
                _copy_four(F, j, scratch, p - start, lines)
        for k in range(lines):
            line_put(g, k, line_axpy(1.0, line_get(part, k), line_get(g, k)))
    return loss


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _normal_pass(F, indices, shift, weights, start, stop, x, g, part, scattered, lines):
    """g += sum w (f x) f over entries start <= p < stop; entry p has the feature indices[p - shift].

    Features that lie scattered in memory, with shift 0, are fetched ahead.
    """
    zero = line_zero(g)
    for first in range(start, stop, CHUNK):
        for k in range(lines):
            line_put(part, k, zero)
        for p in range(first, min(first + CHUNK, stop), FOUR):
            n = stop - p
            if scattered and p + AHEAD + FOUR <= stop:
                _fetch_four(F, _four(indices, p + AHEAD, FOUR, lines), lines)
            j = _four(indices, p - shift, n, lines)
            t0, t1, t2, t3 = _dots(F, j, x, np.uint64(0), lines)
            if len(weights):
                w0, w1, w2, w3 = _take_four(weights, p, n)
                t0, t1, t2, t3 = w0 * t0, w1 * t1, w2 * t2, w3 * t3
            if n < FOUR:
                t3 = t3 - t3
                t2 = t2 if n > TWO else t3
                t1 = t1 if n > ONE else t3
            _add_four(F, j, (t0, t1, t2, t3), part, lines)
        for k in range(lines):
            line_put(g, k, line_axpy(1.0, line_get(part, k), line_get(g, k)))


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _spread_pass(spread, indices, weights, start, stop, total, lines):
    """total = sum w s over entries start <= p < stop, for rows s of `spread`."""
    zero = line_zero(total)
    one = spread[0] - spread[0] + 1  # in the type of the numbers
    for k in range(lines):
        line_put(total, k, zero)
    for p in range(start, stop, FOUR):
        n = stop - p
        if p + AHEAD + FOUR <= len(indices):
            _fetch_four(spread, _four(indices, p + AHEAD, FOUR, lines), lines)
        w0, w1, w2, w3 = one, one, one, one
        if len(weights):
            w0, w1, w2, w3 = _take_four(weights, p, n)
        if n < FOUR:
            w3 = one - one
            w2 = w2 if n > TWO else w3
            w1 = w1 if n > ONE else w3
        _add_four(spread, _four(indices, p, n, lines), (w0, w1, w2, w3), total, lines)


# ---------------------------------------------------------------------------------------------------- half-sweep


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _begin(x, base, shape, weight, count, tiny, r, M, lam, lines):
    """Start of a row: lam += penalty, r = -lam x, and the preconditioner M = 1 / D; returns the penalty of x, and x D x."""
    penalty, free, d = shape
    total = size = zero = line_zero(x)
    for k in range(lines):
        y, a = line_get(x, base + k), line_axpy(weight, line_get(penalty, k), line_get(lam, k))
        line_put(lam, k, a)
        ay = line_fma(a, y, zero)
        total = line_fma(ay, y, total)
        line_put(r, k, line_axpy(-1.0, ay, zero))
        curvature = line_axpy(count, line_get(d, k), line_axpy(tiny, line_get(free, k), a))
        size = line_fma(line_fma(curvature, y, zero), y, size)
        line_put(M, k, line_ratio(line_get(free, k), curvature))
    sums = line_sums(total, size, zero, zero)
    return sums[0], sums[1]


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _direct(M, r, p, beta, lam, Ap, lines):
    """p = M r + beta p and Ap = lam p."""
    zero = line_zero(r)
    for k in range(lines):
        y = line_fma(line_get(M, k), line_get(r, k), line_axpy(beta, line_get(p, k), zero))
        line_put(p, k, y)
        line_put(Ap, k, line_fma(line_get(lam, k), y, zero))


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _step(x, base, r, M, p, Ap, alpha, lines):
    """x += alpha p and r -= alpha Ap; returns r M r."""
    total = zero = line_zero(r)
    for k in range(lines):
        line_put(x, base + k, line_axpy(alpha, line_get(p, k), line_get(x, base + k)))
        y = line_axpy(-alpha, line_get(Ap, k), line_get(r, k))
        line_put(r, k, y)
        total = line_fma(line_fma(line_get(M, k), y, zero), y, total)
    return line_sums(total, zero, zero, zero)[0]


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _dot(x, y, lines):
    total = zero = line_zero(x)
    for k in range(lines):
        total = line_fma(line_get(x, k), line_get(y, k), total)
    return line_sums(total, zero, zero, zero)[0]


@kernel()
def half_sweep_rows(
    indptr,
    indices,
    values,
    weights,
    counts,
    row_weights,
    F,
    X,
    spreads,
    penalty,
    free,
    d,
    numbers,
    cg,
    bounds,
    blocks,
    scratch,
    order,
    sums,
):
    """Conjugate gradients for the rows of a few blocks, each from where it is, with the features F fixed.

    Row i minimises sum_p w_p (scale values_p - mean - f_p x)^2 + row_weights_i sum_a penalty_a x_a^2 over the free x_a.

    Parameters
    ----------
    indptr, indices, values : CSR arrays of the observations
    weights : (nnz,), or empty: all are 1
    counts, row_weights : (m,); a row whose count is 0 gets zeros
    F, X : (n lines width,), (m lines width,), the rows of lines; X is changed
    spreads : the variances of F, which add to the penalties of the rows that have entries there, and those of X, which are
        written; both in the shape of F and X, or empty
    penalty, free, d : (lines width,): of coordinate a the penalty, 1 or 0, and the mean square of the feature, which is
        positive where the coordinate is not free
    numbers : (5,): scale, mean, the smallest number by which one may be divided, and the square of rounding noise: a row is
        done when its residual is noise beside its terms, since further steps would lead along directions that no entry sees;
        the variance of the noise of the observations
    cg : (tolerance, largest number of steps)
    bounds : first row of every block, and m
    blocks : (first, last), the blocks to be done
    scratch : vector of lines: room for six rows of lines, and for the features of a row and four more
    order : 0, 1, 2 ..., as many as rows of lines fit the scratch, in the type of `indices`
    sums : (blocks, 4) float64: of every block the loss and the penalty before, what they went down by, and entries x steps
    """
    lines = np.uint64(len(penalty) * F.itemsize // LINE_BYTES)
    target = numbers[0], numbers[1]
    zero, line, nowhere = numbers[0] - numbers[0], line_zero(F), np.uint64(0)
    width = len(penalty)
    r, p, Ap = scratch[:width], scratch[width : 2 * width], scratch[2 * width : 3 * width]
    M, lam, part = scratch[3 * width : 4 * width], scratch[4 * width : 5 * width], scratch[5 * width : 6 * width]
    scratch = scratch[6 * width :]
    room = np.uint64(len(scratch) // width) - FOUR
    tolerance, most = cg
    feature_spread, spread = spreads
    for block in range(blocks[0], blocks[1]):
        loss, ridge, gain, products = 0.0, 0.0, 0.0, 0.0
        for i in range(bounds[block], bounds[block + 1]):
            start, stop, base = np.uint64(indptr[i]), np.uint64(indptr[i + 1]), np.uint64(i) * lines
            if not counts[i] > 0:
                for k in range(lines):  # what is not free stays
                    x = line_get(X, base + k)
                    line_put(X, base + k, line_fma(line_axpy(-1.0, line_get(free, k), line), x, x))
                    if len(spread):
                        line_put(spread, base + k, line)
                continue
            if len(feature_spread):
                _spread_pass(feature_spread, indices, weights, start, stop, lam, lines)
            else:
                for k in range(lines):
                    line_put(lam, k, line)
            row_ridge, size = _begin(
                X, base, (penalty, free, d), row_weights[i], counts[i], numbers[2], r, M, lam, lines
            )
            ridge += row_ridge
            if len(spread):
                for k in range(lines):
                    line_put(spread, base + k, line_axpy(numbers[4], line_get(M, k), line))
            keep = stop - start <= room and most > 0
            loss += _residual_pass(
                F, (indices, values, weights), start, stop, target, X, base, r, part, scratch, keep, lines
            )
            source, places, shift = (scratch, order, start) if keep else (F, indices, nowhere)
            rho = _step(X, base, r, M, p, Ap, zero, lines)
            least = max(tolerance * tolerance * rho, numbers[3] * (rho + size))
            beta, steps = zero, 0
            while steps < most and rho > least and rho > 0:
                _direct(M, r, p, beta, lam, Ap, lines)
                _normal_pass(source, places, shift, weights, start, stop, p, Ap, part, not keep, lines)
                s = _dot(p, Ap, lines)
                if not s > 0:
                    break
                alpha = rho / s
                gain += alpha * rho
                after = _step(X, base, r, M, p, Ap, alpha, lines)
                beta = after / rho
                rho = after
                steps += 1
            for k in range(lines):
                line_put(p, k, line)
            products += steps * (stop - start)
        sums[block, 0], sums[block, 1], sums[block, 2], sums[block, 3] = loss, ridge, gain, products


@kernel()
def residuals(indptr, indices, values, weights, F, X, numbers, row_scale, column_scale, bounds, blocks, out):
    """out_p = row_scale column_scale w_p (scale values_p - mean - f_p x) for the entries of the rows of a few blocks."""
    lines = np.uint64(len(X) * F.itemsize // (LINE_BYTES * (len(indptr) - 1)))
    scale, mean = numbers[0], numbers[1]
    for i in range(bounds[blocks[0]], bounds[blocks[1]]):
        stop = np.uint64(indptr[i + 1])
        for p in range(np.uint64(indptr[i]), stop, FOUR):
            d = _dots(F, _four(indices, p, stop - p, lines), X, np.uint64(i) * lines, lines)
            for e in range(min(stop - p, FOUR)):
                q = p + e
                t = (values[q] * scale - mean - d[e]) * row_scale[i] * column_scale[indices[q]]
                out[q] = t * weights[q] if len(weights) else t


@kernel()
def pair_products(rows, columns, X, F, lines, out):
    """out_p = f x for pairs of rows of X and F."""
    for p in range(len(rows)):
        total = line_zero(F)
        for k in range(lines):
            total = line_fma(line_get(X, rows[p] * lines + k), line_get(F, columns[p] * lines + k), total)
        zero = line_zero(F)
        out[p] = line_sums(total, zero, zero, zero)[0]


# ---------------------------------------------------------------------------------------------------- entries


@kernel()
def transpose(indptr, indices, values, weights, out_indptr, out_indices, out_values, out_weights):
    """CSR of the transpose by a counting sort; `out_indptr` (n + 1,) holds zeros, and rows come out in order."""
    n = len(out_indptr) - 1
    for p in range(len(indices)):
        out_indptr[indices[p] + 1] += 1
    for j in range(n):
        out_indptr[j + 1] += out_indptr[j]
    for i in range(len(indptr) - 1):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            q = out_indptr[j]
            out_indptr[j] = q + 1
            out_indices[q] = i
            out_values[q] = values[p]
            if weights.size:
                out_weights[q] = weights[p]
    for j in range(n, 0, -1):
        out_indptr[j] = out_indptr[j - 1]
    out_indptr[0] = 0
