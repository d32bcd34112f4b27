"""What every codec must do. Subclass `CodecContract` in your plugin's tests and override the fixture ``codec``."""

from __future__ import annotations

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbackup.api import Codec, CodecContext, Corrupt
from vbackup.testing.equal import assert_equal

CONTEXT = CodecContext(key=bytes(range(32)), nonce=bytes(range(12)), associated=b"chunk 1 of the contract")
MIB = 1 << 20

_plain = st.one_of(
    st.binary(max_size=2048),
    st.builds(bytes, st.integers(0, 200_000)),
    st.builds(lambda part, times: part * times, st.binary(max_size=300), st.integers(0, 500)),
)


class CodecContract:
    """The contract of `vbackup.api.Codec`, as tests."""

    notices_truncation = True
    """Whether any shortened chunk is refused; only a codec that adds nothing to the bytes may say no."""

    @pytest.fixture
    def codec(self) -> Codec:
        """Override: a codec with the options under test."""
        raise NotImplementedError

    def test_says_what_it_is(self, codec: Codec) -> None:
        """A name, options with defaults for all, and whether it encrypts."""
        assert codec.name
        assert codec.options()
        assert isinstance(codec.encrypts, bool)

    def test_round_trip(self, codec: Codec) -> None:
        """Decoding gives what was encoded, with no byte of room beyond it."""

        @settings(deadline=None)
        @given(_plain)
        def check(data: bytes) -> None:
            encoded = codec.encode(data, CONTEXT)
            assert type(encoded) is bytes
            assert_equal("the data", codec.decode(encoded, CONTEXT, len(data)), data)

        check()

    def test_options_do_not_matter_for_decoding(self, codec: Codec) -> None:
        """What was encoded with any options is decoded with the default ones."""
        plain = b"abcdefgh" * 1000
        encoded = codec.encode(plain, CONTEXT)
        assert_equal("the text", type(codec)(codec.options()).decode(encoded, CONTEXT, len(plain)), plain)

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 128 << 10, 4 * MIB])
    def test_sizes(self, codec: Codec, size: int) -> None:
        """From nothing to far more than a chunk."""
        plain = (bytes(range(251)) * (size // 251 + 1))[:size]
        assert_equal(f"{size} bytes", codec.decode(codec.encode(plain, CONTEXT), CONTEXT, size), plain)

    @pytest.mark.parametrize("size", [1, 255, 256, 65535, 65536, 65537, MIB + 1])
    def test_what_nothing_shrinks(self, codec: Codec, size: int) -> None:
        """Noise, about as long as the numbers that a format may count with."""
        plain = random.Random(size).randbytes(size)  # noqa: S311 - the same bytes each time
        assert_equal(f"{size} bytes", codec.decode(codec.encode(plain, CONTEXT), CONTEXT, size), plain)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
    def test_any_buffer(self, codec: Codec, kind: type[memoryview]) -> None:
        """bytes, bytearray and memoryview, read-only or not, go in both ways and are left as they were."""
        plain = bytes(range(256)) * 64
        given_plain = kind(plain)
        encoded = codec.encode(given_plain, CONTEXT)
        given_encoded = kind(encoded)
        decoded = codec.decode(given_encoded, CONTEXT, len(plain))
        assert type(encoded) is bytes
        assert type(decoded) is bytes
        assert_equal("what was decoded", decoded, plain)
        assert_equal("what was given to encode, after it", given_plain, plain)
        assert_equal("what was given to decode, after it", given_encoded, encoded)

    def test_a_part_of_a_buffer(self, codec: Codec) -> None:
        """A memoryview into something larger stands for its part only."""
        plain = bytes(range(256)) * 64
        encoded = codec.encode(memoryview(b"before" + plain + b"after")[6:-5], CONTEXT)
        part = memoryview(b"before" + encoded + b"after")[6:-5]
        assert_equal("the part", codec.decode(part, CONTEXT, len(plain)), plain)

    def test_truncated(self, codec: Codec) -> None:
        """A chunk cut short anywhere is refused."""
        plain = bytes(range(256)) * 8
        encoded = codec.encode(plain, CONTEXT)
        for length in range(len(encoded)):
            self._refused_or_different(codec, encoded[:length], plain, must_refuse=self.notices_truncation)

    def test_followed_by_garbage(self, codec: Codec) -> None:
        """A chunk with something behind it is refused, an empty one too."""
        for plain in (b"", bytes(range(256)) * 8):
            encoded = codec.encode(plain, CONTEXT)
            for tail in (b"\0", b"x" * 1000, encoded):
                if tail:
                    self._refused_or_different(codec, encoded + tail, plain, must_refuse=self.notices_truncation)

    def test_flipped_bits(self, codec: Codec) -> None:
        """A flipped bit is `Corrupt` or other bytes within the limit, never another error; `Corrupt` if it encrypts."""
        plain = bytes(range(256)) * 4
        encoded = codec.encode(plain, CONTEXT)
        for position in range(len(encoded)):
            for bit in (1, 0x80):
                flipped = bytearray(encoded)
                flipped[position] ^= bit
                self._refused_or_bounded(codec, bytes(flipped), len(plain), must_refuse=codec.encrypts)

    def test_garbage(self, codec: Codec) -> None:
        """Whatever is decoded, it is `Corrupt` or within the limit."""

        @settings(deadline=None)
        @given(st.binary(max_size=4096), st.integers(0, 4096))
        def check(garbage: bytes, max_size: int) -> None:
            self._refused_or_bounded(codec, garbage, max_size, must_refuse=codec.encrypts)

        check()

    def test_damaged_chunks(self, codec: Codec) -> None:
        """Chunks with bytes exchanged anywhere are `Corrupt` or within the limit."""
        encoded = codec.encode(b"some text, some zeros" + bytes(1000), CONTEXT)

        @settings(deadline=None)
        @given(st.integers(0, len(encoded)), st.integers(0, len(encoded)), st.binary(max_size=64))
        def check(start: int, end: int, replacement: bytes) -> None:
            damaged = encoded[:start] + replacement + encoded[end:]
            self._refused_or_bounded(codec, damaged, 1100, must_refuse=codec.encrypts and damaged != encoded)

        check()

    def test_max_size_is_kept(self, codec: Codec) -> None:
        """A chunk that is longer than allowed is refused, and the room for it is never allocated."""
        encoded = codec.encode(bytes(64 * MIB), CONTEXT)
        for max_size in (0, 1, 128 << 10):
            tracemalloc.start()
            try:
                with pytest.raises(Corrupt):
                    codec.decode(encoded, CONTEXT, max_size)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < max_size + len(encoded) + MIB

    def test_one_byte_too_long(self, codec: Codec) -> None:
        """The limit is exact."""
        encoded = codec.encode(b"x" * 1000, CONTEXT)
        assert codec.decode(encoded, CONTEXT, 1000) == b"x" * 1000
        with pytest.raises(Corrupt):
            codec.decode(encoded, CONTEXT, 999)

    def test_many_threads(self, codec: Codec) -> None:
        """One instance serves many threads at once."""
        plains = [bytes([number]) * 5000 + bytes(range(256)) * number for number in range(64)]

        def there_and_back(plain: bytes) -> bytes:
            for _ in range(10):
                plain = codec.decode(codec.encode(plain, CONTEXT), CONTEXT, len(plain))
            return plain

        with ThreadPoolExecutor(16) as pool:
            for number, back in enumerate(pool.map(there_and_back, plains)):
                assert_equal(f"text {number}", back, plains[number])

    def test_other_context(self, codec: Codec) -> None:
        """An encrypting codec refuses another key, nonce or associated data; others do not look at them."""
        plain = b"plain text " * 100
        encoded = codec.encode(plain, CONTEXT)
        for other in (
            CONTEXT._replace(key=bytes(32)),
            CONTEXT._replace(nonce=bytes(12)),
            CONTEXT._replace(associated=b"chunk 2 of the contract"),
            CONTEXT._replace(associated=b""),
        ):
            if codec.encrypts:
                with pytest.raises(Corrupt):
                    codec.decode(encoded, other, len(plain))
            else:
                assert codec.decode(encoded, other, len(plain)) == plain

    def test_hides(self, codec: Codec) -> None:
        """Nothing of the plain text is seen in what an encrypting codec makes, and it depends on key and nonce."""
        if not codec.encrypts:
            return
        plain = b"plain text " * 100
        encoded = codec.encode(plain, CONTEXT)
        assert b"plain" not in encoded
        assert encoded != codec.encode(plain, CONTEXT._replace(key=bytes(32)))
        assert encoded != codec.encode(plain, CONTEXT._replace(nonce=bytes(12)))

    @staticmethod
    def _refused_or_bounded(codec: Codec, data: bytes, max_size: int, *, must_refuse: bool) -> None:
        try:
            decoded = codec.decode(data, CONTEXT, max_size)
        except Corrupt:
            return
        assert not must_refuse
        assert len(decoded) <= max_size

    @staticmethod
    def _refused_or_different(codec: Codec, data: bytes, plain: bytes, *, must_refuse: bool) -> None:
        try:
            decoded = codec.decode(data, CONTEXT, len(plain) + 2000)
        except Corrupt:
            return
        assert not must_refuse
        assert decoded != plain
