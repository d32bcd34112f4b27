"""The initiator of the kernel, through iscsiadm(8) of open-iscsi: the LUN as a SCSI disk.

Everything is bound to an interface record of our own, whose name tells the LUN: so a session that others have with the
same target is another one, and what a killed keeper has left behind is known to be ours.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vbackup.api import AccessDenied, Unavailable, VBackupError
from vbackup_iscsi.order import Order
from vbackup_iscsi.programs import attempt

RECORDS = (Path("/etc/iscsi/nodes"), Path("/var/lib/iscsi/nodes"))
"""Where iscsiadm keeps its node records: Debian, Red Hat."""
_LIMIT = 60.0
_APPEARS_SECONDS = 15
_DENIED, _NO_TARGET = (24,), (21, 19)
"""iscsiadm(8), EXIT STATUS: ISCSI_ERR_LOGIN_AUTH_FAILED; no records, no such target."""


class Kernel:
    """One session."""

    def __init__(self, order: Order, directory: Path) -> None:
        """``directory`` is that of the LUN: its name makes ours."""
        self._order = order
        self._interface = f"vbackup-{directory.name}"
        self._device: str | None = None

    def attach(self) -> Path:
        """Log in, and return the block device. Raises: `AccessDenied`, `Unavailable`, `Unsupported`."""
        self._log_out()
        self._iscsiadm("-m", "iface", "-I", self._interface, "-o", "new")
        initiator = ("-n", "iface.initiatorname", "-v", self._order.initiator)
        self._iscsiadm("-m", "iface", "-I", self._interface, "-o", "update", *initiator)
        self._iscsiadm(*self._node(), "-o", "new")
        self._complete_record()
        self._iscsiadm(*self._node(), "--login")
        self._device = self._appeared()
        return Path("/dev") / self._device

    def endings(self) -> Sequence[int]:
        """See `Initiator.endings`: there are none, a session that ends shows in the lease."""
        return ()

    @property
    def process(self) -> int:
        """0: the kernel is connected."""
        return 0

    def is_connected(self) -> bool:
        """The kernel does not show when it has connected again."""
        return True

    def beat(self) -> None:
        """Nobody listens: without us, what is in the kernel can only be stopped by the kernel."""

    def kill(self) -> None:
        """Take the device offline: what is queued and all that follows fails."""
        if self._device is not None:
            _take_offline(self._device)

    def detach(self) -> None:
        """Log out, and remove the records and with them the password."""
        self._log_out()

    def _log_out(self) -> None:
        """Also what a killed keeper has left behind. Commands that find nothing to do fail, which is fine."""
        for interface, _, device in _disks(_sessions()):
            if interface == self._interface:
                _take_offline(device)
        for words in ((*self._node(), "--logout"), (*self._node(), "-o", "delete")):
            with suppress(Unavailable):
                attempt("iscsiadm", *words, limit=_LIMIT)
        attempt("iscsiadm", "-m", "iface", "-I", self._interface, "-o", "delete", limit=_LIMIT)

    def _node(self) -> tuple[str, ...]:
        return ("-m", "node", "-T", self._order.target, "-p", self._order.portal, "-I", self._interface)

    def _complete_record(self) -> None:
        """Write what `iscsiadm -o update` would take on its command line, where everybody can read it."""
        values = {
            "node.startup": "manual",
            "node.session.timeo.replacement_timeout": str(int(self._order.timing.unacknowledged)),
            "node.session.initial_login_retry_max": "1",
            "node.conn[0].timeo.login_timeout": str(int(self._order.timing.connect)),
        }
        if self._order.user:
            values |= {
                "node.session.auth.authmethod": "CHAP",
                "node.session.auth.username": self._order.user,
                "node.session.auth.password": self._order.password,
            }
        files = [file for base in RECORDS for file in base.rglob(self._interface) if file.is_file()]
        if not files:
            raise Unavailable(f"iscsiadm made no record of {self._order.place}", transient=False)
        for file in files:
            _rewrite(file, values)

    def _appeared(self) -> str:
        """Wait for the disk of our LUN; return its name."""
        for _ in range(_APPEARS_SECONDS * 10):
            for interface, lun, device in _disks(_sessions()):
                if interface == self._interface and lun == self._order.lun:
                    return device
            select.select([], [], [], 0.1)
        raise Unavailable(f"{self._order.place} is not there: the target shows no such LUN to us", transient=False)

    def _iscsiadm(self, *words: str) -> None:
        done = attempt("iscsiadm", *words, limit=_LIMIT)
        if done.returncode:
            raise _failure(self._order, done.returncode, " ".join((done.stderr or done.stdout).split()))


def _sessions() -> str:
    return attempt("iscsiadm", "-m", "session", "-P", "3", limit=_LIMIT).stdout


def _disks(report: str) -> Iterator[tuple[str, int, str]]:
    """Yield interface, LUN and the name of the disk, from what ``iscsiadm -m session -P 3`` prints."""
    interface, lun = "", -1
    for line in report.splitlines():
        words = line.split()
        if line.strip().startswith("Iface Name:"):
            interface = words[-1]
        elif "Lun:" in words:
            lun = int(words[words.index("Lun:") + 1])
        elif line.strip().startswith("Attached scsi disk"):
            yield interface, lun, words[3]


def _take_offline(device: str) -> None:
    with suppress(OSError):  # gone already
        Path("/sys/block", device, "device/state").write_text("offline")


def _rewrite(file: Path, values: dict[str, str]) -> None:
    """Set values in a record, which is lines of ``name = value``, for nobody else to read."""
    lines = [line for line in file.read_text().splitlines() if line.partition(" = ")[0] not in values]
    end = next((number for number, line in enumerate(lines) if line.startswith("# END RECORD")), len(lines))
    lines[end:end] = [f"{name} = {value}" for name, value in values.items()]
    new = file.with_name(f".{file.name}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write("\n".join(lines) + "\n")
    new.rename(file)


def _failure(order: Order, code: int, said: str) -> VBackupError:
    message = f"cannot attach {order.place}: {said or f'iscsiadm ended with {code}'}"
    if code in _DENIED:
        return AccessDenied(message, hint="check chap, and that the target admits our initiator name")
    if code in _NO_TARGET:
        return Unavailable(
            message, hint="compare portal and target with what the target is set up for", transient=False
        )
    return Unavailable(message, hint="is the target up and reachable? does iscsid run?")
