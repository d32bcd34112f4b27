"""Checks of what plugins yield: extents that cover a disk, and blocks that are those that were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from vbackup.api import Block, Extent, Kind, PluginError, Range
from vbackup.guards import watch
from vbackup.guards.answers import kind_of
from vbackup.guards.blame import Blame, Calling, Raised

T = TypeVar("T")
_BUFFERS = (bytes, bytearray, memoryview)


class Lent(Generic[T]):
    """An iterator of ours in the hands of a plugin: it remembers what we raised, and whether all was taken."""

    def __init__(self, items: Iterable[T], raised: Raised | None = None) -> None:
        self._items = iter(items)
        self.raised = Raised() if raised is None else raised
        self.is_through = False
        self.refusal: Callable[[], PluginError] | None = None
        """Set while nobody may ask for more: what is raised then."""

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self.refusal is not None:
            raise self.refusal()
        try:
            return next(self._items)
        except StopIteration:
            self.is_through = True
            raise
        except BaseException as error:
            self.raised.error = error
            raise


def covering(extents: Callable[[], Iterable[Extent]], size: int, disk: str, blame: Blame) -> Iterator[Extent]:
    """Yield extents of a disk that cover its ``size``, ascending. Raises: `PluginError`."""
    end = 0
    what = f"extents of {disk}"
    with blame.calling(what):
        found = iter(extents())
    call = blame.calling(what)
    try:
        watch.WATCH.begin(call)
        while True:
            call.since = monotonic()
            try:
                extent = next(found, None)
            except BaseException as error:  # noqa: BLE001 - raised again
                blame.reraise(what, error)
            call.since = inf  # whoever has the extent may take as long as it likes
            if extent is None:
                break
            end = _continued(extent, end, size, disk, blame)
            yield extent
    finally:
        watch.WATCH.end(call)
    if end != size:
        raise blame.error(f"{disk} gave extents that end at {end} of {size} bytes")


def _continued(extent: object, begin: int, size: int, disk: str, blame: Blame) -> int:
    """Return the end of an extent that begins where it must."""
    if type(extent) is not Extent or type(extent.kind) is not Kind:
        raise blame.error(f"{disk} gave {kind_of(extent)} that is no extent of a `Kind`")
    offset, length, _ = extent
    if type(offset) is not int or type(length) is not int or offset != begin or length <= 0:
        raise blame.error(f"{disk} gave extent {offset!r:.30}+{length!r:.30}, which does not continue at {begin}")
    if begin + length > size:
        raise blame.error(f"{disk} gave extent {offset}+{length}, which ends beyond its {size} bytes")
    return begin + length


def as_asked(
    read: Callable[[Iterable[Range]], Iterable[Block]], ranges: Iterable[Range], disk: str, blame: Blame
) -> Iterator[Block]:
    """Yield the blocks of ``ranges`` in their order. Raises: `PluginError` for any other.

    Ranges are given out while a block is waited for, and to nobody else: what makes them is no friend of threads.
    What a stranger may still write to is copied: between its hash and its blob it must not change. Built-in plugins
    keep nothing that they gave away, and are spared the copy.
    """
    asked: deque[Range] = deque()
    what = f"read of {disk}"
    call = blame.calling(what)
    lent = Lent(fetched(ranges, call, asked.append))

    def elsewhere() -> PluginError:
        return blame.error(f"{disk} asked for ranges while it was not asked for blocks (in another thread?)")

    with blame.calling(what, raised=lent.raised):
        blocks = iter(read(lent))
    try:
        watch.WATCH.begin(call)
        while True:
            lent.refusal = None
            call.since = monotonic()
            try:
                block = next(blocks, None)
            except BaseException as error:  # noqa: BLE001 - raised again
                blame.reraise(what, error, lent.raised)
            call.since = inf  # whoever has the block may take as long as it likes
            lent.refusal = elsewhere
            if block is None:
                break
            _check(block, asked, disk, blame)
            yield block if blame.builtin or type(block.data) is bytes else Block(block.offset, bytes(block.data))
    finally:
        watch.WATCH.end(call)
        lent.refusal = None
        close = getattr(blocks, "close", None)
        if close is not None:
            with blame.calling(what, raised=lent.raised):
                close()
    if lent.raised.error is not None:
        raise lent.raised.error  # it was swallowed
    if asked or not lent.is_through:
        raise blame.error(f"{disk} ended before all was read that was asked for")


def _check(block: object, asked: deque[Range], disk: str, blame: Blame) -> None:
    if not isinstance(block, Block) or type(block.offset) is not int or not isinstance(block.data, _BUFFERS):
        data = f" with {kind_of(block.data)} for data" if isinstance(block, Block) else ""
        raise blame.error(f"{disk} gave {kind_of(block)}{data}, not a block of bytes")
    if isinstance(block.data, memoryview) and (block.data.ndim != 1 or block.data.itemsize != 1):
        raise blame.error(f"{disk} gave memory that is not of single bytes")
    wanted = asked.popleft() if asked else None
    if wanted is None or wanted.offset != block.offset or wanted.length != len(block.data):
        instead = f"{wanted.offset}+{wanted.length} was next" if wanted else "nothing more was asked for"
        raise blame.error(f"{disk} gave {block.offset}+{len(block.data)} where {instead}")


def fetched(items: Iterable[T], call: Calling, note: Callable[[T], None] | None = None) -> Iterator[T]:
    """Yield our items to a plugin, noted. How long it takes to make them is not the time of its ``call``."""
    call.since = inf
    try:
        for item in items:
            if note is not None:
                note(item)
            call.since = monotonic()
            yield item
            call.since = inf
    finally:
        call.since = monotonic()
