"""The host on which QEMU's files and programs are: this one, or another one that is reached by ssh."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from vbackup.api import AccessDenied, AlreadyExists, NoSpace, NotFound, Unavailable
from vbackup_qemu.process import Completed, Process, c_locale, failure, missing
from vbackup_qemu.ssh import SshHost

__all__ = ["Completed", "Host", "LocalHost", "Process", "SshHost", "sync_directory", "translated"]


class Host(Protocol):
    """Runs programs and handles files. Paths are the host's own; methods may be called from many threads.

    Every method may raise `Unavailable` when the host is not reached, `NotFound`, `AccessDenied` and `NoSpace`.
    """

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def run(self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True) -> Completed:  # noqa: A002
        """Run a program to its end, in the C locale. With ``check`` a failing one raises what its stderr means.

        Never put a secret in ``argv``. Raises: `Unsupported` when the program is not installed.
        """

    def spawn(self, argv: Sequence[str], what: str) -> Process:
        """Start a program that must end when its standard input is closed; ``what`` begins error messages."""

    def exists(self, path: str | Path) -> bool:
        """Whether there is something at ``path``."""

    def free_bytes(self, path: str | Path) -> int:
        """Return the free space of the file system that holds ``path``, in bytes."""

    def make_private_dir(self, path: str | Path, owner: tuple[int, int] | None = None) -> None:
        """Make a new directory, 0700, and its parents; ``owner`` is (uid, gid). Raises: `AlreadyExists`."""

    def remove_tree(self, path: str | Path) -> None:
        """Remove a file or a directory with all that is in it; nothing there is no error."""

    def read_file(self, path: str | Path) -> bytes:
        """Return the content of a small file."""

    def write_file(self, path: str | Path, data: bytes, mode: int = 0o600) -> None:
        """Replace a small file, all or nothing; durable on return."""

    def list_dir(self, path: str | Path) -> list[str]:
        """Return the names in a directory, sorted."""

    def local_socket(self, remote_path: str | Path) -> AbstractContextManager[Path]:
        """Hold a unix socket on this machine that leads to one on the host."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the error that an `OSError` stands for; ``what`` says what was to be done, to what."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what}: {error.strerror}") from error
    except FileExistsError as error:
        raise AlreadyExists(f"{what}: {error.strerror}") from error
    except OSError as error:
        kind = failure(what, f"{error.strerror}")
        if isinstance(kind, AccessDenied | NoSpace):
            raise kind from error
        raise Unavailable(f"{what}: {error.strerror}", transient=False) from error


class LocalHost:
    """This machine."""

    name = "this machine"

    def run(self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True) -> Completed:  # noqa: A002
        """See `Host.run`."""
        try:
            done = subprocess.run(
                argv,
                input=b"" if input is None else input,
                capture_output=True,
                check=False,
                env=c_locale(),
            )
        except FileNotFoundError as error:
            raise missing(argv[0], self.name) from error
        stderr = done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise failure(f"{argv[0]} failed", stderr)
        return Completed(done.stdout, stderr, done.returncode)

    def spawn(self, argv: Sequence[str], what: str) -> Process:
        """See `Host.spawn`."""
        try:
            return Process(argv, what)
        except FileNotFoundError as error:
            raise missing(argv[0], self.name) from error

    def exists(self, path: str | Path) -> bool:
        """See `Host.exists`."""
        return os.path.lexists(path)

    def free_bytes(self, path: str | Path) -> int:
        """See `Host.free_bytes`."""
        with translated(f"free space at {path}"):
            return shutil.disk_usage(path).free

    def make_private_dir(self, path: str | Path, owner: tuple[int, int] | None = None) -> None:
        """See `Host.make_private_dir`."""
        with translated(f"making the directory {path}"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).mkdir(mode=0o700)
            if owner is not None:
                os.chown(path, *owner)

    def remove_tree(self, path: str | Path) -> None:
        """See `Host.remove_tree`."""
        path = Path(path)
        with translated(f"removing {path}"):
            while path.is_dir() and not path.is_symlink():
                with suppress(FileNotFoundError):  # somebody else removes what is in it as well
                    shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def read_file(self, path: str | Path) -> bytes:
        """See `Host.read_file`."""
        with translated(f"reading {path}"):
            return Path(path).read_bytes()

    def write_file(self, path: str | Path, data: bytes, mode: int = 0o600) -> None:
        """See `Host.write_file`."""
        path = Path(path)
        with translated(f"writing {path}"):
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".vbackup-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
            sync_directory(path.parent)

    def list_dir(self, path: str | Path) -> list[str]:
        """See `Host.list_dir`."""
        with translated(f"listing {path}"):
            return sorted(entry.name for entry in Path(path).iterdir())

    def local_socket(self, remote_path: str | Path) -> AbstractContextManager[Path]:
        """See `Host.local_socket`."""
        return nullcontext(Path(remote_path))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
