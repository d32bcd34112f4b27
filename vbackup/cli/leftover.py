"""Threads that a plugin left behind: they would keep the process for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from vbackup.cli import output

if TYPE_CHECKING:
    from vbackup.registry import Registry

_SECONDS = 5.0
"""How long they may take to end by themselves; pools of threads do, when the interpreter ends."""


def end_in_time(code: int, registry: Registry | None) -> None:
    """See to it that the process, which is about to end, does so with ``code``; say whose threads were in the way."""
    left = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.current_thread()
    ]
    if left:
        threading.Thread(target=_end, args=(left, code, registry), name="end", daemon=True).start()


def _end(left: list[threading.Thread], code: int, registry: Registry | None) -> None:
    deadline = time.monotonic() + _SECONDS
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to see what threads are at
    for thread in left:
        if thread.is_alive():
            frame = frames.get(thread.ident or 0)
            info = registry.at_work(frame) if registry is not None else None
            whose = f"plugin {info.name!r} of {info.origin}" if info is not None else "some library"
            output.warning(f"{whose} left a thread running ({thread.name}); the process ends without it")
    output.flush()
    os._exit(code)
