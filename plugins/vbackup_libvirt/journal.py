"""What a capture and a restore write down so that it can be undone if they die."""

from __future__ import annotations

from vbackup_undo.journal import Entry


class CaptureEntry(Entry):
    """What a capture leaves behind if it dies."""

    owner: str
    machine: str
    uuid: str
    scratch: str
    """The directory of its scratch files and of the NBD socket of its backup job."""
    frozen: bool = False
    """The guest may be frozen, or may yet freeze: its agent has not said that it is thawed."""
    paused: tuple[str, ...] = ()
    """Names of the marks (`Node.owed`) of pauses for its memory's sake: this run's, and those that an earlier one could
    not undo. Where the mark is gone, so is the pause."""

    @property
    def lasts(self) -> bool:
        """See `Entry.lasts`."""
        return self.frozen or bool(self.paused)


class Made(Entry):
    """A file that takes its place."""

    path: str
    inode: str
    """Its device and inode, by which it is told from a file that others made there; empty if it only makes way."""
    old: str
    """Where the file is kept that it replaces, until all files are in their places."""


class RestoreEntry(Entry):
    """What a restore leaves behind if it dies."""

    machine: str
    uuid: str
    temporary: tuple[str, ...]
    """Paths on the hypervisor's host that are of no use to anybody."""
    made: tuple[Made, ...] = ()
    """What belongs to a new machine once it is defined, and goes back otherwise."""
    definition: str = ""
    """The XML of the machine that is overwritten, until it is. It may hold passwords."""
