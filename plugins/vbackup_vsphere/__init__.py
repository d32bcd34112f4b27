"""Built-in plugin: the hypervisor ``vsphere``, machines of a vCenter or of a stand-alone ESXi host."""

from __future__ import annotations

from vbackup.api import Hypervisor, Register, hookimpl


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register the hypervisor of this package."""
