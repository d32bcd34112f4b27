"""The files below a directory of a share."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vbackup.api import ConfigError
from vbackup.api.hypervisor import Buffer
from vbackup_files import Found, Pool

if TYPE_CHECKING:
    from vbackup_smb.session import Session
    from vbackup_smb.transport import SmbOptions

_CONNECTIONS = 4  # for each, a Samba server has a process


class SmbFiles:
    """See `vbackup_files.Files`."""

    def __init__(self, options: SmbOptions) -> None:
        self._options = options
        self._sessions: Pool[Session] = Pool(self._connect, lambda session: session.close(), _CONNECTIONS)

    def write(self, path: str, data: Buffer) -> None:
        """See `Files.write`. Who may read the file is up to the share."""
        with self._sessions.connection() as session:
            session.write(path, memoryview(data))

    def name(self, temporary: str, path: str, *, replace: bool) -> None:
        """See `Files.name`. A request is sent once only: there is no answer of an earlier one to meet."""
        try:
            with self._sessions.connection() as session:
                (session.rename if replace else session.link)(temporary, path)
        except OSError as error:
            if error.errno == errno.ENOTSUP and not replace:
                text = "the share needs hard links; keep it on one NTFS, ReFS, ext4, XFS, ZFS or the like"
                text = f"{error.strerror}: {text}"
                raise OSError(errno.ENOTSUP, text) from error
            raise

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """See `Files.read`."""
        with self._sessions.connection() as session:
            return session.read(path, offset, length)

    def look(self, path: str) -> Found:
        """See `Files.look`."""
        with self._sessions.connection() as session:
            return session.look(path)

    def list(self, path: str) -> Iterable[Found]:
        """See `Files.list`."""
        with self._sessions.connection() as session:
            return session.list(path)

    def make_directory(self, path: str) -> None:
        """See `Files.make_directory`."""
        with self._sessions.connection() as session:
            session.make_directory(path)

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        with self._sessions.connection() as session:
            session.remove(path)

    def free(self) -> tuple[int, int] | None:
        """See `Files.free`."""
        with self._sessions.connection() as session:
            return session.free()

    def close(self) -> None:
        """See `Files.close`."""
        self._sessions.close()

    def _connect(self) -> Session:
        try:
            from vbackup_smb.login import connect
        except ImportError as error:
            raise ConfigError("the transport smb needs smbprotocol", hint="pip install 'vbackup[smb]'") from error
        return connect(self._options)
