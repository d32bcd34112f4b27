"""The codecs ``deflate``, ``bzip2`` and ``none`` keep the contract."""

from __future__ import annotations

import bz2
import zlib

import pytest

from vbackup.api import Corrupt
from vbackup.testing.codec_contract import CONTEXT, CodecContract
from vbackup_stdcodecs.codecs import Bzip2, Deflate, Nothing


class TestDeflate(CodecContract):
    @pytest.fixture(params=[1, 6, 9])
    def codec(self, request):
        return Deflate(Deflate.options(level=request.param))


class TestBzip2(CodecContract):
    @pytest.fixture(params=[1, 9])
    def codec(self, request):
        return Bzip2(Bzip2.options(level=request.param))


class TestNothing(CodecContract):
    notices_truncation = False

    @pytest.fixture
    def codec(self):
        return Nothing(Nothing.options())


def test_deflate_has_no_header():
    encoded = Deflate(Deflate.options()).encode(b"abc" * 100, CONTEXT)
    assert zlib.decompress(encoded, wbits=-15) == b"abc" * 100
    with pytest.raises(Corrupt):
        Deflate(Deflate.options()).decode(zlib.compress(b"abc" * 100), CONTEXT, 300)


def test_a_second_bzip2_stream_is_refused():
    """The program would join them."""
    encoded = bz2.compress(b"abc")
    with pytest.raises(Corrupt):
        Bzip2(Bzip2.options()).decode(encoded + encoded, CONTEXT, 6)


def test_none_leaves_bytes_alone():
    assert Nothing(Nothing.options()).encode(b"abc", CONTEXT) == b"abc"
