"""A local cache of what is read from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from vbackup.api import Finding, Transport, checked_key
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper
from vbackup.wrappers.blocks import BLOCK, Blocks


class CachingTransport(Wrapper):
    """Keeps what is read of objects below ``prefixes``, and reads it from there the next time.

    Meant for objects whose names say what is in them, and whose readers check that: what is cached of one that is gone,
    or was put again, is not wrong then. Only `get` is answered from the cache. Whether an object is there, `list` and
    `size` tell, which always ask the store; nobody may conclude it from a `get`. What is put is not kept: a backup is
    written far more often than it is read.

    Who must know what the store itself holds reads past the cache, as long as ``is_past`` says so. What is cached and
    differs from what the store gives then is forgotten: so bytes that were bad when they came do not stay. Nor do those
    that a reader finds to be wrong, and says so (`forget`).
    """

    name: ClassVar[str] = "cache"

    def __init__(
        self, inner: Transport, blocks: Blocks, prefixes: Sequence[str], *, is_past: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(inner)
        self._blocks = blocks
        self._prefixes = tuple(prefixes)
        self._is_past = is_past

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`. Whole blocks are fetched, so a little more than what was asked for."""
        if not self._keeps(key):
            return self.inner.get(key, offset, length)
        if self._is_past():
            data = self.inner.get(key, offset, length)
            self._compare(key, offset, memoryview(data))
            return data
        if length == 0:
            return self.inner.get(key, offset, 0)  # only asks whether it is there
        begin = offset - offset % BLOCK
        data = self._read(key, begin // BLOCK, None if length is None else -(-(offset + length) // BLOCK))
        return data[offset - begin :] if length is None else data[offset - begin : offset - begin + length]

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        try:
            self.inner.put(key, data, if_absent=if_absent)
        finally:
            self._forget(key)

    def delete(self, key: str) -> None:
        """See `Transport.delete`."""
        try:
            self.inner.delete(key)
        finally:
            self._forget(key)

    def check(self) -> Sequence[Finding]:
        """Look at the inner transport, and at the cache."""
        return [*self.inner.check(), *self._blocks.findings()]

    def _keeps(self, key: str) -> bool:
        return any(key == prefix or key.startswith(f"{prefix}/") for prefix in self._prefixes)

    def forget(self, key: str) -> bool:
        """See `Wrapper.forget`."""
        self._forget(key)
        return self._keeps(key) or super().forget(key)

    def _forget(self, key: str) -> None:
        if self._keeps(key):
            self._blocks.forget(key)

    def _read(self, key: str, first: int, end: int | None) -> bytes:
        """Return the bytes of blocks from ``first`` up to ``end``, or the object's end: those missing in one request.

        A block that is not full is the last one of its object.
        """
        checked_key(key)
        parts: list[bytes] = []
        number = first
        while end is None or number < end:
            block = self._blocks.load(key, number)
            if block is None:
                parts.append(self._fetch(key, number, end))
                break
            parts.append(block)
            if len(block) < BLOCK:
                break
            number += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch(self, key: str, first: int, end: int | None) -> bytes:
        length = None if end is None else (end - first) * BLOCK
        data = self.inner.get(key, first * BLOCK, length)
        view = memoryview(data)
        has_end = length is None or len(data) < length
        for index in range(len(data) // BLOCK + has_end):
            self._blocks.save(key, first + index, view[index * BLOCK : (index + 1) * BLOCK])
        return data

    def _compare(self, key: str, offset: int, data: memoryview) -> None:
        for number in range(offset // BLOCK, -(-(offset + len(data)) // BLOCK)):
            block = self._blocks.load(key, number)
            start = number * BLOCK
            begin, end = max(start, offset), min(start + BLOCK, offset + len(data))
            if (
                block is not None
                and memoryview(block)[begin - start : end - start] != data[begin - offset : end - offset]
            ):
                self._blocks.drop(key, number)
