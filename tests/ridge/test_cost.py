"""Which sizes of sketches are tried: never one that costs more than the data themselves."""

from __future__ import annotations

import itertools
import math

import pytest

from lrla.ridge._cost import WORTH, Shape, automatic_size, automatic_sizes

SHAPES = [
    Shape(n, p, stored or n * p, stored is not None, 41, 1, 4)
    for n, p, stored in (
        (20000, 5000, None), (5000, 20000, None), (20000, 50000, 1_200_000), (2310, 30000, 600_000), (2000, 1000, None),
        (1000, 3000, None), (200_000, 300, None), (100, 80, None), (50, 10_000, None), (3000, 2500, None),
    )
]  # fmt: skip
KINDS = ("sparse_stack", "gaussian", "srdct", "rows")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("refit", [True, False])
def test_no_automatic_size_costs_more_than_the_data_themselves(shape, kind, refit):
    sizes = automatic_sizes(shape, kind, 8, refit, may_be_exact=True)
    assert sizes
    assert all(q is not None for q in sizes[:-1])
    asked = [q for q in sizes if q is not None]
    assert all(shape.sketched(q, kind, 8, refit) <= WORTH * shape.exact() for q in asked)
    assert all(2 * q == larger for q, larger in itertools.pairwise(asked))
    if sizes[-1] is not None:  # it has grown as often as it may
        assert len(sizes) == 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sketch_that_was_asked_for_stays(shape, kind):
    sizes = automatic_sizes(shape, kind, 8, True, may_be_exact=False)
    assert sizes[0] == automatic_size(kind, shape.n, shape.p)
    if sizes[0] is not None:
        assert None not in sizes


@pytest.mark.parametrize(("shape", "sizes"), [
    (SHAPES[0], [1000, None]), (SHAPES[3], [462, None]), (SHAPES[6], [None]), (SHAPES[7], [None]),
], ids=str)  # fmt: skip
def test_sketches_are_for_data_with_two_large_sides(shape, sizes):
    assert automatic_sizes(shape, "sparse_stack", 8, True, may_be_exact=True) == sizes


def test_what_does_not_fit_into_memory_costs_infinitely_much(monkeypatch):
    shape = SHAPES[0]
    monkeypatch.setattr("os.sysconf", lambda name: 1 << 14)  # 256 MiB: neither 5000 squared ...
    assert shape.exact() == math.inf
    assert shape.sketched(1000, "sparse_stack", 8, True) < math.inf
    assert shape.sketched(2000, "sparse_stack", 8, True) == math.inf  # ... nor 20000 times 2000
    assert automatic_sizes(shape, "sparse_stack", 8, True, may_be_exact=True) == [1000]
