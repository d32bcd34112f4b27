"""The encrypting codecs keep the contract and make what their standards say."""

from __future__ import annotations

import pytest

from vbackup.api import CodecContext, Corrupt
from vbackup.testing.codec_contract import CONTEXT, CodecContract
from vbackup_aead.codecs import Aes256Gcm, ChaCha20Poly1305


class TestAes256Gcm(CodecContract):
    @pytest.fixture
    def codec(self):
        return Aes256Gcm(Aes256Gcm.options())


class TestChaCha20Poly1305(CodecContract):
    @pytest.fixture
    def codec(self):
        return ChaCha20Poly1305(ChaCha20Poly1305.options())


def test_chacha20_poly1305_makes_the_example_of_rfc_8439():
    """Section 2.8.2."""
    context = CodecContext(
        key=bytes(range(0x80, 0xA0)),
        nonce=bytes.fromhex("070000004041424344454647"),
        associated=bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    )
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    encoded = ChaCha20Poly1305(ChaCha20Poly1305.options()).encode(plain, context)
    assert encoded.hex().startswith("d31a8d34648e60db7b86afbc53ef7ec2")
    assert encoded[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_aes_256_gcm_makes_the_example_of_its_authors():
    """McGrew and Viega, The Galois/Counter Mode of Operation, test cases 13 and 14."""
    context = CodecContext(key=bytes(32), nonce=bytes(12), associated=b"")
    codec = Aes256Gcm(Aes256Gcm.options())
    assert codec.encode(b"", context).hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert codec.encode(bytes(16), context).hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"
    )


@pytest.mark.parametrize("cls", [Aes256Gcm, ChaCha20Poly1305])
def test_each_does_not_take_what_the_other_made(cls):
    (other,) = {Aes256Gcm, ChaCha20Poly1305} - {cls}
    encoded = cls(cls.options()).encode(b"abc", CONTEXT)
    with pytest.raises(Corrupt):
        other(other.options()).decode(encoded, CONTEXT, 3)


@pytest.mark.parametrize("cls", [Aes256Gcm, ChaCha20Poly1305])
def test_a_key_of_another_length_is_a_mistake_of_the_caller(cls):
    with pytest.raises(ValueError, match="32 bytes"):
        cls(cls.options()).encode(b"abc", CONTEXT._replace(key=bytes(16)))
