"""LUNs of a real tgtd, hosts that use them, and what they leave behind."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.tgtd import Lun, Tgtd
from vbackup_iscsi.options import IscsiOptions, Timing
from vbackup_iscsi.transport import Iscsi

SIZE = 1 << 30
FAST = Timing(renew=0.5, lease=8, takeover=18, settle=0.2, connect=4, unacknowledged=3)


class Host:
    """What stands for a host: all that share its runtime directory. Others know nothing of its locks."""

    def __init__(self, runtime: Path, tgtd: Tgtd) -> None:
        self.runtime = runtime
        self._tgtd = tgtd
        self._opened: list[Iscsi] = []

    def options(self, of: Lun, **more: Any) -> IscsiOptions:
        return IscsiOptions.model_validate(self._tgtd.options(of) | {"client": "userspace"} | more)

    def open(self, of: Lun, timing: Timing = FAST, **more: Any) -> Iscsi:
        """Return a transport; it is closed in the end."""
        self._opened.append(Iscsi(self.options(of, **more), runtime=self.runtime, timing=timing))
        return self._opened[-1]

    def processes(self) -> dict[str, int]:
        """Return the ids of the programs of its only attachment, by name."""
        found = {}
        for pid in _pids():
            words = _command(pid).split("\0")
            if any(str(self.runtime) in word for word in words):
                name = "keeper" if "vbackup_iscsi.keeper" in words else Path(words[0]).name
                found[name] = pid
        return found

    def traces(self) -> list[str]:
        """Return what there is of attachments: mounts in any namespace, loop devices, programs, files but locks."""
        mounts = {line for pid in _pids() for line in _text(Path(f"/proc/{pid}/mounts")).splitlines()}
        loops = subprocess.check_output(["losetup", "--list", "--noheadings"], text=True).splitlines()
        commands = [_command(pid).replace("\0", " ") for pid in _pids()]
        files = [str(path) for path in self.runtime.glob("*/*") if path.name not in ("lock", "start", "log", "seat")]
        return [line for line in [*mounts, *loops, *commands, *files] if str(self.runtime) in line]

    def close(self) -> None:
        for transport in self._opened:
            transport.close()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/cmdline"))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.fixture
def make_host(tgtd: Tgtd, lun: Lun) -> Iterator[Callable[[], Host]]:
    """Return a function that makes hosts; they let go of the LUN before it goes."""
    hosts: list[Host] = []

    def make() -> Host:
        hosts.append(Host(Path(tempfile.mkdtemp(dir="/run", prefix="vbackup-test-")), tgtd))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()
        subprocess.run(["rm", "-rf", "--one-file-system", str(host.runtime)], check=True)


@pytest.fixture
def host(make_host: Callable[[], Host]) -> Host:
    return make_host()


@pytest.fixture
def lun(tgtd: Tgtd) -> Iterator[Lun]:
    """A blank LUN, of 1 GiB."""
    made = tgtd.new_lun(SIZE)
    yield made
    tgtd.remove(tgtd.options(made))


@pytest.fixture
def formatted(lun: Lun, host: Host) -> Lun:
    """A LUN with a store on it, attached nowhere."""
    transport = host.open(lun)
    transport.create()
    transport.close()
    return lun
