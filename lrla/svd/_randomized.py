"""`randomized_svd` with scikit-learn's signature and defaults, in block-row products and Gram orthonormalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrla import _arrays, _validation
from lrla._random import Stream, seed_sequence
from lrla.linalg._operator import as_operator
from lrla.svd._rayleigh_ritz import finish, largest_signs
from lrla.svd._scaling import without_exponent
from lrla.svd._subspace import subspace_iteration
from lrla.svd._truncated import warn_rank


def randomized_svd(
    M: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: Any = "auto",
    power_iteration_normalizer: str = "auto",
    transpose: Any = "auto",
    flip_sign: bool = True,
    random_state: Any = None,
) -> tuple[Any, Any, Any]:
    """Truncated SVD by randomized subspace iteration: scikit-learn's function, for code that wants just this algorithm.

    `truncated_svd` is faster at equal error and knows how accurate it is.

    Parameters
    ----------
    M : array-like, sparse matrix, LinearOperator or device array, (m, n)
    n_components : int in [1, min(m, n)]
    n_oversamples : int, default 10
        Additional random vectors.
    n_iter : int or "auto"
        Power iterations; "auto" is 7 if ``n_components < 0.1 min(m, n)``, else 4.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}
        "none" multiplies without normalising, which loses small singular values; the other three mean the same here: every
        product is orthonormalised through its Gram matrix, at the cost of LU and with the accuracy of QR.
    transpose : bool or "auto"
        Iterate on M^T; "auto" does so when m < n.
    flip_sign : bool, default True
        Make the entry of largest magnitude of every left vector positive (of every right vector when transposed), as
        scikit-learn does.  False leaves lrla's rule: of every right vector.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    U : array of shape (m, n_components)
    s : array of shape (n_components,)
    Vt : array of shape (n_components, n)

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument.

    Notes
    -----
    2 n_iter + 2 products with n_components + n_oversamples vectors, of 2 nnz flops a vector.  The number of passes is fixed:
    what accuracy they bring depends on how fast the spectrum decays.

    References
    ----------
    N. Halko, P.-G. Martinsson, J. Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011, arXiv:0909.4061.

    Examples
    --------
    >>> import numpy as np
    >>> from lrla import randomized_svd
    >>> U, s, Vt = randomized_svd(np.diag([3.0, 2.0, 1.0]), 2, random_state=0)
    >>> s.round(6)
    array([3., 2.])
    """
    M = _validation.check_matrix(M, "M", operator=True)
    k = _validation.check_rank(n_components, M.shape, "n_components")
    _validation.check_integer(n_oversamples, "n_oversamples", 0)
    _validation.check_choice(power_iteration_normalizer, "power_iteration_normalizer", ("auto", "QR", "LU", "none"))
    _validation.check_choice(transpose, "transpose", ("auto", True, False))
    steps = 7 if k < 0.1 * min(M.shape) else 4
    if not (isinstance(n_iter, str) and n_iter == "auto"):
        steps = _validation.check_integer(n_iter, "n_iter", 0)
    _validation.check_memory(8.0 * sum(M.shape) * (k + n_oversamples), f"The {k + n_oversamples} vectors of both sides")
    M, exponent = without_exponent(M)
    op = as_operator(M)
    flipped = M.shape[0] < M.shape[1] if isinstance(transpose, str) else bool(transpose)
    side = op.T if flipped else op
    stream = Stream.from_seed(seed_sequence(random_state))
    place = {"xp": op.xp, "device": _arrays.device(op.empty((1, 1))), "dtype": np.dtype(op.dtype).name}
    start = stream.normal(min(k + n_oversamples, min(M.shape)), side.shape[1], **place)
    left, s, right = subspace_iteration(side, k, start, n_iter=steps, normalize=power_iteration_normalizer != "none")
    if flipped:
        left, right = right, left
    spare = Stream((stream.key[0], stream.key[1] ^ 1))
    U, s, Vt, rank = finish(
        (left, s, right),
        k,
        lambda j: spare.normal(j, M.shape[0], **place),
        lambda j: spare.normal(j, M.shape[1], **place),
    )
    warn_rank(rank, k)
    if flip_sign and not flipped:
        sign = largest_signs(U.T)
        U, Vt = U * sign[None, :], Vt * sign[:, None]
    return U, _arrays.from_host((s * 2.0**exponent).astype(op.dtype), Vt), Vt
