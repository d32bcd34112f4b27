"""Built-in plugin: the codec ``lz4``."""

from __future__ import annotations

from vbackup.api import Codec, Register, hookimpl


@hookimpl
def vbackup_register_codecs(register: Register[type[Codec]]) -> None:
    """Register the codec of this package."""
    from vbackup_lz4.codec import Lz4

    register(Lz4)
