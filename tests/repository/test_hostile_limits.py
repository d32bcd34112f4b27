"""Little is enough: a credential that only adds can write and read, and thousands of points take little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tests.repository.history import CHUNK
from tests.repository.hostile_site import site
from tests.support import noise, restored
from vbackup.api import AccessDenied, ObjectInfo, PruneOrder
from vbackup.repository.points import write_body, write_point
from vbackup.testing.liars import AppendOnly
from vbackup.testing.transports import FaultyTransport

__all__ = ["site"]  # a fixture


def test_a_credential_that_only_adds_can_write_and_read_and_not_prune(site):
    only_adds = AppendOnly(site.store)
    opened = site.fresh(only_adds)
    site.back_up(opened)
    site.lab.guests["web"].disks["vda"].write(0, noise(CHUNK, 70))
    assert site.back_up(opened).disks[0].full_reason is None
    points = opened.points()
    assert opened.verify(points, lambda size: None) == []
    assert {point.id: restored(opened, point) for point in points} == site.truth
    with pytest.raises(AccessDenied):
        opened.delete(points[:1])
    for order in (PruneOrder(), PruneOrder(end_silent=True)):
        with pytest.raises(AccessDenied):
            opened.prune(order)
    assert list(site.store.list("sessions"))  # it could not remove its signs of life
    site.assert_whole()
    began = time.monotonic()
    report = site.fresh().prune(PruneOrder())
    assert time.monotonic() - began < 10
    assert report.waiting == 0
    assert report.freed > 0
    assert not list(site.store.list("sessions"))  # nobody waited for them: they say that they have ended
    site.assert_whole()


def test_memory_for_a_listing_grows_with_the_points_only(site):
    """Thousands of points that a store makes up as it is asked; all under one seal, each with its own id."""
    count = 8_000
    opened = site.fresh()
    model = opened.points()[0]
    session = opened._open().session(opened._context.codecs)
    body = write_body(session._chain, model, opened.description(model))
    keys, chain = opened._open().keys, session._chain
    session.close(keep=True)

    class Store(FaultyTransport):
        def list(self, prefix=""):
            if prefix == "points":
                return (ObjectInfo(f"points/{number:032x}", 3000) for number in range(count))
            return self.inner.list(prefix)

        def get(self, key, offset=0, length=None):
            if not key.startswith("points/"):
                return self.inner.get(key, offset, length)
            point = model.model_copy(update={"id": key[-32:]})
            return write_point(keys, chain, point, body)[offset:][:length]

    many = site.fresh(Store(site.store))
    many._open()
    tracemalloc.start()
    try:
        points = many.points()
        used, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(points) == count
    assert used < count * 10_000
    assert most < count * 20_000
