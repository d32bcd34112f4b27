"""A real Samba server on loopback, with nothing of the machine's own configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import Daemons, free_port, listens, run
from tests.servers.processes import end_family, freeze, thaw
from vbackup.testing.lab.libvirtd import until

USER = "root"
PASSWORD = "correct horse battery"
_SMBD = shutil.which("smbd") or "/usr/sbin/smbd"
_PRIVATE = ("private", "lock", "state", "cache", "pid", "ncalrpc", "usershare")

_CONFIG = """
[global]
interfaces = 127.0.0.1
bind interfaces only = yes
smb ports = {port}
server role = standalone
passdb backend = tdbsam:{root}/private/passdb.tdb
smb passwd file = {root}/private/smbpasswd
private dir = {root}/private
lock directory = {root}/lock
state directory = {root}/state
cache directory = {root}/cache
pid directory = {root}/pid
ncalrpc dir = {root}/ncalrpc
usershare path = {root}/usershare
log file = {root}/smbd.log
disable netbios = yes
disable spoolss = yes
load printers = no
printcap name = /dev/null
rpc start on demand helpers = no
{more}

[store]
path = {root}/share
read only = no

[readonly]
path = {root}/share
read only = yes

[nobody]
path = {root}/share
read only = no
force user = nobody

[closed]
path = {root}/share
valid users = nobody
"""


class Samba:
    """A Samba server with one user. The shares are all of the directory `share`.

    ``store`` takes everything, ``readonly`` nothing; ``nobody`` acts as that user; ``closed`` lets us not in. ``more``
    are settings for all of it.
    """

    def __init__(self, daemons: Daemons, more: str = "") -> None:
        self._daemons = daemons
        self.pid = 0
        self._frozen: list[int] = []
        self.port = free_port()
        self.root = daemons.root / f"samba-{self.port}"
        self.share = self.root / "share"
        self.share.mkdir(parents=True)
        for name in _PRIVATE:
            (self.root / name).mkdir(mode=0o755 if name in ("lock", "ncalrpc") else 0o700)
        self._password = self.root / "password"
        self._password.touch(mode=0o600)
        self._password.write_text(PASSWORD)
        self._config = self.root / "smb.conf"
        self._config.write_text(_CONFIG.format(port=self.port, root=self.root, more=more))
        run("smbpasswd", "-c", self._config, "-a", "-s", USER, stdin=f"{PASSWORD}\n{PASSWORD}\n".encode())
        daemons.root.chmod(0o755)  # for others than root, too
        self.start()

    def entry(self) -> dict[str, Any]:
        """Return the options of a transport on a new directory of the share; the password is in a file."""
        directory = Path(tempfile.mkdtemp(prefix="store-", dir=self.share))
        return {
            "server": "127.0.0.1", "port": self.port, "share": "store", "path": directory.name,
            "user": USER, "password": {"file": str(self._password)},
        }  # fmt: skip

    def remove(self, options: dict[str, Any]) -> None:
        """Remove the directory of an `entry`."""
        shutil.rmtree(self.share / options["path"])

    def start(self) -> None:
        """Start it, on the same port as before."""
        command = (_SMBD, "--foreground", "--no-process-group", "--debug-stdout", "-s", self._config)
        self.pid = self._daemons.spawn("unshare", "-m", *command)
        until(lambda: listens(self.port), "smbd")

    def kill(self) -> None:
        """Kill -9 the server and all its children."""
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


@pytest.fixture(scope="session")
def samba() -> Iterator[Samba]:
    """An SMB server."""
    with Daemons("samba") as daemons:
        yield Samba(daemons)
