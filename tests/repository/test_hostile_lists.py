"""Late lists: a prune that has them removes nothing that is needed; what a writer risks is what PRUNE.md says."""

from __future__ import annotations

import random

import pytest

from tests.repository.history import CHUNK, target
from tests.support import back_up, guest, noise, restored
from vbackup.api import PruneOrder, VBackupError
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.liars import History, Stale
from vbackup.testing.transports import MemoryTransport


class LateSite:
    """A writer and a pruner on hosts of their own, over one store; each has lists of its own age."""

    def __init__(self, place) -> None:
        self.place = place
        self.store, self.history = MemoryTransport(), History()
        self.lab = FakeHypervisor()
        self.truth: dict[str, bytes] = {}
        self.writes, self.prunes = Stale(self.store, self.history), Stale(self.store, self.history)
        self.writer, self.pruner = target(self.writes, place / "w"), target(self.prunes, place / "p")
        self.writer.init()
        self.machine = guest(self.lab, "web", noise(12 * CHUNK, 1))

    def back_up(self):
        point = back_up(self.writer, self.lab, "web")
        self.truth[point.id] = bytes(self.machine.disks["vda"].data)
        return point

    def damage(self):
        opened = target(self.store, self.place / f"fresh{len(list(self.place.iterdir()))}")
        points = opened.points()
        found = opened.verify(points, lambda size: None)
        bad = {each.point for each in found}
        for point in points:
            if point.id not in bad:
                assert restored(opened, point)["vda"] == self.truth[point.id]
        opened.close()
        return bad


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("seed", range(3))
def test_a_prune_with_late_lists_removes_nothing_that_is_needed(tmp_path, lag, seed):
    """It misses points, packs and writers of the last changes, and still sees what is gone."""
    late = LateSite(tmp_path)
    rng = random.Random(seed)
    for _ in range(6):
        for _ in range(rng.randrange(1, 3)):
            late.machine.disks["vda"].write(rng.randrange(10) * CHUNK, rng.randbytes(2 * CHUNK))
            late.back_up()
        points = late.writer.points()
        if len(points) > 2:
            late.writer.delete([rng.choice(points[:-1])])
        with late.prunes.late(rng.randrange(lag + 1)):
            try:
                late.pruner.prune(PruneOrder())
            except VBackupError:
                continue  # it says that it cannot tell what is needed
    assert late.damage() == set()


def test_a_writer_with_late_lists_right_after_a_prune_may_build_on_what_is_gone_and_verify_says_so(tmp_path):
    """The limit that PRUNE.md states: such stores break the promise, for as long as their lists are late."""
    late = LateSite(tmp_path)
    first = late.back_up()
    content = bytes(late.machine.disks["vda"].data)
    late.machine.disks["vda"].write(0, noise(12 * CHUNK, 2))
    late.back_up()
    late.writer.delete([first])
    late.writer.points()
    before = len(late.history._changes)
    late.pruner.prune(PruneOrder())
    late.machine.disks["vda"].write(0, content)  # what was pruned a moment ago is back
    with late.writes.late(len(late.history._changes) - before):
        try:
            point = late.back_up()
        except VBackupError:
            pytest.fail("then it is noticed at once: say so in PRUNE.md")
    assert late.damage() == {point.id}
