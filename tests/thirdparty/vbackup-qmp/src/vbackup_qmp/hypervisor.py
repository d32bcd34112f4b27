"""The hypervisor role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    Capture,
    CaptureRequest,
    Finding,
    GuestError,
    HypervisorContext,
    MachineDescription,
    MachineRef,
    Marker,
    NotFound,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
    VBackupError,
)
from vbackup_qmp import agent, doctor, hold, journal, restore, tracking
from vbackup_qmp.inventory import look
from vbackup_qmp.monitor import Monitor, Off, converse, is_listening
from vbackup_qmp.options import MachineOptions, QmpOptions


class QmpHypervisor:
    """Machines of bare QEMU; see `vbackup.api.Hypervisor`. Nothing is held between calls."""

    name: ClassVar[str] = "qmp"
    options: ClassVar[type[BaseModel]] = QmpOptions
    writes_files: ClassVar[bool] = True

    def __init__(self, options: QmpOptions, context: HypervisorContext) -> None:
        self._options = options
        self._context = context
        self._committed: set[str] = set()

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`: those of the configuration, whose names are their identities."""
        return [
            MachineRef(name, name, running=is_listening(machine.socket))
            for name, machine in self._options.machines.items()
        ]

    @contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[Capture]:
        """See `Hypervisor.capture`."""
        holder = hold.Holder(machine, self._machine(machine), self._options, self._context, request, self._committed)
        with holder.held() as capture:
            yield capture

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """See `Hypervisor.commit`. In the images of a machine that is off older bitmaps stay until the next capture."""
        since = tracking.since(marker, owner)
        if since is None:
            return
        self._committed.add(since.bitmap)

        async def tidy(monitor: Monitor) -> None:
            inventory = await look(monitor, machine)
            await tracking.drop(monitor, inventory.disks, owner, since.bitmap)

        try:
            converse(self._machine(machine).socket, machine, tidy)
        except Off:
            return

    def sweep(self, owner: str) -> list[str]:
        """See `Hypervisor.sweep`; what a restore left behind has no owner."""
        swept: list[str] = []
        failed: list[VBackupError] = []
        for kind, undo in ((hold.KIND, hold.undo), (restore.KIND, restore.settle)):
            for record, entry in journal.abandoned(self._context.state_dir, kind):
                if entry["owner"] in {owner, None}:
                    try:
                        swept += undo(record)
                    except VBackupError as error:  # one machine that is busy keeps nobody from the others
                        failed.append(error)
        if failed:
            raise failed[0]
        return swept

    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> AbstractContextManager[Restoration]:
        """See `Hypervisor.restore`."""
        return restore.restored(self._options, self._context, machine, disks, files, request)

    def answers(self, machine: str) -> bool:
        """See `Hypervisor.answers`."""
        path = self._machine(machine).agent
        if path is None:
            raise Unsupported(f"{machine}: it has no `agent` in the configuration")
        try:
            agent.ping(path, machine)
        except GuestError:
            return False
        return True

    def check(self) -> Sequence[Finding]:
        """See `Hypervisor.check`."""
        return doctor.findings(self._options)

    def close(self) -> None:
        """See `Hypervisor.close`."""

    def _machine(self, name: str) -> MachineOptions:
        try:
            return self._options.machines[name]
        except KeyError:
            known = ", ".join(self._options.machines) or "none"
            raise NotFound(f"{self._context.alias} has no machine {name}", hint=f"there are: {known}") from None
