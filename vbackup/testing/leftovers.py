"""What must be as it was when a plugin's code has run: threads, processes, files, and what the whole process shares."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE = 10.0
"""Seconds for which threads may still bring to an end what they do."""
_SIGNALS = ("SIGINT", "SIGTERM", "SIGCHLD", "SIGPIPE")


@contextmanager
def nothing_left_running() -> Iterator[None]:
    """Raise `AssertionError` in the end unless all threads and processes that were begun meanwhile end soon.

    Daemon threads are left out: they keep no process from ending.
    """
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + _PATIENCE
    begun = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in begun:
        thread.join(max(0.0, end - time.monotonic()))
    running = [f"thread {thread.name}" for thread in begun if thread.is_alive()]
    running += [f"process {child.name}" for child in multiprocessing.active_children()]
    assert not running, f"left running: {', '.join(sorted(running))}"


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Raise `AssertionError` in the end if this process has files open that it had not before.

    Those that were open before may be closed meanwhile: what earlier code left behind goes when Python collects it.
    """
    before = _open_files()
    yield
    after = _open_files()
    left = sorted(after[file] for file in after.keys() - before.keys())
    assert not left, f"left open: {', '.join(left)}"


def _open_files() -> Mapping[tuple[int, int, int], str]:
    """Return the name of each by its number, device and inode: names change when files are renamed or removed."""
    files = {}
    for link in list(Path("/proc/self/fd").iterdir()):
        # The one that listed the directory is closed by now.
        with suppress(FileNotFoundError):
            status = link.stat()
            files[int(link.name), status.st_dev, status.st_ino] = str(link.readlink())
    return files


@contextmanager
def nothing_changed() -> Iterator[None]:
    """Raise `AssertionError` in the end if what the whole process shares is different. Variables are put right."""
    before, environment = _shared(), dict(os.environ)
    yield
    after = _shared()
    os.environ.clear()
    os.environ.update(environment)
    names = sorted(before.keys() | after.keys())
    changed = [
        f"{name}: {before.get(name)!r} before, {after.get(name)!r} now"
        for name in names
        if before.get(name) != after.get(name)
    ]
    assert not changed, "it belongs to the whole process, and was changed:\n" + "\n".join(changed)


def _shared() -> Mapping[str, object]:
    return {
        "the working directory": Path.cwd(),
        "the time limit of sockets": socket.getdefaulttimeout(),
        "sys.stdout": sys.stdout,
        "sys.stderr": sys.stderr,
        "sys.excepthook": sys.excepthook,
        "threading.excepthook": threading.excepthook,
        "what logging leaves out": logging.root.manager.disable,
        **{f"the handler of {name}": signal.getsignal(getattr(signal, name)) for name in _SIGNALS},
        **{f"the level of {logger.name}'s log": logger.level for logger in _loggers()},
        **{f"the handlers of {logger.name}'s log": list(logger.handlers) for logger in _loggers()},
        **{f"variable {name}": value for name, value in os.environ.items()},
    }


def _loggers() -> list[logging.Logger]:
    """Return those that are not a plugin's own."""
    return [logging.getLogger(), logging.getLogger("vbackup")]
