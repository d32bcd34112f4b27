"""Holding a capture open, and undoing all that it made, on every way out: ours, or that of who comes after us."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from vbackup.api import CaptureLost, CaptureRequest, HypervisorContext, VBackupError, clock
from vbackup_qmp import agent, journal, scratch, tracking
from vbackup_qmp import fleece as fleeces
from vbackup_qmp.capture import QmpCapture
from vbackup_qmp.fleece import Fleece
from vbackup_qmp.freezing import frozen
from vbackup_qmp.inventory import OFF
from vbackup_qmp.journal import Journal
from vbackup_qmp.monitor import Monitor, Off, converse
from vbackup_qmp.options import MachineOptions, QmpOptions
from vbackup_qmp.session import Session, reached

KIND = "capture"


def undo(record: Journal) -> list[str]:
    """Undo what the journal tells of; returns a phrase for each thing. What the machine itself lost is no error."""
    entry = record.read()
    if entry is None:
        return []
    name: str = entry["name"]
    fleece = Fleece(entry["token"], Path(entry["scratch"]))
    undone: list[str] = []
    if entry["socket"] is not None:
        socket = Path(entry["socket"])
        with suppress(Off):
            if entry["frozen"] is not None and converse(socket, name, partial(fleeces.is_there, fleece=fleece)):
                agent.thaw(Path(entry["frozen"]), name)
                undone.append("thawed its file systems")
            undone += converse(socket, name, partial(fleeces.undo, fleece=fleece))
    if scratch.remove(fleece):
        undone.append(f"removed {fleece.scratch}")
    record.clear()
    return [f"{name}: {phrase}" for phrase in undone]


@dataclass(frozen=True)
class Holder:
    """Holds captures of one machine; ``committed`` has the bitmaps of captures that count."""

    name: str
    machine: MachineOptions
    options: QmpOptions
    context: HypervisorContext
    request: CaptureRequest
    committed: Collection[str]

    @contextmanager
    def held(self) -> Iterator[QmpCapture]:
        """Hold a capture open; see `Hypervisor.capture`."""
        with journal.held(self.context.state_dir, KIND, self.name) as record:
            undo(record)
            fleece = Fleece.below(self.options.scratch)
            self._note(record, fleece, None)
            try:
                scratch.make(fleece)
                with (
                    reached(self.name, self.machine, fleece, self.context.state_dir) as session,
                    self._begun(session, fleece, record) as capture,
                ):
                    yield capture
            except BaseException:
                with suppress(VBackupError):  # why it failed is told; what is left is in the journal
                    undo(record)
                raise
            undo(record)

    @contextmanager
    def _begun(self, session: Session, fleece: Fleece, record: Journal) -> Iterator[QmpCapture]:
        """Hold the moment. A bitmap that does not count is removed; it would only be removed later."""
        new = tracking.new_name(self.request.owner)
        disks = session.inventory.disks
        end = partial(converse, session.socket, self.name, partial(fleeces.undo, fleece=fleece))
        try:
            capture = self._open(session, fleece, record, new)
            with scratch.watched(self.options, partial(capture.give_up, end)):
                try:
                    yield capture
                except CaptureLost:
                    capture.require_room()
                    raise
        except BaseException:
            with suppress(VBackupError):
                end()
                if new not in self.committed:
                    converse(session.socket, self.name, partial(tracking.forget, disks=disks, name=new))
            raise
        with suppress(Off):  # it was switched off when all had been read
            end()

    def _open(self, session: Session, fleece: Fleece, record: Journal, new: str) -> QmpCapture:
        request, inventory = self.request, session.inventory
        before = tracking.since(request.since, request.owner)
        notes = list(inventory.notes)
        if request.memory and inventory.state != OFF:
            notes.append("the memory was left out: hypervisors of type qmp do not capture it")
        tracked = [tracking.tracked(disk, before) for disk in inventory.disks if disk.key not in request.exclude]
        disks = [each.disk for each in tracked]
        scratch.require_room(self.options, self.name, disks)
        scratch.fill(fleece, disks, inventory.peer)

        async def prepare(monitor: Monitor) -> None:
            await tracking.drop(monitor, inventory.disks, request.owner, before.bitmap if before else None)
            await fleeces.prepare(monitor, fleece, tracked)

        if inventory.state != OFF:  # what serves a machine that is off ends with us
            self._note(record, fleece, session.socket)
        converse(session.socket, self.name, prepare)
        if request.moment is not None:
            request.moment()
        begin = partial(fleeces.begin, fleece=fleece, disks=tracked, new=new)
        mark = partial(self._note, record, fleece, self.machine.socket)
        with frozen(self.name, self.machine.agent, inventory.state, request.quiesce, notes, mark) as quiesced:
            converse(session.socket, self.name, begin)
            time: datetime = clock.now()
        converse(session.socket, self.name, partial(fleeces.export, fleece=fleece, disks=tracked))
        marker = tracking.marker(new, disks) if disks else None
        return QmpCapture(session, fleece, tracked, marker, time, notes, quiesced=quiesced)

    def _note(self, record: Journal, fleece: Fleece, socket: Path | None, frozen: Path | None = None) -> None:
        """Write down what is about to be: something in the QEMU at ``socket``, a guest ``frozen`` by that agent."""
        record.write(
            {
                "name": self.name,
                "owner": self.request.owner,
                "token": fleece.token,
                "scratch": str(fleece.scratch),
                "socket": None if socket is None else str(socket),
                "frozen": None if frozen is None else str(frozen),
            }
        )
