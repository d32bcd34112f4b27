"""Built-in plugin: the transport ``sftp``, a directory behind SSH."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_BRINGS = {"transports": ["sftp"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_sftp.transport import Sftp

    register(Sftp)
