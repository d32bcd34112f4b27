"""Memory that is used again must never be memory that somebody still reads."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable

import pytest

from vbackup_qemu import buffers
from vbackup_qemu.buffers import Buffers

SIZE = 4 << 20

HOLDERS: dict[str, Callable[[bytearray], object]] = {
    "itself": lambda buffer: buffer,
    "a view": lambda buffer: memoryview(buffer)[10:20],
    "a view of a view": lambda buffer: memoryview(memoryview(buffer)[10:])[5:],
    "a queue": lambda buffer: deque([buffer]),
    "a library": lambda buffer: (ctypes.c_char * SIZE).from_buffer(buffer),
    "a call that waits": lambda buffer: lambda: buffer,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_buffer_comes_back_only_when_nobody_holds_it(hold: Callable[[bytearray], object]) -> None:
    pool = Buffers()
    first = id(pool.take(SIZE))
    holder = hold(pool.take(SIZE))  # the same, for nobody held it
    other = pool.take(SIZE)
    assert id(other) != first
    del holder
    assert id(pool.take(SIZE)) == first


def test_other_sizes_are_not_kept() -> None:
    pool = Buffers()
    small = pool.take(512)
    assert len(small) == 512
    assert len(pool.take(SIZE)) == SIZE


def test_no_more_are_kept_than_a_backup_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_MOST", 2)
    pool = Buffers()
    held = [pool.take(SIZE) for _ in range(4)]
    assert len({id(buffer) for buffer in held}) == 4
    kept = {id(buffer) for buffer in held[:2]}
    held.clear()
    again = [pool.take(SIZE), pool.take(SIZE)]
    assert {id(buffer) for buffer in again} == kept
