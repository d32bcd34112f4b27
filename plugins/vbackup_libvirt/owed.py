"""The mark that a resume is owed to a machine: a file beside the journal, there from before the pause until it is over.

Three may resume a machine that we have paused: its capture, the guard and a sweep. The mark is what they go by, and it
means one thing: while it is there nobody has; whoever has removes it. A machine without one is paused by its user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vbackup.api import NotFound
from vbackup_qemu.host import LocalHost, sync_directory, translated


@dataclass(frozen=True, slots=True)
class Owed:
    """One mark, at ``path`` on this host, be there a file or not."""

    path: Path

    @property
    def run(self) -> str | None:
        """The run of the machine that is to be resumed (`pause.run_of`), None when nothing is owed any more.

        Raises: `Unavailable`, `AccessDenied`.
        """
        try:
            return LocalHost().read_file(self.path).decode()
        except NotFound:
            return None

    def make(self, run: str) -> None:
        """Make the mark; durable on return. Raises: `NoSpace`, `Unavailable`, `AccessDenied`."""
        LocalHost().write_file(self.path, run.encode())

    def settle(self) -> None:
        """Remove it: the machine goes on, or is off. Durable on return. Raises: `Unavailable`, `AccessDenied`."""
        LocalHost().remove_tree(self.path)
        with translated(f"removing {self.path}"):
            sync_directory(self.path.parent)
