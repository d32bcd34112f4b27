"""Built-in plugin: the hypervisor ``vsphere``, machines of a vCenter or of a stand-alone ESXi host.

Importing it needs no pyvmomi; see README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vbackup.api import Hypervisor, Register, hookimpl

if TYPE_CHECKING:
    import click

VBACKUP_BRINGS = {"hypervisors": ["vsphere"], "commands": ["vsphere"]}


@hookimpl
def vbackup_register_hypervisors(register: Register[type[Hypervisor]]) -> None:
    """Register ``type: vsphere``."""
    from vbackup_vsphere.hypervisor import Vsphere

    register(Vsphere)


@hookimpl
def vbackup_register_commands(register: Register[click.Command]) -> None:
    """Register ``vbackup vsphere``."""
    from vbackup_vsphere.command import vsphere

    register(vsphere)
