"""The codec ``brotli`` for vbackup (RFC 7932)."""

from __future__ import annotations

from vbackup.api import Codec, Register, hookimpl

VBACKUP_API_VERSION = 1
VBACKUP_BRINGS = {"codecs": ["brotli"]}


@hookimpl
def vbackup_register_codecs(register: Register[type[Codec]]) -> None:
    """Register the codec of this package."""
    from vbackup_brotli.codec import Brotli

    register(Brotli)
