"""The child of `guard`: ``python -m vbackup_libvirt.child``.

Standard input: one line of JSON (options, machine, uuid, scratch, owed), then words: ``frozen``, ``thawed``, ``thaw``
(the parent could not), likewise ``paused``, ``resumed``, ``resume``, and ``ended`` (the job). When it ends, what is not
undone by then is undone; so too on SIGTERM, SIGHUP and SIGINT, by which a service manager ends a whole control group
before it kills it. Standard output: one line, ``ready`` or why it cannot act.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from pathlib import Path, PurePosixPath

from vbackup.api import HypervisorContext, VBackupError
from vbackup_libvirt.freeze import thaw
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.options import LibvirtOptions
from vbackup_libvirt.owed import Owed
from vbackup_libvirt.pause import resume

RETRY = 1.0
"""Seconds from one try to the next."""
END = "end"
"""The word by which it is to undo all that is left, whether its parent lives or not."""
LINGER = 10.0
"""Seconds after the parent's end for which a job, or a pause, is looked for: libvirt may still be at what it was asked
for."""
GIVE_UP = 3600.0
"""Seconds after the parent's end after which what cannot be undone is left to the journal."""


class Child:
    """What there is to undo, and when."""

    def __init__(self, job: BackupJob, owed: Owed, words: queue.SimpleQueue[str]) -> None:
        self._job = job
        self._owed = owed
        self._words = words
        self._is_ours = False
        """Whether it is for us alone to resume the machine: our parent has given it up, or is dead."""
        self._thaw_at: float | None = None
        self._resume_at: float | None = None
        self._resume_until = 0.0
        self._job_lives = True
        self._alone_since: float | None = None

    def run(self) -> None:
        """Follow the parent's words to its end, and then undo what is left."""
        threading.Thread(target=self._listen, daemon=True).start()
        while self._alone_since is None:
            try:
                self._heed(self._words.get(timeout=self._seconds()))
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

    def _listen(self) -> None:
        for line in sys.stdin:
            self._words.put(line.strip())
        self._is_ours = True
        self._words.put(END)

    def _seconds(self) -> float | None:
        times = [at for at in (self._thaw_at, self._resume_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _heed(self, word: str) -> None:
        now = time.monotonic()
        match word:
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
                self._resume_at, self._resume_until, self._is_ours = now, now + LINGER, True
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
            run = self._owed.run
            if run is not None and not (resume(self._job.machine, run) and now >= self._resume_until):
                return
            if run is not None and self._is_ours:  # else our parent may come to pause it yet, and resumes it itself
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


def main() -> None:
    """Wait, and act if need be."""
    words: queue.SimpleQueue[str] = queue.SimpleQueue()  # the one queue that a signal's handler may put into
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: words.put(END))
    order = json.loads(sys.stdin.readline())
    options = LibvirtOptions.model_validate(order["options"])
    node = Node(options, HypervisorContext(options.uri, Path()))  # the journal is the parent's, and the sweep's
    machine = Machine(node, order["machine"], order["uuid"])
    try:
        machine.ask("asking whether it runs", lambda domain: domain.isActive())
    except VBackupError as error:
        print(error.message)  # noqa: T201 - this is how it talks to its parent
        return
    print("ready", flush=True)  # noqa: T201
    Child(BackupJob(machine, PurePosixPath(order["scratch"])), Owed(Path(order["owed"])), words).run()


if __name__ == "__main__":
    main()
