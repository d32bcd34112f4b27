"""Whatever a store does to the bytes of an object is noticed, named and mapped to what it takes away.

Each object kind of a repository with a history is mutated at all field boundaries of its format, all over its bytes
and at random places: bits flipped, cut, extended, zeroed, swapped, put in the place of others, removed. Then hosts
with and without a cache list, verify, read everything, prune and back up: wrong bytes or an error that is not ours
fail the test; so does damage that is reported anywhere else than where bytes cannot be read.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import pytest

from tests.repository.history import CHUNK, KINDS, History, complaint, make, store_of, target, unreadable
from tests.support import back_up, restored
from vbackup.api import CheckOrder, CheckReport, Corrupt, Damage, Point, PruneOrder, PruneReport, VBackupError
from vbackup.repository.layout import pack_name
from vbackup.repository.packs import read_pack
from vbackup.repository.target import Repository

T = TypeVar("T")

SEED = int(os.environ.get("MUTATIONS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
"""Chosen anew each time, and printed with each failure."""
RANDOM = 6
"""Bits flipped at random places of each object, beside those at fixed ones."""
SHARDS = 4
HARMLESS = {"removed", "index", "damaged", "protected", "deletions", "sessions", "condemned"}
"""Kinds that say nothing of points: whatever becomes of them, all points can be read."""


class Mutation(NamedTuple):
    what: str
    key: str
    objects: dict[str, bytes | None]
    """What becomes of objects; None: removed."""

    def __str__(self) -> str:
        return f"{self.what} of {self.key} (MUTATIONS_SEED={SEED})"


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Iterator[History]:
    place = tmp_path_factory.mktemp("history")
    yield make(place)
    shutil.rmtree(place)


# -- what is mutated --------------------------------------------------------------------------------------------------


def boundaries(history: History, key: str) -> set[int]:
    """Where the fields of an object begin, as FORMAT.md has them."""
    data = history.now[key]
    kind = key.partition("/")[0]
    if kind == "packs":
        return pack_boundaries(history, key)
    if kind == "points":
        origin = int.from_bytes(data[8:10], "little")
        head = 10 + origin
        body = head + 4 + int.from_bytes(data[head : head + 4], "little")
        return {0, 8, 10, 26, 30, head - 1, head, head + 4, head + 16, body - 16, body, body + 2, body + 14}
    if kind in {"repository", "keys"}:
        return {at for at, byte in enumerate(data) if byte in b'{":,}'} & set(range(0, len(data), 3))
    return {0, 12, len(data) - 16}


def pack_boundaries(history: History, key: str) -> set[int]:
    opened = target(store_of(history.now), history.places["warm"])
    try:
        pack = read_pack(opened._context.transport, opened._open().keys, pack_name(key) or b"")
    finally:
        opened.close()
    end = len(history.now[key])
    footer = pack.entries[-1].offset + pack.entries[-1].length
    found = {0, 8, 12, 14, 30, 34, pack.entries[0].offset - 1, footer, footer + 12, end - 28, end - 12, end - 8}
    for entry in pack.entries[:: max(1, len(pack.entries) // 4)]:
        found |= {entry.offset, entry.offset + 1, entry.offset + 13, entry.offset + entry.length - 16}
    return found


def mutations(history: History, kind: str) -> Iterator[Mutation]:
    keys = history.of(kind)
    for key in keys:
        data = history.now[key]
        rng = random.Random(f"{SEED} {key}")
        places = {at for at in boundaries(history, key) if 0 <= at < len(data)}
        everywhere = set(range(0, len(data), max(1, len(data) // (6 if key in history.garbage else 24)))) | {
            len(data) - 1
        }
        for at in sorted(places | everywhere | {rng.randrange(len(data)) for _ in range(RANDOM)}):
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            yield Mutation(f"flip at {at}", key, {key: bytes(flipped)})
        for at in sorted(places)[:: max(1, len(places) // 8)]:
            yield Mutation(f"cut at {at}", key, {key: data[:at]})
            length = rng.choice((1, 16, 300, len(data)))
            zeroed = data[:at] + bytes(len(data[at : at + length])) + data[at + length :]
            yield Mutation(f"zeros at {at}+{length}", key, {key: zeroed})
        yield Mutation("cut of the last byte", key, {key: data[:-1]})
        for more in (b"\0", b"x" * 20, data, bytes(70_000)):
            yield Mutation(f"{len(more)} bytes more", key, {key: data + more})
        yield Mutation("removal", key, {key: None})
        yield from replacements(history, kind, key)
    for one, other in itertools.pairwise(keys):
        yield Mutation(f"swap with {other}", one, {one: history.now[other], other: history.now[one]})
    yield Mutation("removal of all", keys[0], dict.fromkeys(keys))


def replacements(history: History, kind: str, key: str) -> Iterator[Mutation]:
    """Others' bytes under an object's name: of this repository, now and before, and of another one."""
    for name, source in (("another", history.now), ("an older", history.before), ("a foreign", history.other)):
        others = [
            each for each in sorted(source) if each.partition("/")[0] == kind and source[each] != history.now[key]
        ]
        for other in others[:2]:
            yield Mutation(f"replacement by {name} one", key, {key: source[other]})


def mutated(history: History, mutation: Mutation) -> dict[str, bytes]:
    objects = {**history.now, **mutation.objects}
    return {key: data for key, data in objects.items() if data is not None}


# -- what a host sees of it -------------------------------------------------------------------------------------------


class Host:
    """One host, before one mutated store: what it complained of, and whether what it says is true."""

    def __init__(self, history: History, opened: Repository) -> None:
        self.history = history
        self.target = opened
        self.complaints: list[str] = []
        self.unreadable: dict[tuple[str, str], set[int]] = {}
        """Chunks by point and disk."""
        self.has_other_size = False
        """Whether a pack has; a check takes such a pack for lost, whatever can be read of it."""

    def attempt(self, action: Callable[[], T], otherwise: T) -> T:
        """Nothing but an error of ours may come out."""
        try:
            return action()
        except VBackupError as error:
            self.complaints.append(complaint(error))
            return otherwise

    def look(self, mutation: Mutation) -> None:
        """List and verify everything, and hold it against the bytes that should be there."""
        sizes = {key: len(data or b"") for key, data in mutation.objects.items() if key.startswith("packs/")}
        self.has_other_size = any(len(self.history.now[key]) != size for key, size in sizes.items())
        points = self.attempt(self.target.points, [])
        damage = [*self.attempt(self.target.damaged_points, [])]
        damage += self.attempt(lambda: self.target.verify(points, lambda size: None), [])
        self.complaints += [f"{each.point} {each.reason}" for each in damage]
        reasons = self.attempt(self.target.protected, {})
        self.complaints += [f"{point} {reasons[point]}" for point in reasons if "cannot" in reasons[point]]
        slots = self.attempt(lambda: self.target.key_ring().slots(), [])
        self.complaints += [f"{slot.id} {slot.state}" for slot in slots if slot.state != "good"]
        self.complaints += self.attempt(lambda: self.target.prune(PruneOrder(dry_run=True)), PruneReport()).notes
        if mutation.key.partition("/")[0] in HARMLESS:
            assert {point.id for point in points} == self.history.truth.keys()
        for point in points:
            assert point.model_dump() == self.history.points[point.id].model_dump()
            self.read(point, damage)

    def read(self, point: Point, damage: list[Damage]) -> None:
        truth = self.history.truth[point.id]
        for disk in point.disks:
            bad = unreadable(self.target, point, disk.key, truth[disk.key])
            assert told(damage, point.id, disk.key) == bad, f"unreadable in {disk.key} of {point.id}: {sorted(bad)}"
            self.unreadable[point.id, disk.key] = bad
        for name in point.files:
            try:
                assert self.target.file(point, name) == truth[name]
            except Corrupt:
                assert any((each.point, each.disk) == (point.id, name) for each in damage)
        try:
            name = self.target.description(point).name
        except Corrupt:
            assert any(each.point == point.id and not each.disk for each in damage)
        else:
            assert name == point.machine

    def check(self) -> None:
        """A check that reads all says the same of where damage is."""
        report = self.attempt(lambda: self.target.check(CheckOrder(read_data=True), lambda size: None), CheckReport())
        self.complaints += report.wrong
        self.complaints += [f"{each.point} {each.reason}" for each in report.damage]
        lost = {each.point for each in report.damage if not each.disk}
        for (point, disk), bad in self.unreadable.items():
            if point not in lost and not self.has_other_size:
                assert told(report.damage, point, disk) == bad, f"unreadable in {disk} of {point}: {sorted(bad)}"

    def write(self, fresh: Repository) -> None:
        """Back up: the point is whole, for all others too, or there is none."""
        lab = self.history.another_lab()
        try:
            point = back_up(self.target, lab, "web")
        except VBackupError as error:
            self.complaints.append(complaint(error))
            return
        disks = {key: bytes(disk.data) for key, disk in lab.guests["web"].disks.items()}
        assert restored(fresh, point) == disks
        assert not [each for each in fresh.verify([point], lambda size: None) if each.length]

    def has_named(self, key: str) -> bool:
        names = [part for part in key.split("/") if len(part) >= 32] or [key]
        names += ["key slots"] if key.startswith("keys/") else []
        return any(name in complaint for name in names for complaint in self.complaints)


def told(damage: Iterable[Damage], point: str, disk: str) -> set[int]:
    """Return the chunks of a disk that are reported as damaged."""
    ranges = [(each.offset, each.offset + each.length) for each in damage if (each.point, each.disk) == (point, disk)]
    return {number for start, end in ranges for number in range(start // CHUNK, -(-end // CHUNK))}


def is_silent(history: History, mutation: Mutation, host: str) -> bool:
    """What a host that lists, verifies and prunes cannot notice, or need not; `check` may."""
    key, removed = mutation.key, mutation.what.startswith("removal")
    kind = key.partition("/")[0]
    if kind == "index":
        return removed or host != "fresh"  # derived from packs; a cache has what is not there
    if kind == "sessions":
        return removed or key != max(each for each in history.of(kind) if each[:41] == key[:41])  # the last one counts
    if kind == "deletions":  # nobody asks for it who has not known the point
        return removed or host != "behind" or (key != history.record and history.record not in mutation.objects)
    if kind == "damaged" or (kind == "ended" and key.endswith("/0")):
        return True  # it says all by being there
    if kind == "packs":
        return key in history.garbage
    if removed and kind == "points":
        return host == "fresh"
    if kind == "keys":  # names of slots say nothing, and they come and go: the key must open one, and all be genuine
        left = [data for key, data in mutated(history, mutation).items() if key.startswith("keys/")]
        return any(b'"key-file"' in data for data in left) and {*left} <= {history.now[key] for key in history.of(kind)}
    return removed and kind in {"removed", "protected", "ended", "condemned"}


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_mutation_is_noticed_named_and_mapped(history, tmp_path, kind, shard):
    real = (each for each in mutations(history, kind) if mutated(history, each) != history.now)
    for number, mutation in enumerate(real):
        if number % SHARDS != shard:
            continue
        hosts = ["fresh", "behind"] if kind == "deletions" else ["fresh", "warm"]
        for name in hosts:
            check(history, mutation, name, tmp_path / f"{number}-{name}", writes=number // SHARDS % 8 == 0)


def check(history: History, mutation: Mutation, name: str, place, *, writes: bool) -> None:
    store = store_of(mutated(history, mutation))
    host = Host(history, target(store, history.host(name, place)))
    fresh = target(store, place / "other")
    try:
        host.look(mutation)
        if writes or mutation.key.startswith("removed/"):  # these matter only once a removed slot is back
            host.check()
        if writes:
            host.write(fresh)
        assert any(map(host.has_named, mutation.objects)) or is_silent(history, mutation, name), host.complaints
    except Exception as error:
        error.add_note(f"a {name} host, after {mutation}")
        raise
    finally:
        host.target.close()
        fresh.close()
        shutil.rmtree(place, ignore_errors=True)
