"""Targets that are right but for one thing in how they keep their points, or look after them."""

from __future__ import annotations

import json

from tests.kit.naive import Naive, NaiveWriter
from vbackup.api import CheckReport, NotFound


class EmptyWhereThereIsNone(Naive):
    id = "ab" * 16


class MadeAnew(Naive):
    def init(self):
        self.store.put("target", b"ab" * 16)


class NewestFirst(Naive):
    def points(self):
        return super().points()[::-1]


class KeepsLess(Naive):
    class writer_type(NaiveWriter):  # noqa: N801
        def commit(self, point, description):
            super().commit(point.model_copy(update={"marker": None}), description)


class DescribesAnew(Naive):
    def description(self, point):
        return super().description(point).model_copy(update={"native": None})


class ByMachine(Naive):
    """Machines whose names differ in case are one."""

    def points(self):
        return list({(p.machine.strip("_").lower(), p.sequence): p for p in super().points()}.values())


class DeletesWithData(Naive):
    """Deletes what is built on a point with it."""

    def delete(self, points):
        super().delete([p for p in self.points() for one in points if p.machine == one.machine and p.time >= one.time])


class StaysListed(Naive):
    """Remembers what it has listed once."""

    seen = None

    def points(self):
        self.seen = self.seen or super().points()
        return self.seen


class DeletesOnce(Naive):
    def forget(self, ids):
        for identity in ids:
            self.store.size(f"points/{identity}")
        super().forget(ids)


class FindsTheDeletedDamaged(Naive):
    def verify(self, points, progress):
        damage = [each for point in points for each in self.damage_of(point)]
        progress(sum(disk.size for point in points for disk in point.disks))
        return damage

    def forget(self, ids):
        for identity in ids:
            try:
                document = json.loads(self.store.get(f"points/{identity}"))
            except NotFound:
                continue
            for disk in document["point"]["disks"]:
                self.store.delete(disk["content"]["key"])
        super().forget(ids)


class ProtectsOnce(Naive):
    def protect(self, point, reason):
        if point.id not in self.protected():
            super().protect(point, reason)


class ProtectsForItself(Naive):
    """In memory only."""

    def __init__(self, options, context):
        super().__init__(options, context)
        self.store_of_mine = {}

    def protected(self):
        return self.store_of_mine

    def protect(self, point, reason):
        self.store_of_mine[point.id] = reason

    def unprotect(self, point):
        self.store_of_mine.pop(point.id, None)


class PrunesRuns(Naive):
    """What no point needs is garbage, also what a run has just written."""

    def prune(self, order):
        if not order.dry_run:
            points = self.points()
            needed = {disk.content["key"] for point in points for disk in point.disks}
            needed |= {content["key"] for point in points for content in point.files.values()}
            for info in list(self.store.list("data")):
                if info.key not in needed:
                    self.store.delete(info.key)
        return Naive.prune(self, order)


class PrunesDry(Naive):
    """Says what it would do, and does it."""

    def prune(self, order):
        self.forget(sorted(order.without))
        return super().prune(order)


class CountsPoints(Naive):
    def verify(self, points, progress):
        return super().verify(points, lambda size: progress(1))


class ReadsInVain(Naive):
    def check(self, order, progress):
        report = super().check(order, lambda size: None)
        return CheckReport(damage=report.damage, objects=report.objects, read=report.read)


class AlwaysWrong(Naive):
    def check(self, order, progress):
        return CheckReport(wrong=("object target is older than this host",), objects=1)


class ClosesOnce(Naive):
    def close(self):
        del self.store
