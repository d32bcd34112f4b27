"""Points copied from one target to another: bit for bit, only what is missing, whatever dies or rots meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import CODECS, SECRET, back_up, codec, guest, noise, repository, restored
from vbackup.api import (
    AlreadyExists,
    CodecContext,
    ConfigError,
    Corrupt,
    Interrupted,
    Point,
    PruneOrder,
    TargetContext,
    Unavailable,
    Unsupported,
    VBackupError,
    WrongKey,
)
from vbackup.engine.replicate import Common, Replica, Replicate
from vbackup.repository.keys import KEY_FILE_PREFIX, new_private_key
from vbackup.repository.packs import open_pack
from vbackup.repository.points import get_point, point_key
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup_aead.codecs import Aes256Gcm

CHUNK = 64 << 10
OTHER = KEY_FILE_PREFIX + b"YW5vdGhlciBvbmUgb2YgdGhpcnR5LXR3byBieXRlcyAuLi4="


class Counting(MemoryTransport):
    """Counts what is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.written = 0

    def get(self, key, offset=0, length=None):
        data = super().get(key, offset, length)
        self.read += len(data)
        return data

    def put(self, key, data, *, if_absent=False):
        self.written += len(data)
        super().put(key, data, if_absent=if_absent)

    def clear(self):
        self.read = self.written = 0


def copy(source, destination, point, common: Common | None = None, *, stop=None, report=None) -> Replica:
    """Copy one point, as a job does."""
    with destination.writer() as writer:
        work = Replicate(source, destination, writer, stop or threading.Event(), report or (lambda disk: None))
        return work.run(point, common)


def copy_all(source, destination) -> list[Replica]:
    """Copy what is missing, oldest first, each on top of the one before."""
    done = []
    there = {point.id: point for point in destination.points()}
    last: Common | None = None
    for point in sorted(source.points(), key=lambda point: point.sequence):
        if point.id not in there:
            done.append(copy(source, destination, point, last))
            there[point.id] = done[-1].point
        last = Common(point, there[point.id])
    return done


