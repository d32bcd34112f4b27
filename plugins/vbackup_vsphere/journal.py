"""What a capture writes down so that it can be undone if it dies."""

from __future__ import annotations

from vbackup_undo.journal import Entry


class CaptureEntry(Entry):
    """What a capture leaves behind if it dies."""

    owner: str
    machine: str
    """Its name, for people."""
    uuid: str
    """Its instanceUuid."""
    moid: str
    snapshots: tuple[str, ...]
    """The names of its snapshot, and of earlier ones that could not be removed. No other has such a name: one made by
    a call whose answer never came is found by it."""
    needed_consolidation: bool = False
    """The machine's disks needed consolidation before: then that is not ours to do."""
