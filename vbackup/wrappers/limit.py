"""Bandwidth that one store may take, up and down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from vbackup.api import Interrupted, Transport
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper

BURST_SECONDS = 1.0
_LONGEST_WAIT = 5.0
"""After so many seconds who waits looks whether another rate applies by now."""

Rate = Callable[[], float | None]
"""Bytes a second that are allowed at this moment, or None: all that there are."""


class TokenBucket:
    """Lets bytes pass at a rate that may change; who comes first is served first. Thread-safe.

    From the beginning on, no more than the rate and `BURST_SECONDS` of it have passed at any moment. What was not used
    is not saved for longer than that.
    """

    def __init__(self, rate: Rate, *, clock: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """``wait`` takes seconds and returns whether to give up."""
        self._rate = rate
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._last = clock()
        self._level = 0.0  # bytes that may pass; below zero: bytes that others wait for
        self._brought = 0.0  # bytes that time has brought so far

    def pay(self, size: int) -> None:
        """Return when ``size`` bytes may pass. Raises: `Interrupted`."""
        with self._lock:
            self._refill()
            self._level -= size
            mine = self._brought - min(0.0, self._level)
        while (seconds := self._seconds_until(mine)) > 0:
            if self._wait(min(seconds, _LONGEST_WAIT)):
                raise Interrupted("stopped while waiting for bandwidth")

    def _seconds_until(self, brought: float) -> float:
        with self._lock:
            rate = self._refill()
            missing = brought - self._brought
            # Less than a byte is no reason to wait: it may be less than the clock can tell.
            return 0.0 if rate is None or missing < 1 else missing / rate

    def _refill(self) -> float | None:
        now, rate = self._clock(), self._rate()
        seconds, self._last = now - self._last, now
        if rate is None:
            added = max(0.0, -self._level)
        else:
            self._level = min(self._level, rate * BURST_SECONDS)
            added = min(rate * seconds, rate * BURST_SECONDS - self._level)
        self._level += added
        self._brought += added
        return rate


class LimitedTransport(Wrapper):
    """Keeps the mean rates of puts and gets below what is allowed, for all threads of this process together.

    An object goes to the store in one piece, so this cannot slow down a transfer that is under way. Before a put as
    many seconds are waited as its bytes are due, and after a get; the piece itself travels as fast as the line is. The
    mean is kept, peaks as long as a piece stay: shape the traffic in the network where those hurt. Each process has
    the rate for itself.
    """

    name: ClassVar[str] = "limit"

    def __init__(
        self,
        inner: Transport,
        *,
        upload: Rate,
        download: Rate,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """Wrap ``inner``; ``wait`` takes seconds and returns whether to give up; without it, `close` ends all waits."""
        super().__init__(inner)
        self._closed = threading.Event()
        wait = wait or self._closed.wait
        self._up = TokenBucket(upload, clock=clock, wait=wait)
        self._down = TokenBucket(download, clock=clock, wait=wait)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`. Raises also: `Interrupted`."""
        self._up.pay(memoryview(data).nbytes)
        super().put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`. Raises also: `Interrupted`."""
        data = super().get(key, offset, length)  # how much it is, only the store knows
        self._down.pay(len(data))
        return data

    def close(self) -> None:
        """End all waits, and close the inner transport."""
        self._closed.set()
        super().close()
