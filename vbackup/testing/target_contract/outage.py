"""A store that is away: only for targets that keep their objects by the methods of a transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vbackup.api import CheckOrder, PruneOrder, Range, Target, Transport, Unavailable
from vbackup.testing.crash import copy_of
from vbackup.testing.target_contract.looking import assert_holds, unheard
from vbackup.testing.target_contract.machines import Kept, keep, noise
from vbackup.testing.transports import FaultyTransport, MemoryTransport

OpensOn = Callable[[Transport], Target]
_SIZE = 300_000


class OutageContract:
    """What is said when the store cannot be asked: never that something is damaged, gone, or not there."""

    every = 1
    """At each how many-th operation the store is away for a moment: more than 1 where there are many."""

    @pytest.fixture
    def target_on(self) -> OpensOn:
        """Override: opens the target on a transport as a new host does, with a cache and a state of its own."""
        raise NotImplementedError

    def test_a_store_that_is_away(self, target_on: OpensOn) -> None:
        """All that is asked is `Unavailable`, and may be tried again; nothing is empty that only cannot be seen."""
        store, kept = _one_point(target_on)
        for what, action in (_questions(kept) | _changes(kept)).items():
            target = target_on(FaultyTransport(copy_of(store), _always))
            with pytest.raises(Unavailable) as caught:
                pytest.fail(f"{what} of a store that is away: {action(target)!r}")
            assert caught.value.transient, what

    def test_a_store_that_is_away_for_a_moment(self, target_on: OpensOn) -> None:
        """A question has its true answer, or none."""
        store, kept = _one_point(target_on)
        for what, question in _questions(kept).items():
            counting = FaultyTransport(store)
            truth = question(target_on(counting))
            for number in range(1, counting.operations + 1, self.every):
                target = target_on(FaultyTransport(store, _once(number)))
                try:
                    answer = question(target)
                except Unavailable:
                    answer = question(target)
                same = answer == truth  # told without what they are: a whole disk may be among it
                assert same, f"{what}, when the store was away at operation {number}"

    def test_a_run_that_meets_an_outage(self, target_on: OpensOn) -> None:
        """It fails or not, and its point is there or not; if it is, it is whole, and if the run went well, it is."""
        before, kept = _one_point(target_on)

        def run(store: Transport) -> Kept:
            return keep(target_on(store), {"vda": kept.disks["vda"] + b"more"}, kept, files={"nvram": b"new"})

        counting = FaultyTransport(copy_of(before))
        new = run(counting)
        for number in range(1, counting.operations + 1, self.every):
            store = copy_of(before)
            try:
                run(FaultyTransport(store, _once(number)))
                least = 2
            except Unavailable:
                least = 1
            target = target_on(store)
            points = target.points()
            assert len(points) >= least, f"operation {number}"
            assert_holds(target, kept, *(replace(new, point=point) for point in points if point.id == new.point.id))
            assert target.verify(points, unheard) == [], f"operation {number}"


def _one_point(target_on: OpensOn) -> tuple[MemoryTransport, Kept]:
    store = MemoryTransport()
    target = target_on(store)
    target.init()
    kept = keep(target, {"vda": noise(_SIZE, 1)}, files={"nvram": b"vars"})
    target.protect(kept.point, "before the upgrade")
    target.close()
    return store, kept


def _questions(kept: Kept) -> dict[str, Callable[[Target], object]]:
    """Return what can be asked, each with an answer that can be compared."""
    point = kept.point
    return {
        "id": lambda target: target.id,
        "points": lambda target: target.points(),
        "damaged points": lambda target: target.damaged_points(),
        "protected": lambda target: dict(target.protected()),
        "description": lambda target: target.description(point),
        "extents": lambda target: list(target.extents(point, "vda")),
        "read": lambda target: [bytes(block.data) for block in target.read(point, "vda", [Range(0, _SIZE)])],
        "file": lambda target: bytes(target.file(point, "nvram")),
        "verify": lambda target: target.verify([point], unheard),
        "check": lambda target: _found(target, CheckOrder(read_data=True)),
    }


def _found(target: Target, order: CheckOrder) -> object:
    report = target.check(order, unheard)
    return report.wrong, report.damage


def _changes(kept: Kept) -> dict[str, Callable[[Target], object]]:
    return {
        "init": lambda target: target.init(),
        "writer": lambda target: keep(target, {"vda": b"new"}, kept),
        "delete": lambda target: target.delete([kept.point]),
        "protect": lambda target: target.protect(kept.point, "again"),
        "unprotect": lambda target: target.unprotect(kept.point),
        "prune": lambda target: target.prune(PruneOrder()),
    }


def _always(number: int, operation: str, key: str) -> Exception:
    del number
    return _away(operation, key)


def _once(number: int) -> Callable[[int, str, str], Exception | None]:
    return lambda now, operation, key: _away(operation, key) if now == number else None


def _away(operation: str, key: str) -> Unavailable:
    return Unavailable(f"{operation} {key}: the store is away")