class Two:
    """Two repositories, and a guest with a history in the first one."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.tmp_path = tmp_path
        self.here, self.there = Counting(), Counting()
        self.lab = FakeHypervisor()
        self.source = repository(self.here, tmp_path / "here", chunk_size=options.pop("source_chunk", CHUNK))
        self.source.init()
        self.history: dict[str, dict[str, bytes]] = {}
        self.options = options

    def destination(self, **changes: Any) -> Repository:
        return repository(self.there, self.tmp_path / "there", **{"secret": OTHER, **self.options, **changes})

    def destination_at(self, store, cache: str) -> Repository:
        return repository(store, self.tmp_path / cache, **{"secret": OTHER, **self.options})

    def make(self, *, family: bool) -> Repository:
        made = self.destination()
        if family:
            made.init_with_keys_of(self.source)
        else:
            made.init()
        return made

    def back_up(self) -> Point:
        machine = self.lab.guests["web"]
        point = back_up(self.source, self.lab, "web")
        self.history[point.id] = {key: bytes(disk.data) for key, disk in machine.disks.items()}
        return point

    def live(self, points: int = 3) -> None:
        """Let a guest with two disks and a file write, and be backed up."""
        machine = guest(self.lab, "web", noise(40 * CHUNK + 77, 1), bytes(10 * CHUNK) + noise(5 * CHUNK, 2))
        machine.files = {"nvram": noise(100_000, 3)}
        for number in range(points):
            machine.disks["vda"].write(number * 5 * CHUNK, noise(2 * CHUNK, 10 + number))
            machine.disks["vdb"].write(0, bytes(CHUNK))
            self.back_up()

    def assert_whole(self, target) -> None:
        for point in target.points():
            assert restored(target, point) == self.history[point.id]
            assert target.file(point, "nvram") == noise(100_000, 3)
        assert target.verify(target.points(), lambda size: None) == []


@pytest.fixture
def two(tmp_path):
    return Two(tmp_path)


WAYS = pytest.mark.parametrize("family", [False, True], ids=["decoded", "as stored"])


@WAYS
def test_every_point_restores_bit_for_bit_from_its_copy(two, family):
    two.live()
    target = two.make(family=family)
    copy_all(two.source, target)
    assert [point.id for point in target.points()] == [point.id for point in two.source.points()]
    two.assert_whole(target)
    two.assert_whole(two.destination(secret=OTHER))


@WAYS
def test_a_copy_says_of_the_machine_what_the_point_says(two, family):
    two.live(2)
    target = two.make(family=family)
    copy_all(two.source, target)
    for point, made in zip(two.source.points(), target.points(), strict=True):
        own = {"content", "changed", "stored"}
        for disk, other in zip(point.disks, made.disks, strict=True):
            assert disk.model_dump(exclude=own) == other.model_dump(exclude=own)
        own = {"disks", "files"}
        assert point.model_dump(exclude=own) == made.model_dump(exclude=own)
        assert two.source.description(point) == target.description(made)
    first, second = target.points()
    assert first.changed == 45 * CHUNK + 77
    assert second.changed == 2 * CHUNK


@WAYS
def test_of_the_next_point_only_the_change_travels(two, family):
    two.live(1)
    target = two.make(family=family)
    copy_all(two.source, target)
    two.lab.guests["web"].disks["vda"].write(11 * CHUNK, noise(CHUNK, 5))
    two.back_up()
    for store in (two.here, two.there):
        store.clear()
    (replica,) = copy_all(two.source, target)
    assert replica.point.changed == CHUNK
    assert replica.read < 4 * CHUNK  # the chunk, and one that shows that the bases are one
    assert two.here.read < 10 * CHUNK
    assert two.there.written < 3 * CHUNK
    two.assert_whole(target)
    assert copy_all(two.source, target) == []


@WAYS
def test_without_a_common_point_nothing_is_stored_twice(two, family):
    """An interrupted copy left chunks; the point it was for is copied anew."""
    two.live(1)
    target = two.make(family=family)
    (replica,) = copy_all(two.source, target)
    target.delete([replica.point])
    (again,) = copy_all(two.source, target)
    assert again.point.stored == 0
    two.assert_whole(target)


@pytest.mark.parametrize(("source_chunk", "chunk"), [(CHUNK, 4 * CHUNK), (4 * CHUNK, CHUNK), (32 << 10, 128 << 10)])
def test_chunk_sizes_and_codecs_may_differ_and_disks_be_resized(tmp_path, source_chunk, chunk):
    two = Two(tmp_path, source_chunk=source_chunk, chunk_size=chunk, codecs=("aes-256-gcm",))
    two.live(2)
    target = two.make(family=False)
    for size in (30 * CHUNK, 30 * CHUNK + 5, 3 * CHUNK, 64 * CHUNK, 0, 7 * CHUNK):
        two.lab.guests["web"].disks["vda"].resize(size)
        if size > 2 * CHUNK:
            two.lab.guests["web"].disks["vda"].write(2 * CHUNK - 3, b"changed")
        two.back_up()
        copy_all(two.source, target)
    two.assert_whole(target)


@WAYS
def test_resized_disks_are_copied_on_top_of_what_they_were(two, family):
    two.live(1)
    target = two.make(family=family)
    for size in (90 * CHUNK, 90 * CHUNK - 9, 20 * CHUNK, 300 * CHUNK, 299 * CHUNK, 1, 0):
        two.lab.guests["web"].disks["vda"].resize(size)
        two.back_up()
        copy_all(two.source, target)
    two.assert_whole(target)


def test_disks_come_and_go(two):
    two.live(1)
    target = two.make(family=True)
    copy_all(two.source, target)
    disks = two.lab.guests["web"].disks
    disks["vdc"] = disks.pop("vdb")
    two.back_up()
    copy_all(two.source, target)
    two.assert_whole(target)


# Families


def data_blobs(target: Repository) -> dict[bytes, tuple[bytes, bytes]]:
    """Return origin and blob of all chunks of disks and files, by id."""
    store = target._open().store
    found = {}
    for info in store.transport.list("packs"):
        data = store.transport.get(info.key)
        pack = open_pack(data, store.keys, bytes.fromhex(info.key.rpartition("/")[2]))
        for entry in pack.entries:
            found[entry.id] = (pack.origins[entry.origin], data[entry.offset : entry.offset + entry.length])
    return found


class Sealed(Aes256Gcm):
    """Opens nothing but the nodes of disk maps."""

    def decode(self, data, context: CodecContext, max_size):
        assert context.associated[16] == ChunkKind.NODE, "data was decoded"
        return super().decode(data, context, max_size)


def test_within_a_family_data_is_never_decoded_and_stored_byte_for_byte(two, monkeypatch):
    two.live()
    target = two.make(family=True)
    with monkeypatch.context() as patch:
        patch.setitem(CODECS, "aes-256-gcm", Sealed)
        copy_all(two.source, target)
    here, there = data_blobs(two.source), data_blobs(target)
    chunks = {chunk for chunk in here if chunk in there and here[chunk] == there[chunk]}
    ids = {i for point in two.source.points() for content in point.files.values() for i in content["chunks"]}
    for point in two.source.points():
        for disk in point.disks:
            tree = two.source._reader(point, disk.key).map
            ids |= {i.hex() for i in tree.ids(0, tree.shape.chunks) if any(i)}
    assert ids <= {chunk.hex() for chunk in chunks}
    two.assert_whole(target)


def write_only(store: MemoryTransport, cache: Path, secret: bytes, public: Path, family: Repository | None = None):
    context = TargetContext(
        "main", store, [codec(name) for name in CODECS], codec, lambda: secret, cache, cache / "state"
    )
    return Repository(RepositoryOptions(chunk_size=CHUNK, recipients=(public,)), context)


def test_a_key_that_only_writes_suffices_to_copy_within_a_family(tmp_path):
    private, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    two = Two(tmp_path)
    two.here = MemoryTransport()
    two.source = write_only(two.here, tmp_path / "writer", SECRET, path)
    two.source.init()
    two.live()
    reader = repository(two.here, tmp_path / "reader", secret=private)
    target = write_only(two.there, tmp_path / "copier", OTHER, path)
    target.init_with_keys_of(reader)
    copy_all(two.source, target)
    with pytest.raises(WrongKey):
        target.description(target.points()[0])
    two.assert_whole(repository(two.there, tmp_path / "far", secret=private))
    far = repository(two.there, tmp_path / "far", secret=private)
    for point, made in zip(reader.points(), far.points(), strict=True):
        assert far.description(made) == reader.description(point)


def test_a_copy_of_a_copy_can_be_read(two, tmp_path):
    two.live(2)
    target = two.make(family=True)
    copy_all(two.source, target)
    third = repository(MemoryTransport(), tmp_path / "third")
    third.init_with_keys_of(target)
    copy_all(target, third)
    two.assert_whole(third)
    assert third.description(third.points()[0]) == two.source.description(two.source.points()[0])


def test_a_store_cannot_hand_out_one_points_description_for_another(two):
    two.live(2)
    target = two.make(family=True)
    copy_all(two.source, target)
    one, other = target.points()
    first, second = get_point(two.there, one.id), get_point(two.there, other.id)
    whole = two.there.get(point_key(one.id))
    two.there.put(point_key(one.id), whole[: len(whole) - len(first.body)] + second.body)
    with pytest.raises(Corrupt, match=one.id):
        target.description(one)
    assert [damage.point for damage in target.verify([one], lambda size: None)] == [one.id]


def test_different_families_share_nothing_that_could_be_recognised(two):
    two.live()
    target = two.make(family=False)
    copy_all(two.source, target)
    assert not target.exchanges_with(two.source)
    assert not data_blobs(two.source).keys() & data_blobs(target).keys()
    objects = [{store.get(info.key) for info in store.list()} for store in (two.here, two.there)]
    assert not objects[0] & objects[1]


def test_a_family_is_made_of_repositories_with_one_chunk_size_by_a_key_that_reads(two, tmp_path):
    with pytest.raises(ConfigError, match="chunk_size"):
        two.destination(chunk_size=2 * CHUNK).init_with_keys_of(two.source)
    _, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    writer = write_only(MemoryTransport(), tmp_path / "writer", SECRET, path)
    writer.init()
    with pytest.raises(WrongKey, match="share"):
        two.destination().init_with_keys_of(writer)
    with pytest.raises(Unsupported):
        two.destination().init_with_keys_of(object())
    assert list(two.there.list()) == []
    made = two.make(family=True)
    assert made.exchanges_with(two.source)
    assert two.source.exchanges_with(made)
    assert made.id != two.source.id
    with pytest.raises(AlreadyExists):
        two.destination().init_with_keys_of(two.source)


def test_after_a_rotation_in_one_of_the_two_data_is_decoded_again(two):
    two.live(2)
    target = two.make(family=True)
    two.source.key_ring().rotate()
    two.source = repository(two.here, two.tmp_path / "again")
    assert not target.exchanges_with(two.source)
    two.back_up()
    copy_all(two.source, target)
    two.assert_whole(target)


# Trouble


@WAYS
def test_what_is_damaged_in_the_source_is_named_and_nothing_of_it_is_committed(two, family):
    two.live(1)
    target = two.make(family=family)
    key = max((info for info in two.here.list("packs")), key=lambda info: info.size).key
    whole = two.here.get(key)
    two.here.put(key, whole[:9000] + b"rotten" + whole[9006:])
    (point,) = two.source.points()
    with pytest.raises(Corrupt, match=f"{key}|vda"):
        copy(two.source, target, point)
    assert target.points() == []
    two.here.put(key, whole)
    two.source = repository(two.here, two.tmp_path / "fresh")
    copy(two.source, target, point)
    two.assert_whole(target)


def test_rot_does_not_spread_by_a_key_that_only_writes(tmp_path):
    """It cannot decode; but packs hash to their names."""
    _, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    two = Two(tmp_path)
    two.here = MemoryTransport()
    two.source = write_only(two.here, tmp_path / "writer", SECRET, path)
    two.source.init()
    ring = two.source._open().keys.ring
    target = write_only(two.there, tmp_path / "copier", OTHER, path)
    target._found(ring)
    two.live(1)
    key = max((info for info in two.here.list("packs")), key=lambda info: info.size).key
    whole = two.here.get(key)
    for at in (9000, len(whole) // 2, len(whole) - 5000):
        two.here.put(key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Corrupt, match=key):
            copy(two.source, target, two.source.points()[0])
    assert target.points() == []


@WAYS
def test_points_beside_a_damaged_one_are_copied(two, family):
    two.live(1)
    packs = {info.key for info in two.here.list("packs")}
    disk = two.lab.guests["web"].disks["vda"]
    disk.write(0, noise(CHUNK, 20))
    damaged = two.back_up()
    (key,) = {info.key for info in two.here.list("packs")} - packs
    whole = two.here.get(key)
    start = get_blob(two.source, damaged)
    two.here.put(key, whole[:start] + b"rotten" + whole[start + 6 :])
    disk.write(0, noise(CHUNK, 21))
    two.back_up()
    target = two.make(family=family)
    first, _, last = two.source.points()
    one = copy(two.source, target, first)
    with pytest.raises(Corrupt, match=key):
        copy(two.source, target, damaged, Common(first, one.point))
    copy(two.source, target, last, Common(first, one.point))
    assert [point.id for point in target.points()] == [first.id, last.id]
    two.assert_whole(target)


def get_blob(target: Repository, point: Point) -> int:
    """Return where the first chunk of a point's first disk is in its pack."""
    (chunk,) = target._reader(point, point.disks[0].key).map.ids(0, 1)
    return target._open().store.cache.locate([chunk])[chunk][0].offset + 50


