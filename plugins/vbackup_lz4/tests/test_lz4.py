"""The codec ``lz4`` keeps the contract, and believes no size that a chunk claims."""

from __future__ import annotations

import lz4.block
import pytest
from pydantic import ValidationError

from vbackup.api import Corrupt
from vbackup.testing.codec_contract import CONTEXT, CodecContract
from vbackup_lz4.codec import Lz4, Lz4Options


class TestLz4(CodecContract):
    @pytest.fixture(params=[0, 9])
    def codec(self, request):
        return Lz4(Lz4Options(level=request.param))


@pytest.mark.parametrize("level", [-1, 13])
def test_levels_that_lz4_does_not_have_are_refused(level):
    with pytest.raises(ValidationError, match="level"):
        Lz4Options(level=level)


@pytest.mark.parametrize("claimed", [0, 1, 999, 1001, (1 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_block_that_lies_about_its_size_is_refused(claimed):
    block = lz4.block.compress(bytes(1000), store_size=False)
    with pytest.raises(Corrupt):
        Lz4(Lz4Options()).decode(claimed.to_bytes(4, "little") + block, CONTEXT, 1 << 20)


def test_higher_levels_are_smaller():
    plain = b"".join(b"%d %d\n" % (number, number * number) for number in range(20_000))
    fast, small = (Lz4(Lz4Options(level=level)).encode(plain, CONTEXT) for level in (0, 12))
    assert len(small) < len(fast) < len(plain)
