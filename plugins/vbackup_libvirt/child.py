"""What `waiting` acts by, once a guest stands still for long, a capture lasts, or its parent ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vbackup.api import HypervisorContext, VBackupError
from vbackup_libvirt.freeze import thaw
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.options import LibvirtOptions
from vbackup_libvirt.owed import Owed
from vbackup_libvirt.pause import resume
from vbackup_libvirt.waiting import Parent, Word

RETRY = 1.0
"""Seconds from one try to the next."""
LINGER = 10.0
"""Seconds after the parent's end for which a job, or a pause, is looked for: libvirt may still be at what it was asked
for."""
GIVE_UP = 3600.0
"""Seconds after the parent's end after which what cannot be undone is left to the journal."""


class Child:
    """What there is to undo, and when."""

    def __init__(self, job: BackupJob, owed: Owed, parent: Parent) -> None:
        self._job = job
        self._owed = owed
        self._parent = parent
        self._is_given_up = False
        """Whether our parent has left it to us to resume the machine."""
        self._thaw_at: float | None = None
        self._resume_at: float | None = None
        self._resume_until = 0.0
        self._job_lives = False
        self._alone_since: float | None = None

    def run(self, said: Sequence[Word]) -> None:
        """Follow the parent's words, of which it has ``said`` some, to its end, and then undo what is left."""
        for word in said:
            self._heed(word)
        while self._alone_since is None:
            try:
                self._heed(self._parent.words.get(timeout=self._seconds()))
            except queue.Empty:
                self._act()
        self._undo(self._alone_since)

    def _act(self) -> None:
        now = time.monotonic()
        if self._resume_at is not None and self._resume_at <= now:
            self._resume()
        if self._thaw_at is not None and self._thaw_at <= now:
            self._thaw()

    def _undo(self, since: float) -> None:
        pause = threading.Event()
        self._resume_at, self._resume_until = since, since + LINGER
        while time.monotonic() < since + GIVE_UP:
            if self._resume_at is not None:  # first: the agent of a paused guest does not answer
                self._resume()
            if self._thaw_at is not None:
                self._thaw()
            if self._job_lives and self._end():
                self._job_lives = time.monotonic() < since + LINGER or self._resume_at is not None
            if self._thaw_at is None and self._resume_at is None and not self._job_lives:
                return
            pause.wait(RETRY)

    def _seconds(self) -> float | None:
        times = [at for at in (self._thaw_at, self._resume_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _heed(self, word: Word) -> None:
        now = word.at
        match word.text:
            case "begun":
                self._job_lives = True
            case "frozen":
                self._thaw_at = now + self._job.machine.node.options.freeze_timeout
            case "thawed":
                self._thaw_at = None
            case "thaw":
                self._thaw_at = now
            case "paused":
                self._resume_at = now + self._job.machine.node.options.pause_timeout
            case "resumed":
                self._resume_at = None
            case "resume":
                self._resume_at, self._resume_until, self._is_given_up = now, now + LINGER, True
            case "ended":
                self._job_lives = False
            case _:
                self._alone_since = now

    def _thaw(self) -> None:
        # A guest that has been thawed once too often is no harm: who counted on it notices.
        self._thaw_at = None if thaw(self._job.machine) is not None else time.monotonic() + RETRY

    def _resume(self) -> None:
        """Without the mark others have done it: who pauses the machine now is its user, or a later run."""
        now = time.monotonic()
        self._resume_at = now + RETRY
        try:
            with self._owed.held() as run:
                if run is not None and not (resume(self._job.machine, run) and now >= self._resume_until):
                    return
                is_ours = self._is_given_up or self._parent.is_gone
                if run is not None and is_ours:  # else our parent may come to pause it yet, and resumes it itself
                    self._owed.settle()
        except VBackupError:
            return
        self._resume_at = None

    def _end(self) -> bool:
        try:
            self._job.end()
            if self._resume_at is None:
                self._job.machine.node.host.remove_tree(str(self._job.scratch))
        except VBackupError:
            return False
        return True


def act(order: Mapping[str, Any], parent: Parent, said: Sequence[Word]) -> None:
    """Undo what the parent does not; ``order`` is its first line."""
    options = LibvirtOptions.model_validate(order["options"])
    node = Node(options, HypervisorContext(options.uri, Path()))  # the journal is the parent's, and the sweep's
    machine = Machine(node, order["machine"], order["uuid"])
    Child(BackupJob(machine, PurePosixPath(order["scratch"])), Owed(Path(order["owed"])), parent).run(said)
