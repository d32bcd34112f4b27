"""Backs up to and deletes from an `image` target, and dies, by SIGKILL, at the n-th operation on the store.

A server, as `tests.crash.dying` is: one JSON request a line, ``{"root", "options", "do": "backup"|"delete", "machine",
"seeds", "point", "die_at"}`` (``die_at`` 0: never), one JSON answer, ``{"status": ..., "operations": n or null}``.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from plain import BLOCK, back_up, guest, noise, target_at

from vbackup.testing.hypervisors import FakeHypervisor

OPERATIONS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate")


class Counter:
    """Counts system calls that change the store, and dies before one of them."""

    def __init__(self, die_at: int) -> None:
        self.count = 0
        self._die_at = die_at
        self._lock = threading.Lock()

    def watch(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._around(getattr(os, name)))

    def _around(self, function: Any) -> Any:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            return function(*args, **kwargs)

        return called

    def _tick(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()


def disk(seeds: list[int]) -> bytes:
    """What a disk holds after it was written to with each of ``seeds``."""
    data = bytearray(noise(8 * BLOCK, seeds[0]))
    for seed in seeds[1:]:
        data[seed % 8 * BLOCK : (seed % 8 + 1) * BLOCK] = noise(BLOCK, seed)
    return bytes(data)


def perform(request: dict[str, Any]) -> None:
    target = target_at(Path(request["root"]), **request["options"])
    if request["do"] == "delete":
        target.delete([point for point in target.points() if point.id == request["point"]])
        return
    hypervisor = FakeHypervisor()
    guest(hypervisor, request["machine"], disk(request["seeds"])).files["nvram"] = b"vars"
    back_up(target, hypervisor, request["machine"])


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            counter = Counter(request["die_at"])
            counter.watch()
            status = 1
            try:
                perform(request)
                status = 0
            except Exception:  # noqa: BLE001 - this process ends here, whatever it was
                traceback.print_exc()
            finally:
                os.write(writing, str(counter.count).encode())
                os._exit(status)
        os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(reading, "rb") as pipe:
            count = pipe.read() if status == 0 else b""
        print(json.dumps({"status": status, "operations": int(count) if count else None}), flush=True)


if __name__ == "__main__":
    serve()
