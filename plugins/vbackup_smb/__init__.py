"""Built-in plugin: the transport ``smb``, a share that speaks SMB."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_BRINGS = {"transports": ["smb"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_smb.transport import Smb

    register(Smb)
