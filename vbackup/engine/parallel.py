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


class Gate:
    """Counts what runs. The pool alone would not do: a signal while it starts a thread makes it forget that thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._open = True

    def through(self, work: Callable[[], T]) -> tuple[T, ...]:
        """Call ``work`` and return its result, or nothing when the gate is shut."""
        with self._changed:
            if not self._open:
                return ()
            self._inside += 1
        try:
            return (work(),)
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        """Let nothing more begin."""
        with self._changed:
            self._open = False

    def wait_until_empty(self) -> None:
        """Wait for what has begun."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)


def side_by_side(work: Sequence[Callable[[], T]], stop: threading.Event) -> list[T]:
    """Call all of ``work``, a few at once; return the results in order.

    When one fails, or a signal arrives, ``stop`` is set, and the others end as soon as they see it. Nothing runs any
    more when this returns or raises; what is raised is the first failure.
    """
    if not work:
        return []
    gate = Gate()
    with ThreadPoolExecutor(min(len(work), DISKS_AT_ONCE), "disk") as pool:
        try:
            futures = [pool.submit(gate.through, step) for step in work]
            wait(futures, return_when=FIRST_EXCEPTION)
            if any(_failure(future) for future in futures):
                stop.set()
        except BaseException:
            stop.set()
            raise
        finally:
            gate.shut()
            gate.wait_until_empty()
    raise_cause(_failure(future) for future in futures)
    return [result for future in futures for result in future.result()]


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
