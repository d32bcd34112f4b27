"""The libvirt hypervisor plugin: KVM machines behind any ``qemu`` URI of libvirt.

Importing it needs no libvirt-python; see README.md.
"""

from __future__ import annotations

from vbackup.api import Hypervisor, Register, hookimpl

VBACKUP_BRINGS = {"hypervisors": ["libvirt"]}


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register ``type: libvirt``."""
    from vbackup_libvirt.hypervisor import Libvirt

    register(Libvirt)
