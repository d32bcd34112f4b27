"""A repository with points, what they should give back, and a host that tries everything there is to do with it."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.repository.history import CHUNK, target
from tests.support import back_up, guest, noise, restored
from vbackup.api import CheckOrder, PruneOrder, VBackupError
from vbackup.repository import presence, prune
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport


class Site:
    """A repository with a few points, what they should give back, and some garbage."""

    def __init__(self, place) -> None:
        self.place = place
        self.numbers = itertools.count()
        self.may_be_misled = False
        """Whether packs were given for others when unlisted ones were adopted: an index may say so from then on."""
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self.truth: dict[str, dict[str, bytes]] = {}
        made = self.host("main", self.store)
        made.init()
        machine = guest(self.lab, "web", noise(12 * CHUNK + 9, 1), noise(3 * CHUNK, 2))
        machine.files = {"nvram": noise(99, 3)}
        guest(self.lab, "db", noise(4 * CHUNK, 4))
        points = [self.back_up(made)]
        for number in range(2):
            machine.disks["vda"].write((2 + number) * CHUNK, noise((3 - number) * CHUNK, 5 + number))
            points.append(self.back_up(made))
        self.back_up(made, "db")
        made.delete([points[1]])
        del self.truth[points[1].id]
        made.close()

    def host(self, name, store):
        return target(store, self.place / name)

    def fresh(self, store=None):
        return self.host(f"host-{next(self.numbers)}", store or self.store)

    def back_up(self, opened, name="web"):
        point = back_up(opened, self.lab, name)
        self.truth[point.id] = {key: bytes(disk.data) for key, disk in self.lab.guests[name].disks.items()}
        return point

    def assert_whole(self, store=None):
        """For a host that has seen nothing yet."""
        opened = self.fresh(store)
        points = opened.points()
        assert self.truth.keys() == {point.id for point in points}
        damage = opened.verify(points, lambda size: None) + opened.damaged_points()
        if self.may_be_misled:
            damage = [each for each in damage if each.length or "what the index says" not in each.reason]
        assert damage == []
        for point in points:
            assert restored(opened, point) == self.truth[point.id]
        opened.close()

    def try_everything(self, opened):
        """Only errors of ours may come out, and no wrong bytes; return the errors."""
        errors: list[VBackupError] = []

        def attempt(action):
            try:
                return action()
            except VBackupError as error:
                errors.append(error)
                return None

        for point in attempt(opened.points) or []:
            disks = attempt(partial(restored, opened, point))
            assert disks is None or disks == self.truth[point.id]
            attempt(partial(opened.verify, [point], lambda size: None))
        attempt(opened.damaged_points)
        attempt(opened.protected)
        attempt(lambda: opened.check(CheckOrder(read_data=True), lambda size: None))
        attempt(lambda: opened.prune(PruneOrder(dry_run=True)))
        attempt(lambda: opened.prune(PruneOrder(end_silent=True)))
        attempt(partial(self.back_up, opened))
        attempt(lambda: opened.prune(PruneOrder(end_silent=True)))
        opened.close()
        return errors


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(prune, "BEAT_SECONDS", 0.2)
    return Site(tmp_path)
