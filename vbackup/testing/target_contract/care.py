"""Looking after a target that is well: verify, check and prune find nothing, and take nothing that is needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from vbackup.api import CheckOrder, PruneOrder, Target
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import assert_holds, unheard
from vbackup.testing.target_contract.machines import SIZE, commit, keep, noise, write
from vbackup.testing.target_contract.points import three_and_one

ORDERS = {
    "all there": CheckOrder(),
    "all read": CheckOrder(read_data=True),
    "half of it": CheckOrder(read_data=True, percent=50),
    "what was not read today": CheckOrder(read_data=True, since=timedelta(days=1)),
    "repaired": CheckOrder(read_data=True, repair=True),
}


class CareContract(OneTarget):
    """What is found where nothing is wrong."""

    def test_verifying_what_is_whole(self, target: Target, target_factory: Opens) -> None:
        """Nothing is found, and progress counts the bytes of the disks: to people it is how far it is."""
        kept = three_and_one(target)
        for each in (target, target_factory()):
            counted: list[int] = []
            assert each.verify([one.point for one in kept], counted.append) == []
            assert sum(counted) == len(kept) * SIZE
            assert min(counted) >= 0

    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
    def test_checking_what_is_whole(self, target: Target, target_factory: Opens, order: CheckOrder) -> None:
        """Nothing is found, now and the next time; what it read it counts."""
        kept = three_and_one(target)
        for each in (target, target_factory()):
            counted: list[int] = []
            report = each.check(order, counted.append)
            assert (report.wrong, report.damage, report.repaired) == ((), (), ())
            assert report.objects > 0
            assert report.stored >= 0
            assert report.read == sum(counted)
            assert order.read_data or report.read == 0
        assert_holds(target, *kept)

    def test_pruning_takes_nothing_that_is_needed(self, target: Target, target_factory: Opens) -> None:
        """What it would do it says without doing it; done there is no more to do, and what is left is whole."""
        first, *left = three_and_one(target)
        trial = target.prune(PruneOrder(dry_run=True, without=frozenset({first.point.id})))
        assert trial.freed >= 0
        assert_holds(target, first, *left)
        target.delete([first.point])
        for order in (PruneOrder(dry_run=True), PruneOrder(), PruneOrder(rewrite=0), PruneOrder(end_silent=True)):
            report = target_factory().prune(order)
            assert min(report.freed, report.rewritten, report.waiting, report.stored) >= 0
            assert_holds(target_factory(), *left)
        assert target.verify(target.points(), unheard) == []

    def test_pruning_beside_a_run(self, target: Target, target_factory: Opens) -> None:
        """What a run has written is needed, though no point says so yet; also what it found there and built on."""
        gone, *left = three_and_one(target)
        target.delete([gone.point])
        with target.writer() as writer:
            kept = write(writer, gone.disks, machine="again", files={"nvram": b"vars"})
            more = write(writer, {"vda": left[0].disks["vda"] + noise(1000, 8)}, left[0], sequence=8)
            for _ in range(2):
                target_factory().prune(PruneOrder())
            left += [commit(writer, kept), commit(writer, more)]
            target_factory().prune(PruneOrder())
        target_factory().prune(PruneOrder())
        assert_holds(target_factory(), *left)
        assert target.verify(target.points(), unheard) == []

    def test_all_at_once(self, target: Target, target_factory: Opens) -> None:
        """Verify, check and prune, of other instances, while points are made and read."""
        kept = three_and_one(target)
        over = threading.Event()

        def care() -> int:
            opened, rounds = target_factory(), 0
            while not (over.is_set() and rounds):
                assert opened.verify([each.point for each in kept[:2]], unheard) == []
                report = opened.check(CheckOrder(read_data=True), unheard)
                assert (report.wrong, report.damage) == ((), ())
                opened.prune(PruneOrder())
                rounds += 1
            return rounds

        made = list(kept)
        with ThreadPoolExecutor(2) as pool:
            caring = [pool.submit(care) for _ in range(2)]
            try:
                for number in range(5, 9):
                    made.append(keep(target, {"vda": noise(SIZE, number)}, made[-1]))
            finally:
                over.set()
            assert all(each.result() for each in caring)
        assert_holds(target_factory(), *made)

    def test_closed_twice(self, target: Target, target_factory: Opens) -> None:
        """Closing lets go of caches and connections, not of points."""
        kept = keep(target, {"vda": noise(SIZE, 1)})
        target.close()
        target.close()
        assert_holds(target_factory(), kept)
