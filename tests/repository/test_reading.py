"""How disks are read back: what is asked of the store, how often, and how much of it at once."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import CODECS, back_up, digest, guest, noise, repository
from vbackup.api import CodecContext, Corrupt, Point, Quiesce, Range, Unavailable
from vbackup.api.wrapper import Wrapper
from vbackup.engine.backup import BackUp
from vbackup.repository import decoded, fetch, reader
from vbackup.repository.cache import Location
from vbackup.repository.decoded import Decoded
from vbackup.repository.fetch import Read
from vbackup.repository.layout import ID_SIZE, ZERO_ID
from vbackup.repository.nodes import NodesAhead
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.seen import Seen
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport

CHUNK = 64 << 10
CHUNKS = 64


class Watched(Wrapper):
    """Counts what is read of packs, and how many such requests there are at the same time."""

    def __init__(self, inner: MemoryTransport) -> None:
        super().__init__(inner)
        self.bytes = self.gets = 0
        self.meeting: threading.Barrier | None = None
        """Where requests wait for each other."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(key, offset, length)
        if key.startswith("packs/"):
            self.gets += 1
            self.bytes += len(data)
            if self.meeting is not None:
                self.meeting.wait(10)
        return data

    def reset(self) -> None:
        self.bytes = self.gets = 0


@pytest.fixture
def store() -> Watched:
    return Watched(MemoryTransport())


@pytest.fixture
def lab() -> FakeHypervisor:
    lab = FakeHypervisor()
    guest(lab, "web", noise(CHUNKS * CHUNK, 1) + bytes(4 * CHUNK) + noise(100, 2))
    return lab


@pytest.fixture
def target(store: Watched, tmp_path: Path) -> Iterator[Repository]:
    target = repository(store, tmp_path, chunk_size=CHUNK)
    target.init()
    yield target
    target.close()


def again(store: Watched, tmp_path: Path) -> Repository:
    """Open it as another process does."""
    store.reset()
    return repository(store, tmp_path, chunk_size=CHUNK)


@pytest.mark.parametrize("step", [4096, 100_000, CHUNK, 3 * CHUNK, 4 << 20])
def test_ranges_of_any_size_come_in_order_with_the_right_bytes(
    lab: FakeHypervisor, target: Repository, step: int
) -> None:
    point = back_up(target, lab, "web")
    data = lab.guests["web"].disks["vda"].data
    ranges = [Range(at, min(step, len(data) - at)) for at in range(0, len(data), step)]
    blocks = list(target.read(point, "vda", ranges))
    assert [(block.offset, len(block.data)) for block in blocks] == ranges
    assert b"".join(bytes(block.data) for block in blocks) == bytes(data)


def test_what_was_just_read_is_not_asked_for_again(lab: FakeHypervisor, target: Repository, store: Watched) -> None:
    point = back_up(target, lab, "web")
    first = list(target.read(point, "vda", [Range(5 * CHUNK + 4096, 4096)]))
    store.reset()
    assert list(target.read(point, "vda", [Range(5 * CHUNK + 4096, 4096)])) == first
    assert next(iter(target.read(point, "vda", [Range(5 * CHUNK, CHUNK)]))).data[4096:8192] == first[0].data
    assert store.gets == 0


def test_a_small_read_starts_no_thread(lab: FakeHypervisor, target: Repository, tmp_path: Path, store: Watched) -> None:
    point = back_up(target, lab, "web")
    other = again(store, tmp_path)
    before = threading.active_count()
    assert len(list(other.read(point, "vda", [Range(0, 4096)]))) == 1
    assert threading.active_count() == before
    other.close()


