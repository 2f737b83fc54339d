"""Which sizes of sketches are tried: X itself where that costs little, else sketches that keep to a budget."""

from __future__ import annotations

import itertools
import math

import pytest

from lrla.ridge._cost import BUDGET, GROWN, MORE, SMALL, WORTH, Shape, automatic_size, automatic_sizes

SHAPES = [
    Shape(n, p, stored or n * p, stored is not None, 41, 1, 4)
    for n, p, stored in (
        (20000, 5000, None), (5000, 20000, None), (20000, 50000, 1_200_000), (2310, 30000, 600_000), (2000, 1000, None),
        (1000, 3000, None), (200_000, 300, None), (100, 80, None), (50, 10_000, None), (3000, 2500, None),
        (50_000, 50_000, None),
    )
]  # fmt: skip
KINDS = ("sparse_stack", "gaussian", "srdct", "rows")


def every(test):
    test = pytest.mark.parametrize("shape", SHAPES, ids=str)(test)
    return pytest.mark.parametrize("refit", [True, False])(pytest.mark.parametrize("kind", KINDS)(test))


@every
def test_the_data_themselves_are_taken_where_they_cost_little_and_never_else(shape, kind, refit):
    sizes, sketches = (automatic_sizes(shape, kind, 8, refit, may_be_exact) for may_be_exact in (True, False))
    if sketches == [None]:
        assert sizes == [None]
        return
    little = max(SMALL, shape.sketched(sketches[0], kind, 8, refit) / WORTH)
    assert sizes == ([None] if shape.path() <= little else sketches)


@every
@pytest.mark.parametrize("may_be_exact", [True, False])
def test_growth_keeps_to_the_budget(shape, kind, refit, may_be_exact):
    """A tenth of X itself and four times the first, or what is cheap anyway."""
    sizes = automatic_sizes(shape, kind, 8, refit, may_be_exact)
    assert all(larger == 2 * q for q, larger in itertools.pairwise(sizes))
    if len(sizes) > 1:
        costs = [shape.sketched(q, kind, 8, refit) for q in sizes]
        allowed = max(min(BUDGET * shape.path(), GROWN * costs[0]), SMALL)
        assert sum(costs) <= allowed
        assert len(sizes) <= 3


@every
def test_the_first_size_is_a_tenth_to_a_fifth_of_the_smaller_side(shape, kind, refit):
    first = automatic_sizes(shape, kind, 8, refit, may_be_exact=False)[0]
    largest = automatic_size(kind, shape.n, shape.p)
    assert (first is None) == (largest is None)
    if first is not None:
        assert min(64, largest) <= first <= largest
        assert first >= largest // 2
        # smaller than a fifth only where that would not keep to the budget, and where it saves something
        cost, smaller = (shape.sketched(q, kind, 8, refit) for q in (largest, max(min(64, largest), largest // 2)))
        assert first == largest or (cost > BUDGET * shape.path() and cost > smaller)
        assert shape.sketched(first, kind, 8, refit) <= max(BUDGET * shape.path(), MORE * smaller, SMALL)


@pytest.mark.parametrize(("shape", "sizes"), [
    (SHAPES[0], [600]), (SHAPES[1], [600]), (SHAPES[2], [2048]), (SHAPES[3], [462]), (SHAPES[4], [None]),
    (SHAPES[6], [None]), (SHAPES[7], [None]), (SHAPES[10], [2048, 4096]),
], ids=str)  # fmt: skip
def test_sketches_are_for_data_with_two_large_sides(shape, sizes):
    assert automatic_sizes(shape, "sparse_stack", 8, True, may_be_exact=True) == sizes


def test_what_does_not_fit_into_memory_costs_infinitely_much(monkeypatch):
    shape = SHAPES[0]
    monkeypatch.setattr("os.sysconf", lambda name: 1 << 14)  # 256 MiB: neither 5000 squared ...
    assert shape.exact() == math.inf
    assert shape.sketched(1000, "sparse_stack", 8, True) < math.inf
    assert shape.sketched(2000, "sparse_stack", 8, True) == math.inf  # ... nor 20000 times 2000
    assert automatic_sizes(shape, "sparse_stack", 8, True, may_be_exact=True) == [600]
    slow = Shape(5000, 5000, 25_000_000, False, 41, 1, 4)
    assert automatic_sizes(slow, "sparse_stack", 8, True, may_be_exact=True) == [
        1000
    ]  # its time tells the budget still
