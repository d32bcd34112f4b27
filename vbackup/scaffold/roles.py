"""The roles that a package can be made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """One role: what it is called for one and for many, and what its package is made of."""

    name: str
    plural: str
    """As in ``VBACKUP_BRINGS``; empty for what only listens."""
    kind: str
    """What the name of its main class ends with."""
    main: str
    """The module where most is to be written."""
    needs: str = "pydantic>=2.11"
    """What it imports beside vbackup."""


ROLES = {
    role.name: role
    for role in (
        Role("hypervisor", "hypervisors", "Hypervisor", "hypervisor.py"),
        Role("transport", "transports", "Transport", "transport.py"),
        Role("codec", "codecs", "Codec", "codec.py"),
        Role("target", "targets", "Target", "target.py"),
        Role("executor", "executors", "Executor", "executor.py"),
        Role("events", "", "Listener", "listener.py"),
        Role("command", "commands", "Command", "command.py", needs="click>=8.2"),
    )
}
"""By name."""
