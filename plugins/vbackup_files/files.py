"""What a client of a file server has to do for `FileStore`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from vbackup.api.hypervisor import Buffer


class Found(NamedTuple):
    """What is there under a name."""

    name: str
    is_file: bool
    is_directory: bool
    size: int
    """In bytes."""
    modified: float
    """Seconds since 1970, by the server's clock."""


class Files(Protocol):
    """The tree of files below the store's root on one server. All methods may be called from many threads at once.

    Paths are relative to the root, joined by ``/``; the root itself is ``""``. Errors are `OSError` with the errno that
    a local file system would give: ENOENT, ENOTDIR, EISDIR, EEXIST, EACCES, ENOSPC, EROFS ...; a server that does not
    answer within the client's own limit is ETIMEDOUT, one that cannot be reached what the socket says. What went wrong
    with a connection must not outlive the call: the next call connects anew.
    """

    def write(self, path: str, data: Buffer) -> None:
        """Make a file that is not there yet, for its owner only; on return its bytes survive a power failure."""

    def name(self, temporary: str, path: str, *, replace: bool) -> None:
        """Give a file that was just written its name, at once and durably; what had it is replaced.

        With ``replace`` False raise `FileExistsError` if the name is taken, however many ask at once; the temporary
        name may then remain, else it is gone. A server that loses the answer and is asked again must not make us
        refuse our own file.
        """

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Read a file, or ``length`` bytes from ``offset``; less only where it ends. A directory is EISDIR."""

    def look(self, path: str) -> Found:
        """Return what is at a path. A symbolic link is neither file nor directory."""

    def list(self, path: str) -> Iterable[Found]:
        """Return all that is in a directory, in any order, without ``.`` and ``..``; all of it or an error."""

    def make_directory(self, path: str) -> None:
        """Make one directory, durably, for its owner only. `FileExistsError` if the name is taken."""

    def remove(self, path: str) -> None:
        """Remove a file, durably. A directory is EISDIR or EPERM."""

    def free(self) -> tuple[int, int] | None:
        """Return how many bytes are free, and of how many; None where the server does not say."""

    def close(self) -> None:
        """Let go of all connections. Further calls may connect again."""
