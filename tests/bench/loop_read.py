"""What the bare loop has stored, and the way back.

A store is a directory: packs, which are sealed chunks end to end and nothing else, and one flat file of records to
which each run appends. Of records for the same place on the disk the last one counts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vbackup.repository.layout import DEFAULT_CHUNK_SIZE

CHUNK = DEFAULT_CHUNK_SIZE
PACK = 32 << 20
TAG = 16
THREADS = os.cpu_count() or 1
BATCH = 8
"""Chunks that a thread takes at a time when it reads a store."""
ZERO_ID = bytes(32)
"""Stands for zeros, which no pack holds."""

_HEAD = struct.Struct("<Q32s32s")
_RECORD = struct.Struct("<III32sQ")


class Record(NamedTuple):
    """A chunk of the disk: where its sealed bytes are, what they are, and where on the disk they belong."""

    pack: int
    at: int
    length: int
    id: bytes
    offset: int


def nonce(pack: int, at: int) -> bytes:
    """Return the nonce of a chunk: its place, which no other one ever has."""
    return struct.pack("<IQ", pack, at)


class Store:
    """The flat file in memory."""

    def __init__(self, path: Path, size: int, cipher_key: bytes, id_key: bytes, records: list[Record]) -> None:
        self.path = path
        self.size = size
        self.cipher = AESGCM(cipher_key)
        self.id_key = id_key
        self.records = records

    @classmethod
    def create(cls, path: Path, size: int) -> Self:
        """Make a store for a disk of ``size`` bytes, with keys of its own."""
        path.mkdir(parents=True)
        (path / "flat").write_bytes(_HEAD.pack(size, os.urandom(32), os.urandom(32)))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Load a store."""
        flat = memoryview((path / "flat").read_bytes())
        records = [Record(*fields) for fields in _RECORD.iter_unpack(flat[_HEAD.size :])]
        return cls(path, *_HEAD.unpack(flat[: _HEAD.size]), records)

    def add(self, records: list[Record]) -> None:
        """Append to the flat file."""
        with (self.path / "flat").open("ab") as file:
            file.write(b"".join(_RECORD.pack(*record) for record in records))
            file.flush()
            os.fsync(file.fileno())

    def pack(self, number: int) -> Path:
        """Return the path of a pack."""
        return self.path / f"{number:08}"


def in_threads(work: Callable[[], None]) -> None:
    """Do the same work on all cores at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()


def restore(store: Store, out: Path) -> None:
    """Write the disk, sparse."""
    batches = _batches(store)
    with out.open("wb", buffering=0) as file:
        file.truncate(store.size)

        def work() -> None:
            for chunks in _decoded(store, batches):
                for start, run in _runs(chunks):
                    assert os.pwritev(file.fileno(), run, start) == sum(map(len, run))

        in_threads(work)


def verify(store: Store) -> None:
    """Decode each chunk and compare its id."""
    batches = _batches(store)

    def work() -> None:
        for chunks in _decoded(store, batches):
            for plain, records in chunks:
                assert blake3(plain, key=store.id_key).digest() == records[0].id, records[0]

    in_threads(work)


def _batches(store: Store) -> Iterator[list[list[Record]]]:
    """Yield a few chunks of one pack at a time, a chunk being the records that share it; threads may share this."""
    newest = {record.offset: record for record in store.records}
    needed = sorted(record for record in newest.values() if record.id != ZERO_ID)
    batches = []
    for _, of_pack in groupby(needed, lambda record: record.pack):
        chunks = [list(same) for _, same in groupby(of_pack, lambda record: record.at)]
        batches += [chunks[start : start + BATCH] for start in range(0, len(chunks), BATCH)]
    return iter(batches)


def _decoded(store: Store, batches: Iterator[list[list[Record]]]) -> Iterator[list[tuple[bytes, list[Record]]]]:
    """Yield the plain bytes of chunks, each decoded once, with their records."""
    decompress = zstandard.ZstdDecompressor().decompress
    sealed, packed = memoryview(bytearray(2 * CHUNK)), memoryview(bytearray(2 * CHUNK))
    for batch in batches:
        chunks = []
        with store.pack(batch[0][0].pack).open("rb", buffering=0) as file:
            for records in batch:
                pack, at, length = records[0][:3]
                os.preadv(file.fileno(), [sealed[:length]], at)
                store.cipher.decrypt_into(nonce(pack, at), sealed[:length], None, packed[: length - TAG])
                chunks.append((decompress(packed[: length - TAG]), records))
        yield chunks


def _runs(chunks: list[tuple[bytes, list[Record]]]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (offset, parts): what lies side by side on the disk is written at once."""
    start, end, run = 0, 0, list[bytes]()
    for offset, plain in sorted((record.offset, plain) for plain, records in chunks for record in records):
        if run and offset != end:
            yield start, run
            run = []
        start, end = (start if run else offset), offset + len(plain)
        run.append(plain)
    if run:
        yield start, run
