"""Calls of plugins that take long: nothing can end them, but it can be said who it is that all wait for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Protocol

PATIENCE = 300.0
"""Seconds that a call may take before it is told."""
SILENT_PATIENCE = 3600.0
"""The same for one that has no way to say how far it is."""
IMPORT_PATIENCE = 10.0
_LOOK = 1.0
_log = logging.getLogger(__name__)


class Call(Protocol):
    """A call that is under way; its text names the plugin."""

    since: float
    told_after: float
    lacks: str

    @property
    def way_out(self) -> str:
        """What to add on how to go on, if anything."""


class Watch:
    """Tells of each call that takes long, and again each time that it has taken twice as long. Thread-safe.

    It is a warning and no more: a thread cannot be ended from outside, and a slow store is not told from a plugin that
    hangs. Signals end the command all the same, the third one whatever the plugin does.
    """

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}  # by their own ids; setting and removing one key is atomic
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, call: Call) -> None:
        """A call begins."""
        call.since = time.monotonic()
        self._calls[id(call)] = call
        if self._thread is None:
            self._start()

    def end(self, call: Call) -> None:
        """It has ended, in whatever way."""
        self._calls.pop(id(call), None)

    @contextmanager
    def over(self, call: Call) -> Iterator[None]:
        """Hold a call under way for the time of the context."""
        self.begin(call)
        try:
            yield
        finally:
            self.end(call)

    def under_way(self) -> list[str]:
        """Return all calls that somebody waits for, in words."""
        now = time.monotonic()
        calls = [(call, call.since) for call in list(self._calls.values())]
        return [f"{call} ({max(0.0, now - since):.0f} s)" for call, since in calls if since < inf]

    def look(self) -> None:
        """Tell of calls that take long."""
        now = time.monotonic()
        for call in list(self._calls.values()):
            seconds = now - call.since
            if seconds >= call.told_after:
                call.told_after = 2 * seconds
                _log.warning("%s has not %s for %.0f s%s", call, call.lacks, seconds, call.way_out)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK)
            self.look()


WATCH = Watch()
"""That of this process."""
