"""Another host, by the ssh program: keys, agents and ``~/.ssh/config`` work as everywhere else."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import AccessDenied, AlreadyExists, Unavailable, VBackupError
from vbackup_qemu.process import Completed, Process, failure, missing

_SSH_FAILED = 255
_NOT_INSTALLED = 127

_WRITE = """
set -e; umask 077; t=$(mktemp -- "$(dirname -- "$1")/.vbackup-XXXXXX"); trap 'rm -f -- "$t"' EXIT
cat >"$t"; chmod -- "$2" "$t"; sync -- "$t"; mv -T -- "$t" "$1"; sync -- "$(dirname -- "$1")"
"""


class SshHost:
    """A host that is reached by ``ssh``, without ever asking for a password.

    ``destination`` is ``[user@]host``; ``identity`` a key file. See `vbackup_qemu.host.Host` for the methods.
    """

    def __init__(self, destination: str, port: int | None = None, identity: Path | None = None) -> None:
        self.name = destination
        self._ssh = [
            *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"),
            *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-o", "ExitOnForwardFailure=yes"),
            *(("-p", str(port)) if port else ()),
            *(("-i", str(identity), "-o", "IdentitiesOnly=yes") if identity else ()),
        ]

    def run(self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True) -> Completed:  # noqa: A002
        """See `Host.run`."""
        try:
            done = subprocess.run(
                self._command(argv), input=b"" if input is None else input, capture_output=True, check=False
            )
        except FileNotFoundError as error:
            raise missing("ssh", "this machine") from error
        stderr = done.stderr.decode(errors="replace")
        if done.returncode == _SSH_FAILED:
            raise self._unreachable(stderr)
        if done.returncode == _NOT_INSTALLED:
            raise missing(argv[0], self.name)
        if check and done.returncode:
            raise failure(f"{argv[0]} failed on {self.name}", stderr)
        return Completed(done.stdout, stderr, done.returncode)

    def spawn(self, argv: Sequence[str], what: str) -> Process:
        """See `Host.spawn`."""
        return self._spawn(argv, f"{what} on {self.name}")

    def exists(self, path: str | Path) -> bool:
        """See `Host.exists`."""
        script = 'test -e "$1" || test -h "$1"'
        return self.run(["sh", "-c", script, "sh", str(path)], check=False).returncode == 0

    def free_bytes(self, path: str | Path) -> int:
        """See `Host.free_bytes`."""
        blocks, size = self.run(["stat", "-f", "-c", "%a %S", "--", str(path)]).stdout.split()
        return int(blocks) * int(size)

    def make_private_dir(self, path: str | Path, owner: tuple[int, int] | None = None) -> None:
        """See `Host.make_private_dir`."""
        self.run(["mkdir", "-p", "--", str(Path(path).parent)])
        made = self.run(["mkdir", "-m", "700", "--", str(path)], check=False)
        if made.returncode and "File exists" in made.stderr:
            raise AlreadyExists(f"making the directory {path} on {self.name}: {made.stderr.strip()}")
        if made.returncode:
            raise failure(f"making the directory {path} on {self.name}", made.stderr)
        if owner is not None:
            self.run(["chown", "--", f"{owner[0]}:{owner[1]}", str(path)])

    def remove_tree(self, path: str | Path) -> None:
        """See `Host.remove_tree`."""
        self.run(["rm", "-rf", "--", str(path)])

    def read_file(self, path: str | Path) -> bytes:
        """See `Host.read_file`."""
        return self.run(["cat", "--", str(path)]).stdout

    def write_file(self, path: str | Path, data: bytes, mode: int = 0o600) -> None:
        """See `Host.write_file`."""
        self.run(["sh", "-c", _WRITE, "sh", str(path), f"{mode:o}"], input=data)

    def list_dir(self, path: str | Path) -> list[str]:
        """See `Host.list_dir`."""
        argv = ["find", f"{path}/", "-mindepth", "1", "-maxdepth", "1", "-printf", r"%f\0"]
        return sorted(name for name in self.run(argv).stdout.decode(errors="surrogateescape").split("\0") if name)

    @contextmanager
    def local_socket(self, remote_path: str | Path) -> Iterator[Path]:
        """See `Host.local_socket`."""
        with tempfile.TemporaryDirectory(prefix="vbackup-") as directory:
            path = Path(directory) / "socket"
            # ssh listens before it starts the command, so its first word says that the tunnel is there.
            waits = ["sh", "-c", "echo ready; read -r _"]
            what = f"no tunnel to {remote_path} on {self.name}"
            with self._spawn(waits, what, "-L", f"{path}:{remote_path}") as tunnel:
                tunnel.line()
                yield path

    def _command(self, argv: Sequence[str], *options: str) -> list[str]:
        return [*self._ssh, *options, "--", self.name, shlex.join(["env", "LC_ALL=C", *argv])]

    def _spawn(self, argv: Sequence[str], what: str, *options: str) -> Process:
        try:
            return Process(self._command(argv, *options), what)
        except FileNotFoundError as error:
            raise missing("ssh", "this machine") from error

    def _unreachable(self, stderr: str) -> VBackupError:
        hint = f"try: ssh -o BatchMode=yes {self.name} true"
        text = f"ssh to {self.name} failed: {stderr.strip()}"
        if "Permission denied" in stderr or "Host key verification failed" in stderr:
            return AccessDenied(text, hint=hint)
        return Unavailable(text, hint=hint)
