"""The memory of a machine that runs, saved while the machine is paused.

Memory and disks are of one moment only if the guest does nothing between the two: so it is paused, its memory is saved
as that of an external snapshot without disks (https://libvirt.org/formatsnapshot.html), the backup job begins, and it
is resumed. The pause lasts as long as writing the memory; see `pause` for how it is sure to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from vbackup.api import GuestError, Quiesce, Unavailable, VBackupError
from vbackup.api.clock import now
from vbackup_libvirt import document, pause, scratch
from vbackup_libvirt.capture import Plan
from vbackup_libvirt.connection import library
from vbackup_libvirt.guard import Guard
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_libvirt.pause import Pause
from vbackup_qemu.nbd import ALLOCATION, NbdClient
from vbackup_qemu.server import serve
from vbackup_qemu.source import NbdDisk
from vbackup_undo.journal import Journal

KEY = "memory"

_WHOLE = "%4096"
"""truncate(1): up to a multiple of this many bytes. NBD serves whole sectors only; QEMU reads to its own end mark."""


class Memory:
    """How it went: ``path`` is where the memory of the moment is, on the host; ``notes`` say why there is none.

    ``since`` is when the machine stood still: the moment, however long the saving takes.
    """

    def __init__(self) -> None:
        self.path: str | None = None
        self.since = now()
        self.notes: list[str] = []

    def fail(self, why: str) -> None:
        """There is no memory of the moment."""
        self.path = None
        self.notes.append(f"its memory was not captured: {why}")


@contextmanager
def saved(
    planned: Plan, live: Element, job: BackupJob, guard: Guard, journal: Journal[CaptureEntry]
) -> Iterator[Memory]:
    """Hold the machine paused, its memory saved, for the time of the context; look at the result after it.

    Where that cannot be done it runs on in the context, with a note. A machine that its user has paused stays so.
    Raises: `Unavailable`; `GuestError` if it had to be quiesced and something else has resumed it.
    """
    memory, machine = Memory(), planned.machine
    if obstacle := _obstacle(planned, live):
        memory.fail(obstacle)
        yield memory
        return
    hold = Pause(machine, guard, journal)
    path = str(job.scratch / KEY)
    with ExitStack() as stack:
        if missing := stack.enter_context(scratch.claimed(machine.node, path, document.memory(live), planned.size)):
            memory.fail(f"{missing} bytes more must be free in {machine.node.scratch} for it")
            yield memory
            return
        if not pause.is_paused(machine):
            stack.callback(hold.release)
            hold.begin()
        memory.since = now()
        try:
            memory.path = _save(machine, path)
        except Unavailable:
            raise
        except VBackupError as error:
            stack.close()  # the backup of the disks goes on without
            memory.fail(_too_long(machine) if hold.took_too_long else error.message)
            _drop(machine, path)
        yield memory
        if memory.path is not None and not pause.is_paused(machine):
            why = _too_long(machine) if hold.took_too_long else "something else resumed the machine too early"
            if planned.request.quiesce is Quiesce.YES:  # it was not frozen, for the memory's sake
                raise GuestError(f"{machine.name}: its memory could not be captured: {why}", transient=True)
            memory.fail(why)
            _drop(machine, path)
    memory.notes += hold.notes


def _obstacle(planned: Plan, live: Element) -> str | None:
    libvirt, machine = library(), planned.machine
    if pause.state(machine)[0] not in {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED}:
        return "it is neither running nor paused"
    captured = {disk.key for disk in planned.disks}
    if missing := [disk.key for disk in document.disks(live) if disk.is_written and disk.key not in captured]:
        return f"it goes with all disks that the machine is at work on, and {', '.join(missing)} is not captured"
    return None


def _too_long(machine: Machine) -> str:
    limit = machine.node.options.pause_timeout
    return f"writing it took longer than the {limit} s for which the machine may be paused (`pause_timeout`)"


def _drop(machine: Machine, path: str) -> None:
    """Give its space to the scratch files of the disks at once: their capture may take hours."""
    with suppress(VBackupError):  # it goes with the directory
        machine.node.host.remove_tree(path)


def _save(machine: Machine, path: str) -> str:
    root = Element("domainsnapshot")
    SubElement(root, "memory", snapshot="external", file=path)
    disks = SubElement(root, "disks")
    for disk in document.disks(machine.xml()):
        SubElement(disks, "disk", name=disk.key, snapshot="no")
    text = ET.tostring(root, encoding="unicode")
    flags = library().VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    machine.ask("saving its memory", lambda domain: domain.snapshotCreateXML(text, flags))
    machine.node.host.run(["truncate", "-s", _WHOLE, "--", path])
    return path


@contextmanager
def opened(machine: Machine, path: str) -> Iterator[NbdDisk]:
    """Hold saved memory open for reading."""
    with (
        serve(machine.node.host, path, "raw", sockets=Path(path).parent) as socket,
        NbdClient(socket, contexts=[ALLOCATION], label=f"{machine.name} memory") as client,
    ):
        yield NbdDisk(KEY, client, bitmap=None, full_reason="memory is read in full")
