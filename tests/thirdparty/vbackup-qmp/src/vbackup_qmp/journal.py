"""What must be undone if we die: a file for each machine or place, which the living hold a lock on.

What is about to be made is written down before, durably. Whoever gets the lock of a journal that has an entry knows
that its writer is dead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vbackup.api import Busy

_SUFFIX = ".journal"

Entry = Mapping[str, Any]


class Journal:
    """A journal whose lock is held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, entry: Entry) -> None:
        """Replace the entry."""
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")
        os.fsync(self._descriptor)

    def read(self) -> Entry | None:
        """Return the entry; None when nothing is left to undo."""
        whole = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).split(b"\n")[:-1]
        if not whole:  # also a line without its end was never acted upon
            return None
        entry: Entry = json.loads(whole[-1])
        return entry

    def clear(self) -> None:
        """All is undone."""
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)


@contextmanager
def held(directory: Path, kind: str, subject: str) -> Iterator[Journal]:
    """Hold the journal of a ``kind`` of work on a ``subject``, whose name may be anything.

    Raises: `Busy` while somebody else holds it.
    """
    name = f"{kind}-{hashlib.sha256(subject.encode()).hexdigest()[:16]}{_SUFFIX}"
    with _locked(directory / name) as journal:
        if journal is None:
            raise Busy(f"a {kind} of {subject} is under way already")
        yield journal


def abandoned(directory: Path, kind: str) -> Iterator[tuple[Journal, Entry]]:
    """Yield the journals of the dead, each held until the next one."""
    for path in sorted(directory.glob(f"{kind}-*{_SUFFIX}")):
        with _locked(path) as journal:
            entry = journal.read() if journal is not None else None
            if journal is not None and entry is not None:
                yield journal, entry


@contextmanager
def _locked(path: Path) -> Iterator[Journal | None]:
    # Journals stay, empty: one that is deleted might be locked just then.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield Journal(descriptor)
    finally:
        os.close(descriptor)
