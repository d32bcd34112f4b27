"""Built-in plugin: the encrypting codecs ``aes-256-gcm`` and ``chacha20-poly1305``."""

from __future__ import annotations

from vbackup.api import Codec, Register, hookimpl


@hookimpl
def vbackup_register_codecs(register: Register[type[Codec]]) -> None:
    """Register the codecs of this package."""
    from vbackup_aead.codecs import Aes256Gcm, ChaCha20Poly1305

    for codec in (Aes256Gcm, ChaCha20Poly1305):
        register(codec)
