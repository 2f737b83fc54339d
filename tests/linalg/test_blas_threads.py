"""Long products in parts, while BLAS has one thread."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lrla.linalg import _blas_threads
from lrla.linalg._blas_threads import mix, one_blas_thread, overlap


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_threads_are_given_back_after_the_last_has_left():
    before = blas_threads()
    with one_blas_thread:
        with one_blas_thread:
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


@pytest.mark.parametrize("n", [3, 101, 4000])
@pytest.mark.parametrize("large", [1, 1000, 30_000, 10**9])
def test_parts_give_the_whole_product(rng, monkeypatch, n, large):
    monkeypatch.setattr(_blas_threads, "LARGE", large)
    C, P, W = rng.standard_normal((5, 7)), rng.standard_normal((7, n)), rng.standard_normal((5, n))
    with one_blas_thread:
        mixed, overlaps = mix(C, P), overlap(W, P)
        again = mix(C, P), overlap(W, P)
        rest, narrow = mix(C, P, W), overlap(P, W)
    assert np.abs(mixed - C @ P).max() <= 1e-13
    assert np.abs(rest - (W - C @ P)).max() <= 1e-13
    assert np.abs(narrow - P @ W.T).max() <= 1e-14 * 100 * n
    assert np.abs(overlaps - W @ P.T).max() <= 1e-14 * 100 * n
    assert np.array_equal(mixed, again[0])
    assert np.array_equal(overlaps, again[1])
