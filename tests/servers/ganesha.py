"""nfs-ganesha with rpcbind in a network of their own, from Debian's packages; NFSv3 and v4."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import Daemons, end, listens, run
from vbackup.api import clock

_NETWORK = (198 << 24) + (18 << 16)  # 198.18.0.0/15 is for tests of networks (RFC 2544)
_SMALL = 24 << 20

_CONFIGURATION = """
NFS_CORE_PARAM {{ NFS_Port = {nfs}; MNT_Port = {mount}; Protocols = 3,4; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {root}/recovery; Only_Numeric_Owners = true; }}
NFS_KRB5 {{ Active_krb5 = false; }}
LOG {{ Default_Log_Level = EVENT; }}
"""
_EXPORT = """
EXPORT {{ Export_Id = {number}; Path = {root}/{name}; Pseudo = {path}; Access_Type = {access}; Squash = {squash};
  SecType = sys; Protocols = 3,4; FSAL {{ Name = VFS; }} }}
"""
_EXPORTS = {
    "rw": ("RW", "No_Root_Squash"),
    "ro": ("RO", "No_Root_Squash"),
    "squashed": ("RW", "Root_Squash"),
    "small": ("RW", "No_Root_Squash"),
}


class Ganesha:
    """An NFS server whose exports are the directories ``rw``, ``ro``, ``squashed`` and ``small`` (24 MiB of memory).

    ``ro`` has an object ``a/b`` that holds ``there``.

    rpcbind has a fixed port, and a socket with a fixed name: so there is a network and a mount namespace that nobody
    else sees, linked to ours by a pair of network devices. They are gone when its last process is.
    """

    nfs_port = 2049
    mount_port = 20048

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self.root = daemons.root
        self._numbers = itertools.count(1)
        for name in (*_EXPORTS, "recovery"):
            (self.root / name).mkdir()
        (self.root / "ro/a").mkdir()
        (self.root / "ro/a/b").write_bytes(b"there")
        self._holder = self._hold()
        self.address = self._link()
        self._prepare()
        self._inside("rpcbind", "-f", "-w")
        self._until(lambda: listens(111, self.address))
        self._server = self._started = 0
        self.start()

    def url(self, path: str) -> str:
        """Return the URL of an export, by its name, or of a directory in it."""
        return f"nfs://{self.address}{self.root}/{path}"

    def directory(self, path: str) -> Path:
        """Return the directory of an export, or one in it, as seen from here. Make no changes that the server made."""
        return Path(f"/proc/{self._holder}/root{self.root}") / path

    def new(self, export: str) -> str:
        """Make an empty directory in an export; return its path for `url` and `directory`."""
        path = f"{export}/{next(self._numbers)}"
        self.directory(path).mkdir()
        return path

    def entry(self) -> dict[str, Any]:
        """Return the options of a transport on a new directory."""
        return {"url": self.url(self.new("rw"))}

    def remove(self, options: dict[str, Any]) -> None:
        """Remove the directory of an `entry`."""
        shutil.rmtree(options["url"].removeprefix(f"nfs://{self.address}"))

    def start(self) -> None:
        """Start the server, and wait until it serves. Its write verifier is the second in which it is started."""
        self._until(lambda: int(clock.now().timestamp()) != self._started)
        self._started = int(clock.now().timestamp())
        self._server = self._inside(
            "ganesha.nfsd", "-F", "-f", self.root / "ganesha.conf", "-L", "STDERR", "-p", "/run/ganesha.pid"
        )
        self._until(lambda: listens(self.nfs_port, self.address))

    def kill(self) -> None:
        """End the server with SIGKILL; rpcbind goes on."""
        end(self._server)

    def freeze(self) -> None:
        """Stop the server: it takes connections and says nothing."""
        os.kill(self._server, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self._server, signal.SIGCONT)

    def cut(self) -> None:
        """Pull the plug: packets vanish, connections stay half-open."""
        run(*self._enter("-n"), "ip", "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Put the plug in again."""
        run(*self._enter("-n"), "ip", "link", "set", "eth0", "up")

    def _hold(self) -> int:
        """Make the namespaces; return the process that they live with."""
        ready = self.root / "ready"
        script = f"mount -t tmpfs none /run && ip link set lo up && touch {ready} && exec sleep infinity"
        holder = self._daemons.spawn("unshare", "--net", "--mount", "sh", "-c", script)
        self._until(ready.exists)
        return holder

    def _link(self) -> str:
        """Lay the cable; return the address of the server."""
        network = _NETWORK + self._holder % (1 << 15) * 4
        ours, theirs = (".".join(str(byte) for byte in (network + n).to_bytes(4, "big")) for n in (1, 2))
        device = f"vbg{self._holder}"
        run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", self._holder)
        run("ip", "address", "add", f"{ours}/30", "dev", device)
        run("ip", "link", "set", device, "up")
        run(*self._enter("-n"), "ip", "address", "add", f"{theirs}/30", "dev", "eth0")
        run(*self._enter("-n"), "ip", "link", "set", "eth0", "up")
        return theirs

    def _prepare(self) -> None:
        """Make the small file system, and the configuration."""
        run(*self._enter("-m"), "mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "small", self.root / "small")
        run(*self._enter("-m"), "mkdir", "-p", "/run/rpcbind")
        text = _CONFIGURATION.format(nfs=self.nfs_port, mount=self.mount_port, root=self.root)
        for number, (name, (access, squash)) in enumerate(_EXPORTS.items(), start=1):
            path = self.root / name
            text += _EXPORT.format(number=number, root=self.root, name=name, path=path, access=access, squash=squash)
        (self.root / "ganesha.conf").write_text(text)

    def _enter(self, *which: str) -> list[str]:
        return ["nsenter", "-t", str(self._holder), *which]

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self._daemons.log
            time.sleep(0.02)

    def _inside(self, *command: str | Path) -> int:
        return self._daemons.spawn(*self._enter("-n", "-m"), *command)


@pytest.fixture(scope="session")
def ganesha() -> Iterator[Ganesha]:
    """One NFS server per worker; see `Ganesha`."""
    with Daemons("ganesha") as daemons:
        yield Ganesha(daemons)
