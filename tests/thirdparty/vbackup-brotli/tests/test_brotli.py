"""The contract of codecs, and what is Brotli's own."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from vbackup_brotli.codec import Brotli, BrotliOptions

from vbackup.api import CodecContext, Corrupt
from vbackup.testing.codec_contract import CodecContract

NOTHING = CodecContext(bytes(32), bytes(12), b"")


class TestBrotli(CodecContract):
    """All that holds for every codec, for the fastest, the default and the smallest quality."""

    @pytest.fixture(params=[0, 5, 11])
    def codec(self, request: pytest.FixtureRequest) -> Brotli:
        return Brotli(BrotliOptions(quality=request.param))


def test_it_makes_smaller() -> None:
    plain = b"".join(b"line %d of some text\n" % (number * number) for number in range(4000))
    sizes = {quality: len(Brotli(BrotliOptions(quality=quality)).encode(plain, NOTHING)) for quality in (0, 5, 11)}
    assert sizes[11] < sizes[5] < len(plain) / 3
    assert sizes[0] < len(plain) / 2


def test_a_stream_of_the_programs_own_is_read() -> None:
    """What `brotli` of another version wrote: RFC 7932 is kept, nothing is added to it."""
    codec = Brotli(BrotliOptions())
    assert codec.decode(bytes.fromhex("3b"), NOTHING, 0) == b""
    assert codec.decode(bytes.fromhex("0b028068656c6c6f03"), NOTHING, 5) == b"hello"


@pytest.mark.parametrize("size", [1, 32 << 10, (32 << 10) + 1, 1 << 20])
def test_the_limit_is_exact_whatever_the_blocks(size: int) -> None:
    """Brotli gives its output in blocks; a chunk of just the limit passes, one byte more does not."""
    codec = Brotli(BrotliOptions())
    encoded = codec.encode(bytes(size), NOTHING)
    assert codec.decode(encoded, NOTHING, size) == bytes(size)
    with pytest.raises(Corrupt, match="longer"):
        codec.decode(encoded, NOTHING, size - 1)


@pytest.mark.parametrize("options", [{"quality": 12}, {"quality": -1}, {"level": 5}])
def test_refused_options(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        BrotliOptions.model_validate(options)
