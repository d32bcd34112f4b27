"""The transport ``webdav`` for vbackup: a collection of a WebDAV server (RFC 4918)."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_API_VERSION = 1
VBACKUP_BRINGS = {"transports": ["webdav"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_webdav.transport import WebDav

    register(WebDav)
