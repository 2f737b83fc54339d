"""Leverage scores from a sketch, and samples of rows with known probabilities.

The leverage of row a_i of A is ``a_i (A^T A)^+ a_i^T``: how much of the row no other row can stand in for.  A sketch gives M
with ``M M^T`` close to ``(A^T A)^+``, so that it is about ``||a_i M||^2``, and a few random combinations of the columns of M
tell that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import Stream, seed_sequence
from lrla.linalg._exponent import values_of
from lrla.ridge._preconditioned import precondition, rows_of, sketch_of
from lrla.ridge._sweeps import System, column_norms
from lrla.sketch import make_sketch
from lrla.sketch._sampling import bernoulli, capped_probabilities, check_probabilities

BLOCK_NUMBERS = 1 << 18  # of products of rows with M at a time
MEMBERS = {"sketch": 0, "projection": 1, "sample": 2}  # streams of one seed, so that none depends on another


def approx_leverage_scores(A: Any, *, sketch_size: float = 8.0, n_proj: int = 16, random_state: Any = None) -> Any:
    """Leverage scores of the rows of a tall matrix, approximately, in two passes over it.

    Parameters
    ----------
    A : array-like, sparse matrix or device array of shape (m, n)
    sketch_size : float, default 8.0
        Rows of the sketch as a multiple of n.  The relative error that comes from the sketch is about ``sketch_size ** -0.5``;
        where A has no more rows than that, its scores are exact.
    n_proj : int, default 16
        Random directions in which a row is measured; the relative error that comes from them is about ``(2 / n_proj) ** 0.5``.
        0, and any number from the rank on, measures in all directions.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    scores : array of shape (m,)
        In [0, 1], in the namespace, device and dtype of A; their sum is at most the rank, and less only where a score was cut
        off at 1.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Notes
    -----
    ``8 m n`` additions for the sketch, ``2 sketch_size n^3`` flops for its decomposition, and ``2 m n n_proj`` for the scores.
    Directions of A below ``max(30, n) eps``, after columns have unit norm, do not count.

    References
    ----------
    P. Drineas, M. Magdon-Ismail, M. Mahoney, D. Woodruff, "Fast approximation of matrix coherence and statistical leverage",
    JMLR 13, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import approx_leverage_scores
    >>> A = np.random.default_rng(0).standard_normal((5000, 10))
    >>> A[7] *= 100.0
    >>> scores = approx_leverage_scores(A, random_state=0)
    >>> int(scores.argmax()), bool(scores[7] > 0.5)
    (7, True)
    """
    A = _validation.check_matrix(A, "A")
    sketch_size = _validation.check_real(sketch_size, "sketch_size", 1.0)
    n_proj = _validation.check_integer(n_proj, "n_proj", 0)
    return leverage_scores(A, sketch_size, n_proj, seed_sequence(random_state))


def leverage_scores(A: Any, sketch_size: float, n_proj: int, seed: np.random.SeedSequence) -> Any:
    """The algorithm behind `approx_leverage_scores`, for a checked A."""
    system = System(A)
    m, n = system.shape
    d = math.ceil(sketch_size * n)
    none = system.xp.empty((0, m), dtype=system.like.dtype, device=_arrays.device(system.like))
    _validation.check_memory(8.0 * min(m, d) * n, f"A sketch of {min(m, d)} rows")
    if d >= m:
        B = rows_of(A, none)
    else:
        B = sketch_of(make_sketch(m, d, random_state=seed, member=MEMBERS["sketch"], dtype=system.dtype), A, none)
    exact = d >= m or system.dtype == np.float32  # whose rounding errors reach the condition that a Gram matrix can do
    P, _ = precondition(system, B, column_norms(A), exact=exact, cut=max(30.0, n))
    if P.rank == 0:
        return system.xp.zeros(m, dtype=system.like.dtype, device=_arrays.device(system.like))
    M = P.M
    if d < m and 0 < n_proj < P.rank:  # the symmetric root: singular vectors have signs that rounding decides
        G = Stream.from_seed(seed, MEMBERS["projection"]).normal(n, n_proj)
        M = M @ _arrays.from_host((P.V.T @ G).astype(system.dtype), system.like)
    parts = [_squared_rows(block @ M) for block in row_blocks(A, M.shape[1])]
    scores = system.xp.concat(parts) if len(parts) > 1 else parts[0]
    scores = scores * (
        P.rank / system.xp.sum(scores)
    )  # their sum is known: it takes off what the sketch adds on average
    return _arrays.astype(system.xp.where(scores > 1.0, system.xp.ones_like(scores), scores), system.dtype)


def row_blocks(A: Any, width: int) -> Iterator[Any]:
    """A in blocks of rows whose products with `width` vectors stay in cache."""
    A = A.tocsr() if _arrays.kind(A) in ("sparse", "device_sparse") else A
    step = max(256, BLOCK_NUMBERS // max(1, width))
    return (A[start : min(start + step, A.shape[0]), :] for start in range(0, A.shape[0], step))


def _squared_rows(W: Any) -> Any:
    return _arrays.namespace(W).sum(_arrays.astype(W, np.float64) ** 2, axis=1)


def sample_rows(A: Any, n_samples: int, probabilities: Any = "uniform", random_state: Any = None) -> tuple[Any, Any]:
    """Draw rows independently of one another, each with a probability that is known.

    Parameters
    ----------
    A : array-like, sparse matrix or device array of shape (m, n)
    n_samples : int in [1, m]
        Rows to expect; how many come is random, with a standard deviation below ``n_samples ** 0.5``.
    probabilities : {"uniform", "leverage", "root_leverage"} or array of shape (m,)
        What the probability of a row is proportional to, up to 1: nothing; its leverage, for squared losses; the root of it, for
        losses ``abs(r) ** p`` with p < 2; or the numbers given.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    indices : int64 array of shape (k,)
        The rows drawn, in order; where A is.
    weights : float64 array of shape (k,)
        One over the probability of each, so that ``sum(weights * f(A[indices]))`` has the expectation ``sum(f(A))`` for any
        function f of a row.  A squared loss takes them as `sample_weight`, or rows multiplied by their roots.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Notes
    -----
    Whether row i is drawn depends on the seed, on i and on its probability, and on nothing else: blocks of rows can be sampled
    where they are.  Probabilities are ``min(1, c q_i)`` with c so that they sum to `n_samples`; rows with q_i = 0 never come.

    References
    ----------
    M. Mahoney, "Randomized algorithms for matrices and data", Foundations and Trends in Machine Learning 3(2), 2011.
    D. Woodruff, T. Yasuda, "Sharper bounds for l_p sensitivity sampling", ICML 2023, arXiv:2306.00732.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import sample_rows
    >>> A = np.random.default_rng(0).standard_normal((5000, 10))
    >>> indices, weights = sample_rows(A, 500, "leverage", random_state=0)
    >>> sampled = (A[indices] * weights[:, None]).T @ A[indices]
    >>> bool(np.linalg.norm(sampled - A.T @ A) < 0.3 * np.linalg.norm(A.T @ A))
    True
    """
    A = _validation.check_matrix(A, "A")
    m = A.shape[0]
    n_samples = _validation.check_integer(n_samples, "n_samples", 1, m, hint=f" A has {m} rows.")
    seed = seed_sequence(random_state)
    like = values_of(A)
    q = sampling_weights(A, probabilities, seed, like)
    p = capped_probabilities(q, n_samples)
    indices = bernoulli(p, Stream.from_seed(seed, MEMBERS["sample"]))
    return _arrays.from_host(indices, like), _arrays.from_host(1.0 / p[indices], like)


def sampling_weights(A: Any, probabilities: Any, seed: np.random.SeedSequence, like: Any) -> np.ndarray:
    """What the probabilities are proportional to, (m,) float64 on the host."""
    if isinstance(probabilities, str):
        _validation.check_choice(probabilities, "probabilities", ("uniform", "leverage", "root_leverage"))
        if probabilities == "uniform":
            return np.ones(A.shape[0])
        scores = _arrays.to_host(leverage_scores(A, 8.0, 16, seed)).astype(np.float64)
        if not scores.any():
            raise ValueError(
                f"A is zero, so its rows have no leverage; take probabilities='uniform', not {probabilities!r}."
            )
        return scores if probabilities == "leverage" else np.sqrt(scores)
    return check_probabilities(probabilities, A.shape[0], like)
