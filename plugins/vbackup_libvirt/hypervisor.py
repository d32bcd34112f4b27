"""``type: libvirt``: the `Hypervisor` that the framework talks to.

It is imported whenever a configuration is read, so its methods import what they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    Capture,
    CaptureRequest,
    Finding,
    HypervisorContext,
    MachineDescription,
    MachineRef,
    Marker,
    Restoration,
    RestoreDisk,
    RestoreRequest,
)
from vbackup_libvirt.options import LibvirtOptions


class Libvirt:
    """KVM machines under a libvirtd. See `vbackup.api.Hypervisor` for the methods."""

    name: ClassVar[str] = "libvirt"
    options: ClassVar[type[BaseModel]] = LibvirtOptions
    writes_files: ClassVar[bool] = False

    def __init__(self, options: LibvirtOptions, context: HypervisorContext) -> None:
        from vbackup_libvirt.node import Node

        self._node = Node(options, context)

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`."""
        from vbackup_libvirt.connection import translated

        connection = self._node.connection.get()
        with translated(f"{self._node.alias}: listing the machines"):
            domains = connection.listAllDomains()
            refs = [MachineRef(d.name(), d.UUIDString(), bool(d.isActive())) for d in domains]
        return sorted(refs, key=lambda ref: ref.name)

    @contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[Capture]:
        """See `Hypervisor.capture`."""
        from vbackup_libvirt import sweep

        found = self._node.machine(machine)
        if found.is_active:
            from vbackup_libvirt.running import capture_running as way
        else:
            from vbackup_libvirt.stopped import capture_stopped as way
        with self._node.captures.open(found.uuid) as journal:
            sweep.undo_capture(self._node, journal)
            with way(found, request, journal) as capture:
                yield capture

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """See `Hypervisor.commit`."""
        from vbackup_libvirt import sweep

        sweep.remove_superseded(self._node.machine(machine), owner, marker)

    def sweep(self, owner: str) -> list[str]:
        """See `Hypervisor.sweep`."""
        from vbackup_libvirt import sweep

        return sweep.sweep(self._node, owner)

    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> AbstractContextManager[Restoration]:
        """See `Hypervisor.restore`."""
        from vbackup_libvirt.restore import restore

        return restore(self._node, machine, disks, files, request)

    def answers(self, machine: str) -> bool:
        """See `Hypervisor.answers`."""
        from vbackup_libvirt import agent

        return agent.answers(self._node.machine(machine))

    def check(self) -> Sequence[Finding]:
        """See `Hypervisor.check`."""
        from vbackup_libvirt import doctor

        return doctor.check(self._node)

    def close(self) -> None:
        """See `Hypervisor.close`."""
        self._node.connection.close()
