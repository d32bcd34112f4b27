"""Built-in plugin: the transport ``s3``, a bucket of an object store that speaks S3."""

from __future__ import annotations

from vbackup.api import Register, Transport, hookimpl

VBACKUP_BRINGS = {"transports": ["s3"]}


@hookimpl
def vbackup_register_transports(register: Register[type[Transport]]) -> None:
    """Register the transport of this package."""
    from vbackup_s3.transport import S3

    register(S3)
