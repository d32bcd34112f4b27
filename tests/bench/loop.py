"""The bare loop: the shortest program over the same C libraries that a backup could be, and the limit to compare with.

Many reads in flight, zeros skipped, chunks as large as ours with keyed BLAKE3 ids, zstd 3, AES-256-GCM, packs of
32 MiB: no maps, no index, no commit. All threads are alike. Each has a connection of its own and does everything with
what it reads, into a pack of its own, so nothing is handed from core to core but full packs; and the memory of blocks
and packs is used again and again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from mmap import mmap
from pathlib import Path
from queue import SimpleQueue

import zstandard
from blake3 import blake3

from tests.bench.loop_read import CHUNK, PACK, TAG, THREADS, ZERO_ID, Record, Store, in_threads, nonce, restore, verify
from vbackup.api import Kind
from vbackup_qemu.connection import Connection
from vbackup_qemu.nbd import NbdClient, allocation

BLOCK = 1 << 20
"""Bytes of a read. With 4 MiB qemu-nbd needs half as much CPU again, and we need no less."""
BUFFERS = 8
"""Blocks of a thread: one at work, the others being read."""
WRITERS = 2
"""Threads that write packs, so that one writes while the other waits for the disk."""
PACKS = THREADS + WRITERS
"""Packs in memory."""
ZERO = bytes(CHUNK)


class Packs:
    """Full packs on their way to the disk. Their memory is used again and again, and who wants some waits for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(1 + max((record.pack for record in store.records), default=0))
        self._free: SimpleQueue[mmap] = SimpleQueue()
        for _ in range(PACKS):
            self._free.put(mmap(-1, PACK))
        self._writers = ThreadPoolExecutor(WRITERS)
        self._written: list[Future[None]] = []

    def take(self) -> tuple[int, mmap]:
        """Begin a pack."""
        return next(self._numbers), self._free.get()

    def give(self, number: int, memory: mmap, length: int) -> None:
        """Let a pack be written."""
        self._written.append(self._writers.submit(self._write, number, memory, length))

    def finish(self) -> None:
        """Wait until all is on the disk."""
        for written in self._written:
            written.result()

    def _write(self, number: int, memory: mmap, length: int) -> None:
        with self._store.pack(number).open("xb", buffering=0) as file:
            assert file.write(memoryview(memory)[:length]) == length
            self._free.put(memory)
            os.fsync(file.fileno())


class Loop:
    """A backup of some ranges."""

    def __init__(self, store: Store, socket: Path, export: str, ranges: Iterable[tuple[int, int]]) -> None:
        self._store = store
        self._socket = socket
        self._export = export
        self._blocks = iter(list(_blocks(ranges, store.size)))  # threads may share the iterator of a list
        self._packs = Packs(store)
        self._places: dict[bytes, list[int]] = {record.id: list(record[:3]) for record in store.records}
        self._places[ZERO_ID] = [0, 0, 0]
        self._found: list[tuple[int, bytes]] = []

    def run(self) -> None:
        """Store what is new, and remember all of it."""
        in_threads(self._work)
        self._packs.finish()
        self._store.add([Record(*self._places[id_], id_, offset) for offset, id_ in self._found])

    def _work(self) -> None:
        compress = zstandard.ZstdCompressor(level=3).compress
        encrypt, key = self._store.cipher.encrypt_into, self._store.id_key
        number, memory = self._packs.take()
        pack, end = memoryview(memory), 0
        for offset, chunk in self._chunks():
            id_ = blake3(chunk, key=key).digest()
            self._found.append((offset, id_))
            place: list[int] = []
            if self._places.setdefault(id_, place) is not place:
                continue
            packed = compress(chunk)
            length = len(packed) + TAG
            if end + length > PACK:
                self._packs.give(number, memory, end)
                number, memory = self._packs.take()
                pack, end = memoryview(memory), 0
            encrypt(nonce(number, end), packed, None, pack[end : end + length])
            place += number, end, length
            end += length
        if end:
            self._packs.give(number, memory, end)

    def _chunks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield what is not zero, and note zeros; a chunk is good until the next one is asked for."""
        for start, length, block in self._read():
            view = memoryview(block)
            for at in range(0, length, CHUNK):
                size = min(CHUNK, length - at)
                if block.startswith(ZERO if size == CHUNK else ZERO[:size], at):  # memcmp, without a copy
                    self._found.append((start + at, ZERO_ID))
                else:
                    yield start + at, view[at : at + size]

    def _read(self) -> Iterator[tuple[int, int, bytearray]]:
        """Yield (offset, length, memory) of blocks, while the next ones are on their way."""
        with closing(Connection(self._socket, self._export, [], "the bare loop")) as connection:
            free = [bytearray(BLOCK) for _ in range(BUFFERS)]
            flying: deque[tuple[int, int, int, bytearray]] = deque()
            while True:
                for offset, length in itertools.islice(self._blocks, len(free)):
                    memory = free.pop()
                    cookie = connection.start_read(offset, memoryview(memory)[:length])
                    flying.append((cookie, offset, length, memory))
                if not flying:
                    return
                cookie, offset, length, memory = flying.popleft()
                connection.wait(cookie)
                yield offset, length, memory
                free.append(memory)


def _blocks(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield whole chunks that cover the ranges, each once, a block at a time."""
    done = 0
    for offset, length in sorted(ranges):
        start, end = max(done, offset // CHUNK * CHUNK), min(size, -(-(offset + length) // CHUNK) * CHUNK)
        yield from ((at, min(BLOCK, end - at)) for at in range(start, end, BLOCK))
        done = max(done, end)


def full(socket: Path, export: str, path: Path) -> None:
    """Store a whole disk."""
    with NbdClient(socket, export) as client:
        data = [(extent.offset, extent.length) for extent in allocation(client) if extent.kind is Kind.DATA]
        store = Store.create(path, client.size)
    Loop(store, socket, export, data).run()


def main() -> None:
    """Do one of the four things."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, arguments in ARGUMENTS.items():
        sub = commands.add_parser(command)
        for argument in arguments:
            sub.add_argument(argument, type=str if argument == "export" else Path)
    given = parser.parse_args()
    match given.command:
        case "full":
            full(given.socket, given.export, given.store)
        case "changed":
            ranges = json.loads(given.ranges.read_bytes())
            Loop(Store.open(given.store), given.socket, given.export, ranges).run()
        case "restore":
            restore(Store.open(given.store), given.out)
        case "verify":
            verify(Store.open(given.store))


ARGUMENTS = {
    "full": ["socket", "export", "store"],
    "changed": ["socket", "export", "ranges", "store"],
    "restore": ["store", "out"],
    "verify": ["store"],
}

if __name__ == "__main__":
    main()
