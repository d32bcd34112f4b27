"""SIGINT and SIGTERM unwind the main thread, once, so that everything begun is undone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from vbackup.cli.output import clean


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
def stop_signals(on_stop: Sequence[Callable[[], None]]) -> Iterator[None]:
    """On the first signal call ``on_stop`` and raise `Stopped` in the main thread.

    Later signals are only answered: they must not cut the undoing short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        seen.append(number)
        if len(seen) > 1:
            _say("still undoing what was begun")
            watch = sys.modules.get("vbackup.guards.watch")
            for call in watch.WATCH.under_way() if watch is not None else ():
                _say(f"waiting for {clean(call)}")
            return
        _say("stopping; undoing what was begun")
        for stop in on_stop:  # in a thread: what it locks may be held by the very code that the signal came upon
            threading.Thread(target=stop).start()
        raise Stopped(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    # Not through the stream: the signal may have come while it was being written to.
    with suppress(OSError):
        os.write(2, f"vbackup: {text}\n".encode())
