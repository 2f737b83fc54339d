"""What a tuned penalty costs by sketches of some size, and by the data themselves: which sizes are worth trying.

Costs are nanoseconds of one core with a good BLAS, measured once.  Only which of two is larger, or ten times as large, is of
interest, and that differs little among machines, since nearly all of it is products of matrices, eigenvalues and reading X.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lrla import _arrays, _validation

FLOP = 0.022  # of a product of matrices
EIGEN = 0.37  # of all eigenvectors, times the order cubed
SPARSE = 0.6  # of a product of a sparse matrix with many columns, for each stored entry and column
READ = 0.9  # of an entry of a dense matrix in a product with one column
READ_SPARSE = 2.0  # of a stored entry of a sparse one
TOUCH = 3.0  # of an entry of a matrix that is centred and converted
RESIDUAL = 30.0  # of a corrected residual, for each row, penalty and target
PASSES = 4  # over X for checks and means, whatever follows
STEPS, STEPS_SPARSE = 14, 60  # of conjugate gradients, typically: with a preconditioner, and without
LEAST, LARGEST = 64, 2048  # columns of the first automatic sketch
GROWTHS = 2  # times that it is doubled
SMALL = 1e9  # a second: sketches that cost less need no economy
EASY = 3e9  # what X itself may cost in any case: it judges every penalty, which sketches may not
WORTH = 1.0 / 3.0  # of the cost of X itself is what sketches must cost less than where X itself may take their place
BUDGET = 0.095  # of the cost of X itself is what all automatic sketches together are to cost: less than a tenth
MORE = 1.25  # times the cost of the smallest sketches where even these cost more than that
GROWN = 4.0  # times the cost of the first sketches is what those of all sizes may cost
SHARE = 4.0  # of the memory of the machine X itself may take one part


@dataclass(frozen=True)
class Shape:
    """What costs depend on: rows, columns and stored entries of X, penalties, targets, members of an ensemble."""

    n: int
    p: int
    stored: int
    sparse: bool
    penalties: int
    targets: int
    members: int

    @classmethod
    def of(cls, X: Any, penalties: int, targets: int, members: int) -> Shape:
        n, p = (int(size) for size in X.shape)
        sparse = _arrays.kind(X) in ("sparse", "device_sparse")
        return cls(n, p, int(X.nnz) if sparse else n * p, sparse, penalties, targets, members)

    @property
    def side(self) -> int:
        return min(self.n, self.p)

    # ------------------------------------------------------------------------------------------------ the whole

    def path(self) -> float:
        """The whole path from X itself, whatever memory it takes."""
        return self._passes() + self._gram() + EIGEN * self.side**3 + self._residuals(self.n, self.p, self.sparse)

    def exact(self) -> float:
        """The same; infinite where its matrices would fill the memory."""
        return self.path() if _fits(SHARE * 4.0 * self.side**2) else math.inf

    def sketched(self, q: int, kind: str, nnz: int, refit: bool) -> float:
        """Members of q columns (kind "rows": of q rows), and one exact solution; infinite likewise."""
        rows, columns = (q, self.p) if kind == "rows" else (self.n, q)
        r = min(rows, columns)
        if not _fits(rows * columns + 4.0 * r**2):
            return math.inf
        member = rows * columns * (r * FLOP + TOUCH) + EIGEN * r**3 + self._residuals(rows, columns)
        if kind == "rows":
            member += 2.0 * FLOP * self.n * self.p * self.penalties * self.targets
        else:
            member += self._sketching(q, kind, nnz)
        return self._passes() + self.members * member + (self._solution(r, kind) if refit else 0.0)

    # ------------------------------------------------------------------------------------------------ one solution

    def direct(self) -> float:
        """One exact solution from the smaller Gram matrix."""
        return self._gram() + FLOP * self.side**3 / 3.0

    def step(self) -> float:
        """One step of conjugate gradients."""
        more = 2.0 * FLOP * (self.targets - 1)
        return 2.0 * self.stored * (READ_SPARSE * self.targets if self.sparse else READ + more)

    def preconditioning(self, rank: int) -> float:
        """Products with the left singular vectors of the members, in float32."""
        return self.members * 2.0 * self.n * rank * (READ / 2.0 + FLOP * (self.targets - 1))

    def _solution(self, rank: int, kind: str) -> float:
        if self.sparse or kind == "rows":
            return min(self.direct(), STEPS_SPARSE * self.step())
        return min(self.direct(), STEPS * (self.step() + self.preconditioning(rank)))

    # ------------------------------------------------------------------------------------------------ parts

    def _passes(self) -> float:
        return PASSES * self.stored * READ

    def _gram(self) -> float:
        return self.stored * (self.side * (SPARSE if self.sparse else FLOP) + TOUCH)

    def _residuals(self, n: int, q: int, sparse: bool = False) -> float:
        """Rows in the eigenvectors, fitted values and leverages, and what is done with each."""
        r = min(n, q)
        turned = 0.0 if q > n else (SPARSE * self.stored if sparse else 2.0 * FLOP * n * q) * r
        products = 2.0 * FLOP * n * r * self.penalties * (1 + self.targets)
        return turned + products + RESIDUAL * n * self.penalties * self.targets

    def _sketching(self, q: int, kind: str, nnz: int) -> float:
        each = {
            "sparse_stack": 0.4 + 0.4 * min(nnz, q),
            "countsketch": 2.5,
            "srdct": 15.0,
            "srht": 20.0,
            "uniform": 1.0,
        }
        return self.stored * each.get(kind, 2.0 * FLOP * q) * (5.0 if self.sparse else 1.0)


def _fits(numbers: float) -> bool:
    try:
        _validation.check_memory(8.0 * numbers, "")
    except ValueError:
        return False
    return True


def automatic_size(kind: str, n: int, p: int) -> int | None:
    """Columns (kind "rows": rows) of the first automatic sketch; None where X has no more on its smaller side."""
    side, most = (n, n) if kind == "rows" else (min(n, p), p)
    q = min(most, max(LEAST, math.ceil(side / 5)), LARGEST)
    return None if q >= side else q


def automatic_sizes(shape: Shape, kind: str, nnz: int, refit: bool, may_be_exact: bool) -> list[int | None]:
    """Sizes to try one after the other as long as the best penalty is the least one; None stands for X itself.

    X itself is taken, if it may be, where it costs little more than sketches, or little at all.  Where it costs much it is
    not what sketches end with: a fit whose time nobody can tell beforehand is worse than a warning.  All sketches together
    have a budget, a part of what X itself costs, and the first of them is the largest that keeps to it; where most of the cost
    is that of reading X, none does, and the largest is taken that costs little more than the smallest.
    """
    largest = automatic_size(kind, shape.n, shape.p)
    if largest is None:
        return [None]

    def cost(q: int) -> float:
        return shape.sketched(q, kind, nnz, refit)

    path = shape.path()
    budget = BUDGET * path
    parts = [max(min(LEAST, largest), largest * part // 10) for part in (10, 8, 7, 6, 5)]
    allowed = max(budget, SMALL) if cost(parts[-1]) <= budget else max(MORE * cost(parts[-1]), SMALL)
    first = next((q for q in parts if cost(q) <= allowed), parts[-1])
    if may_be_exact and shape.exact() < math.inf and (path <= EASY or path <= cost(first) / WORTH):
        return [None]
    sizes: list[int | None] = [first]
    most = shape.n if kind == "rows" else shape.side
    spent = cost(first)
    limit = max(min(budget, GROWN * spent), SMALL)
    for q in (first << doubled for doubled in range(1, GROWTHS + 1)):
        spent += cost(q)
        if q >= most or not spent <= limit:
            break
        sizes.append(q)
    return sizes
