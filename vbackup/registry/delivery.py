"""Telling plugins of events: one that hangs holds nobody up for longer than a moment."""

from __future__ import annotations

import logging
import threading
from collections import deque

import pluggy

from vbackup.api import JobEvent, JobProgress

PATIENCE = 5.0
"""Seconds that whoever has an event waits for a plugin to take it."""
_MOST = 1000
"""Events that are kept for a plugin that is late."""
_log = logging.getLogger(__name__)


class Listener:
    """One plugin that hears events: one at a time, in order, in a thread of its own that lives while there are any.

    Who tells waits until the plugin has returned. When that takes too long, nobody waits for it any more until it has
    caught up: progress is not kept for it then, beginnings and ends are. What it missed is counted. Thread-safe.
    """

    def __init__(self, name: str, hooks: pluggy.HookRelay) -> None:
        self.name = name
        self._hooks = hooks
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, JobEvent]] = deque()
        self._told = self._heard = self._missed = 0
        self._is_running = self._is_late = False
        self._complained: set[str] = set()

    def tell(self, hook: str, event: JobEvent) -> None:
        """Tell it. What it raises is logged, once for each hook, and goes no further."""
        with self._changed:
            if self._is_late and (isinstance(event, JobProgress) or len(self._waiting) >= _MOST):
                self._missed += 1
                return
            self._waiting.append((hook, event))
            self._told += 1
            mine = self._told
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name=f"events {self.name}", daemon=True).start()
            if self._is_late or self._changed.wait_for(lambda: self._heard >= mine or self._is_late, PATIENCE):
                return
            self._is_late = True
            self._changed.notify_all()
        _log.error(
            "plugin %r: %s has not returned for %g s; nobody waits for it any more (if it hangs, run without it: "
            "VBACKUP_DISABLED_PLUGINS=%s)",
            self.name, hook, PATIENCE, self.name,
        )  # fmt: skip

    def settle(self) -> None:
        """Give it a moment to catch up; log what it missed."""
        with self._changed:
            self._changed.wait_for(lambda: self._heard == self._told, PATIENCE)
            missed, self._missed = self._missed + self._told - self._heard, 0
        if missed:
            _log.error("plugin %r did not hear of %d events, as it did not return from one", self.name, missed)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_running = False
                    return
                hook, event = self._waiting.popleft()
            try:
                getattr(self._hooks, hook)(event=event)
            except BaseException as error:  # noqa: BLE001 - a stranger's code may raise anything; it must not stop a backup
                self._complain(hook, error)
            with self._changed:
                self._heard += 1
                self._is_late = self._is_late and bool(self._waiting)
                self._changed.notify_all()

    def _complain(self, hook: str, error: BaseException) -> None:
        if hook not in self._complained:
            self._complained.add(hook)
            _log.error("plugin %r: %s raised %s", self.name, hook, type(error).__name__, exc_info=error)
