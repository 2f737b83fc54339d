"""Counter-based random numbers: the published answers, and independence from partition, thread, device and order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from lrla._random import CHUNK, Stream, philox4x32, seed_sequence

# Known answers of Philox4x32-10, as published with Random123 (Salmon et al., SC11): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
A_FEW_ULP = 1e-14  # |z| <= 6.8; log, sqrt, sin and cos of two libraries differ by an ulp each, 4 eps |z| = 6e-15


def _words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(xp, counter, key, expected):
    counter = tuple(xp.asarray(np.array([word], dtype=np.int64)) for word in _words(counter))
    result = [int(xp.to_numpy(word)[0]) for word in philox4x32(counter, tuple(_words(key)))]
    assert result == _words(expected)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 40], [CHUNK // 3, CHUNK // 2], range(1, 99)])
def test_normals_do_not_depend_on_the_partition(seed, cuts):
    stream, n, d = Stream.from_seed(seed_sequence(seed)), 2 * max([50, *cuts]), 6
    edges = [0, *cuts, n]
    parts = [stream.normal(d, b - a, first=a) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), stream.normal(d, n))


def test_normals_of_fewer_rows_are_the_first_rows(seed):
    stream = Stream.from_seed(seed_sequence(seed))
    np.testing.assert_array_equal(stream.normal(5, 30), stream.normal(11, 30)[:5])


def test_coordinates_beyond_32_bits_are_told_apart():
    stream = Stream((1, 2))
    assert not np.any(stream.normal(4, 5, first=0) == stream.normal(4, 5, first=1 << 32))


def test_normals_across_the_internal_chunks_are_those_of_single_coordinates():
    stream = Stream((3, 4))
    chunk = CHUNK  # one group of four rows: a chunk holds this many coordinates
    whole = stream.normal(4, chunk + 3)
    for i in (0, chunk - 1, chunk, chunk + 2):
        np.testing.assert_array_equal(whole[:, i : i + 1], stream.normal(4, 1, first=i))


def test_normals_are_equal_in_every_namespace(xp, seed):
    stream = Stream.from_seed(seed_sequence(seed))
    there = stream.normal(10, 333, xp=xp.namespace, device=xp.device)
    assert xp.owns(there)
    np.testing.assert_allclose(xp.to_numpy(there), stream.normal(10, 333), rtol=0, atol=A_FEW_ULP)


def test_float32_normals_are_the_rounded_float64_ones(xp):
    stream = Stream((5, 6))
    there = xp.to_numpy(stream.normal(3, 50, xp=xp.namespace, device=xp.device, dtype="float32"))
    assert there.dtype == np.float32
    expected = xp.to_numpy(stream.normal(3, 50, xp=xp.namespace, device=xp.device)).astype(np.float32)
    np.testing.assert_array_equal(there, expected)


@pytest.mark.parametrize("n", [0, 1])
def test_normals_of_no_or_one_coordinate(xp, n):
    assert Stream((7, 8)).normal(3, n, xp=xp.namespace, device=xp.device).shape == (3, n)


def test_normals_are_normal_and_rows_independent(seed):
    # 2e5 numbers: the p-value of each test is uniform, so over 100 seeds the chance of one below 1e-5 is 3e-3.
    z = Stream.from_seed(seed_sequence(seed)).normal(8, 25_000)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-5
    n = z.shape[1]
    chi2 = n * np.sum(np.triu(np.corrcoef(z), 1) ** 2)  # 28 pairs of rows, each n r^2 ~ chi2(1)
    assert stats.chi2(28).sf(chi2) > 1e-5
    lag = n * np.mean(z[:, 1:] * z[:, :-1], axis=1) ** 2  # neighbours along a row
    assert stats.chi2(8).sf(np.sum(lag)) > 1e-5
    assert np.abs(z).max() <= np.sqrt(2 * np.log(2.0**33))  # the smallest uniform is 2^-33


def test_symmetric_numbers_are_uniform_and_equal_in_every_namespace(xp):
    stream = Stream((3, 4))
    numbers = stream.symmetric(5, 20_000)
    assert numbers.shape == (5, 20_000)
    assert np.abs(numbers).max() < 1.0
    assert stats.kstest(numbers.ravel(), "uniform", (-1.0, 2.0)).pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers) - np.eye(5)).max() < 5.0 / np.sqrt(20_000)
    for dtype in ("float32", "float64"):
        found = stream.symmetric(5, 20_000, xp=xp.namespace, device=xp.device, dtype=dtype)
        np.testing.assert_array_equal(xp.to_numpy(found), numbers)


def test_members_and_seeds_are_different_streams():
    keys = {Stream.from_seed(seed_sequence(s), member).key for s in range(50) for member in range(50)}
    assert len(keys) == 2500


def test_an_int_names_a_seed_and_a_stream_is_a_value():
    assert Stream.from_seed(seed_sequence(3), 2) == Stream.from_seed(seed_sequence(np.int64(3)), 2)
    assert seed_sequence(3).entropy == 3


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState], ids=["Generator", "RandomState"])
def test_a_generator_is_repeatable_and_consumed(make):
    generator = make(0)
    first, second = seed_sequence(generator).entropy, seed_sequence(generator).entropy
    assert first == seed_sequence(make(0)).entropy
    assert first != second


def test_a_seed_sequence_is_taken_as_it_is_and_none_is_fresh():
    sequence = np.random.SeedSequence(1, spawn_key=(2,))
    assert seed_sequence(sequence) is sequence
    assert seed_sequence(None).entropy != seed_sequence(None).entropy
    spawned = Stream.from_seed(sequence)
    assert spawned != Stream.from_seed(np.random.SeedSequence(1))


@pytest.mark.parametrize(
    ("value", "error"), [("0", TypeError), (1.0, TypeError), (True, TypeError), (-1, ValueError), ([1], TypeError)]
)
def test_other_random_states_are_refused(value, error):
    with pytest.raises(error, match="random_state must be"):
        seed_sequence(value)
