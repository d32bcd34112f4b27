"""Built-in plugin: the transport ``iscsi``, a LUN behind iSCSI."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_BRINGS = {"transports": ["iscsi"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_iscsi.transport import Iscsi

    register(Iscsi)
