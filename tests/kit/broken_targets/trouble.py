"""Targets that are right until something goes wrong."""

from __future__ import annotations

from dataclasses import replace

from tests.kit.naive import Naive, NaiveDisk, NaiveWriter
from vbackup.api import CheckReport, Corrupt, Unavailable


class ReadsWrong(Naive):
    """Compares nothing."""

    def load(self, content, what="an earlier disk"):
        return self.store.get(content["key"])


class ReadsWrongOnce(Naive):
    """Compares only what it verifies."""

    def disk(self, point, key):
        (disk,) = (disk for disk in point.disks if disk.key == key)
        return self.store.get(disk.content["key"])


class NamesNobody(Naive):
    def load(self, content, what="an earlier disk"):
        return super().load(content, "some disk")


class AllDamaged(Naive):
    """Where there is damage, all is damaged."""

    def verify(self, points, progress):
        found = super().verify(points, progress)
        return [replace(each, point=point.id) for each in found for point in points]


class BuildsOnDamage(Naive):
    class writer_type(NaiveWriter):  # noqa: N801
        def base_problem(self, base):
            return None

    class disk_type(NaiveDisk):  # noqa: N801
        def __init__(self, target, size, base):
            super().__init__(target, size, None)
            self.base = target.store.get(base.content["key"]) if base else None
            self.content = base.content if base else None

        def finish(self):
            """The base with a patch: whole as long as the base is."""
            content, counts = super().finish()
            if self.content:
                self.target.load(content)
                content |= {"digest": "0" * 64 if self.is_damaged() else content["digest"]}
            return content, counts

        def is_damaged(self):
            try:
                self.target.load(self.content)
            except Corrupt:
                return True
            return False


class ChecksNothing(Naive):
    def check(self, order, progress):
        return CheckReport(objects=1)


class HidesDamage(Naive):
    def damaged_points(self):
        return []


class StopsAtDamage(Naive):
    """One point that cannot be read, and none can be listed."""

    def points(self):
        for _, what in self.documents():
            if isinstance(what, Corrupt):
                raise what
        return super().points()


class KeepsTheDamaged(Naive):
    def forget(self, ids):
        super().forget([point.id for point in self.points() if point.id in ids])


class InitInTwo(Naive):
    """The target is there before its id is."""

    def init(self):
        self.store.put("target", b"", if_absent=True)
        self.store.put("target", b"ab" * 16)


class PointFirst(Naive):
    """A point is there before its files are."""

    late = ()

    class writer_type(NaiveWriter):  # noqa: N801
        def file(self, data):
            content = super().file(data)
            self.target.late = [(content["key"], data)]
            self.target.store.delete(content["key"])
            return content

        def commit(self, point, description):
            super().commit(point, description)
            for key, data in self.target.late:
                self.target.store.put(key, data)


class DeletesInTwo(Naive):
    """Data goes first."""

    def delete(self, points):
        for point in points:
            for disk in point.disks:
                self.store.delete(disk.content["key"])
        super().delete(points)


class PrunesInPlace(Naive):
    """Moves what it keeps, there and back."""

    def prune(self, order):
        for info in list(self.store.list("data")):
            data = self.store.get(info.key)
            self.store.delete(info.key)
            self.store.put(info.key, data)
        return super().prune(order)


class EmptyWhenAway(Naive):
    """What cannot be listed is not there."""

    def documents(self):
        try:
            yield from super().documents()
        except Unavailable:
            return


class DamagedWhenAway(Naive):
    """What cannot be read is damaged."""

    def load(self, content, what="an earlier disk"):
        try:
            return super().load(content, what)
        except Unavailable as error:
            raise Corrupt(f"{what} cannot be read") from error


class LosesWhenAway(Naive):
    """A disk that cannot be stored is left out."""

    def save(self, data):
        try:
            return super().save(data)
        except Unavailable:
            return {"key": "data/none", "digest": ""}
