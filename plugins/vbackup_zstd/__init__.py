"""Built-in plugin: the codec ``zstd``."""

from __future__ import annotations

from vbackup.api import Codec, Register, hookimpl


@hookimpl
def vbackup_register_codecs(register: Register[type[Codec]]) -> None:
    """Register the codec of this package."""
    from vbackup_zstd.codec import Zstd

    register(Zstd)
