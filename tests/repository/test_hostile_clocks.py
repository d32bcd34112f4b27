"""Clocks that are a day off cost no data, end nobody who lives, and keep nobody who is dead."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from tests.repository.history import CHUNK, objects
from tests.repository.hostile_site import site
from tests.support import back_up, noise
from vbackup.api import PruneOrder, Unavailable, clock
from vbackup.testing.transports import FaultyTransport

__all__ = ["site"]  # a fixture

DAY = timedelta(days=1)


@pytest.mark.parametrize("writers", [-DAY, 0 * DAY, DAY])
@pytest.mark.parametrize("pruners", [-DAY, 0 * DAY, DAY])
def test_clocks_that_are_a_day_off_end_no_session_that_lives_and_cost_no_data(site, monkeypatch, writers, pruners):
    true, offset = clock.now, threading.local()
    monkeypatch.setattr(clock, "now", lambda: true() + getattr(offset, "by", writers))  # the beats' thread, too
    opened, pruner = site.host("main", site.store), site.fresh()
    with opened.writer() as writer:
        file = writer.file(noise(5 * CHUNK, 60))
        offset.by = pruners
        pruner.prune(PruneOrder())
        offset.by = writers
        writer.check()
        assert file["size"] == 5 * CHUNK
    site.back_up(opened)
    site.lab.guests["web"].disks["vda"].write(0, noise(CHUNK, 61))
    point = site.back_up(opened)  # what it is built on is the last one by its number, not by its time
    assert point.disks[0].full_reason is None
    assert point.sequence == max(each.sequence for each in opened.points())
    offset.by = pruners
    pruner.prune(PruneOrder())
    assert not [key for key in objects(site.store) if key.startswith(("sessions/", "condemned/"))]
    site.assert_whole()


@pytest.mark.parametrize("by", [-DAY, DAY])
def test_a_dead_writer_whose_clock_was_a_day_off_is_ended(site, monkeypatch, by):
    true = clock.now
    monkeypatch.setattr(clock, "now", lambda: true() + by)
    dies = FaultyTransport(site.store, lambda n, op, key: Unavailable("dead") if gone or gone_at(op, key) else None)
    gone: list[bool] = []

    def gone_at(operation, key):
        gone.extend([True] * (operation == "put" and key.startswith("points/")))
        return bool(gone)

    with pytest.raises(Unavailable):
        back_up(site.fresh(dies), site.lab, "db")
    monkeypatch.setattr(clock, "now", true)
    assert list(site.store.list("sessions"))
    site.fresh().prune(PruneOrder())
    assert not list(site.store.list("sessions"))
    site.assert_whole()
