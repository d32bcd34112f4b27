"""What the tests of captures share: a small copy loop in the engine's place, and a machine to do things to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import (
    Capture,
    CaptureRequest,
    HypervisorContext,
    Kind,
    MachineDescription,
    Marker,
    Quiesce,
    Range,
    cover,
    split,
)
from vbackup_vsphere import snapshot
from vbackup_vsphere.hypervisor import Vsphere
from vbackup_vsphere.options import VsphereOptions

from .frozen import Machine

OWNER = "0123456789abcdef" * 2
OTHER_OWNER = "fedcba9876543210" * 2
KIB = 1 << 10
MIB = 1 << 20
MACHINE = "web"


@dataclass
class Copy:
    """What a restore point would hold."""

    description: MachineDescription
    disks: dict[str, bytes]
    marker: Marker | None
    notes: list[str]
    quiesced: bool
    files: dict[str, bytes]
    full_reasons: dict[str, str | None] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    """Bytes that were read of each disk."""

    @property
    def full_reason(self) -> str | None:
        """That of the first disk."""
        return next(iter(self.full_reasons.values()))


def copy_all(capture: Capture, base: Copy | None = None) -> Copy:
    """Copy a capture as the engine does: what is unchanged comes from ``base``."""
    copied = Copy(capture.machine, {}, capture.marker, [], capture.quiesced, dict(capture.files))
    for disk in capture.disks:
        content = bytearray(base.disks[disk.key] if base is not None and disk.key in base.disks else b"")
        extents = list(cover(disk.extents(full=base is None), disk.size))
        content = content[: disk.size] + bytes(max(0, disk.size - len(content)))
        for extent in extents:
            if extent.kind is Kind.ZERO:
                content[extent.offset : extent.end] = bytes(extent.length)
        wanted = [Range(e.offset, e.length) for e in extents if e.kind is Kind.DATA]
        for offset, data in disk.read(split(wanted, 4 << 20)):
            content[offset : offset + len(data)] = data
        copied.disks[disk.key] = bytes(content)
        copied.full_reasons[disk.key] = disk.full_reason
        copied.read[disk.key] = sum(one.length for one in wanted)
    capture.check()
    copied.notes = list(capture.notes)
    return copied


@dataclass
class Site:
    """A simulator, a plugin connected to it, and one of its machines."""

    simulator: Simulator
    vsphere: Vsphere
    name: str

    @property
    def machine(self) -> Machine:
        """The machine, to do things to."""
        return Machine.find(self.simulator, self.vsphere.site.session, self.name)

    @property
    def vm(self) -> Any:
        return self.machine.vm

    def get(self, path: str) -> Any:
        """Return one leaf property of the machine."""
        return self.vsphere.site.session.get(self.vm, path).get(path)

    def do(self, task: Any) -> Any:
        """Wait for a task."""
        return self.vsphere.site.session.wait(task, "test")

    def content(self) -> bytes:
        """Return what the guest sees on the first disk now."""
        return self.simulator.disk(self.name).read_bytes()

    def write(self, offset: int, data: bytes) -> None:
        """Write to the first disk as its guest does."""
        self.simulator.guest_write(self.name, 0, offset, data)

    def capture(
        self,
        base: Copy | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
        with_memory: Callable[[bytes], None] | None = None,
        **request: Any,
    ) -> Copy:
        """Back the machine up, after ``base``; ``meanwhile`` is called before the copy begins."""
        since = base.marker if base is not None else None
        wanted = CaptureRequest(**{"owner": OWNER, "since": since, "quiesce": Quiesce.NO, **request})
        with self.vsphere.capture(self.name, wanted) as capture:
            if meanwhile is not None:
                meanwhile()
            if with_memory is not None and capture.memory is not None:
                pieces = split([Range(0, capture.memory.size)], 1 << 20)
                with_memory(b"".join(bytes(block.data) for block in capture.memory.read(pieces)))
            return copy_all(capture, base)

    def track(self) -> None:
        """Switch change tracking on."""
        self.do(self.vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))

    def snapshot(self, name: str = "before the update", description: str = "by hand") -> None:
        """Make a snapshot as people do."""
        self.do(self.vm.CreateSnapshot_Task(name, description, False, False))

    def snapshots(self) -> list[str]:
        """Return the names of the machine's snapshots."""
        return [one.name for one in snapshot.of_machine(self.vsphere.site.session, self.vm)]


Sites = Callable[..., Site]


def connect(simulator: Simulator, directory: Path, **options: Any) -> Vsphere:
    """Return a plugin that talks to a simulator."""
    directory.mkdir(exist_ok=True)
    made = VsphereOptions.model_validate(simulator.options(**options))
    return Vsphere(made, HypervisorContext("vc", directory))
