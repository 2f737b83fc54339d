"""Thick-restart block Krylov iterations: on the Gram operator with a basis of one side, and on A with bases of both.

Block Krylov spaces need far fewer products than subspace iteration at the same accuracy (Musco & Musco, NIPS 2015; Tropp &
Webber, arXiv 2306.12418), and a block much narrower than k loses nearly nothing in products (Chen, Epperly, Meyer, Musco &
Rao, arXiv 2508.06486).  Where products are cheap the orthogonalisation is the cost, so `GramSpace` keeps the shorter side
only, and a Chebyshev filter of A^T A saves more of it (`_filter`).  Squaring costs precision: it resolves a triplet to
relative residual `tol` only while ``tol theta_k > 10 eps theta_1``.  This is checked, and the caller is told ("precision");
`BidiagonalSpace` has no such limit.

Symbols: X is the next block, R the coefficients of a product in it, c those in the basis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrla import _arrays
from lrla.linalg._blas_threads import mix, overlap
from lrla.linalg._orthonormalize import gram, orthonormalize
from lrla.svd._filter import Filter, choose

# Steps from random vectors after which the spectrum is judged.
SURVEY_STEPS = 4
ROOM = 64  # vectors that there is room for before a restart, however few are wanted: for one, half the products of 24 (measured)

Fresh = Callable[[int], Any]  # j -> j new random rows (j, n)


@dataclass(frozen=True)
class Ritz:
    """Right Ritz vectors, descending, and how far the iteration came.

    `status` is one of "converged", "max_iter", "stopped" (by the callback), "precision" (the Gram operator cannot resolve
    the request in this precision) and "exhausted" (the basis spans the row space of A; there may be fewer than k vectors).
    """

    V: Any  # (k', n), orthonormal rows
    images: Any  # (k', m), A V^T, where the space keeps the images of its basis, else None
    s: np.ndarray  # (k',), singular values
    residuals: np.ndarray  # (k',), ||A^T u - s v||
    n_products: int  # vectors that A^T A was applied to
    n_converged: int
    status: str


class Schedule:
    """When to decompose the projected matrix next: this costs as much as a product, so not long before the residuals,
    which fall geometrically and faster towards the end, can have reached their limits.
    """

    def __init__(self) -> None:
        self.ratio, self.at, self.next = np.inf, 0, 0

    def due(self, step: int) -> bool:
        """Tell whether to look at this step."""
        return step >= self.next

    def checked(self, step: int, residuals: np.ndarray, limits: np.ndarray, degree: int) -> None:
        """Note the worst residual as a multiple of its limit; aim at the steps it seems to need.

        One step of a filter was seen to divide the residual by up to exp(0.4 degree).  Rounded down: later steps divide more.
        """
        ratio = float(np.max(np.divide(residuals, limits, out=np.zeros_like(residuals), where=limits > 0.0)))
        wait = 1.0
        if 1.0 < ratio < np.inf:
            needed = float(np.log(ratio))
            if degree > 1:
                wait = needed / (0.4 * degree)
            if ratio < self.ratio < np.inf:
                wait = max(wait, needed * (step - self.at) / np.log(self.ratio / ratio))
        self.ratio, self.at, self.next = ratio, step, step + int(min(max(wait, 1.0), max(3.0, 8.0 / degree)))


class RowBasis:
    """Orthonormal rows in preallocated memory: those from `last` on are the block to be multiplied next, those from
    `near` to `last` the block before it.
    """

    def __init__(self, op: Any, rows: int, length: int, start: Any):
        self.P = op.empty((rows, length))
        self.dtype = op.dtype
        self.near = self.last = self.size = 0
        self.append(start)

    def append(self, X: Any) -> None:
        """Add rows that are orthonormal and orthogonal to the basis; they are the next block."""
        self.near, self.last, self.size = self.last, self.size, self.size + X.shape[0]
        self.P[self.last : self.size, :] = X

    @property
    def block(self) -> Any:
        """The rows to be multiplied next."""
        return self.P[self.last : self.size, :]

    def project(self, W: Any, first: int = 0) -> tuple[Any, Any]:
        """The part of W orthogonal to the basis from row `first` on, and its coefficients W P^T there."""
        P = self.P[first : self.size, :]
        c = overlap(W, P)
        return mix(c, P, W), c

    def rest(self, W: Any, scale: float) -> tuple[np.ndarray, Any, np.ndarray]:
        """Write ``W = c P + R X`` with new orthonormal rows X, and return c (on the host), X and R.

        One projection leaves eps ||W|| in the basis, and a basis that is not orthogonal to begin with amplifies that from
        step to step, so the block is projected again after its first scaling.
        """
        W, c = self.project(W)
        X, R = orthonormalize(W, scale=scale, project=lambda X, size: self.project(X)[0])
        return _arrays.to_host(c).astype(np.float64), X, R

    def combine(self, Y: np.ndarray) -> Any:
        """The vectors with coefficients Y (size, j), as rows (j, length)."""
        coefficients = np.ascontiguousarray(Y.T).astype(self.dtype)
        return mix(_arrays.from_host(coefficients, self.P), self.P[: self.size, :])

    def restart(self, Y: np.ndarray) -> None:
        """Replace the basis by the vectors with coefficients Y."""
        self.P[: Y.shape[1], :] = self.combine(Y)
        self.near, self.last, self.size = 0, 0, Y.shape[1]


class Images:
    """A P^T for the rows P of a basis, one block for each of its own: they come with the products with A^T A."""

    def __init__(self) -> None:
        self.blocks: list[Any] = []

    def combine(self, Y: np.ndarray) -> Any:
        """The images (j, m) of the vectors with coefficients Y (size, j)."""
        total, at = None, 0
        for block in self.blocks:
            C = np.ascontiguousarray(Y[at : at + block.shape[0]].T).astype(_arrays.real_dtype(block))
            part = mix(_arrays.from_host(C, block), block)
            total = part if total is None else total + part
            at += block.shape[0]
        return total


class GramSpace:
    """Krylov space of f(A^T A) on one side: basis P (rows), H = P f(A^T A) P^T = Y diag(f(theta)) Y^T.

    f is the identity to begin with.  `tune` may find that a Chebyshev filter pays, and begins again with it.

    Where `keep_images`, the images of the basis are kept while they take less than a quarter of the memory of a dense A.
    The Ritz vectors need no product of their own then, and one product with A, half a step, takes the next block into the
    space (`finish`).

    Rounding: a product is wrong by ``eps theta_1``, and a filtered one by ``eps size`` where `size` is its norm.  A Ritz
    vector inherits that from the basis vectors that it is made of.  The large ones are the oldest, of which the smaller
    Ritz vectors have little: the sum is far below ``eps f(theta_1)`` for them.
    """

    def __init__(
        self, op: Any, k: int, block: int, start: Any, *, orthogonalization: float = 0.0, keep_images: bool = False
    ):
        self.op, self.k, self.block, self.orthogonalization = op, k, block, orthogonalization
        self.images = Images() if keep_images else None
        self.filter, self.survey = Filter(), SURVEY_STEPS if orthogonalization else 0
        self.capacity = min(max((4 if self.survey else 3) * k + 2 * block, start.shape[0] + block, ROOM), op.shape[1])
        self.right = RowBasis(op, self.capacity + 2 * block, op.shape[1], start)
        self.H = np.zeros((self.right.P.shape[0],) * 2)
        self.least = k  # vectors before it is worth looking for k triplets
        self.size, self.lost, self.first = np.zeros(len(self.H)), np.zeros(len(self.H)), start.shape[0]
        self.ready: Any = None  # both products with the rows to start from, if they were asked for before

    @property
    def degree(self) -> int:
        """Products with A^T A that one step takes."""
        return self.filter.degree

    def multiply(self) -> Any:
        """Multiply the newest block; returns the next one, what the product has outside the basis.

        A product has no part but rounding in blocks older than the one before (Lanczos' three terms).  Where the basis is
        the cost, one projection on all of it, after the first scaling, is enough.
        """
        right, new = self.right, slice(self.right.last, self.right.size)
        first = right.near if self.degree > 1 else 0
        W, c = right.project(self._product(right.block), first)
        c = _arrays.to_host(c).astype(np.float64)
        # f(A^T A) of a direction without energy is 1 or -1: what is small beside f(theta_1) is no noise
        scale = float(np.abs(self.H).max()) if self.degree == 1 else 0.0
        X, self.R = orthonormalize(W, scale=scale, project=lambda X, size: right.project(X)[0])
        dropped = X.shape[0] < W.shape[0]
        self.lost[new] = _row_norms(W - mix(_arrays.from_host(self.R.astype(right.dtype), W), X)) if dropped else 0.0
        self.H[new, first : right.size], self.H[first : right.size, new] = c, c.T
        self.size[new] = np.sqrt(np.einsum("ij,ij->i", c, c) + np.einsum("ij,ij->i", self.R, self.R))
        return X

    def _product(self, X: Any) -> Any:
        if self.images is None:
            return self.filter.apply(self.op, X)
        (Y, Z), self.ready = self.ready or self.op.both(X), None
        self.images.blocks.append(Y)
        if 4 * self.right.size > self.op.shape[1]:
            self.images = None
        return Z

    def begin(self) -> Any:
        """Multiply the rows to start from, ahead of the first `multiply`; returns their images."""
        self.ready = self.op.both(self.right.block)
        return self.ready[0]

    def decompose(self, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values; returns ||A^T A v - theta v|| of the first k, and what they are to fall below."""
        right = self.right
        H = self.H[: right.size, : right.size]
        values, Y = np.linalg.eigh((H + H.T) / 2.0)
        self.values, self.Y = values[::-1], Y[:, ::-1]
        first = self.Y[:, : self.k]
        self.theta, factor = self.filter.invert(self.values[: self.k])
        left = np.hypot(
            np.linalg.norm(self.R.T @ first[right.last : right.size], axis=0), self._norms(self.lost, first)
        )
        # what is missing or small may be there, below what squaring leaves of it; or the cut of the filter is too high
        seen = np.isfinite(factor)
        factor = np.where(seen, factor, 0.0)
        residuals, noise = np.where(seen, factor * left, np.inf), self._noise(first, factor)
        cut_too_high = not seen.all() and right.size + self.block > self.capacity
        drowned = np.any((noise > np.maximum(tol * self.theta, residuals))[seen])
        limits = np.maximum(tol * self.theta, np.where(seen, noise, 0.0))
        ended = self.R.shape[1] == 0 and bool(np.any(residuals > limits))  # what goes on is below rounding
        self.blind = right.size < self.k or cut_too_high or bool(drowned) or ended
        self.s = np.sqrt(np.maximum(self.theta, 0.0))
        self.residuals = np.divide(residuals, self.s, out=np.zeros_like(residuals), where=self.s > 0.0)
        return residuals, limits

    def _noise(self, first: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """How far from true the residuals of these Ritz vectors can be by rounding (measured: up to 0.9 of it).

        The eigenvectors of H are right beside its norm only, which a filter makes huge: what they miss is measured.
        """
        eps = _arrays.eps(self.op.dtype)
        noise = np.full(first.shape[1], 10.0 * eps * self.theta[0])
        if self.degree > 1:
            noise += 4.0 * eps * factor * self._norms(self.size, first)
            size = self.right.size
            noise += factor * np.linalg.norm(self.H[:size, :size] @ first - first * self.values[: self.k], axis=0)
        return noise

    def _norms(self, sizes: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """What vectors with coefficients Y (size, j) have of something that has these sizes for the basis vectors."""
        return np.linalg.norm(sizes[: len(Y), None] * Y, axis=0)

    def tune(self, X: Any, tol: float) -> Any:
        """After the first steps from random vectors, see whether a filter pays; returns the block to be multiplied next.

        With a filter the space begins again, from f(A^T A) applied to its first block, which lies in the basis.
        """
        self.survey -= 1
        if self.survey != 0:
            return X
        self.decompose(tol)
        block, n = self.first, self.op.shape[1]
        first = self.Y[:block, :]
        weights = np.sum(first**2, axis=0) * (n / block)
        theta = np.maximum(self.values, 0.0)
        # the running error of the products, and that of the eigenvectors of H, which is in float64 (measured; from 25 on,
        # where the k-th value is not known well, one space in two cannot resolve it)
        worst = tol * min(20.0 / _arrays.eps(self.op.dtype), 0.15 / _arrays.eps(np.float64))
        largest = 1e-3 * float(np.sqrt(np.finfo(self.op.dtype).max))  # squares have to be numbers
        self.filter = choose(theta, weights, self.k, self.orthogonalization, worst, largest)
        if self.filter.degree == 1:
            return X
        self.least = 3 * self.k // 2
        X, _ = orthonormalize(self.right.combine(self.Y @ (self.filter.values(theta)[:, None] * first.T)))
        self.right.near = self.right.last = self.right.size = 0
        self.H[:] = 0.0
        return X

    def restart(self) -> None:
        """Keep the k + block best Ritz vectors; the coupling to the next block enters H with its product."""
        self.survey = 0
        kept = min(self.k + self.block, self.right.size)
        self.right.restart(self.Y[:, :kept])
        self.H[:] = 0.0
        self.H[:kept, :kept] = np.diag(self.values[:kept])
        kept_vectors = self.Y[:, :kept]
        if self.images is not None:
            self.images.blocks = [self.images.combine(kept_vectors)]
        self.size[:kept] = self._norms(self.size, kept_vectors) + self.values[0] / np.sqrt(self.op.shape[1])
        self.lost[:kept] = self._norms(self.lost, kept_vectors)

    def vectors(self) -> Any:
        """The k best right Ritz vectors, as rows."""
        return self.right.combine(self.Y[:, : self.k])

    def finish(self, X: Any) -> tuple[Any, Any, np.ndarray]:
        """The k best right Ritz vectors of the space with the next block X in it, their images, and estimates of
        ``||A^T u - s v||``: what the product with X would leave outside is taken to be as large as the last one left.

        Without images, those of the space as it is, None, and no estimate.
        """
        if self.images is None or not X.shape[0]:
            return self.vectors(), self.images and self.images.combine(self.Y[:, : self.k]), np.zeros(0)
        right, size = self.right, self.right.size
        image = self.op.forward(X)
        H = np.zeros((size + X.shape[0],) * 2)
        H[:size, :size], H[size:, size:] = self.H[:size, :size], gram(image)
        coupling = slice(size, size + self.R.shape[1])  # random directions beside the product's have none
        H[right.last : size, coupling], H[coupling, right.last : size] = self.R, self.R.T
        values, Y = np.linalg.eigh((H + H.T) / 2.0)
        values, old, new = values[::-1][: self.k], Y[:size, ::-1][:, : self.k], Y[size:, ::-1][:, : self.k]
        last = _arrays.from_host(np.ascontiguousarray(new.T).astype(right.dtype), X)
        later = np.linalg.norm(self.R, 2) * np.linalg.norm(new, axis=0)
        later = np.divide(later, np.sqrt(np.maximum(values, 0.0)), out=np.zeros_like(later), where=values > 0.0)
        return right.combine(old) + mix(last, X), self.images.combine(old) + mix(last, image), later


def _row_norms(W: Any) -> np.ndarray:
    xp = _arrays.namespace(W)
    return _arrays.to_host(xp.sqrt(xp.sum(W * W, axis=1))).astype(np.float64)


class BidiagonalSpace:
    """Krylov spaces of both sides (block Golub-Kahan): T = left A right^T = F diag(s) G^T; no squaring, s_k/s_1 ~ eps."""

    blind, degree = False, 1

    def __init__(self, op: Any, k: int, block: int, start: Any):
        self.op, self.k, self.block, self.least = op, k, block, k
        self.capacity = min(max(3 * k + 2 * block, start.shape[0] + block, ROOM), *op.shape)
        rows = self.capacity + 2 * block
        self.right = RowBasis(op, rows, op.shape[1], start)
        self.left = RowBasis(op, rows, op.shape[0], op.empty((0, op.shape[0])))
        self.T = np.zeros((rows, rows))

    def multiply(self) -> Any:
        """Multiply the newest block by A and what is new by A^T; returns the next block."""
        left, right, new = self.left, self.right, slice(self.right.last, self.right.size)
        c, Y, R = left.rest(self.op.forward(right.block), float(np.abs(self.T).max()))
        self.T[: left.size, new] = c.T
        left.append(Y)
        self.T[left.last : left.size, new] = R.T
        _, X, self.R = right.rest(self.op.adjoint(left.block), float(np.abs(self.T).max()))
        return X

    def decompose(self, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """Ritz triplets; returns ||A^T u - s v|| of the first k, and what they are to fall below."""
        rows, columns, k = self.left.size, self.right.size, self.k
        self.F, s, self.Gt = np.linalg.svd(self.T[:rows, :columns])
        self.s = np.pad(s, (0, columns - len(s)))[:k]
        residuals = np.linalg.norm(self.R.T @ self.F[self.left.last : rows, :k], axis=0)
        self.residuals = np.pad(residuals, (0, max(0, len(self.s) - len(residuals))))[: len(self.s)]
        self.all = s
        return self.residuals, np.maximum(tol * self.s, 10.0 * _arrays.eps(self.op.dtype) * self.s[0])

    def restart(self) -> None:
        """Keep the k + block best triplets; the coupling to the next block enters T with its product."""
        kept = min(self.k + self.block, self.left.size, self.right.size)
        self.right.restart(self.Gt[:kept].T)
        self.left.restart(self.F[:, :kept])
        self.T[:] = 0.0
        self.T[:kept, :kept] = np.diag(self.all[:kept])

    def tune(self, X: Any, tol: float) -> Any:
        """Nothing to be tuned: returns X."""
        return X

    def vectors(self) -> Any:
        """The k best right Ritz vectors, as rows."""
        return self.right.combine(self.Gt[: self.k].T)

    def finish(self, X: Any) -> tuple[Any, Any, np.ndarray]:
        """The k best right Ritz vectors; no images, and nothing new about residuals."""
        return self.vectors(), None, np.zeros(0)


def block_krylov(
    space: Any, *, tol: float, max_iter: int, fresh: Fresh, progress: Any, generic: int, least_steps: int = 1
) -> Ritz:
    """Let a Krylov space grow, with thick restarts, until its k leading Ritz vectors have converged.

    Parameters
    ----------
    space : GramSpace or BidiagonalSpace
        Holds the operator (m, n), k, and orthonormal rows to start from.
    tol : float
        Residual of a triplet relative to its own size; limited by 10 eps of the largest.
    max_iter : int
        Largest number of block products, those reported to `progress` before included.
    fresh : callable
        ``fresh(j)`` returns j new random rows (j, n).
    progress : Progress
    generic : int
        How many random rows are among those to start from.
    least_steps : int
        Steps to be taken whatever the residuals are.

    Returns
    -------
    Ritz
    """
    k, right, schedule = space.k, space.right, Schedule()
    copies = Copies(generic, progress.iteration, least_steps)
    n_products, n_converged, status = 0, 0, ""
    while not status:
        n_products += space.degree * (right.size - right.last)
        X = space.multiply()
        full = right.size + X.shape[0] > space.capacity
        step, last = progress.iteration, progress.iteration + 1 >= max_iter
        if full or last or X.shape[0] == 0 or (right.size >= space.least and schedule.due(step)):
            residuals, limits = space.decompose(tol)
            n_converged = int(np.sum(residuals <= limits))
            schedule.checked(step, residuals, limits, space.degree)
            complete = X.shape[0] == 0 or n_converged == k
            if space.blind and (complete or right.size >= 2 * k):
                status = "precision"
            elif complete:
                seen = copies.seen(space, tol, step, exhausted=X.shape[0] == 0)
                if not seen and (X.shape[0] == 0 or step >= copies.until):
                    kept = min(k + space.block, right.size) if full else right.size
                    more = copies.ask(space, X, fresh, step, right.P.shape[0] - kept - X.shape[0])
                    seen, X = more is X, more
                if seen:
                    status = "converged" if right.size >= k else "exhausted"
        stopped = progress.step(n_converged=n_converged, residual=schedule.ratio * tol)
        if not status and (stopped or last):
            status = "stopped" if stopped else "max_iter"
            space.decompose(tol)
        if status and status != "precision":
            V, images, later = space.finish(X)
            if status == "converged" and np.any(later > 2.0 * tol * space.s[: len(later)]) and not (stopped or last):
                status = ""  # the last block has brought something that was not there before
        if not status:
            if full:
                space.restart()
            right.append(space.tune(X, tol))
    if status == "precision":
        return Ritz(space.vectors(), None, space.s, space.residuals, n_products, n_converged, status)
    longer = max(len(later), len(space.s))
    s, known, later = (np.pad(x, (0, longer - len(x))) for x in (space.s, space.residuals, later))
    return Ritz(V, images, s, np.maximum(known, later), n_products, n_converged, status)


class Copies:
    """Watches for copies of a repeated singular value that a Krylov space cannot see.

    A space that grows from b random vectors holds b copies at most, but for rounding.  So copies can be missing only where
    b nearly equal values have been found, or where there is nothing left to multiply.  Then random vectors join, for as many
    steps as the first ones had; all copies are there when these bring nothing new.
    """

    def __init__(self, generic: int, step: int, least_steps: int):
        self.generic, self.born, self.until = generic, step, step + least_steps - 1
        self.before: np.ndarray | None = None

    def seen(self, space: Any, tol: float, step: int, exhausted: bool) -> bool:
        """Tell whether all copies that matter have been seen, after a step at which everything else is complete."""
        s = space.s
        if step < self.until and not exhausted:
            return False
        if self.before is not None and len(s) == len(self.before) and np.allclose(s, self.before, tol, 0.0):
            return True
        noise = 10.0 * np.sqrt(space.op.shape[1]) * _arrays.eps(space.op.dtype) * s.max(initial=0.0)
        later = s[self.generic - 1 :]
        equal = s[: len(later)] - later <= float(np.clip(tol, 1e-4, 1e-3)) * s[: len(later)]
        return space.right.size >= space.k and not np.any(equal & (later > noise))

    def ask(self, space: Any, X: Any, fresh: Fresh, step: int, room: int) -> Any:
        """The pending block with new random directions, at most `room` of them; X itself if none can be added."""
        basis = space.right
        count = min(space.block, room, space.op.shape[1] - basis.size - X.shape[0])
        if count <= 0:
            return X

        def beside(Z: Any, size: float = 0.0) -> Any:
            Z = basis.project(Z)[0]
            return Z - (Z @ X.T) @ X

        Z, _ = orthonormalize(beside(fresh(count)), project=beside)
        self.generic += Z.shape[0]
        self.before = space.s
        self.born, self.until = step, step + max(2, step - self.born)
        return space.op.xp.concat((X, Z), axis=0)
