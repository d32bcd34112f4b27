"""A real OpenSSH server on loopback, for SFTP.

It runs in a mount namespace of its own, where root's password is ours, and where tests may mount.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import Daemons, free_port, listens, run
from tests.servers.processes import end_family, freeze, thaw
from vbackup.testing.lab.libvirtd import until

PASSWORD = "correct horse battery"
_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class Sshd:
    """An OpenSSH server that knows one key and, as root's, `PASSWORD`; ``sftp`` is what it runs for SFTP."""

    def __init__(self, daemons: Daemons, sftp: str = "internal-sftp") -> None:
        self._daemons = daemons
        self.pid = 0
        self._frozen: list[int] = []
        self.root = daemons.root / f"sshd-{os.urandom(4).hex()}"
        self.root.mkdir(mode=0o755)
        self.port = free_port()
        self.identity = self.root / "key"
        """The private key that is let in, as any user."""
        self.known_hosts = self.root / "known_hosts"
        """Names the key of this host."""
        for name in ("host", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / name)
        self.host_key = " ".join((self.root / "host.pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.host_key}\n")
        self._write_config(sftp)
        self._write_shadow()
        daemons.root.chmod(0o755)  # for others than root, too
        self.start()

    def entry(self) -> dict[str, Any]:
        """Return the options of a transport on a new directory; the key is a file that is ours alone."""
        return {
            "host": "127.0.0.1", "port": self.port, "path": tempfile.mkdtemp(prefix="store-", dir=self.root),
            "user": "root", "identity": str(self.identity), "known_hosts": str(self.known_hosts),
        }  # fmt: skip

    def remove(self, options: dict[str, Any]) -> None:
        """Remove the directory of an `entry`."""
        shutil.rmtree(options["path"])

    def start(self) -> None:
        """Start it, on the same port as before."""
        Path("/run/sshd").mkdir(exist_ok=True)
        shadow = f"mount --bind {self.root}/shadow /etc/shadow && exec {_SSHD} -D -e -f {self.root}/config"
        self.pid = self._daemons.spawn("unshare", "-m", "sh", "-c", shadow)
        until(lambda: listens(self.port), "sshd")

    def kill(self) -> None:
        """Kill -9 the server and all its sessions."""
        end_family(self.pid)

    def freeze(self) -> None:
        """Let it hang: it takes connections, and says nothing any more."""
        self._frozen = freeze(self.pid)

    def thaw(self) -> None:
        """End `freeze`."""
        thaw(self._frozen)

    def mount(self, *arguments: str | Path) -> None:
        """Run mount(8) where only this server sees what it does; ends with the server."""
        run("nsenter", "-t", str(self.pid), "-m", "mount", *arguments)

    def _write_config(self, sftp: str) -> None:
        (self.root / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.root}/host\nAuthorizedKeysFile {self.root}/key.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\nPidFile none\n"
            f"PermitRootLogin yes\nMaxStartups 100\n" + (f"Subsystem sftp {sftp}\n" if sftp else "")
        )

    def _write_shadow(self) -> None:
        hashed = run("openssl", "passwd", "-6", "-stdin", stdin=PASSWORD.encode()).decode().strip()
        shadow = self.root / "shadow"
        shadow.touch(mode=0o600)
        shadow.write_text(re.sub(r"(?m)^root:[^:]*:", lambda _: f"root:{hashed}:", Path("/etc/shadow").read_text()))


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """An SFTP server."""
    with Daemons("sshd") as daemons:
        yield Sshd(daemons)