@WAYS
def test_a_base_that_is_damaged_in_the_destination_costs_time_only(two, family):
    two.live(1)
    target = two.make(family=family)
    copy_all(two.source, target)
    for info in list(two.there.list("packs")):
        two.there.delete(info.key)
    two.back_up()
    copy_all(two.source, target)
    point = target.points()[-1]
    assert restored(target, point) == two.history[point.id]
    assert target.verify([point], lambda size: None) == []


@WAYS
def test_an_earlier_point_that_is_damaged_in_the_source_costs_time_only(two, family):
    two.live(1)
    target = two.make(family=family)
    first = copy(two.source, target, two.source.points()[0]).point
    two.back_up()
    old, new = two.source.points()
    lie = old.model_copy(
        update={"disks": tuple(d.model_copy(update={"content": {"map": "ab" * 32}}) for d in old.disks)}
    )
    copy(two.source, target, new, Common(lie, first))
    two.assert_whole(target)


@WAYS
def test_prune_at_the_source_does_not_break_a_copy(two, family, monkeypatch):
    """Packs are rewritten after their places were looked up."""
    two.live(3)
    target = two.make(family=family)
    other = repository(two.here, two.tmp_path / "other")
    first, _, last = two.source.points()
    two.source.extents(last, "vda")
    two.source._open().store.look()
    other.delete([first])
    monkeypatch.setattr("vbackup.repository.prune._WASTE", 0.0)
    monkeypatch.setattr("vbackup.repository.prune._SMALL_PACKS", 1)
    before = {info.key for info in two.here.list("packs")}
    other.prune(PruneOrder())
    assert not before & {info.key for info in two.here.list("packs")}
    copy(two.source, target, last)
    two.assert_whole(target)


