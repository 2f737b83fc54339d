"""What a tuned penalty costs by sketches of some size, and by the data themselves: which sizes are worth trying.

Costs are nanoseconds of one core with a good BLAS, measured once.  Only which of two is larger is of interest, and that differs
little among machines, since nearly all of it is products of matrices and eigenvalues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lrla import _arrays, _validation
from lrla.ridge._exact_solve import DIRECT_DENSE, DIRECT_SPARSE

FLOP = 0.02  # of a product of matrices
EIGEN = 0.3  # of all eigenvectors, times the order cubed
SPARSE = 0.6  # of a product of a sparse matrix with many columns, for each stored entry and column
TOUCH = 8.0  # of an entry of a matrix that is centred and converted, twice
RESIDUAL = 30.0  # of a corrected residual, for each row, penalty and target
STEPS = 30  # of conjugate gradients, typically
LEAST, LARGEST = 64, 2048  # columns of the first automatic sketch
GROWTHS = 2  # times that it is doubled
WORTH = 1.0 / 3.0  # of the cost of X itself is what sketches may cost where X itself can follow them, if they do not do
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

    def exact(self) -> float:
        """The whole path from X itself; infinite where its matrices would fill the memory."""
        if not _fits(SHARE * 4.0 * self.side**2):
            return math.inf
        return self._gram() + EIGEN * self.side**3 + self._residuals(self.n, self.p, sparse=self.sparse)

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
        return self.members * member + (self._solution() if refit else 0.0)

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
            "sparse_stack": 1.0 + 0.5 * min(nnz, q),
            "countsketch": 2.5,
            "srdct": 15.0,
            "srht": 20.0,
            "uniform": 1.0,
        }
        one = each.get(kind, 2.5 * FLOP * q) * (5.0 if self.sparse else 1.0)
        return 1.25 * self.stored * one  # the first member is sketched once more, for the grid

    def _solution(self) -> float:
        if self.side <= (DIRECT_SPARSE if self.sparse else DIRECT_DENSE):
            return self._gram() + FLOP * self.side**3 / 3.0
        return STEPS * 2.0 * self.stored * self.targets


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

    If X itself may be used it takes the place of the first size that costs more than a part of what it costs; else the list
    ends before a size that costs more than X itself.
    """
    first, exact = automatic_size(kind, shape.n, shape.p), shape.exact()
    if first is None:
        return [None]
    instead: list[int | None] = [None] if may_be_exact and exact < math.inf else []
    most, limit = (shape.n if kind == "rows" else shape.side), (WORTH if instead else 1.0) * exact

    def worthwhile(q: int) -> bool:
        cost = shape.sketched(q, kind, nnz, refit)
        return q < most and cost < math.inf and cost <= limit

    if instead and not worthwhile(first):
        return instead
    sizes: list[int | None] = [first]
    for q in (first << doubled for doubled in range(1, GROWTHS + 1)):
        if not worthwhile(q):
            return sizes + instead
        sizes.append(q)
    return sizes
