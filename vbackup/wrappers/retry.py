"""The one place that tries again: a store that is away for minutes must not fail a job."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from vbackup.api import AlreadyExists, Finding, NotFound, ObjectInfo, Options, Transport, VBackupError
from vbackup.api.hypervisor import Buffer

T = TypeVar("T")

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 30.0

_log = logging.getLogger(__name__)


class RetryingTransport:
    """Repeats what failed with a ``transient`` error, until ``deadline_seconds`` after its first failure.

    Waits double from 0.25 s up to 30 s, each shortened at random to as little as half, so that many clients do not
    come back in step. The last wait ends at the deadline. What is raised in the end is the last error. `close` ends
    all waits.

    A create-only put whose answer was lost is repeated and then meets its own object: if that has the same bytes, the
    put has succeeded. So where it matters who won, the bytes must tell.
    """

    name: ClassVar[str] = "retry"
    options: ClassVar[type[BaseModel]] = Options
    has_files: ClassVar[bool] = False

    def __init__(
        self,
        inner: Transport,
        deadline_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        shorten: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Wrap ``inner``; ``wait`` takes seconds and returns whether to give up, ``shorten`` picks from a range."""
        self.inner = inner
        self._deadline_seconds = deadline_seconds
        self._closed = threading.Event()
        self._clock = clock
        self._wait = wait or self._closed.wait
        self._shorten = shorten

    @property
    def root(self) -> Path | None:
        """As the inner transport."""
        return self.inner.root

    @property
    def can_put_if_absent(self) -> bool:
        """As the inner transport."""
        return self.inner.can_put_if_absent

    @property
    def can_lock(self) -> bool:
        """As the inner transport."""
        return self.inner.can_lock

    def lock(self, key: str, until: datetime) -> None:
        """See `Transport.lock`."""
        self._retry(f"lock {key}", lambda: self.inner.lock(key, until))

    def create(self) -> None:
        """See `Transport.create`."""
        self._retry("create the place of the store", self.inner.create)

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

        self._retry(f"put {key}", attempt)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        return self._retry(f"get {key}", lambda: self.inner.get(key, offset, length))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`. Nothing is yielded before the listing is complete: names are few and small."""
        yield from self._retry(f"list {prefix or 'everything'}", lambda: list(self.inner.list(prefix)))

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        self._retry(f"delete {key}", lambda: self.inner.delete(key))

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        return self._retry(f"size {key}", lambda: self.inner.size(key))

    def check(self) -> Sequence[Finding]:
        """Look at the inner transport, once: it is its state now that is asked for."""
        return self.inner.check()

    def close(self) -> None:
        """End all waits, and close the inner transport."""
        self._closed.set()
        self.inner.close()

    def _holds(self, key: str, data: Buffer) -> bool:
        view = memoryview(data).cast("B")
        try:
            return memoryview(self.inner.get(key, 0, len(view) + 1)) == view
        except NotFound:
            return False

    def _retry(self, action: str, attempt: Callable[[], T]) -> T:
        waits = self._waits()
        while True:
            try:
                return attempt()
            except VBackupError as error:
                seconds = next(waits, None) if error.transient else None
                if seconds is None:
                    raise
                _log.warning("%s failed, trying again in %.1f s: %s", action, seconds, error)
                if self._wait(seconds):
                    raise

    def _waits(self) -> Iterator[float]:
        """Yield how long to wait before each further attempt; the deadline counts from the first failure."""
        deadline = self._clock() + self._deadline_seconds
        wait = _FIRST_WAIT
        while (left := deadline - self._clock()) > 0:
            yield min(self._shorten(wait / 2, wait), left)
            wait = min(2 * wait, _LONGEST_WAIT)
