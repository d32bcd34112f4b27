"""Turns at something of which there is only so much."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from vbackup.api.errors import Interrupted

_LOOK_SECONDS = 0.5
"""After so many seconds who waits looks whether it was stopped."""


def _never() -> bool:
    return False


class Turns:
    """A semaphore that is fair: with `threading.Semaphore` a busy reader or two keep a writer out for ever.

    A context manager, for the time of one turn. Thread-safe.
    """

    def __init__(self, count: int, *, is_stopped: Callable[[], bool] = _never) -> None:
        """Let ``count`` be at it at once; when ``is_stopped`` says so nobody waits any longer."""
        self._lock = threading.Lock()
        self._left = count
        self._waiting: deque[threading.Event] = deque()
        self._is_stopped = is_stopped

    def __enter__(self) -> None:
        """Return when it is our turn: who came first goes first. Raises: `Interrupted`."""
        with self._lock:
            if self._left:
                self._left -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            self._wait_for(turn)
        except BaseException:  # also Ctrl-C
            self._leave(turn)
            raise

    def __exit__(self, *exc: object) -> None:
        """Let the next one have its turn."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._left += 1

    def _wait_for(self, turn: threading.Event) -> None:
        while not turn.wait(_LOOK_SECONDS):
            if self._is_stopped():
                raise Interrupted("stopped while waiting for its turn")

    def _leave(self, turn: threading.Event) -> None:
        with self._lock:
            if not turn.is_set():
                self._waiting.remove(turn)
                return
        self.__exit__()  # it was given to us meanwhile
