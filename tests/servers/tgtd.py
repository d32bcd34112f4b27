"""A real iSCSI target: tgtd, of Debian's package tgt."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import Daemons, end, free_port, listens, run

_USER, _PASSWORD = "vbackup", "a-chap-secret"
_SIZE = 4 << 30


@dataclass(frozen=True, slots=True)
class Lun:
    """LUN 1 of a target of its own; what is on it is in the file ``image``."""

    number: int
    target: str
    image: Path


class Tgtd:
    """An iSCSI target on 127.0.0.1 that asks for CHAP."""

    user, password = _USER, _PASSWORD

    def __init__(self) -> None:
        self._daemons = Daemons("tgtd")
        self._port = free_port()
        self._control = str(self._port & 0x7FFF)  # as far as it counts; others' have other ports
        self._pid = 0
        self._luns: list[Lun] = []
        self._numbers = itertools.count(1)
        self._secret = self._daemons.root / "secret"
        self._secret.write_text(_PASSWORD)
        self._secret.chmod(0o600)
        try:
            self.start()
        except BaseException:
            self._daemons.close()
            raise

    @property
    def portal(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self._port}"

    def new_lun(self, size: int) -> Lun:
        """Add a blank LUN of ``size`` bytes; it takes no more space than what is written to it."""
        number = next(self._numbers)
        lun = Lun(number, f"iqn.2026-01.org.vbackup.test:lun{number}", self._daemons.root / f"lun{number}.img")
        with lun.image.open("wb") as image:
            image.truncate(size)
        self._luns.append(lun)
        self._serve(lun)
        return lun

    def entry(self) -> dict[str, Any]:
        """Return the options of a transport on a new LUN, which is blank."""
        return self.options(self.new_lun(_SIZE))

    def options(self, lun: Lun) -> dict[str, Any]:
        """Return the options of a transport on a LUN."""
        chap = {"user": _USER, "password": {"file": str(self._secret)}}
        return {"portal": self.portal, "target": lun.target, "lun": 1, "chap": chap}

    def remove(self, options: dict[str, Any]) -> None:
        """Remove the LUN of these options, and what is on it; whoever is logged in loses its connection."""
        (lun,) = (lun for lun in self._luns if lun.target == options["target"])
        self._luns.remove(lun)
        self._admin("delete", "target", "--tid", lun.number, "--force")
        lun.image.unlink()

    def kill(self) -> None:
        """End it with SIGKILL. SIGTERM would not do as long as it has a target."""
        end(self._pid)
        for name in (f"socket.{self._control}", f"socket.{self._control}.lock"):
            Path("/var/run/tgtd", name).unlink(missing_ok=True)

    def start(self) -> None:
        """Start it with all of its LUNs."""
        self._pid = self._daemons.spawn("tgtd", "-f", "-C", self._control, "--iscsi", f"portal={self.portal}")
        deadline = time.monotonic() + 30
        while not listens(self._port):
            assert time.monotonic() < deadline, self._daemons.log
            time.sleep(0.02)
        self._admin("new", "account", "--user", _USER, "--password", _PASSWORD)
        for lun in self._luns:
            self._serve(lun)

    def resize(self, lun: Lun, size: int) -> None:
        """Give a LUN another size; it is gone for a moment."""
        self.kill()
        os.truncate(lun.image, size)
        self.start()

    def close(self) -> None:
        """End it, and remove what is on its LUNs."""
        self.kill()
        self._daemons.close()

    def _serve(self, lun: Lun) -> None:
        tid = ("--tid", lun.number)
        self._admin("new", "target", *tid, "-T", lun.target)
        self._admin("new", "logicalunit", *tid, "--lun", 1, "-b", lun.image)
        self._admin("bind", "account", *tid, "--user", _USER)
        self._admin("bind", "target", *tid, "-I", "127.0.0.1")

    def _admin(self, action: str, mode: str, *words: str | int | Path) -> None:
        control = ("-C", self._control, "--lld", "iscsi", "--op", action, "--mode", mode)
        run("tgtadm", *control, *(str(word) for word in words))


@pytest.fixture(scope="session")
def tgtd() -> Iterator[Tgtd]:
    """Start a target for the tests of this process."""
    server = Tgtd()
    try:
        yield server
    finally:
        server.close()
