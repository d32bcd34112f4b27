"""Where an attachment is: the scope of its locks."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def of(directory: Path) -> tuple[str, str]:
    """Return the host's name for people, and what tells this boot of this host (or container) from all others.

    Not the machine-id: clones of a machine share theirs, and so do many containers. Two attachments are of one seat
    only if they see the same file in the directory of the LUN, and so the same lock: who comes to the same LUN by
    another name (another portal, a LUN that is mapped twice) is of another seat, though of the same host.
    """
    file = directory / "seat"
    with suppress(FileExistsError):
        new = directory / f"seat-{os.getpid()}"
        new.write_text(secrets.token_hex(16))
        try:
            file.hardlink_to(new)
        finally:
            new.unlink()
    return socket.gethostname(), f"{_BOOT.read_text().strip()}/{file.read_text()}"
