"""The one place that tries again: a store that is away for minutes must not fail a job."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from vbackup.api import AccessDenied, AlreadyExists, Interrupted, NotFound, Transport, Unavailable, VBackupError
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 30.0

_log = logging.getLogger(__name__)


class RetryingTransport(Wrapper):
    """Repeats what failed with a ``transient`` error, until ``deadline_seconds`` after its first failure.

    Waits double from 0.25 s up to 30 s, each shortened at random to as little as half, so that many clients do not
    come back in step. The last wait ends at the deadline. What is raised in the end is the last error, which then says
    how long was tried.

    Where the store said how long to stay away (`Unavailable.retry_after`), that is waited at least, up to the deadline;
    and as a store that is asked too much is not helped by one thread that waits, no operation of this transport begins
    before. So a rate limit makes a job slow and does not fail it.

    A create-only put whose answer was lost is repeated and then meets its own object: if that has the same bytes, the
    put has succeeded. So where it matters who won, the bytes must tell. Who may put and not get cannot compare, and is
    told `AlreadyExists`, be it of its own object: to believe that two have won would be worse than that none has.
    """

    name: ClassVar[str] = "retry"

    def __init__(
        self,
        inner: Transport,
        deadline_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        shorten: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Wrap ``inner``; ``wait`` takes seconds and returns whether to give up; without it, `close` ends all waits.

        ``shorten`` picks from a range.
        """
        super().__init__(inner)
        self.deadline_seconds = deadline_seconds
        self._closed = threading.Event()
        self._clock = clock
        self._wait = wait or self._closed.wait
        self._shorten = shorten
        self._resume = clock()  # no operation begins before; a race between two that set it costs one early attempt

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        failed_before = False

        def attempt() -> None:
            nonlocal failed_before
            try:
                self.inner.put(key, data, if_absent=if_absent)
            except AlreadyExists:
                if not failed_before or not self._holds(key, data):
                    raise
            except VBackupError:
                failed_before = True
                raise

        self.around("put", key, attempt)

    def close(self) -> None:
        """End all waits, and close the inner transport."""
        self._closed.set()
        super().close()

    def _holds(self, key: str, data: Buffer) -> bool:
        view = memoryview(data).cast("B")
        try:
            return memoryview(self.inner.get(key, 0, len(view) + 1)) == view
        except (NotFound, AccessDenied):
            return False

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Return what ``action`` returns in the end. Raises: its last error; `Interrupted` when stopped before it."""
        what = f"{operation} {key}".rstrip()
        began: float | None = None
        longest = _FIRST_WAIT
        while True:
            self._stay_away(what)
            try:
                return action()
            except VBackupError as error:
                if not error.transient:
                    raise
                now = self._clock()
                began = now if began is None else began
                left = began + self.deadline_seconds - now
                if left <= 0:
                    if now > began:
                        error.message += f"; given up after {now - began:.0f} s of trying again"
                    raise
                seconds = min(max(self._shorten(longest / 2, longest), self._asked_for(error)), left)
                longest = min(2 * longest, _LONGEST_WAIT)
                _log.warning("%s failed, trying again in %.1f s: %s", what, seconds, error)
                if self._wait(seconds):
                    raise

    def _asked_for(self, error: VBackupError) -> float:
        """Return how many seconds the store wants to be left alone, which from now on all heed."""
        asked = error.retry_after if isinstance(error, Unavailable) else None
        if asked is None:
            return 0
        self._resume = max(self._resume, self._clock() + min(asked, self.deadline_seconds))
        return asked

    def _stay_away(self, what: str) -> None:
        while (seconds := self._resume - self._clock()) > 0:
            if self._wait(seconds):
                raise Interrupted(f"{what} was stopped while the store wanted to be left alone")
