"""What a server left out: the counts of READ and WRITE may be less than what was asked (MS-SMB2 2.2.20, 2.2.22)."""

from __future__ import annotations

import errno

from smbprotocol.open import Open

from vbackup_smb.failures import as_os_error


def write_rest(file: Open, data: memoryview, at: int, wrote: int) -> None:
    """Write what is missing of ``data``, whose first ``wrote`` bytes are in the file at ``at``. Raises: `OSError`."""
    while wrote < len(data):
        with as_os_error():
            more = file.write(bytes(data[wrote:]), at + wrote) if wrote else 0
        if not more:
            raise OSError(errno.EIO, "the server wrote nothing and gave no reason")
        wrote += more


def read_rest(file: Open, at: int, length: int, piece: bytes) -> bytes:
    """Return the ``length`` bytes at ``at``, of which ``piece`` is the beginning. Raises: `OSError`."""
    while len(piece) < length:
        with as_os_error():
            more = file.read(at + len(piece), length - len(piece))
        if not more:
            raise OSError(errno.EIO, "the server gave less than it has, and no reason")
        piece += more
    return piece