@WAYS
def test_stopping_ends_it_without_a_point(two, family):
    two.live(1)
    target = two.make(family=family)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        copy(two.source, target, two.source.points()[0], stop=stop)
    assert target.points() == []


class Died(BaseException):
    """The process is gone: nothing that it does has any effect."""


def fails(number: int) -> Callable[[int, str, str], Any]:
    return lambda n, operation, key: Unavailable("the store is away") if n == number else None


def dies(number: int) -> Callable[[int, str, str], Any]:
    return lambda n, operation, key: Died() if n >= number else None


@WAYS
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("trouble", [fails, dies])
def test_whatever_operation_fails_or_dies_the_next_copy_completes(two, family, side, trouble):
    """At each one, before it and, if it writes, after; what was copied before verifies all the same."""
    guest(two.lab, "web", noise(3 * CHUNK, 1)).files = {"nvram": noise(100_000, 3)}
    two.back_up()
    two.lab.guests["web"].disks["vda"].write(0, b"changed")
    two.back_up()
    two.make(family=family).close()
    start = {info.key: two.there.get(info.key) for info in two.there.list()}
    number = 0
    while True:
        number += 1
        for after in (False, True) if side == "destination" else (False,):
            for info in list(two.there.list()):
                two.there.delete(info.key)
            for key, data in start.items():
                two.there.put(key, data)
            faults = {"fail_after" if after else "fail": trouble(number)}
            ended = attempt(two, f"{number}{after}", side, faults) < number
            fresh = two.destination_at(two.there, f"check{number}{after}")
            two.assert_whole(fresh)
            copy_all(two.source, fresh)
            assert len(fresh.points()) == 2
            two.assert_whole(fresh)
            fresh.close()
        if ended:
            assert number > 10
            return


def attempt(two: Two, name: str, side: str, faults: dict[str, Any]) -> int:
    """Copy everything with a fault; return how many operations the side that has it saw."""
    here = FaultyTransport(two.here, **(faults if side == "source" else {}))
    there = FaultyTransport(two.there, **(faults if side == "destination" else {}))
    source = repository(here, two.tmp_path / f"source{name}")
    target = two.destination_at(there, f"destination{name}")
    try:
        copy_all(source, target)
    except (VBackupError, Died):
        pass
    finally:
        source.close()
        target.close()
    return (here if side == "source" else there).operations
