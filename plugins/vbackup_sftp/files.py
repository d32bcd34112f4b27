"""The files below a directory of an SSH server."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from vbackup.api.hypervisor import Buffer
from vbackup_files import Found, Pool
from vbackup_sftp.login import connect
from vbackup_sftp.loop import run
from vbackup_sftp.session import Session

if TYPE_CHECKING:
    from vbackup_sftp.transport import SftpOptions

T = TypeVar("T")

_CONNECTIONS = 4  # for each, the server has a process that encrypts


class SftpFiles:
    """See `vbackup_files.Files`."""

    def __init__(self, options: SftpOptions) -> None:
        self._sessions: Pool[Session] = Pool(
            lambda: connect(options), lambda session: run(session.close()), _CONNECTIONS
        )

    def write(self, path: str, data: Buffer) -> None:
        """See `Files.write`."""
        self._call(lambda session: session.write(path, memoryview(data)))

    def name(self, temporary: str, path: str, *, replace: bool) -> None:
        """See `Files.name`. A request is sent once only: there is no answer of an earlier one to meet."""
        self._call(lambda session: (session.rename if replace else session.link)(temporary, path))

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """See `Files.read`."""
        return self._call(lambda session: session.read(path, offset, length))

    def look(self, path: str) -> Found:
        """See `Files.look`."""
        return self._call(lambda session: session.look(path))

    def list(self, path: str) -> Iterable[Found]:
        """See `Files.list`."""
        return self._call(lambda session: session.list(path))

    def make_directory(self, path: str) -> None:
        """See `Files.make_directory`."""
        self._call(lambda session: session.make_directory(path))

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        self._call(lambda session: session.remove(path))

    def free(self) -> tuple[int, int] | None:
        """See `Files.free`."""
        return self._call(lambda session: session.free())

    def close(self) -> None:
        """See `Files.close`."""
        self._sessions.close()

    def _call(self, call: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        try:
            with self._sessions.connection() as session:
                return run(call(session))
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                text = f"this SFTP server lacks what vbackup needs, OpenSSH's of version 6.5 has it: {error.strerror}"
                raise OSError(errno.ENOTSUP, text) from error
            raise
