"""Compiled passes over the rows of a table with holes, for the factor model x = mean + W z + noise.

A row enters by its observed entries (CSR).  Rows that miss the same entries follow one another and share one
factorization.  Rows are split into blocks fixed by the table alone, each with its own accumulators, which the caller adds
in order.

Vectors of length k are padded with zeros to a multiple of LANES.  Of a symmetric k x k matrix only the lower triangle is
kept, row by row, row a padded to LANES * (a // LANES + 1) numbers: it begins at `start_of_row(a)`.  So all inner loops are
`add`, `add_four` and `dot` on vectors whose length is a multiple of LANES, which are written in vector instructions
below: what the compiler makes of the plain loops takes 4 to 6 times as long, as they are short, and as it must suspect
that the arrays overlap.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable

from lrla._jit import kernel

LANES = 4
LOG_2PI = math.log(2.0 * math.pi)


# ---------------------------------------------------------------------------------------------------- vectors
# The bodies are what the functions mean, and what runs under NUMBA_DISABLE_JIT.


def add(count, f, x, i, y, j):
    """y[j : j + count] += f x[i : i + count], for flat arrays and a count that is a multiple of LANES."""
    y[j : j + count] += f * x[i : i + count]


def add_outer(count, f, i, x, y, j):
    """Add f[i + r] x[:count] to row r of the LANES rows of length `count` that begin at y[j]."""
    y[j : j + LANES * count] += np.outer(f[i : i + LANES], x[:count]).ravel()


def add_four(count, x, i, y, j):
    """y[j : j + count] += x[i_0 : i_0 + count] + ... for the four places of a tuple i."""
    y[j : j + count] += sum(x[start : start + count] for start in i)


def dot(count, x, i, y, j):
    """The inner product of x[i : i + count] and y[j : j + count]."""
    return float(np.sum(x[i : i + count] * y[j : j + count]))


@type_callable(add)
def _type_add(context):
    return lambda count, f, x, i, y, j: types.none


@type_callable(add_outer)
def _type_add_outer(context):
    return lambda count, f, i, x, y, j: types.none


@type_callable(add_four)
def _type_add_four(context):
    return lambda count, x, i, y, j: types.none


@type_callable(dot)
def _type_dot(context):
    return lambda count, x, i, y, j: types.float64


VECTOR = cgutils.ir.VectorType(cgutils.ir.DoubleType(), LANES)


def _address(context, builder, array_type, array, index_type, index):
    """The data of an array from an index on, and a function that gives the address of a vector from there."""
    data = context.make_array(array_type)(context, builder, array).data
    first = context.cast(builder, index, index_type, types.intp)
    return lambda at: builder.bitcast(builder.gep(data, [builder.add(first, at)]), VECTOR.as_pointer())


def _load(builder, address):
    value = builder.load(address)
    value.align = 8  # promise no more than NumPy does
    return value


def _multiply_add(builder, x, y, z):
    # "contract" lets the processor's fused multiply-add do both; no other liberty is given
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def _loop(context, builder, count_type, count):
    stop = context.cast(builder, count, count_type, types.intp)
    return cgutils.for_range_slice(builder, stop.type(0), stop, stop.type(LANES), stop.type)


def _broadcast(builder, f):
    ir = cgutils.ir
    f = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), f, ir.IntType(32)(0))
    return builder.shuffle_vector(f, f, ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))


@lower_builtin(add, types.Integer, types.Float, types.Array, types.Integer, types.Array, types.Integer)
def _lower_add(context, builder, sig, args):
    kinds = sig.args
    x = _address(context, builder, kinds[2], args[2], kinds[3], args[3])
    y = _address(context, builder, kinds[4], args[4], kinds[5], args[5])
    f = _broadcast(builder, context.cast(builder, args[1], kinds[1], types.float64))
    with _loop(context, builder, kinds[0], args[0]) as (at, _):
        total = _multiply_add(builder, f, _load(builder, x(at)), _load(builder, y(at)))
        builder.store(total, y(at)).align = 8
    return context.get_dummy_value()


@lower_builtin(add_outer, types.Integer, types.Array, types.Integer, types.Array, types.Array, types.Integer)
def _lower_add_outer(context, builder, sig, args):
    kinds = sig.args
    count = context.cast(builder, args[0], kinds[0], types.intp)
    x = _address(context, builder, kinds[3], args[3], types.intp, count.type(0))
    f = _load(builder, _address(context, builder, kinds[1], args[1], kinds[2], args[2])(count.type(0)))
    factors = [_broadcast(builder, builder.extract_element(f, cgutils.ir.IntType(32)(r))) for r in range(LANES)]
    y = _address(context, builder, kinds[4], args[4], kinds[5], args[5])
    with _loop(context, builder, kinds[0], args[0]) as (at, _):
        vector = _load(builder, x(at))
        for r, factor in enumerate(factors):
            place = builder.add(at, builder.mul(count, count.type(r)))
            builder.store(_multiply_add(builder, factor, vector, _load(builder, y(place))), y(place)).align = 8
    return context.get_dummy_value()


@lower_builtin(add_four, types.Integer, types.Array, types.UniTuple, types.Array, types.Integer)
def _lower_add_four(context, builder, sig, args):
    kinds = sig.args
    starts = cgutils.unpack_tuple(builder, args[2])
    parts = [_address(context, builder, kinds[1], args[1], kinds[2].dtype, start) for start in starts]
    y = _address(context, builder, kinds[3], args[3], kinds[4], args[4])
    with _loop(context, builder, kinds[0], args[0]) as (at, _):
        a, b, c, d = (_load(builder, part(at)) for part in parts)
        total = builder.fadd(_load(builder, y(at)), builder.fadd(builder.fadd(a, b), builder.fadd(c, d)))
        builder.store(total, y(at)).align = 8
    return context.get_dummy_value()


@lower_builtin(dot, types.Integer, types.Array, types.Integer, types.Array, types.Integer)
def _lower_dot(context, builder, sig, args):
    ir, kinds = cgutils.ir, sig.args
    x = _address(context, builder, kinds[1], args[1], kinds[2], args[2])
    y = _address(context, builder, kinds[3], args[3], kinds[4], args[4])
    total = cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None))
    with _loop(context, builder, kinds[0], args[0]) as (at, _):
        partial = _multiply_add(builder, _load(builder, x(at)), _load(builder, y(at)), builder.load(total))
        builder.store(partial, total)
    lanes = builder.load(total)
    numbers = [builder.extract_element(lanes, ir.IntType(32)(lane)) for lane in range(LANES)]
    while len(numbers) > 1:
        numbers = [builder.fadd(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers[0]


# ---------------------------------------------------------------------------------------------------- matrices


@numba.njit(nogil=True)
def start_of_row(a):
    """Where row a of a triangle begins, and the length of the triangle of a x a numbers."""
    q = a // LANES
    return (q + 1) * (LANES * LANES * q // 2 + LANES * (a - LANES * q))


@numba.njit(nogil=True)
def _padded(a):
    """The length of row a, or of a vector whose last number is number a."""
    return LANES * (a // LANES + 1)


@numba.njit(nogil=True)
def _invert(g, k, v, f):
    """Replace a positive definite matrix by its inverse (symmetric sweeps), and return log det; v and f are scratch."""
    logdet = 0.0
    v[:], f[:] = 0.0, 0.0
    for p in range(k):
        row = start_of_row(p)
        for b in range(p):
            v[b] = g[row + b]
        for a in range(p, k):
            v[a] = g[start_of_row(a) + p]
        d = v[p]
        logdet += math.log(d)
        inverse = -1.0 / d
        for a in range(k):
            f[a] = inverse * v[a]
        for a in range(0, k, LANES):  # rows of one length
            add_outer(a + LANES, f, a, v, g, start_of_row(a))
        for b in range(p):
            g[row + b] = -f[b]
        for a in range(p, k):
            g[start_of_row(a) + p] = -f[a]
        g[row + p] = inverse
    for a in range(k):
        row = start_of_row(a)
        for b in range(a + 1):
            g[row + b] = -g[row + b]
        for b in range(a + 1, _padded(a)):
            g[row + b] = 0.0
    return logdet


@numba.njit(nogil=True)
def _apply(g, r, k, z):
    """Write the product of a symmetric matrix, whose padding is zero, with r into z."""
    z[:] = 0.0
    for a in range(k):
        row = start_of_row(a)
        total = dot(_padded(a), g, row, r, 0)
        add(_padded(a), r[a], g, row, z, 0)
        z[a] += total - g[row + a] * r[a]


@numba.njit(nogil=True)
def _by_factors(indices, start, stop, k, log_psi, outer, C, v, f):
    """C = (I + sum_j W_j W_j^T / psi_j)^-1 over the observed columns; returns log det of their covariance."""
    size = start_of_row(k)
    logdet = 0.0
    C[:] = 0.0
    for a in range(k):
        C[start_of_row(a) + a] = 1.0
    p = start
    while p + 4 <= stop:
        i, j, g, h = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
        add_four(size, outer, (size * i, size * j, size * g, size * h), C, 0)
        p += 4
    while p < stop:
        add(size, 1.0, outer, size * indices[p], C, 0)
        p += 1
    for p in range(start, stop):
        logdet += log_psi[indices[p]]
    return logdet + _invert(C, k, v, f)


@numba.njit(nogil=True)
def _by_entries(indices, start, stop, k, W, psi, C, K, P, v, f):
    """The same C where there are fewer entries than factors: K = psi + W W^T, P = K^-1 W, C = I - W^T P."""
    count, width = stop - start, len(v)
    for a in range(count):
        i, row = indices[start + a], start_of_row(a)
        for b in range(a + 1):
            K[row + b] = dot(width, W, width * i, W, width * indices[start + b])
        K[row + a] += psi[i]
    logdet = _invert(K, count, v, f)
    P[:] = 0.0
    for a in range(count):
        i, row = indices[start + a], start_of_row(a)
        for b in range(a + 1):
            add(width, K[row + b], W, width * indices[start + b], P, width * a)
            if b < a:
                add(width, K[row + b], W, width * i, P, width * b)
    C[:] = 0.0
    for a in range(k):
        row = start_of_row(a)
        for c in range(count):
            add(_padded(a), -W[width * indices[start + c] + a], P, width * c, C, row)
        C[row + a] += 1.0
        for b in range(a + 1, _padded(a)):
            C[row + b] = 0.0
    return logdet


@numba.njit(nogil=True)
def _covariance(indices, start, stop, k, W, psi, log_psi, outer, C, K, P, v, f):
    """Posterior covariance C of the factors for a pattern of observed columns, by the shorter way; returns log det."""
    if stop - start < k:
        return _by_entries(indices, start, stop, k, W, psi, C, K, P, v, f)
    return _by_factors(indices, start, stop, k, log_psi, outer, C, v, f)


@numba.njit(nogil=True)
def _explain(indices, y, start, count, pattern, k, mean, W, precision, C, P, r, z):
    """Write the posterior mean of a row's factors into z; returns the squared Mahalanobis length of its entries.

    The entries of the row are y[start : start + count], its columns indices[pattern : pattern + count].
    """
    width = len(z)
    r[:] = 0.0
    for p in range(count):
        j = indices[pattern + p]
        if count < k:
            add(width, y[start + p] - mean[j], P, width * p, r, 0)
        else:
            add(width, (y[start + p] - mean[j]) * precision[j], W, width * j, r, 0)
    if count < k:
        z[:] = r
    else:
        _apply(C, r, k, z)
    length = dot(width, z, 0, z, 0)
    for p in range(count):
        j = indices[pattern + p]
        f = y[start + p] - mean[j] - dot(width, W, width * j, z, 0)
        length += f * f * precision[j]
    return length


@numba.njit(nogil=True)
def _scratch(k):
    """Arrays that a thread needs: the matrices C, K and S, P (k rows), and the vectors v, r and z."""
    width = _padded(k - 1)
    size = start_of_row(width)
    return (
        np.empty(size), np.empty(size), np.empty(size), np.empty(k * width),
        np.empty(width), np.empty(width), np.empty(width),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- passes


@kernel()
def expectation(
    indptr,
    indices,
    y,
    weight,
    order,
    first,
    k,
    mean,
    W,
    psi,
    precision,
    log_psi,
    outer,
    bounds,
    blocks,
    A,
    B,
    T,
    sums,
    SS,
    loglik,
    Z,
):
    """Expected sufficient statistics of the blocks `blocks[0] <= block < blocks[1]`, each into its own accumulators.

    Vectors and matrices of factors are padded as said above: `width` and `size` numbers, in flat arrays.

    Parameters
    ----------
    indptr, indices, y : CSR of the observed entries, m rows
    weight : (m,)
    order, first : (m,), the order of the rows, and whether the row at a place begins a new pattern
    k, mean, W, psi, precision, log_psi : the model, (n,), (n * width,), (n,), 1 / psi, log psi
    outer : (n * size,), W_j W_j^T / psi_j
    bounds : first place in the order of every block, and m
    A : (blocks, n * size), sum over the rows that have column j of E[z z^T]
    B, T : (blocks, n * width), sums of (x - mean)_j E[z] and of E[z] over the rows that have column j
    sums : (blocks, 3, n), weight, (x - mean) and its square, summed over the rows that have column j
    SS : (blocks, size + width), sum over all rows of E[z z^T], and then of E[z]
    loglik : (blocks,)
    Z : (m, width), E[z] of every row
    """
    width, size = _padded(k - 1), start_of_row(k)
    C, K, S, P, v, r, z = _scratch(k)
    zs = np.empty(width)
    for block in range(blocks[0], blocks[1]):
        A_block, B_block, T_block, SS_block = A[block], B[block], T[block], SS[block]
        A_block[:], B_block[:], T_block[:], SS_block[:], sums[block] = 0.0, 0.0, 0.0, 0.0, 0.0
        total_loglik = 0.0
        place = bounds[block]
        while place < bounds[block + 1]:
            pattern, end = indptr[order[place]], indptr[order[place] + 1]
            count = end - pattern
            logdet = _covariance(indices, pattern, end, k, W, psi, log_psi, outer, C, K, P, v, r)
            S[:] = 0.0
            zs[:] = 0.0
            total = 0.0
            while True:
                i = order[place]
                w, start = weight[i], indptr[i]
                length = _explain(indices, y, start, count, pattern, k, mean, W, precision, C, P, r, z)
                total_loglik -= 0.5 * w * (count * LOG_2PI + logdet + length)
                total += w
                Z[i] = z
                add(width, w, z, 0, zs, 0)
                for a in range(width):
                    r[a] = w * z[a]
                for a in range(0, k, LANES):
                    add_outer(a + LANES, r, a, z, S, start_of_row(a))
                for p in range(count):
                    j = indices[pattern + p]
                    d = y[start + p] - mean[j]
                    sums[block, 1, j] += w * d
                    sums[block, 2, j] += w * d * d
                    add(width, w * d, z, 0, B_block, width * j)
                place += 1
                if place == bounds[block + 1] or first[place]:
                    break
            add(size, total, C, 0, S, 0)
            add(size, 1.0, S, 0, SS_block, 0)
            add(width, 1.0, zs, 0, SS_block, size)
            for p in range(pattern, end):
                j = indices[p]
                sums[block, 0, j] += total
                add(width, 1.0, zs, 0, T_block, width * j)
                add(size, 1.0, S, 0, A_block, size * j)
        loglik[block] = total_loglik


@kernel()
def posterior(
    indptr,
    indices,
    y,
    order,
    first,
    k,
    mean,
    W,
    psi,
    precision,
    log_psi,
    outer,
    bounds,
    blocks,
    noise,
    Z,
    variance,
    length,
    logdets,
):
    """What the model says about every row of the blocks `blocks[0] <= block < blocks[1]`.

    Parameters
    ----------
    indptr, indices, y, order, first, k, mean, W, psi, precision, log_psi, outer, bounds : as in `expectation`
    noise : (m, k), standard normal numbers, which make of Z a draw from the posterior; or (0, k)
    Z : (m, width), posterior means of the factors, or draws
    variance : (m, n), W_j^T Cov(z) W_j + psi_j; or (0, n)
    length, logdets : (m,), squared Mahalanobis length of a row's entries, and log det of their covariance
    """
    n, width = len(mean), _padded(k - 1)
    C, K, S, P, v, r, z = _scratch(k)
    spread = np.empty(n)
    for block in range(blocks[0], blocks[1]):
        pattern, count, logdet = 0, 0, 0.0
        for place in range(bounds[block], bounds[block + 1]):
            i = order[place]
            if place == bounds[block] or first[place]:
                pattern = indptr[i]
                count = indptr[i + 1] - pattern
                logdet = _covariance(indices, pattern, pattern + count, k, W, psi, log_psi, outer, C, K, P, v, r)
                if variance.shape[0] > 0:
                    for j in range(n):
                        z[:] = W[width * j : width * (j + 1)]
                        _apply(C, z, k, r)
                        spread[j] = psi[j] + dot(width, z, 0, r, 0)
                if noise.shape[0] > 0:
                    _cholesky(C, k, S)
            length[i] = _explain(indices, y, indptr[i], count, pattern, k, mean, W, precision, C, P, r, z)
            logdets[i] = logdet
            if noise.shape[0] > 0:
                for a in range(k):
                    for b in range(a + 1):
                        z[a] += S[start_of_row(a) + b] * noise[i, b]
            Z[i] = z
            if variance.shape[0] > 0:
                variance[i] = spread


@numba.njit(nogil=True)
def _cholesky(C, k, L):
    """Lower factor of a positive semidefinite matrix; a pivot that rounding made negative counts as zero."""
    for a in range(k):
        row = start_of_row(a)
        for b in range(a + 1):
            other = start_of_row(b)
            total = C[row + b]
            for c in range(b):
                total -= L[row + c] * L[other + c]
            if a == b:
                L[row + a] = math.sqrt(max(total, 0.0))
            elif L[other + b] > 0.0:
                L[row + b] = total / L[other + b]
            else:
                L[row + b] = 0.0


@kernel()
def mark_patterns(indptr, indices, order, first):
    """first[place]: whether the row at this place of the order has other columns than the row before it."""
    for place in range(len(order)):
        i = order[place]
        first[place] = True
        if place == 0:
            continue
        h = order[place - 1]
        if indptr[i + 1] - indptr[i] != indptr[h + 1] - indptr[h]:
            continue
        same = True
        for p in range(indptr[i + 1] - indptr[i]):
            if indices[indptr[i] + p] != indices[indptr[h] + p]:
                same = False
                break
        first[place] = not same
