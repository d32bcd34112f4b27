"""Which way a disk is read, and why not by the ones before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vbackup.api import AccessDenied, Busy, Unavailable, Unsupported, VBackupError
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.readers.base import DiskReader, Frozen, Way
from vbackup_vsphere.readers.datastore import Datastore
from vbackup_vsphere.readers.nfc import Nfc
from vbackup_vsphere.readers.vddk import NOT_CONFIGURED, Vddk

ATTEMPTS = 3
"""How often a way is tried while the host is not there for the moment."""
PAUSE = 2.0
"""Seconds before the second attempt; each further pause is twice as long."""

_log = logging.getLogger(__name__)
_NEXT = (Unsupported, AccessDenied, Unavailable, Busy)
"""After these another way may do."""


def make_ways(options: VsphereOptions) -> Sequence[Way]:
    """Return the ways in the order in which they are to be tried. Hold on to them: disks of a capture share things."""
    ways: dict[str, Way] = {"vddk": Vddk(options.vddk), "datastore": Datastore(), "nfc": Nfc()}
    return [ways[name] for name in dict.fromkeys(options.read)]


@contextmanager
def open_reader(ways: Sequence[Way], frozen: Frozen, disk: VmDisk) -> Iterator[tuple[DiskReader, str, list[str]]]:
    """Open a disk by the first way that can, and give its reader, the way's name and notes for the user.

    Raises: `Unsupported` with all reasons when no way can; `Unavailable` when one of them may be able to later.
    """
    with ExitStack() as stack:
        reader, name, reasons = _first(ways, frozen, disk, stack)
        said = "".join(f", not {way} ({reason})" for way, reason in reasons)
        _log.info("disk %s of %s is read by %s%s", disk.key, frozen.machine, name, said)
        # That somebody has no VDDK he knows: by itself it is no news.
        is_news = any(reason != NOT_CONFIGURED for _, reason in reasons)
        yield reader, name, [f"disk {disk.key} is read by {name}{said}"] if is_news else []


def _first(
    ways: Sequence[Way], frozen: Frozen, disk: VmDisk, stack: ExitStack
) -> tuple[DiskReader, str, list[tuple[str, str]]]:
    reasons: list[tuple[str, str]] = []
    may_come = False
    for way in ways:
        reason = way.why_not(frozen, disk)
        if reason is None:
            try:
                return _patiently(way, frozen, disk, stack), way.name, reasons
            except _NEXT as error:
                may_come = may_come or error.transient
                reason = _without_name(error.message, frozen, disk)
        reasons.append((way.name, reason))
    kind: type[VBackupError] = Unavailable if may_come else Unsupported
    raise kind(
        f"disk {disk.key} of {frozen.machine} cannot be read: "
        + ", ".join(f"{way} ({reason})" for way, reason in reasons),
        hint="see `read` and `vddk` of this hypervisor; VMware's VDDK reads most disks",
    )


def _patiently(way: Way, frozen: Frozen, disk: VmDisk, stack: ExitStack) -> DiskReader:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return stack.enter_context(way.open(frozen, disk))
        except (Unavailable, Busy) as error:
            if attempt == ATTEMPTS or not error.transient:
                raise
            _log.info("disk %s of %s: trying %s again: %s", disk.key, frozen.machine, way.name, error)
            threading.Event().wait(PAUSE * 2 ** (attempt - 1))
    raise Unavailable(f"disk {disk.key} of {frozen.machine} was not tried")  # for the type checker


def _without_name(message: str, frozen: Frozen, disk: VmDisk) -> str:
    return message.removeprefix(f"disk {disk.key} of {frozen.machine}: ")
