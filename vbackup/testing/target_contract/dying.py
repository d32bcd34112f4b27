"""Dying while a target's objects are written: only for targets that keep them by the methods of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from vbackup.api import NotFound, PruneOrder, Target, Transport
from vbackup.testing.crash import copy_of, operations
from vbackup.testing.target_contract.looking import assert_holds, unheard
from vbackup.testing.target_contract.machines import Kept, keep, noise
from vbackup.testing.target_contract.outage import OpensOn
from vbackup.testing.transports import MemoryTransport

_SIZE = 300_000


class DyingContract:
    """What a process leaves that dies at any operation of its store: the old points, or with them the new one."""

    every = 1
    """At each how many-th operation it dies: more than 1 where there are many; see `vbackup.testing.crash`."""

    @pytest.fixture
    def target_on(self) -> OpensOn:
        """Override: opens the target on a transport as a new host does, with a cache and a state of its own."""
        raise NotImplementedError

    def test_making_a_target(self, target_on: OpensOn) -> None:
        """It is there or not; if not it can be made, and if so it is empty."""
        for death, store in operations(MemoryTransport, lambda store: target_on(store).init(), every=self.every):
            target = target_on(store)
            try:
                assert target.id, death
            except NotFound:
                target.init()
            assert_holds(target)

    def test_making_a_point(self, target_on: OpensOn) -> None:
        """All points before are whole, and so is the new one if it is there; the next run is as any."""
        before, kept = _two_points(target_on)

        def run(store: Transport) -> Kept:
            return keep(target_on(store), {"vda": kept[0].disks["vda"] + b"more"}, kept[1], files={"nvram": b"new"})

        new = run(copy_of(before))
        for death, store in operations(lambda: copy_of(before), run, every=self.every):
            target = target_on(store)
            found = [point for point in target.points() if point.id == new.point.id]
            now = [*kept, *(replace(new, point=point) for point in found)]
            _assert_well(target, now, str(death))
            _assert_well(target, [*now, keep(target, {"vda": noise(_SIZE, 9)}, now[-1], sequence=9)], str(death))

    def test_deleting_a_point(self, target_on: OpensOn) -> None:
        """It is there, whole, or it is not; doing it again does it."""
        before, kept = _two_points(target_on)

        def delete(store: Transport) -> None:
            target_on(store).delete([kept[0].point])

        for death, store in operations(lambda: copy_of(before), delete, every=self.every):
            target = target_on(store)
            is_there = kept[0].point.id in {point.id for point in target.points()}
            _assert_well(target, kept if is_there else kept[1:], str(death))
            target.delete([kept[0].point])
            _assert_well(target, kept[1:], str(death))

    def test_pruning(self, target_on: OpensOn) -> None:
        """No point loses anything, then and when the next one is done."""
        before, kept = _two_points(target_on)
        target_on(before).delete([kept[0].point])

        def prune(store: Transport) -> None:
            target_on(store).prune(PruneOrder())

        for death, store in operations(lambda: copy_of(before), prune, every=self.every):
            _assert_well(target_on(store), kept[1:], str(death))
            target_on(store).prune(PruneOrder())
            _assert_well(target_on(store), kept[1:], str(death))


def _two_points(target_on: OpensOn) -> tuple[MemoryTransport, list[Kept]]:
    store = MemoryTransport()
    target = target_on(store)
    target.init()
    first = keep(target, {"vda": noise(_SIZE, 1)}, files={"nvram": b"vars"})
    second = keep(target, {"vda": noise(1000, 2) + first.disks["vda"][1000:]}, first, files={"nvram": b"vars"})
    target.close()
    return store, [first, second]


def _assert_well(target: Target, kept: Sequence[Kept], death: str) -> None:
    assert_holds(target, *kept)
    assert target.verify(target.points(), unheard) == [], death
