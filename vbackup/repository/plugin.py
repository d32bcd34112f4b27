"""Registers the repository target, as any plugin would."""

from __future__ import annotations

from vbackup.api import Register, Target, hookimpl


@hookimpl
def vbackup_register_targets(register: Register[type[Target]]) -> None:
    """Register ``type: repository``."""
    from vbackup.repository.target import Repository

    register(Repository)
