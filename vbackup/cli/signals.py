"""SIGINT and SIGTERM unwind the main thread, once, so that everything begun is undone; the third ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from vbackup.cli.output import clean

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


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

    The second one is only answered: it must not cut the undoing short. The third ends the process: a plugin may have
    swallowed the first, or never return. Raises: `Stopped` also at the end, where it was swallowed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        seen.append(number)
        if len(seen) > 1:
            return
        for stop in on_stop:  # in a thread: what it locks may be held by the very code that the signal came upon
            threading.Thread(target=stop).start()
        raise Stopped(number)

    with _answered():
        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if seen:
        raise Stopped(seen[0])


@contextmanager
def _answered() -> Iterator[None]:
    """Answer signals from a thread: the handler only runs when the main thread is back from what it called."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    answering = threading.Thread(target=_answer, args=(reading,), name="signals", daemon=True)
    answering.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        answering.join()
        os.close(reading)


def _answer(reading: int) -> None:
    count = 0
    while received := os.read(reading, 1):  # the number of each signal, until the other end is closed
        if received[0] not in _SIGNALS:
            continue
        count += 1
        if count == 1:
            _say("stopping; undoing what was begun")
        elif count == 2:
            _tell_who_is_waited_for()
        else:
            _end(received[0])


def _tell_who_is_waited_for() -> None:
    _say("still undoing what was begun")
    watch = sys.modules.get("vbackup.guards.watch")
    for call in watch.WATCH.under_way() if watch is not None else ():
        _say(f"waiting for {clean(call)}")
    _say("one more signal ends it at once; the next run then undoes what is left")


def _end(number: int) -> NoReturn:
    """End the process as if it was killed: that may happen at any time, and nothing is lost by it."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    _say("ended at once")
    os._exit(128 + number)


def _say(text: str) -> None:
    # Not through the stream: the signal may have come while it was being written to.
    with suppress(OSError):
        os.write(2, f"vbackup: {text}\n".encode())


os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a plugin's process must not answer for ours
