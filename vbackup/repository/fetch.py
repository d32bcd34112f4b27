"""Chunks on their way from a store: one request for what lies together, several under way, decoded on all cores.

Requests wait for the store, and decoding for a core: there are many threads for the one, and one a core for the other.
These few go from one request's chunks to the next's; the many would take turns, and wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from vbackup.api import Corrupt, NotFound, Transport
from vbackup.repository.cache import Location
from vbackup.repository.chunks import Chains
from vbackup.repository.layout import pack_key
from vbackup.repository.pages import keep_pages
from vbackup.repository.sealing import ChunkKind

_THREADS = 16
_GAP = 256 << 10
"""Blobs of one pack that are no further apart than this are fetched with one request: it costs more than the bytes."""
_MOST = 4 << 20
"""Bytes of one request."""


class PackGone(Corrupt):
    """A pack is not in the store: it was lost, or pruned after its place was looked up."""


class Read(NamedTuple):
    """What one request came to: the chunks that were asked for, their plain bytes, and why others have none."""

    ids: Sequence[bytes]
    plain: Mapping[bytes, bytes]
    failures: Mapping[bytes, Corrupt]


class Fetcher:
    """Reads chunks whose places are known. Thread-safe."""

    def __init__(self, transport: Transport, chains: Chains) -> None:
        self._transport = transport
        self._chains = chains
        self._decoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
        self.pool = ThreadPoolExecutor(_THREADS, "read")

    def start(self, kind: ChunkKind, places: Mapping[bytes, Location], *, keep: bool = True) -> Fetch:
        """Begin to read chunks; without ``keep`` they are only looked at, and their bytes let go."""
        keep_pages()
        return Fetch([self.pool.submit(self._read_aside, kind, group, places, keep=keep) for group in grouped(places)])

    def read_all(self, kind: ChunkKind, places: Mapping[bytes, Location]) -> Iterator[Read]:
        """Read chunks; what takes but one request is read in the calling thread."""
        groups = grouped(places)
        if len(groups) == 1:
            yield self.read(kind, groups[0], places, keep=True)
        else:
            yield from self.start(kind, places).results()

    def read(self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location], *, keep: bool) -> Read:
        """Read chunks that lie together, with one request, here. Errors of the store itself are raised."""
        data = self._get(group, places)
        return _gone(group, places) if data is None else self._decode(kind, group, places, data, keep=keep)

    def _read_aside(
        self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location], *, keep: bool
    ) -> Read:
        """In a thread that waits for the store: do as `read`, but have others decode."""
        data = self._get(group, places)
        if data is None:
            return _gone(group, places)
        return self._decoders.submit(self._decode, kind, group, places, data, keep=keep).result()

    def _get(self, group: Sequence[bytes], places: Mapping[bytes, Location]) -> memoryview | None:
        first, last = places[group[0]], places[group[-1]]
        length = last.offset + last.length - first.offset
        try:
            return memoryview(self._transport.get(pack_key(first.pack), first.offset, length))
        except NotFound:
            return None

    def _decode(
        self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location], data: memoryview, *, keep: bool
    ) -> Read:
        """Undo the codecs of chunks, of which the first begins with ``data``."""
        plain: dict[bytes, bytes] = {}
        failures: dict[bytes, Corrupt] = {}
        key, start = pack_key(places[group[0]].pack), places[group[0]].offset
        for chunk in group:
            _, offset, length, size, origin = places[chunk]
            blob = data[offset - start : offset - start + length]
            try:
                decoded = self._chains.of(origin).decode(kind, chunk, blob, size)
            except Corrupt as error:
                failures[chunk] = Corrupt(f"pack {key} at {offset}+{length}: {error.message}")
                continue
            if keep:
                plain[chunk] = decoded
        return Read(group, plain, failures)

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self.pool.shutdown(cancel_futures=True)
        self._decoders.shutdown()


class Fetch:
    """Requests that are under way."""

    def __init__(self, futures: list[Future[Read]]) -> None:
        self._futures = futures

    def results(self) -> Iterator[Read]:
        """Yield what each came to, in their order."""
        try:
            for future in self._futures:
                yield future.result()
        finally:  # whoever fails, or leaves, must not keep the threads from others
            self.cancel()

    def cancel(self) -> None:
        """Forget those that have not begun."""
        for future in self._futures:
            future.cancel()


def _gone(group: Sequence[bytes], places: Mapping[bytes, Location]) -> Read:
    why = PackGone(f"pack {pack_key(places[group[0]].pack)} is missing")
    return Read(group, {}, dict.fromkeys(group, why))


def grouped(places: Mapping[bytes, Location]) -> list[list[bytes]]:
    """Group chunks that one request can fetch: same pack, near together, ascending."""
    groups: list[list[bytes]] = []
    pack, begin, end = b"", 0, 0
    for chunk in sorted(places, key=places.__getitem__):
        place = places[chunk]
        stop = place.offset + place.length
        if place.pack == pack and place.offset - end <= _GAP and stop - begin <= _MOST:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
            pack, begin = place.pack, place.offset
        end = stop
    return groups
