"""The agent in the guest, asked whether it is there."""

from __future__ import annotations

from vbackup.api import Unavailable, Unsupported, VBackupError
from vbackup_libvirt import document
from vbackup_libvirt.connection import translated
from vbackup_libvirt.freeze import impatient
from vbackup_libvirt.node import Machine


def answers(machine: Machine) -> bool:
    """See `vbackup.api.Hypervisor.answers`. The guest's clock is what is asked for: any agent can tell it."""
    if not document.has_agent(machine.xml()):
        raise Unsupported(
            f"{machine.name} has no channel for a guest agent",
            hint="add a channel for org.qemu.guest_agent.0 and run qemu-guest-agent in the guest",
        )
    if not machine.is_active:
        return False
    try:
        with (
            translated(f"{machine.name}: asking the guest agent for the time"),
            impatient(machine.domain, machine.node.options.agent_timeout) as domain,
        ):
            domain.getTime()
    except Unavailable:
        raise  # that is libvirt, not the guest
    except VBackupError:
        return False
    return True
