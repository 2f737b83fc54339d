"""Random numbers that are a pure function of (seed, coordinates): Philox4x32-10 (Salmon et al., SC11, 2011).

The same seed gives the same numbers on every device, for every partition of the rows and any number of threads.  The
words are computed in int64 arithmetic of whatever array namespace is asked for: products wrap modulo 2**64, as they
should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import array_api_compat.numpy
import numpy as np

MASK = 0xFFFFFFFF
# Purpose tags in the last word of the counter: streams of different purposes never overlap.
HASH, PERMUTATION, SAMPLING, GAUSSIAN, RADEMACHER, UNIFORM = range(6)
CHUNK = 1 << 14  # counters at a time, so that the ten rounds work in cache


def seed_sequence(random_state: Any) -> np.random.SeedSequence:
    """Turn a `random_state` into a seed: an int names it, a generator gives four words, None takes fresh entropy.

    Raises
    ------
    TypeError, ValueError
        If `random_state` is not None, a non-negative int, a `RandomState`, a `Generator` or a `SeedSequence`.
    """
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must be a non-negative int; got {random_state}.")
        return np.random.SeedSequence(int(random_state))
    if isinstance(random_state, np.random.Generator):
        return np.random.SeedSequence(random_state.integers(0, 1 << 32, 4, dtype=np.uint32).tolist())
    if isinstance(random_state, np.random.RandomState):
        return np.random.SeedSequence(random_state.randint(0, 1 << 32, 4, dtype=np.uint64).tolist())
    raise TypeError(
        "random_state must be None, an int, a numpy.random.RandomState or a numpy.random.Generator; "
        f"got {random_state!r}."
    )


@dataclass(frozen=True)
class Stream:
    """An immutable stream of random numbers, named by its 64-bit key."""

    key: tuple[int, int]

    @classmethod
    def from_seed(cls, seed: np.random.SeedSequence, member: int = 0) -> Stream:
        """Member `member` of the family of independent streams that belongs to a seed."""
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, member))
        k0, k1 = child.generate_state(2, np.uint32).tolist()
        return cls((k0, k1))

    def normal(
        self,
        d: int,
        n: int,
        *,
        xp: Any = array_api_compat.numpy,
        device: Any = None,
        dtype: str = "float64",
        first: int = 0,
    ) -> Any:
        """Standard normal numbers, shape (d, n): entry (j, i) depends on the key, j and `first` + i only.

        Box-Muller in float64 on the four words of a counter (i, j // 4).
        """
        groups = -(-d // 4)
        step = max(1, CHUNK // groups)
        parts = [
            self._normal_rows(groups, i, min(i + step, first + n), xp, device) for i in range(first, first + n, step)
        ]
        rows = (
            xp.concat(parts, axis=1)
            if len(parts) > 1
            else parts[0]
            if parts
            else xp.empty((4 * groups, 0), device=device)
        )
        return xp.astype(rows[:d, :], getattr(xp, dtype), copy=False)

    def words(
        self, d: int, n: int, purpose: int, *, xp: Any = array_api_compat.numpy, device: Any = None, first: int = 0
    ) -> Any:
        """32-bit words in int64, shape (d, n): word (j, i) is word j % 4 of the counter (`first` + i, j // 4, purpose)."""
        groups = -(-d // 4)
        step = max(1, CHUNK // max(1, groups))
        parts = [
            xp.reshape(xp.stack(self._words(groups, i, min(i + step, first + n), purpose, xp, device), axis=1),
                       (4 * groups, -1))
            for i in range(first, first + n, step)
        ]  # fmt: skip
        if not parts:
            return xp.zeros((d, 0), dtype=xp.int64, device=device)
        return (xp.concat(parts, axis=1) if len(parts) > 1 else parts[0])[:d, :]

    def uniform(self, n: int, *, xp: Any = array_api_compat.numpy, device: Any = None, first: int = 0) -> Any:
        """Uniform numbers in (0, 1), float64, shape (n,): entry i depends on the key and `first` + i only."""
        words = self.words(2, n, UNIFORM, xp=xp, device=device, first=first)
        return (xp.astype((words[0, :] << 20) | (words[1, :] >> 12), xp.float64) + 0.5) / 2.0**52

    def symmetric(
        self, d: int, n: int, *, xp: Any = array_api_compat.numpy, device: Any = None, dtype: str = "float64"
    ) -> Any:
        """Uniform numbers in (-1, 1), shape (d, n), of 16 bits each: a quarter of the time of normal ones.

        Entry (j, i) depends on the key, d, j and i only.
        """
        words = self.words(-(-d // 2), n, UNIFORM, xp=xp, device=device)
        halves = xp.concat((words & 0xFFFF, words >> 16), axis=0)[:d, :]
        return (xp.astype(halves, getattr(xp, dtype)) + 0.5) / 2.0**15 - 1.0

    def order(self, n: int, purpose: int, *, xp: Any = array_api_compat.numpy, device: Any = None) -> Any:
        """A random order of range(n), int64: a stable argsort of one 64-bit key for each index."""
        words = self.words(2, n, purpose, xp=xp, device=device)
        keys = ((words[0, :] - (1 << 31)) << 32) | words[1, :]  # signed, in the order of the unsigned keys
        return xp.astype(xp.argsort(keys, stable=True), xp.int64, copy=False)

    def _words(self, groups: int, start: int, stop: int, purpose: int, xp: Any, device: Any) -> tuple[Any, ...]:
        i = xp.arange(start, stop, dtype=xp.int64, device=device)[None, :]
        j = xp.arange(groups, dtype=xp.int64, device=device)[:, None]
        zero = xp.zeros((groups, stop - start), dtype=xp.int64, device=device)
        return philox4x32((zero + (i & MASK), zero + (i >> 32), zero + j, zero + purpose), self.key)

    def _normal_rows(self, groups: int, start: int, stop: int, xp: Any, device: Any) -> Any:
        words = self._words(groups, start, stop, GAUSSIAN, xp, device)
        w = [xp.astype(word, xp.float64) for word in words]
        out = []
        for radius, angle in ((w[0], w[1]), (w[2], w[3])):
            r = xp.sqrt(-2.0 * xp.log((radius + 0.5) / 2.0**32))
            phi = (2.0 * math.pi / 2.0**32) * angle
            out += [r * xp.cos(phi), r * xp.sin(phi)]
        return xp.reshape(xp.stack(out, axis=1), (4 * groups, stop - start))


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox4x32 on int64 arrays that hold 32-bit words; returns four such arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p, q = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((q >> 32) & MASK) ^ c1 ^ k0, q & MASK, ((p >> 32) & MASK) ^ c3 ^ k1, p & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3