def test_requests_are_under_way_together(
    lab: FakeHypervisor, target: Repository, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = back_up(target, lab, "web")
    whole = digest(target, point, point.disks[0])
    monkeypatch.setattr("vbackup.repository.reader._WINDOW", CHUNKS * CHUNK // 8)
    store.meeting = threading.Barrier(8)
    ranges = (Range(at * CHUNK, CHUNK) for at in range(CHUNKS))
    assert len(list(target.read(point, "vda", ranges))) == CHUNKS
    store.meeting = None
    assert digest(target, point, point.disks[0]) == whole


def test_neighbours_come_with_one_request(lab: FakeHypervisor, target: Repository, store: Watched) -> None:
    point = back_up(target, lab, "web")
    list(target.extents(point, "vda"))
    store.reset()
    list(target.read(point, "vda", (Range(at * CHUNK, CHUNK) for at in range(32))))
    assert store.gets <= 2  # a run fills more than one pack at a time


def test_a_reader_may_be_left_early(lab: FakeHypervisor, target: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    point = back_up(target, lab, "web")
    monkeypatch.setattr("vbackup.repository.reader._WINDOW", CHUNK)
    blocks = target.read(point, "vda", (Range(at * CHUNK, CHUNK) for at in range(CHUNKS)))
    assert next(blocks).offset == 0
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("window", [8, 2 * CHUNKS])
def test_a_read_that_fails_begins_no_more_requests(
    lab: FakeHypervisor,
    target: Repository,
    store: Watched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    window: int,
) -> None:
    """One thread reads, each chunk with a request of its own: one fails, and another one may have begun by then."""
    point = back_up(target, lab, "web")
    monkeypatch.setattr(fetch, "_THREADS", 1)
    monkeypatch.setattr(fetch, "_MOST", CHUNK)
    monkeypatch.setattr(reader, "_WINDOW", window * CHUNK)
    begun: list[str] = []
    away, given_up = threading.Event(), threading.Event()

    def fail(number: int, operation: str, key: str) -> Exception | None:
        if not (away.is_set() and key.startswith("packs/")):
            return None
        begun.append(key)
        if len(begun) > 1:
            given_up.wait(30)
        return Unavailable("the store is away")

    other = repository(FaultyTransport(store, fail), tmp_path, chunk_size=CHUNK)
    list(other.read(point, "vda", [Range(CHUNKS * CHUNK, 1)]))  # the map is known
    away.set()
    with pytest.raises(Unavailable):
        list(other.read(point, "vda", (Range(at * CHUNK, CHUNK) for at in range(CHUNKS))))
    given_up.set()
    other._open().store.fetcher.pool.submit(lambda: None).result(30)  # its turn comes when all others had theirs
    assert 1 <= len(begun) <= 2
    other.close()


def test_few_chunks_are_held_ahead_however_little_of_each_is_wanted(
    lab: FakeHypervisor, target: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_WINDOW", 4 * CHUNK)
    monkeypatch.setattr(reader, "_AHEAD", 8 * CHUNK)
    point = back_up(target, lab, "web")
    decode = fetch.Fetcher._decode
    held: list[bytes] = []

    def watched(self: fetch.Fetcher, kind: ChunkKind, group: Sequence[bytes], *arguments: Any, **keep: bool) -> Read:
        if kind is ChunkKind.DATA:
            held.extend(group)
        return decode(self, kind, group, *arguments, **keep)

    monkeypatch.setattr(fetch.Fetcher, "_decode", watched)
    for given, _ in enumerate(target.read(point, "vda", (Range(at * CHUNK, 512) for at in range(CHUNKS)))):
        assert len(held) - given <= 4 + 8
    assert len(held) == CHUNKS


def test_what_is_whole_before_damage_is_given(
    lab: FakeHypervisor, target: Repository, store: Watched, tmp_path: Path
) -> None:
    point = back_up(target, lab, "web")
    spoil(target, store, point, 40)
    other = again(store, tmp_path)
    blocks = other.read(point, "vda", (Range(at * CHUNK, CHUNK) for at in range(CHUNKS)))
    assert [next(blocks).offset for _ in range(40)] == [at * CHUNK for at in range(40)]
    with pytest.raises(Corrupt, match=rf"^{40 * CHUNK}\+{CHUNK} of disk vda .* pack packs/.*"):
        next(blocks)
    other.close()


def spoil(target: Repository, store: Watched, point: Point, number: int) -> bytes:
    """Flip a bit in the blob of a chunk, where it is looked for first; return the pack's name."""
    opened = target._open()
    (chunk,) = target._reader(point, "vda").map.ids(number, number + 1)
    place = opened.store.locate([chunk])[chunk][0]
    key = f"packs/{place.pack.hex()[:2]}/{place.pack.hex()}"
    data = bytearray(store.get(key))
    data[place.offset + 100] ^= 1
    store.delete(key)
    store.put(key, bytes(data))
    return place.pack


def test_verify_reads_each_chunk_once(
    lab: FakeHypervisor, target: Repository, store: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is all over the disk, and one of a leaf that changed elsewhere."""
    disk = lab.guests["web"].disks["vda"]
    disk.write(0, noise(CHUNK, 3) * 32)
    points = [back_up(target, lab, "web")]
    disk.write(20 * CHUNK, b"changed")
    points.append(back_up(target, lab, "web"))
    monkeypatch.setattr("vbackup.repository.verify._SEGMENT", 8)
    other = again(store, tmp_path)
    checked: list[int] = []
    assert other.verify(points, checked.append) == []
    assert sum(checked) == sum(disk.size for point in points for disk in point.disks)
    packs = [info.size for info in store.list("packs")]
    lists = sum(min(size, 64 << 10) + min(size, 16 << 10) for size in packs)
    assert store.bytes < sum(packs) + lists + 8 * CHUNK  # of the maps, whose nodes lie apart
    other.close()


def test_verify_joins_what_is_lost_side_by_side(
    lab: FakeHypervisor, target: Repository, store: Watched, tmp_path: Path
) -> None:
    point = back_up(target, lab, "web")
    for number in (7, 30, 31):
        spoil(target, store, point, number)
    other = again(store, tmp_path)
    found = [(each.offset // CHUNK, each.length // CHUNK) for each in other.verify([point], lambda size: None)]
    assert found == [(7, 1), (30, 1), (31, 1)]  # each for a reason of its own: its place in the pack
    other.close()


def suspects(target: Repository) -> set[bytes]:
    return {name for name, pack in target._open().cache.packs().items() if pack.suspect}


def test_a_damaged_pack_is_suspect_though_its_chunk_is_elsewhere_and_another_one_is_lost(
    lab: FakeHypervisor, target: Repository, store: Watched, tmp_path: Path
) -> None:
    lab.guests["web"].disks["vda"].data[:] = noise(CHUNKS * CHUNK, 1)
    with (
        contextlib.closing(repository(store, tmp_path / "twin", chunk_size=CHUNK)) as twin,
        target.writer() as one,
        twin.writer() as two,
    ):
        for writer in (one, two):  # neither finds what the other one stores
            work = BackUp(lab, "lab", "nightly", target.id, writer, Quiesce.TRY, threading.Event(), lambda _: None)
            work.run(lab.machines()[0], None)
    guest(lab, "more", noise(CHUNKS * CHUNK, 1) + noise(CHUNK, 3))
    point = back_up(target, lab, "more")
    with contextlib.closing(again(store, tmp_path)) as other:
        hurt = {spoil(other, store, point, number) for number in (5, CHUNKS)}
        found = [each.offset // CHUNK for each in other.verify([point], lambda size: None)]
        assert found == [CHUNKS]
        assert len(hurt) == 2
        assert suspects(other) == hurt


def test_an_index_entry_that_is_wrong_in_the_cache_makes_no_pack_suspect(
    lab: FakeHypervisor, target: Repository, store: Watched, tmp_path: Path
) -> None:
    point = back_up(target, lab, "web")
    target.close()
    (file,) = tmp_path.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as cache, cache:
        moved = cache.execute("UPDATE chunks SET start = start + 1 WHERE kind = ?", (ChunkKind.DATA,))
        assert moved.rowcount == CHUNKS + 1
    with contextlib.closing(again(store, tmp_path)) as other:
        blocks = list(other.read(point, "vda", [Range(0, CHUNKS * CHUNK)]))
        assert bytes(blocks[0].data) == noise(CHUNKS * CHUNK, 1)
        assert suspects(other) == set()


def test_groups_are_of_one_pack_near_together_and_bounded() -> None:
    half = fetch._MOST // 2
    ends = [
        (b"a", 0, half),
        (b"a", half, half),
        (b"a", 2 * half, 10),
        (b"a", 2 * half + 11 + fetch._GAP, 5),
        (b"b", 0, 9),
    ]
    places = {bytes([number]): Location(pack, at, size, size, b"") for number, (pack, at, size) in enumerate(ends)}
    assert fetch.grouped(places) == [[b"\0", b"\1"], [b"\2"], [b"\3"], [b"\4"]]


def test_nodes_come_with_those_that_are_next() -> None:
    def node(number: int) -> bytes:
        return number.to_bytes(2, "big") * (ID_SIZE // 2)

    leaves = [node(number) for number in range(1, 101)]
    tree = {node(999): b"".join([*leaves[:50], ZERO_ID, *leaves[50:]])} | dict.fromkeys(leaves, b"leaf")
    asked: list[Sequence[bytes]] = []

    def load(ids: Sequence[bytes]) -> dict[bytes, bytes]:
        asked.append(ids)
        return {each: tree[each] for each in ids}

    nodes = NodesAhead(2, load, skip={leaves[3]})
    nodes.load(node(999))
    for leaf in leaves:
        if leaf != leaves[3]:
            assert nodes.load(leaf) == b"leaf"
    assert [len(ids) for ids in asked] == [1, 32, 32, 32, 3]
    assert leaves[3] not in {each for ids in asked for each in ids}


def test_who_may_leave_nodes_out_reads_ahead_only_while_it_leaves_none_out() -> None:
    leaves = [bytes([number]) * ID_SIZE for number in range(1, 101)]
    asked: list[int] = []

    def load(ids: Sequence[bytes]) -> dict[bytes, bytes]:
        asked.append(len(ids))
        return {each: b"".join(leaves) for each in ids}

    nodes = NodesAhead(2, load, careful=True)
    nodes.load(bytes([200]) * ID_SIZE)
    for leaf in [leaves[5], leaves[9], leaves[20], *leaves[21:60]]:
        nodes.load(leaf)
    assert asked == [1, 1, 1, 1, 2, 4, 8, 16, 32]
    for leaf in leaves[30:60]:  # as who follows, such as the one who builds the next map
        nodes.load(leaf)
    assert len(asked) == 9


def test_nodes_that_are_there_are_not_read_again_with_others() -> None:
    leaves = [bytes([number]) * ID_SIZE for number in range(1, 41)]
    asked: list[Sequence[bytes]] = []

    def load(ids: Sequence[bytes]) -> dict[bytes, bytes]:
        asked.append(ids)
        return {each: b"".join(leaves) for each in ids}

    nodes = NodesAhead(2, load)
    for leaf in [bytes([200]) * ID_SIZE, leaves[20], leaves[0]]:
        nodes.load(leaf)
    assert list(asked[2]) == leaves[:20]


def test_chunks_that_were_read_lately_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "_MOST", 30)
    kept = Decoded()
    kept.add({b"a": bytes(10), b"b": bytes(10), b"c": bytes(10)})
    kept.find([b"a"])
    kept.add({b"d": bytes(10)})
    assert set(kept.find([b"a", b"b", b"c", b"d"])) == {b"a", b"c", b"d"}


def test_seen_chunks_are_told_from_others() -> None:
    seen = Seen()
    ids = [noise(ID_SIZE, number) for number in range(2000)]
    for chunk in ids[:1000]:
        seen.add(chunk)
    assert [chunk in seen for chunk in ids] == [True] * 1000 + [False] * 1000


def test_a_codec_that_does_not_encrypt_sees_no_key(tmp_path, monkeypatch):
    """Neither on the way in nor on the way out: what it makes cannot depend on what it gets only once."""
    seen = []

    class Plain(CODECS["zstd"]):
        def encode(self, data, context):
            seen.append(context)
            return super().encode(data, context)

        def decode(self, data, context, max_size):
            seen.append(context)
            return super().decode(data, context, max_size)

    monkeypatch.setitem(CODECS, "zstd", Plain)
    target = repository(MemoryTransport(), tmp_path)
    target.init()
    lab = FakeHypervisor()
    guest(lab, "web", b"text " * CHUNK)
    point = back_up(target, lab, "web")
    written = len(seen)
    assert b"".join(block.data for block in target.read(point, "vda", [Range(0, CHUNK)])) == (b"text " * CHUNK)[:CHUNK]
    assert len(seen) > written > 0
    assert set(seen) == {CodecContext(b"", b"", b"")}
