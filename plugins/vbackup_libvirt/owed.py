"""The mark that a resume is owed to a machine: a file beside the journal, there from before the pause until it is over.

Three may resume a machine that we have paused: its capture, the guard and a sweep. The mark is what they go by, and it
means one thing: while it is there nobody has; whoever has removes it. A machine without one is paused by its user.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vbackup_qemu.host import LocalHost, sync_directory, translated

_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Owed:
    """One mark, at ``path`` on this host, be there a file or not."""

    path: Path

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Give the run of the machine that is to be resumed (`pause.run_of`), None when nothing is owed any more.

        Until the end nobody else resumes the machine by it, or removes it: a later run, which does so before it pauses
        the machine itself, would be resumed in the midst of its work. Raises: `Unavailable`, `AccessDenied`.
        """
        with translated(f"holding {self.path}"):
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                descriptor = -1
        if descriptor < 0:
            yield None
            return
        try:
            with translated(f"holding {self.path}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                is_there = os.fstat(descriptor).st_nlink > 0
                run = os.read(descriptor, _LONGEST).decode()
            yield run if is_there else None
        finally:
            os.close(descriptor)

    def make(self, run: str) -> None:
        """Make the mark; durable on return. Raises: `NoSpace`, `Unavailable`, `AccessDenied`."""
        LocalHost().write_file(self.path, run.encode())

    def settle(self) -> None:
        """Remove it, holding it: the machine goes on, or is off. Durable on return.

        Raises: `Unavailable`, `AccessDenied`.
        """
        LocalHost().remove_tree(self.path)
        with translated(f"removing {self.path}"):
            sync_directory(self.path.parent)
