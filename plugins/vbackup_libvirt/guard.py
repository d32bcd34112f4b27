"""The process that stays when we are killed: it ends our backup job, and thaws or resumes the guest if need be.

A backup job outlives its maker inside of QEMU and fills the scratch space until the guest is given I/O errors, and a
frozen or paused guest stands still. Whoever is killed cannot undo either, so a child is started before both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vbackup.api import Unavailable
from vbackup_libvirt.connection import without_questions
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.options import LibvirtOptions

_WAITING = Path(__file__).with_name("waiting.py")


class Guard:
    """The child, seen from its parent. It needs no orders to act: the end of its standard input is one."""

    def __init__(self, job: BackupJob) -> None:
        self._name = job.machine.name
        self._child = subprocess.Popen(
            [sys.executable, "-P", _WAITING, "vbackup_libvirt.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the child follows when we are done
        )
        machine = job.machine
        order = {
            "path": sys.path,  # what we could import, it can
            "uri": without_questions(machine.node.options.uri),
            "options": machine.node.options.model_dump(mode="json", include=set(LibvirtOptions.model_fields)),
            "machine": machine.name,
            "uuid": machine.uuid,
            "scratch": str(job.scratch),
            "owed": str(machine.node.owed(job.scratch.name).path.absolute()),
        }
        with suppress(BrokenPipeError):  # wait_ready() tells
            self._tell(json.dumps(order))

    def wait_ready(self) -> None:
        """Wait until it can act. Raises: `Unavailable` when it cannot."""
        assert self._child.stdout is not None  # noqa: S101 - for the type checker
        said = self._child.stdout.readline().strip()
        if said != "ready":
            raise Unavailable(f"{self._name}: the process that guards the backup did not start: {said or 'it ended'}")

    def begun(self) -> None:
        """From now on there is something to be undone; whether it can do that `wait_ready` tells."""
        with suppress(BrokenPipeError):
            self._tell("begun")

    def frozen(self) -> None:
        """From now on it counts the time that the guest may stay frozen. Raises: `Unavailable` when it is dead."""
        self._require("frozen")

    def paused(self) -> None:
        """From now on it counts the time that the machine may stay paused. Raises: `Unavailable` when it is dead."""
        self._require("paused")

    def resumed(self) -> None:
        """The machine goes on."""
        with suppress(BrokenPipeError):
            self._tell("resumed")

    def resume(self) -> None:
        """It shall go on trying where we could not resume the machine."""
        with suppress(BrokenPipeError):
            self._tell("resume")

    def thawed(self) -> None:
        """The guest needs it no more."""
        with suppress(BrokenPipeError):
            self._tell("thawed")

    def thaw(self) -> None:
        """It shall go on trying where we could not thaw the guest, and outlive us if need be."""
        with suppress(BrokenPipeError):
            self._tell("thaw")

    def ended(self) -> None:
        """The job is ended."""
        with suppress(BrokenPipeError):
            self._tell("ended")

    def leave(self) -> None:
        """Let go of it; what it has not been told to be undone it undoes, in its own time."""
        assert self._child.stdin is not None  # noqa: S101
        assert self._child.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.stdout.close()
        threading.Thread(target=self._child.wait, name=f"guard-{self._name}", daemon=True).start()

    def _require(self, word: str) -> None:
        try:
            self._tell(word)
        except BrokenPipeError as error:
            raise Unavailable(f"{self._name}: the process that guards the backup was killed") from error

    def _tell(self, word: str) -> None:
        print(word, file=self._child.stdin, flush=True)


@contextmanager
def guarded(job: BackupJob) -> Iterator[Guard]:
    """Have a child ready for the time of the context, which is to outlast all that the child can undo."""
    guard = Guard(job)
    try:
        yield guard
    finally:
        guard.leave()
