"""Progress of long work: a bar for `verbose`, and the `callback` protocol that can stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Callback = Callable[[Mapping[str, Any]], Any]


class Progress:
    """A context in which an iteration reports its steps.

    Parameters
    ----------
    description : str
        Shown before the bar.
    total : int
        The largest number of steps.
    verbose : int
        0 is silent; from 1 on a bar goes to standard error.
    callback : callable or None
        Called after every step with a dict (``iteration`` and the numbers of the step); a true return value stops the
        iteration, which then returns what it has.  An exception in it leaves the iteration at once.
    """

    def __init__(self, description: str, total: int, verbose: int = 0, callback: Callback | None = None):
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable or None; got {callback!r}.")
        self.description, self.total, self.verbose, self.callback = description, total, verbose, callback
        self.iteration = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.verbose:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self.total, desc=self.description)
        return self

    def step(self, **numbers: Any) -> bool:
        """Report one step; True means that the callback wants to stop."""
        self.iteration += 1
        if self._bar is not None:
            self._bar.set_postfix(numbers, refresh=False)
            self._bar.update()
        return bool(self.callback({"iteration": self.iteration, **numbers})) if self.callback is not None else False

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()
