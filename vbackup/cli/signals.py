"""SIGINT and SIGTERM unwind the main thread, once, so that everything begun is undone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vbackup.cli import output


class Stopped(KeyboardInterrupt):
    """Somebody asked us to stop. No `Exception`: nothing on the way may take it for a failure and go on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on the first signal; a second one must not cut the undoing short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        seen.append(number)
        if len(seen) > 1:
            output.complain("vbackup: still undoing what was begun")
            return
        output.complain("vbackup: stopping; undoing what was begun")
        raise Stopped(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
