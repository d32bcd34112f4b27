"""Blocking calls of coroutines: the SSH connections of this process live in one event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_starting = threading.Lock()  # a cache alone lets two who come first at once make two


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in that loop to its end. It must bound its waits itself; see `vbackup_sftp.failures.Limit`."""
    with _starting:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    finally:
        future.cancel()  # if we were interrupted


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="vbackup-sftp", daemon=True).start()
    return loop
