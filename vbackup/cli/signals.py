"""SIGINT and SIGTERM unwind the main thread, once, so that everything begun is undone; the third ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from vbackup.cli.output import clean

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"
_MOST = 3
"""Signals: this one ends the process."""
_PATIENCE = 1.0
"""Seconds that somebody may take to read what is said."""
_OVER = b"\0"  # the number of no signal
_ending = threading.Lock()
_held = threading.local()
_former: dict[int, Any] = {}
"""The handlers that ours stand in for."""


class Stopped(KeyboardInterrupt):
    """Somebody asked us to stop. No `Exception`: nothing on the way may take it for a failure and go on."""

    def __init__(self, number: int, *, is_late: bool = False) -> None:
        super().__init__()
        self.number = number
        self.is_late = is_late
        """Whether somebody had swallowed it: the command went on, and has printed what it had to say."""

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
        if len(seen) >= _MOST:  # the thread may not have heard of all of them
            _end(number)
        _take_back(wakeup, number)
        if len(seen) > 1:
            return
        for stop in on_stop:  # in a thread: what it locks may be held by the very code that the signal came upon
            threading.Thread(target=stop).start()
        raise Stopped(number)

    with _answered() as wakeup:
        _former.update({number: signal.signal(number, handle) for number in _SIGNALS})
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, _former.pop(number))
    if seen:
        raise Stopped(seen[0], is_late=True)


@contextmanager
def _answered() -> Iterator[int]:
    """Answer signals from a thread: the handler only runs when the main thread is back from what it called.

    Yields the wakeup file descriptor that the thread hears them by.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    answering = threading.Thread(target=_answer, args=(reading,), name="signals", daemon=True)
    answering.start()
    try:
        yield writing
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(writing, True)
        os.write(writing, _OVER)  # closing it says nothing: processes that plugins have forked hold it open, too
        answering.join()
        os.close(writing)
        os.close(reading)


def _take_back(wakeup: int, number: int) -> None:
    """Let the thread hear of signals again where an event loop in the main thread has taken that for itself.

    The kernel may give a signal to any thread, and then a main thread that waits does not wake up to handle it.
    """
    with suppress(
        OSError, ValueError
    ):  # a plugin may have closed it, and opened what it cannot be: we stop all the same
        if signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False) != wakeup:
            os.write(wakeup, bytes([number]))


def _answer(reading: int) -> None:
    count = 0
    speaking: list[threading.Thread] = []
    while (received := os.read(reading, 1)) != _OVER:  # the number of each signal
        if received[0] not in _SIGNALS:
            continue
        count += 1
        if count >= _MOST:
            _end(received[0])
        speaking.append(_apart(_tell_that_it_stops if count == 1 else _tell_who_is_waited_for))
    for thread in speaking:
        thread.join(_PATIENCE)


def _tell_that_it_stops() -> None:
    _say("stopping; undoing what was begun")


def _tell_who_is_waited_for() -> None:
    _say("still undoing what was begun")
    watch = sys.modules.get("vbackup.guards.watch")
    for call in watch.WATCH.under_way() if watch is not None else ():
        _say(f"waiting for {clean(call)}")
    _say("one more signal ends it at once; the next run then undoes what is left")


def _end(number: int) -> NoReturn:
    """End the process as if it was killed: that may happen at any time, and nothing is lost by it."""
    if _ending.acquire(blocking=False):
        _apart(_tell_the_end).join(_PATIENCE)
    else:  # the other thread is at it
        _ending.acquire(timeout=2 * _PATIENCE)
    os._exit(128 + number)


def _tell_the_end() -> None:
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    _say("ended at once")


def _apart(tell: Callable[[], None]) -> threading.Thread:
    """Speak in a thread: whoever reads it may have stopped to."""
    thread = threading.Thread(target=tell, name="words", daemon=True)
    thread.start()
    return thread


def _say(text: str) -> None:
    # Not through the stream: the signal may have come while it was being written to.
    with suppress(OSError):
        os.write(2, f"vbackup: {text}\n".encode())


def _hold() -> None:
    """Let no signal come upon a process that a plugin forks before it is rid of our handlers."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _leave_to_parent() -> None:
    """A process that a plugin forks answers no signals for us."""
    signal.set_wakeup_fd(-1)
    for number, handler in _former.items():
        signal.signal(number, handler)
    _let_go()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_leave_to_parent)
