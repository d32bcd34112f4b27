"""One run of a machine into a target at a time, on this host. The lock dies with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vbackup.api import Busy


@contextlib.contextmanager
def locked(state_dir: Path, *names: str) -> Iterator[None]:
    """Hold the lock that ``names`` stand for. Raises `Busy` when another process has it."""
    directory = state_dir / "locks"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{names[-1]} is being backed up by another run already") from None
        yield
