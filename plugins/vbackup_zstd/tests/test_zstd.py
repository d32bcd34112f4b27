"""The codec ``zstd`` keeps the contract at its extreme levels, and refuses bombs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import zstandard
from pydantic import ValidationError

from vbackup.api import Corrupt
from vbackup.testing.codec_contract import CONTEXT, CodecContract
from vbackup_zstd.codec import Zstd, ZstdOptions


class TestZstd(CodecContract):
    @pytest.fixture(params=[-7, 3, 19])
    def codec(self, request):
        return Zstd(ZstdOptions(level=request.param))


@pytest.mark.parametrize("level", [-8, 23, "fast"])
def test_levels_that_zstd_does_not_have_are_refused(level):
    with pytest.raises(ValidationError, match="level"):
        ZstdOptions(level=level)


def test_frames_state_their_size_and_have_no_checksum():
    frame = zstandard.get_frame_parameters(Zstd(ZstdOptions()).encode(bytes(1000), CONTEXT))
    assert frame.content_size == 1000
    assert not frame.has_checksum


def test_a_frame_that_does_not_state_its_size_is_refused():
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)
    with pytest.raises(Corrupt):
        Zstd(ZstdOptions()).decode(frame, CONTEXT, 1 << 20)


@pytest.mark.parametrize("claimed", [0, 1, 999, 1001, 65535])
def test_a_frame_that_lies_about_its_size_is_refused(claimed):
    frame = bytearray(Zstd(ZstdOptions()).encode(bytes(1000), CONTEXT))
    assert frame[4] == 0x60  # RFC 8878, 3.1.1.1.1: a single segment, its size in two bytes, less 256
    frame[5:7] = ((claimed - 256) % 65536).to_bytes(2, "little")
    with pytest.raises(Corrupt):
        Zstd(ZstdOptions()).decode(bytes(frame), CONTEXT, 1 << 20)


def test_skippable_frames_are_refused():
    skippable = bytes.fromhex("502a4d1804000000") + b"skip"
    for data in (skippable, skippable + Zstd(ZstdOptions()).encode(b"abc", CONTEXT)):
        with pytest.raises(Corrupt):
            Zstd(ZstdOptions()).decode(data, CONTEXT, 1 << 20)


def test_a_window_of_two_gigabytes_is_refused_without_memory_for_it():
    """The window lies outside Python's heap, so the whole process is looked at."""
    header = bytes.fromhex("28b52ffd") + b"\x80" + b"\xa8" + (1000).to_bytes(4, "little")  # window 2**31, content 1000
    script = (
        "import sys, resource\n"
        "from vbackup_zstd.codec import Zstd, ZstdOptions\n"
        "from vbackup.api import CodecContext, Corrupt\n"
        "codec = Zstd(ZstdOptions()); context = CodecContext(bytes(32), bytes(12), b'')\n"
        "codec.decode(codec.encode(b'warm', context), context, 10)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: codec.decode(bytes.fromhex(sys.argv[1]), context, 1 << 20)\n"
        "except Corrupt: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    data = header + bytes.fromhex("020000") + bytes(100)
    done = subprocess.run([sys.executable, "-c", script, data.hex()], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 8 << 20
