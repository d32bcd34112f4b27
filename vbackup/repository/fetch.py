"""Chunks on their way from a store: one request for what lies together, several under way, decoded on all cores.

Requests wait for the store and decoding waits for a core, so there are many threads for the one, of which few at a
time may do the other.
"""

from __future__ import annotations

import os
import threading
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
        self._cores = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
        self.pool = ThreadPoolExecutor(_THREADS, "read")

    def start(self, kind: ChunkKind, places: Mapping[bytes, Location], *, keep: bool = True) -> Fetch:
        """Begin to read chunks; without ``keep`` they are only looked at, and their bytes let go."""
        keep_pages()
        return Fetch([self.pool.submit(self.read, kind, group, places, keep=keep) for group in grouped(places)])

    def read_all(self, kind: ChunkKind, places: Mapping[bytes, Location]) -> Iterator[Read]:
        """Read chunks; what takes but one request is read in the calling thread."""
        groups = grouped(places)
        if len(groups) == 1:
            yield self.read(kind, groups[0], places, keep=True)
        else:
            yield from self.start(kind, places).results()

    def read(self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location], *, keep: bool) -> Read:
        """Read chunks that lie together, with one request. Errors of the store itself are raised."""
        first, last = places[group[0]], places[group[-1]]
        key, start = pack_key(first.pack), first.offset
        try:
            data = memoryview(self._transport.get(key, start, last.offset + last.length - start))
        except NotFound:
            return Read(group, {}, {chunk: PackGone(f"pack {key} is missing") for chunk in group})
        plain: dict[bytes, bytes] = {}
        failures: dict[bytes, Corrupt] = {}
        with self._cores:
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
