"""Whether a process still has the connections that it had.

libiscsi connects again by itself, and repeats what was not answered. A target that lost power in between has forgotten
what it had answered and not yet written, and then confirms the flush of nothing: so a new connection is a lost LUN.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def sockets(process: int) -> frozenset[str]:
    """Return what tells the sockets of a process from all others of this boot; nothing of one that has ended."""
    found: set[str] = set()
    directory = Path(f"/proc/{process}/fd")
    try:
        for descriptor in directory.iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(descriptor.readlink()))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # a zombie's may not be read
        return frozenset()
    return frozenset(link for link in found if link.startswith("socket:"))
