"""`make_sketch` and `sketch_all`: the doors of the room."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import seed_sequence
from lrla.sketch._dense import Gaussian, Orthogonal, Rademacher
from lrla.sketch._fast_transforms import CosineSketch, HadamardSketch
from lrla.sketch._operator import SketchOperator, check_factor
from lrla.sketch._sampling import UniformSampling, WeightedSampling, capped_probabilities, check_probabilities
from lrla.sketch._sparse import HOST, SparseIid, SparseStack, right_together

FAMILIES: dict[str, type[SketchOperator]] = {
    "sparse_stack": SparseStack,
    "countsketch": SparseStack,
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "orthogonal": Orthogonal,
    "srdct": CosineSketch,
    "srht": HadamardSketch,
    "uniform": UniformSampling,
    "sparse_iid": SparseIid,
    "leverage": WeightedSampling,
}
DATA_FREE = tuple(kind for kind in FAMILIES if kind != "leverage")
# How many columns a kind can have at the most: those that choose among coordinates, or have orthonormal columns.
LIMITED = ("orthogonal", "srdct", "srht", "uniform")


def make_sketch(
    n_in: int,
    n_out: int,
    kind: str = "sparse_stack",
    *,
    nnz: int = 8,
    density: float | None = None,
    permute: bool = True,
    probabilities: Any = None,
    random_state: Any = None,
    member: int = 0,
    dtype: Any = np.float64,
) -> SketchOperator:
    """A random matrix S of shape (n_in, n_out) with E[S S^T] = I, as an operator.

    Parameters
    ----------
    n_in : int
        Dimension N of what is sketched.
    n_out : int
        Size d of the sketch.
    kind : str, default="sparse_stack"
        - "sparse_stack": `nnz` entries +-1 / sqrt(nnz) in every row, one in each of `nnz` blocks of columns.
        - "countsketch": the same with one entry.
        - "gaussian", "rademacher": independent entries N(0, 1/d), or +-1 / sqrt(d).
        - "orthogonal": sqrt(N/d) times orthonormal columns.
        - "srdct", "srht": subsampled randomised cosine or Walsh-Hadamard transform.
        - "uniform": d distinct coordinates.
        - "sparse_iid": independent entries, zero with probability 1 - `density`.
        - "leverage": coordinates drawn independently with `probabilities`; d is their expected number, and ``op.shape`` tells
          how many came.  For rows of data that are not alike, as their leverage scores tell.
    nnz : int, default=8
        Entries in a row of "sparse_stack"; at most d are used.
    density : float, default=None
        Of "sparse_iid"; None is 1 / sqrt(n_in).
    permute : bool, default=True
        Permute the coordinates before the transform of "srdct" and "srht".  Without it, what is ordered in the data stays
        in the sketch.
    probabilities : array-like of shape (n_in,), default=None
        Of "leverage", where they are required: what the probability of each coordinate is proportional to, up to 1; for
        example the result of `approx_leverage_scores`.
    random_state : None, int, RandomState or Generator, default=None
        An int makes the sketch repeatable.
    member : int, default=0
        Which one of the independent sketches that belong to this `random_state`.
    dtype : float64 or float32, default=float64
        Of the entries that `rows`, `to_array` and `to_csr` give out.  A product has the dtype of the data.

    Returns
    -------
    op : SketchOperator
        ``op.right(X)`` is X S, ``op.left(A)`` is S^T A, ``op.expand(W)`` is S W, for dense, sparse and device arrays;
        ``op @ W``, ``X @ op`` and ``op.T @ A`` are the same.  ``op.left_partial`` takes A by blocks of rows, ``op.prefix(d)``
        is the sketch of the first d columns, ``op.rows``, ``op.to_array`` and ``op.to_csr`` give the entries.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of range: "orthogonal", "srdct" and "uniform" have at most n_in columns,
        "srht" the next power of two.  If `probabilities` are missing or negative, or all zero.

    Warns
    -----
    UserWarning
        If n_out >= n_in, where nothing is compressed, or if "sparse_iid" leaves out a coordinate with a probability of more
        than 1 %.

    Notes
    -----
    Every entry is a function of (seed, row, column) through Philox4x32-10: the same on every device, for any number of
    threads, and for any partition of the rows.  An operator is a value of a few numbers: a pickle takes a few hundred bytes
    ("leverage": its probabilities).

    References
    ----------
    Camano, Epperly, Meyer, Tropp, *Faster linear algebra algorithms with structured random matrices*, arXiv 2508.21189
    (sparse_stack).  Clarkson, Woodruff, *Low-rank approximation and regression in input sparsity time*, STOC 2013
    (countsketch).  Ailon, Chazelle, *The fast Johnson-Lindenstrauss transform*, SIAM J. Comput. 39, 2009 (srht).  Achlioptas,
    *Database-friendly random projections*, J. Comput. Syst. Sci. 66, 2003 (rademacher, sparse_iid).

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import make_sketch
    >>> S = make_sketch(1000, 100, random_state=0)
    >>> X = np.random.default_rng(0).standard_normal((5, 1000))
    >>> Z = S.right(X)
    >>> Z.shape
    (5, 100)
    >>> bool(np.allclose(Z, X @ S.to_array()))
    True
    """
    op = build(n_in, n_out, kind, nnz, density, permute, random_state, member, dtype, probabilities)
    warn_of(op)
    return op


def build(
    n_in: Any, n_out: Any, kind: Any, nnz: Any, density: Any, permute: Any, random_state: Any, member: Any, dtype: Any,
    probabilities: Any = None,
) -> SketchOperator:  # fmt: skip
    """`make_sketch` without its warnings."""
    n_in = _validation.check_integer(n_in, "n_in", 1)
    n_out = _validation.check_integer(n_out, "n_out", 1, (1 << 30) - 1)
    _validation.check_choice(kind, "kind", tuple(FAMILIES))
    nnz = _validation.check_integer(nnz, "nnz", 1)
    _validation.check_choice(permute, "permute", (True, False))
    member = _validation.check_integer(member, "member", 0)
    if density is not None:
        density = _validation.check_real(density, "density", 0.0, 1.0, closed=(False, True))
    dtype = np.dtype(dtype)
    if dtype not in _validation.FLOATS:
        raise ValueError(f"dtype must be float64 or float32; got {dtype}.")
    special: dict[str, Any] = {}
    if FAMILIES[kind] is SparseStack:
        nnz = min(nnz, n_out) if kind == "sparse_stack" else 1
        special = {"nnz": nnz, "made_with": (n_out, nnz)}
    elif kind == "sparse_iid":
        special = {"density": n_in**-0.5 if density is None else density}
    elif kind in ("srdct", "srht"):
        special = {"permute": permute}
    elif kind == "leverage":
        special = {"probabilities": _check_probabilities(probabilities, n_in, n_out).tobytes()}
    seed = seed_sequence(random_state)
    entropy = tuple(seed.entropy) if isinstance(seed.entropy, Sequence) else seed.entropy
    op = FAMILIES[kind](kind, n_in, n_out, entropy, tuple(seed.spawn_key), member, dtype, **special)
    if isinstance(op, WeightedSampling):
        return replace(op, n_out=len(op.indices))
    if op.kind in LIMITED and op.n_out > op.padded_size:
        raise ValueError(
            f"n_out must be at most {op.padded_size} for kind={op.kind!r} and n_in={op.n_in}; got {op.n_out}. Ask for fewer "
            "columns, or for kind='sparse_stack'."
        )
    return op


def _check_probabilities(given: Any, n_in: int, expected: int) -> np.ndarray:
    """The probability of every coordinate, float64."""
    if given is None:
        raise ValueError("kind='leverage' needs probabilities, one for each of n_in coordinates, e.g. leverage scores.")
    given = _arrays.to_host(given) if _arrays.kind(given) == "device" else given
    return capped_probabilities(check_probabilities(given, n_in, None), min(expected, n_in))


def warn_of(op: SketchOperator, out: str = "n_out", into: str = "n_in") -> None:
    """The warnings of `make_sketch`, with the names that the caller has for the two sizes."""
    if op.n_out >= op.n_in:
        warnings.warn(
            f"{out}={op.n_out} is not below {into}={op.n_in}: the sketch gives no compression. Ask for fewer columns.",
            UserWarning,
            stacklevel=3,
        )
    if isinstance(op, SparseIid):
        lost = (1.0 - op.density) ** op.n_out
        if lost > 0.01:
            raise_density = 1.0 - 0.01 ** (1.0 / op.n_out)
            warnings.warn(
                f"A coordinate is left out of this sparse_iid sketch with a probability of {lost:.0%} (density={op.density:.2g}, "
                f"{out}={op.n_out}). Use kind='sparse_stack', or density >= {raise_density:.2g}.",
                UserWarning,
                stacklevel=3,
            )


def sketch_all(X: Any, ops: Sequence[SketchOperator]) -> list[Any]:
    """Apply several right sketches in one sweep over X.

    Parameters
    ----------
    X : array-like, sparse or device array of shape (n, n_in)
    ops : sequence of SketchOperator
        All with the same `n_in`.

    Returns
    -------
    list of arrays of shape (n, op.n_out)
        X S for each of the operators, equal to ``op.right(X)``.

    Raises
    ------
    TypeError, ValueError
        If X is no matrix with n_in columns.

    Notes
    -----
    On the host, dense or sparse, "sparse_stack" and "countsketch" operators share one read of X.

    References
    ----------
    See `make_sketch`.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import make_sketch, sketch_all
    >>> X = np.random.default_rng(0).standard_normal((5, 1000))
    >>> ops = [make_sketch(1000, 100, random_state=0, member=k) for k in range(3)]
    >>> [Z.shape for Z in sketch_all(X, ops)]
    [(5, 100), (5, 100), (5, 100)]
    """
    for op in ops:
        X = check_factor(X, "X", 1, op.n_in, "n_in")
    hashed = [op for op in ops if isinstance(op, SparseStack)]
    if len(hashed) < 2 or _arrays.kind(X) not in HOST:
        return [op._right(X) for op in ops]
    together = iter(right_together(X, hashed))
    return [next(together) if isinstance(op, SparseStack) else op._right(X) for op in ops]
