"""Disks side by side: the first one that fails stops the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from vbackup.api import Interrupted

T = TypeVar("T")
DISKS_AT_ONCE = 4


class Stop(threading.Event):
    """Set when this work, or all work around it, must end."""

    def __init__(self, outer: threading.Event) -> None:
        super().__init__()
        self._outer = outer

    def is_set(self) -> bool:
        """Whether either was set."""
        return super().is_set() or self._outer.is_set()


def side_by_side(work: Sequence[Callable[[], T]], stop: threading.Event) -> list[T]:
    """Call all of ``work``, a few at once; return the results in order.

    When one fails ``stop`` is set, the others end as soon as they see it, and the first failure is raised.
    """
    if not work:
        return []
    with ThreadPoolExecutor(min(len(work), DISKS_AT_ONCE), "disk") as pool:
        futures = [pool.submit(step) for step in work]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also when a signal arrives here
            if any(not future.done() or _failure(future) for future in futures):
                stop.set()
                for future in futures:
                    future.cancel()
    raise_cause(_failure(future) for future in futures)
    return [future.result() for future in futures]


def _failure(future: Future[T]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None


def raise_cause(errors: Iterable[BaseException | None]) -> None:
    """Raise the error that made the others stop, if there is any."""
    failed = [error for error in errors if error is not None]
    for error in failed:
        if not isinstance(error, Interrupted):
            raise error
    for error in failed:
        raise error
