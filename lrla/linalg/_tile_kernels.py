"""Compiled products of a dense matrix with a few vectors, for processors with 32 vector registers of 64 bytes (AVX-512).

A general matrix product copies the large matrix into its own order first.  With a few vectors that copy costs more than
the arithmetic: OpenBLAS reaches 45 % of its own rate in float32 with 48 vectors, and 25 % with 20.  Here A is read where it
lies.  The vectors are the columns of a *panel*, a C-contiguous (n, width) array of up to three registers a row, and eight
rows of A meet a panel in 24 sums that stay in registers: a `tile`.

The same tile does A X and A^T Y, and takes A in either order: element (i, j) is at ``i * si + j * sj`` of a flat array.
"""

from __future__ import annotations

import numba
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable

from lrla._jit import emit_fetch, kernel

REGISTER = 64  # bytes
ROWS = 8
FETCHED = 2 * ROWS  # rows ahead, a cache line of float32 where A is read across its rows


def tile(a, start, si, sj, count, panel, first, out, row, lane, rows, registers):
    """Add to `rows` rows of `out`, from `row` on, the products of `rows` x `count` elements of A with rows of the panel.

    ``out[row + r] += sum over p < count of a[start + r * si + p * sj] * panel[first + p]``, the sum formed from zero, for
    the columns from `lane` on that fill a number of registers.  The last two arguments are literals.

    The body is what it means, and what runs under NUMBA_DISABLE_JIT.
    """
    lanes = slice(lane, lane + registers * REGISTER // panel.itemsize)
    for r in range(rows):
        elements = a[start + r * si : start + r * si + (count - 1) * sj + 1 : sj]
        out[row + r, lanes] += elements @ panel[first : first + count, lanes]


@type_callable(tile)
def _type_tile(context):
    def typer(a, start, si, sj, count, panel, first, out, row, lane, rows, registers):
        return types.none if isinstance(rows, types.IntegerLiteral) else None

    return typer


class _Emitter:
    """Writes the instructions of one tile."""

    def __init__(self, context, builder, sig, args):
        self.context, self.builder, self.sig, self.args = context, builder, sig, args
        dtype = sig.args[0].dtype
        self.rows, self.vectors = sig.args[10].literal_value, sig.args[11].literal_value
        self.align = dtype.bitwidth // 8  # promise no more than NumPy does
        lanes = REGISTER // self.align
        self.vector = cgutils.ir.VectorType(context.get_value_type(dtype), lanes)
        self.splat = cgutils.ir.Constant(cgutils.ir.VectorType(cgutils.ir.IntType(32), lanes), None)

    def integer(self, position):
        """An argument as a 64-bit number."""
        return self.context.cast(self.builder, self.args[position], self.sig.args[position], types.intp)

    def data(self, position):
        """The pointer of an array argument."""
        return self.context.make_array(self.sig.args[position])(self.context, self.builder, self.args[position]).data

    def registers(self, position, row):
        """Pointers to the registers of a row of a panel."""
        b = self.builder
        panel = self.context.make_array(self.sig.args[position])(self.context, b, self.args[position])
        width = cgutils.unpack_tuple(b, panel.shape)[1]
        start = b.gep(panel.data, [b.add(b.mul(row, width), self.integer(9))])
        pointer = b.bitcast(start, self.vector.as_pointer())
        return [b.gep(pointer, [row.type(v)]) for v in range(self.vectors)]

    def load(self, pointer):
        value = self.builder.load(pointer)
        value.align = self.align
        return value

    def fetch(self, pointer):
        """Say that what a pointer shows is read soon."""
        emit_fetch(self.builder, pointer)

    def broadcast(self, pointer):
        b, ir = self.builder, cgutils.ir
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = b.insert_element(undefined, self.load(pointer), ir.IntType(32)(0))
        return b.shuffle_vector(one, undefined, self.splat)

    def multiply_add(self, x, y, z):
        # "contract" lets the processor's fused multiply-add do both; no other liberty is given
        b = self.builder
        return b.fadd(b.fmul(x, y, flags=("contract",)), z, flags=("contract",))

    def step(self, p, sums):
        """The sums with element p of every row of A added."""
        b = self.builder
        start = b.add(self.integer(1), b.mul(p, self.integer(3)))
        column = b.gep(self.data(0), [start])
        # across the rows of A the processor's own guesses end at about 24 rows at a time (measured)
        self.fetch(b.gep(column, [b.mul(self.integer(2), start.type(FETCHED))]))
        panel = [self.load(pointer) for pointer in self.registers(5, b.add(self.integer(6), p))]
        result = []
        for r in range(self.rows):
            a = self.broadcast(b.gep(column, [b.mul(self.integer(2), p.type(r))]))
            result += [self.multiply_add(a, x, sums[r * self.vectors + v]) for v, x in enumerate(panel)]
        return result

    def loop(self):
        """Go through the `count` elements; returns the sums."""
        b = self.builder
        count = self.integer(4)
        zero = cgutils.ir.Constant(self.vector, None)
        before, body, after = b.block, b.append_basic_block("tile"), b.append_basic_block("tile.end")
        b.cbranch(b.icmp_signed(">", count, count.type(0)), body, after)
        b.position_at_end(body)
        p = b.phi(count.type)
        sums = [b.phi(self.vector) for _ in range(self.rows * self.vectors)]
        new, following = self.step(p, sums), b.add(p, p.type(1))
        b.cbranch(b.icmp_signed("<", following, count), body, after)
        for phi, start, value in zip((p, *sums), (p.type(0), *[zero] * len(sums)), (following, *new), strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        b.position_at_end(after)
        results = [b.phi(self.vector) for _ in sums]
        for phi, value in zip(results, new, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(value, body)
        return results

    def emit(self):
        b, sums = self.builder, self.loop()
        for r in range(self.rows):
            row = b.add(self.integer(8), self.integer(8).type(r))
            for v, pointer in enumerate(self.registers(7, row)):
                stored = b.store(b.fadd(self.load(pointer), sums[r * self.vectors + v]), pointer)
                stored.align = self.align


@lower_builtin(
    tile, types.Array, types.Integer, types.Integer, types.Integer, types.Integer, types.Array, types.Integer,
    types.Array, types.Integer, types.Integer, types.IntegerLiteral, types.IntegerLiteral,
)  # fmt: skip
def _lower_tile(context, builder, sig, args):
    _Emitter(context, builder, sig, args).emit()
    return context.get_dummy_value()


@numba.njit(nogil=True)
def _strip(a, start, si, sj, count, panel, first, out, row, rows):
    """The tiles of `rows` rows of A, 8 or 1, with all columns of the panel."""
    lanes = REGISTER // panel.itemsize
    lane, left = 0, panel.shape[1] // lanes
    while left > 0:
        if left == 3 or left > 4:
            taken = 3
            if rows == ROWS:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 8, 3)
            else:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 1, 3)
        elif left > 1:
            taken = 2
            if rows == ROWS:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 8, 2)
            else:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 1, 2)
        else:
            taken = 1
            if rows == ROWS:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 8, 1)
            else:
                tile(a, start, si, sj, count, panel, first, out, row, lane, 1, 1)
        lane += taken * lanes
        left -= taken


