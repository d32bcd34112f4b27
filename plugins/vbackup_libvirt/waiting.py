"""The process of `guard` while nothing is to be done: ``python -P waiting.py vbackup_libvirt.child``.

Each capture has one, and most captures need it for nothing. So it is run as a file, and imports little: as a module of
its package it would begin with all of vbackup, which takes several times as long as all else that it does. What it
acts by, the module that its argument names, is imported as soon as there is anything to be done, or may soon be, and
in any case a minute after the start: whoever installs another vbackup during a backup shall not find it without.

Standard input: one line of JSON (see `guard`), then words: ``begun`` (the job, or what comes before it), ``frozen``,
``thawed``, ``thaw`` (the parent could not), likewise ``paused``, ``resumed``, ``resume``, and ``ended`` (the job). When
it ends, what is not undone by then is undone; so too on SIGTERM, SIGHUP and SIGINT, by which a service manager ends a
whole control group before it kills it. Standard output: one line, ``ready`` or why it cannot act.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import libvirt

END = "end"
"""The word by which it is to undo all that is left, whether its parent lives or not."""

CONNECTING = 30
"""Seconds that libvirt may take to answer; then the process is no guard, and ends."""

SHORT = 60.0
"""Seconds after which a capture is no short one: what it takes to act is not worth saving any more."""

HELD = 0.5
"""The same where the guest stands still; `freeze_timeout` and `pause_timeout` are a second or more."""


class Word(NamedTuple):
    """A word of the parent's, and when it was said (`time.monotonic`)."""

    text: str
    at: float


class Parent:
    """The other end of standard input."""

    def __init__(self) -> None:
        self.words: queue.SimpleQueue[Word] = queue.SimpleQueue()  # the one queue that a signal's handler may put into
        self.is_gone = False
        """Whether it is dead, or has given up all that it has not undone."""

    def listen(self) -> None:
        """Listen until it is gone."""
        for line in sys.stdin:
            self.say(line.strip())
        self.is_gone = True
        self.say(END)

    def say(self, text: str) -> None:
        """Say a word in its place."""
        self.words.put(Word(text, time.monotonic()))


def main() -> None:
    """Wait; have others act if need be."""
    parent = Parent()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: parent.say(END))
    order = json.loads(sys.stdin.readline())
    try:
        _reach(order["uri"], order["uuid"])
    except libvirt.libvirtError as error:
        print(error)  # noqa: T201 - this is how it talks to its parent
        return
    with suppress(BrokenPipeError):  # it is dead: then there may be something to be undone
        print("ready", flush=True)  # noqa: T201
    threading.Thread(target=parent.listen, daemon=True).start()
    said = follow(parent)
    if not is_over(said, order["owed"]):
        sys.path[:] = order["path"]
        importlib.import_module(sys.argv[1]).act(order, parent, said)


def _reach(uri: str, uuid: str) -> None:
    """See that libvirt lets us at the machine. The signal ends a process that waits for a libvirtd that hangs."""
    signal.alarm(CONNECTING)
    connection = libvirt.open(uri)
    connection.lookupByUUIDString(uuid).isActive()
    connection.close()
    signal.alarm(0)


def follow(parent: Parent) -> list[Word]:
    """Return what the parent has said by the time that there is something to be done, or nothing any more."""
    began = time.monotonic()
    said: list[Word] = []
    while not said or said[-1].text not in {"thaw", "resume", END}:
        until = said[-1].at + HELD if said and said[-1].text in {"frozen", "paused"} else began + SHORT
        try:
            said.append(parent.words.get(timeout=max(0.0, until - time.monotonic())))
        except queue.Empty:
            break
    return said


def is_over(said: list[Word], owed: str) -> bool:
    """Whether nothing is left to be undone, nor will be."""
    texts = [word.text for word in said]
    job = [text for text in texts if text in {"begun", "ended"}]
    freeze = [text for text in texts if text in {"frozen", "thawed", "thaw"}]
    is_open = job[-1:] == ["begun"] or freeze[-1:] in (["frozen"], ["thaw"])
    return texts[-1:] == [END] and not is_open and not os.path.lexists(owed)


if __name__ == "__main__":
    main()
