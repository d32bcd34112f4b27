"""The kernel's client: an export, mounted privately, whose directory the transport ``local`` then uses.

The mount is soft: a request that is not answered in time ends in an error, and whoever asked tries again for as long
as its deadline lets it. nfs(5) warns that soft mounts lose writes silently. That is true of programs that do not look
at what fsync(2) says: here an object gets its name only after an fsync without error, and a file whose fsync has
failed is never used again. A hard mount would leave a thread where only SIGKILL reaches it, and the job without an end.

Directories and names that are not there are not cached: other hosts write too, and what they did must be seen.
"""

from __future__ import annotations

import errno
import subprocess
from contextlib import closing
from pathlib import Path

from vbackup.api import AccessDenied, Unavailable, Unsupported, VBackupError
from vbackup_local.transport import Local, LocalOptions
from vbackup_nfs.mounts import Mount
from vbackup_nfs.options import Export, NfsOptions

_SAFETY = "nosuid,nodev,noexec,noatime,soft,proto=tcp,sec=sys,acdirmin=0,acdirmax=0,lookupcache=positive"
_RETRANSMISSIONS = 2
_SPARE_SECONDS = 10
"""mount.nfs asks several services in turn, each within its own limits: this much longer than one request."""

_NO_MOUNTS = "run it as root, or use `client: userspace`"
_NO_KERNEL = "this kernel has no NFS, or is too old: use `client: userspace`"
_MEANINGS: tuple[tuple[str, type[VBackupError], str], ...] = (
    ("access denied", AccessDenied, "does the server export it to this host, and is the directory there?"),
    ("permission denied", AccessDenied, "does the server export it to this host, and is the directory there?"),
    ("not permitted", Unsupported, _NO_MOUNTS),
    ("superuser", Unsupported, _NO_MOUNTS),
    ("rpc.statd", Unsupported, "start rpc.statd (Debian: nfs-common), or use `client: userspace`"),
    ("unknown filesystem type", Unsupported, _NO_KERNEL),
    ("no such device", Unsupported, _NO_KERNEL),
    ("incorrect mount option", Unsupported, _NO_KERNEL),
    ("protocol not supported", Unsupported, "the server speaks another version: correct or omit `version`"),
    ("no such file", Unavailable, "`vbackup init` makes the directory of a new target; else correct its path"),
    ("not a directory", Unavailable, "correct the path"),
    ("name or service not known", Unavailable, "correct the name of the server"),
)
"""What mount(8) says, in lower case; whatever else it says may pass, and this does not."""


class KernelClient:
    """An export that is mounted until `close`; ``store`` is the transport over its directory."""

    def __init__(self, options: NfsOptions) -> None:
        self._mount = mount(options.export, options)
        self.store = Local(LocalOptions(path=self._mount.point))

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return self._mount.point

    def is_stale(self, error: VBackupError) -> bool:
        """Whether, as ``error`` lets us guess, this mount will never again show the export's directory.

        It was removed or replaced on the server (ESTALE, which may also be of one file only), or unmounted under us.
        """
        if not isinstance(error, Unavailable):
            return False
        if not isinstance(error.__cause__, OSError):
            return error.transient
        return error.__cause__.errno == errno.ESTALE and self._root_is_stale()

    def _root_is_stale(self) -> bool:
        try:
            self.point.stat()
        except OSError as error:
            return error.errno == errno.ESTALE
        return False

    def close(self) -> None:
        """Unmount it."""
        self._mount.close()


def make(options: NfsOptions) -> None:
    """Make the last directory of the export's path if it is not there. Raises: as `mount`."""
    try:
        mount(options.export, options).close()
    except (AccessDenied, Unavailable) as error:
        if error.transient:
            raise
        with closing(mount(options.export.parent, options)) as parent:
            Local(LocalOptions(path=parent.point / options.export.name)).create()


def mount(export: Export, options: NfsOptions) -> Mount:
    """Mount an export. Raises: `AccessDenied`, `Unavailable`, `Unsupported`."""
    command = ["mount", "-t", "nfs", "-o", mount_options(options), "--", export.source]
    try:
        return Mount(command, options.timeout + _SPARE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"cannot mount {export.url}: no answer within {error.timeout:g} s") from error
    except subprocess.CalledProcessError as error:
        raise _meaning(f"{error.stderr}{error.stdout}", export) from error
    except OSError as error:
        raise Unavailable(f"cannot mount {export.url}: {error}", transient=False) from error


def mount_options(options: NfsOptions) -> str:
    """Return the argument of ``-o``; for each request the kernel waits ``timeo`` tenths of a second, and again."""
    words = [_SAFETY, "retry=0", f"retrans={_RETRANSMISSIONS}"]
    words.append(f"timeo={max(1, round(options.timeout * 10 / (_RETRANSMISSIONS + 1)))}")
    if options.version:
        words.append(f"vers={options.version}")
    if options.version == 3:
        words.append("mountproto=tcp")
    if options.version != 4:
        words.append("nolock")  # where version 3 is agreed on, locks, which nobody takes, would need rpc.statd(8)
    if options.port:
        words.append(f"port={options.port}")
    if options.mount_port:
        words.append(f"mountport={options.mount_port}")
    return ",".join(words)


def _meaning(said: str, export: Export) -> VBackupError:
    message = f"cannot mount {export.url}: {' '.join(said.split())}"
    for words, kind, hint in _MEANINGS:
        if words in said.lower():
            return kind(message, hint=hint, transient=False)
    return Unavailable(message)
