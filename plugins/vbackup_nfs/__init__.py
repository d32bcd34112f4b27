"""Built-in plugin: the transport ``nfs``, an NFS export."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_BRINGS = {"transports": ["nfs"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_nfs.transport import Nfs

    register(Nfs)
