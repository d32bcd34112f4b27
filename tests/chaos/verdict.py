"""What must hold when all is quiet again; computed anew, with little of the code that is under test."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from tests.chaos.content import BLOCK, Content
from tests.chaos.journal import Journals
from tests.chaos.roles import BrokenPromiseError, compare
from tests.chaos.setting import CALM, Place
from vbackup.api import CheckOrder, Point, PruneOrder
from vbackup.repository import prune
from vbackup.repository.diskmap import Shape
from vbackup.repository.index import read_index
from vbackup.repository.layout import FANOUT, ID_SIZE, INDEX, PACKS, ZERO_ID, pack_name
from vbackup.repository.packs import Pack, read_pack
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.target import Repository


class Verdict:
    """On one run, after its last process ended. Methods raise `BrokenPromiseError`."""

    def __init__(self, place: Place, seed: int) -> None:
        self._place = place
        self._content = Content(seed)
        self._journals = Journals(place.journals)
        self._transport = place.transport()

    def reach(self) -> str:
        """Look at everything; return a summary."""
        first = self._open("judge")
        listed = self._all_is_there(first)
        report = first.prune(PruneOrder(end_silent=True))
        if report.notes or report.waiting:
            raise BrokenPromiseError(f"the last prune says: {report}")
        self._nothing_is_unneeded(first)
        first.prune(PruneOrder(end_silent=True))  # may join the small packs that the last one wrote
        again = first.prune(PruneOrder(end_silent=True))
        if (again.freed, again.rewritten, again.waiting, again.notes) != (0, 0, 0, ()):
            raise BrokenPromiseError(f"prunes come to no end: {again}")
        first.close()
        fresh = self._open("stranger")
        if self._all_is_there(fresh) != listed:
            raise BrokenPromiseError("a fresh host sees other points")
        checked = fresh.check(CheckOrder(read_data=True), lambda done: None)
        if checked.wrong or checked.damage:
            raise BrokenPromiseError(f"check says: {checked}")
        fresh.delete(fresh.points())
        fresh.prune(PruneOrder(end_silent=True))
        rest = [info.key for prefix in (PACKS, INDEX) for info in self._transport.list(prefix)]
        if rest:
            raise BrokenPromiseError(f"no point is left, and yet there are {rest}")
        fresh.close()
        events = Counter(
            event["event"] for event in self._journals.events("capturing", "committed", "deleting", "pruned")
        )
        return f"{dict(events)}; {len(listed)} points at the end; {report}"

    def _open(self, name: str) -> Repository:
        return self._place.repository(name, CALM, random.Random(0))

    def _all_is_there(self, repository: Repository) -> set[str]:
        """Every committed point that nobody wanted to delete is listed; whatever is listed is whole, to the byte."""
        points = repository.points()
        committed, doomed = self._journals.committed(), self._journals.doomed()
        gone = committed.keys() - doomed - {point.id for point in points}
        if gone:
            raise BrokenPromiseError(f"committed, not deleted and not there: {sorted(gone)}")
        damage = repository.damaged_points() + repository.verify(points, lambda done: None)
        if damage:
            raise BrokenPromiseError(f"{len(damage)} places are damaged: {damage[:3]}")
        for point in points:
            compare(self._content, repository, point)
        return {point.id for point in points}

    def _nothing_is_unneeded(self, repository: Repository) -> None:
        left = [info.key for prefix in ("sessions", "condemned") for info in self._transport.list(prefix)]
        if left:
            raise BrokenPromiseError(f"these are left after a prune: {left}")
        opened = repository._open()
        packs = [read_pack(self._transport, opened.keys, name) for name in self._names()]
        listed = [
            pack
            for info in self._transport.list(INDEX)
            for pack in read_index(opened.keys, info.key, self._transport.get(info.key))
        ]
        if {pack.name for pack in listed} != {pack.name for pack in packs}:
            strange = {pack.name.hex() for pack in listed} ^ {pack.name.hex() for pack in packs}
            raise BrokenPromiseError(f"packs that are there, or listed by an index, and not both: {sorted(strange)}")
        self._packs_are_used(packs, set(self._needed(repository)))

    def _names(self) -> Iterator[bytes]:
        for info in self._transport.list(PACKS):
            name = pack_name(info.key)
            if name is None:
                raise BrokenPromiseError(f"{info.key} is no pack's name")
            yield name

    def _packs_are_used(self, packs: list[Pack], needed: set[bytes]) -> None:
        """Garbage is less than the part that is worth rewriting; and no pack has garbage only."""
        sizes: dict[bytes, int] = {}
        for pack in packs:
            if needed.isdisjoint(entry.id for entry in pack.entries):
                raise BrokenPromiseError(f"pack {pack.name.hex()} holds nothing that is needed")
            sizes |= {entry.id: entry.length for entry in pack.entries if entry.id in needed}
        if sizes.keys() != needed:
            raise BrokenPromiseError(f"{len(needed - sizes.keys())} chunks that are needed are in no pack")
        stored, used = sum(pack.size for pack in packs), sum(sizes.values())
        if used < (1 - prune._WASTE) * stored - BLOCK:
            raise BrokenPromiseError(f"{stored} bytes of packs for {used} that are needed")

    def _needed(self, repository: Repository) -> Iterator[bytes]:
        for point in repository.points():
            for disk in point.disks:
                yield from self._tree(repository, Shape(disk.size, BLOCK).depth, bytes.fromhex(disk.content["map"]))
            yield from self._files(point)

    @staticmethod
    def _files(point: Point) -> Iterator[bytes]:
        for content in point.files.values():
            yield from map(bytes.fromhex, content["chunks"])

    def _tree(self, repository: Repository, level: int, node: bytes) -> Iterator[bytes]:
        if node == ZERO_ID:
            return
        yield node
        if level:
            data = repository._open().store.read(ChunkKind.NODE, [node])[node]
            assert len(data) <= FANOUT * ID_SIZE
            for at in range(0, len(data), ID_SIZE):
                yield from self._tree(repository, level - 1, data[at : at + ID_SIZE])
