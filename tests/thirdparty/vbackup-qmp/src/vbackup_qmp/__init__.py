"""Machines of bare QEMU, over QMP: no libvirt, nothing to install beside QEMU's own programs."""

from __future__ import annotations

from vbackup.api import Hypervisor, Register, hookimpl

VBACKUP_API_VERSION = 1
VBACKUP_BRINGS = {"hypervisors": ["qmp"]}


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register ``type: qmp``."""
    from vbackup_qmp.hypervisor import QmpHypervisor

    register(QmpHypervisor)