@kernel()
def multiply_tiles(a, si, sj, bounds, columns, chunk, block, panel, image, seen, out):
    """Add what some columns of A contribute to some rows of A panel; then, perhaps, A^T times these rows to A^T (A panel).

    The second product follows the first after every block of rows, which it finds in a cache.

    Parameters
    ----------
    a : flat array that holds A, (m, n)
    si, sj : strides of A along rows and columns, in elements
    bounds : (first, last), the rows of A to be taken
    columns : (first, last), the columns of A to be taken
    chunk : columns at a time, a sum in registers: many where the elements of a row of A are neighbours, few where those
        of a column are, so that what is fetched with them is still there when the next rows need it
    block : rows at a time, all for both products; 0 for the first product only
    panel : (n, width), width a multiple of the numbers in a register
    image : (m, width), to which A panel is added
    seen : read-only view of `image`
    out : (n, width), to which A^T image is added; not used where `block` is 0
    """
    step = block if block > 0 else bounds[1] - bounds[0]
    for first in range(bounds[0], bounds[1], step):
        rows = (first, min(first + step, bounds[1]))
        for second in range(2 if block > 0 else 1):
            # one place for the tiles of both products, which are what takes time to compile
            long, short, taken, done, at_once = (
                (sj, si, rows, columns, block) if second else (si, sj, columns, rows, chunk)
            )
            vectors, sums = (seen, out) if second else (panel, image)
            for p in range(taken[0], taken[1], at_once):
                count = min(at_once, taken[1] - p)
                i = done[0]
                while i < done[1]:
                    height = ROWS if i + ROWS <= done[1] else 1
                    _strip(a, i * long + p * short, long, short, count, vectors, p, sums, i, height)
                    i += height
