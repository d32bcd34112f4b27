"""Built-in plugin: the codecs ``deflate``, ``bzip2`` and ``none``, of what Python brings along."""

from __future__ import annotations

from vbackup.api import Codec, Register, hookimpl


@hookimpl
def vbackup_register_codecs(register: Register[type[Codec]]) -> None:
    """Register the codecs of this package."""
    from vbackup_stdcodecs.codecs import Bzip2, Deflate, Nothing

    for codec in (Deflate, Bzip2, Nothing):
        register(codec)
