"""A store that is away, is empty or goes back in time: it is waited for, or told, and never taken for damage."""

from __future__ import annotations

import pytest

from tests.repository.history import objects, store_of
from tests.repository.hostile_site import site
from tests.support import restored
from vbackup.api import CheckOrder, Corrupt, NotFound, PruneOrder, Unavailable
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.retry import RetryingTransport

__all__ = ["site"]  # a fixture


class Outage:
    """A store that is away for some seconds from an operation on, by a clock that waiting moves."""

    def __init__(self, inner, seconds, deadline) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.start = None
        self.at = None
        self.faulty = FaultyTransport(inner, self.fail)
        self.transport = RetryingTransport(self.faulty, deadline, clock=lambda: self.now, wait=self.wait)

    def wait(self, seconds):
        self.now += seconds
        return False

    def fail(self, number, operation, key):
        if self.at is None or number < self.at:
            return None
        self.start = self.now if self.start is None else self.start
        return Unavailable("503 slow down") if self.now < self.start + self.seconds else None


def whole_life(site, opened):
    """Back up, verify, check, restore, prune; return what a verify complains of."""
    site.back_up(opened)
    points = opened.points()
    damage = [*opened.verify(points, lambda size: None), *opened.damaged_points()]
    damage += opened.check(CheckOrder(read_data=True), lambda size: None).damage
    for point in points:
        assert restored(opened, point) == site.truth[point.id]
    opened.prune(PruneOrder())
    return damage


def test_minutes_of_503_at_any_operation_fail_nothing(site):
    start = objects(site.store)
    truth = dict(site.truth)
    outage = Outage(store_of(start), 300, 900)
    assert whole_life(site, site.fresh(outage.transport)) == []
    total = outage.faulty.operations
    for at in range(1, total, max(1, total // 25)):
        site.truth = dict(truth)
        store = store_of(start)
        outage = Outage(store, 300, 900)
        outage.at = at
        assert whole_life(site, site.fresh(outage.transport)) == []
        assert outage.now >= 300
        site.assert_whole(store)


def test_an_outage_that_outlasts_all_patience_is_an_error_and_no_damage(site):
    start, truth = objects(site.store), dict(site.truth)
    outage = Outage(store_of(start), 3600, 60)
    assert whole_life(site, site.fresh(outage.transport)) == []
    total = outage.faulty.operations * 3 // 4  # how many there are depends on threads, a little
    for at in range(1, total, total // 20):
        site.truth = dict(truth)
        outage = Outage(store_of(start), 3600, 60)
        outage.at = at
        opened = site.host(f"patient-{at}", outage.transport)
        with pytest.raises(Unavailable):
            whole_life(site, opened)
        opened.close()
        again = site.host(f"patient-{at}", outage.faulty.inner)  # its cache holds nothing against the store
        assert again.verify(again.points(), lambda size: None) == again.damaged_points() == []
        with again.writer() as writer:
            assert not [note for note in writer.notes if "damaged" in note or "missing" in note]
        again.close()


def test_a_store_that_has_lost_everything_is_no_new_place(site):
    opened = site.host("main", site.store)
    seen = {point.id for point in opened.points()}
    opened.close()
    for host in ("main", "fresh"):
        with pytest.raises(NotFound, match="no repository there"):
            site.host(host, MemoryTransport()).points()
    other = MemoryTransport()
    site.host("elsewhere", other).init()
    with pytest.raises(Corrupt, match="another repository"):
        site.host("main", other).points()
    assert site.host("fresh", other).points() == []  # who has never been here is told nothing
    emptied = store_of({key: data for key, data in objects(site.store).items() if key.startswith(("repo", "keys"))})
    known = site.host("main", emptied)
    assert known.points() == []
    assert seen == {each.point for each in known.damaged_points()}
    with pytest.raises(Corrupt, match="cannot be told"):
        known.prune(PruneOrder())
    assert site.fresh(emptied).damaged_points() == []


def test_a_store_that_goes_back_in_time_is_caught_by_those_that_saw_more(site):
    before = objects(site.store)
    opened = site.host("main", site.store)
    point = site.back_up(opened)
    opened.close()
    rolled = store_of(before)
    known = site.host("main", rolled)
    assert [point.id] == [each.point for each in known.damaged_points()]
    newcomer = site.fresh(rolled)
    assert newcomer.damaged_points() == []
    assert point.id not in {each.id for each in newcomer.points()}


def test_a_point_that_was_deleted_and_is_shown_again_does_no_harm(site):
    before = {key: data for key, data in objects(site.store).items() if key.startswith("points/")}
    opened = site.host("main", site.store)
    gone = opened.points()[0]
    opened.delete([gone])
    opened.prune(PruneOrder())
    site.store.put(f"points/{gone.id}", before[f"points/{gone.id}"])
    for host in (opened, site.fresh()):
        damage = host.verify(host.points(), lambda size: None) + host.damaged_points()
        assert {gone.id} >= {each.point for each in damage}
        for point in host.points():
            try:
                assert restored(host, point) == site.truth[point.id]
            except Corrupt:
                assert point.id == gone.id
