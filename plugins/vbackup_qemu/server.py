"""qemu-nbd for the time of a context: an image, of whatever format, as an NBD export on a unix socket.

The server never outlives us. A shell on its host waits for the end of its own input, which comes when we close it,
when we are killed, or when ssh loses the connection, and then ends the server. That the server is gone is seen by
the end of the output, which it inherits. (PR_SET_PDEATHSIG would end it with the *thread* that started it.)
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import Busy, ConfigError
from vbackup_qemu.host import Host
from vbackup_qemu.image import busy, operand

_MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 bytes, with the null

# qemu-nbd --fork returns when the server listens; errors are on standard error by then. The pid is read at once: after
# our death somebody may sweep the directory before the shell gets to run. Without the tunables (mallopt(3)) memory for
# each request comes from the kernel and goes back to it: 0.4 of 1.1 seconds of a processor for each GiB.
# One signal is not enough: qemu-nbd forgets what reaches it just when it has begun to listen. It is not the shell's
# child, so it may stay a zombie, in a container without an init for ever: that has no program any more.
_LIFELINE = """
trap '' PIPE
file=$1; shift
GLIBC_TUNABLES=glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=134217728 "$@" 3>&1 || exit
pid=$(cat "$file") && rm -f -- "$file"
echo ready
read -r _
left=500
while kill "$pid" 2>/dev/null && [ -e "/proc/$pid/exe" ] && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.02; done
"""

# writeback: every file system can, and a restore is flushed before it counts. Zeros come as zeros from us and need no
# detection; to make holes of them takes --discard.
_PROGRAM = ("qemu-nbd", "--fork", "--persistent", "--cache=writeback", "--aio=threads")


@contextmanager
def serve(
    host: Host,
    path: str | Path,
    format: str,  # noqa: A002
    *,
    read_only: bool = True,
    bitmap: str | None = None,
    sockets: Path,
    connections: int = 2,
) -> Iterator[Path]:
    """Serve an image, and yield the socket on this machine. ``sockets`` is a private directory on ``host``.

    Reading or writing, QEMU's locks on the image are held, so that no other QEMU program writes to it meanwhile. With
    ``bitmap`` the context ``qemu:dirty-bitmap:NAME`` shows that bitmap.

    Raises: `Busy` when somebody else has the image open, `NotFound`, `AccessDenied`, `Unsupported` without qemu-nbd.
    """
    socket = sockets / f"{secrets.token_hex(4)}.sock"
    if len(str(socket)) > _MAX_SOCKET_PATH:
        raise ConfigError(f"{sockets} is too long a path for sockets", hint="choose a shorter directory")
    pid = socket.with_suffix(".pid")
    argv = [
        *_PROGRAM,
        *(("--read-only",) if read_only else ("--discard=unmap",)),
        *(("--bitmap", bitmap) if bitmap else ()),
    ]
    argv += ["--socket", str(socket), "--pid-file", str(pid), "--shared", str(connections)]
    argv += _image(path, format, read_only=read_only)
    with host.spawn(["sh", "-c", _LIFELINE, "sh", str(pid), *argv], f"{path} cannot be served") as server:
        try:
            server.line()
        except Busy as error:
            raise busy(path) from error
        with host.local_socket(socket) as local:
            yield local


def _image(path: str | Path, format: str, *, read_only: bool) -> list[str]:  # noqa: A002
    if format != "raw" or not read_only:
        return ["--format", format, "--", operand(path)]
    # QEMU lets others write to a raw image that is only read, so the copy could be torn; blkdebug can forbid it
    # (QAPI: BlockdevOptionsBlkdebug, unshare-child-perms). All other formats forbid it themselves.
    node = {"driver": "raw", "file": {"filename": operand(path)}}
    guarded = {"driver": "blkdebug", "unshare-child-perms": ["write", "resize"], "image": node}
    return ["--", f"json:{json.dumps(guarded)}"]
