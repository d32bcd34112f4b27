"""Repositories that are right but for one thing in how they exchange points."""

from __future__ import annotations

from contextlib import suppress

from vbackup.api import AlreadyExists
from vbackup.api.exchange import TakenOver
from vbackup.repository.target import Repository


class ExchangesWithAll(Repository):
    def exchanges_with(self, source):
        return True


class ExchangesNothing(Repository):
    def exchanges_with(self, source):
        return False


class KeysOfItsOwn(Repository):
    def init_with_keys_of(self, other):
        self.init()


class MadeAnewWithKeys(Repository):
    def init_with_keys_of(self, other):
        with suppress(AlreadyExists):
            super().init_with_keys_of(other)


class ReadsAll(Repository):
    def take_over(self, writer, source, point, base, report):
        taken = super().take_over(writer, source, point, base, report)
        return taken._replace(read=sum(disk.size for disk in point.disks))


class MakesItAnother(Repository):
    def take_over(self, writer, source, point, base, report):
        taken = super().take_over(writer, source, point, base, report)
        return taken._replace(point=taken.point.model_copy(update={"sequence": 1, "job": "copy"}))


class SaysNothing(Repository):
    def take_over(self, writer, source, point, base, report):
        return super().take_over(writer, source, point, base, lambda progress: None)


class IsNotStopped(Repository):
    def take_over(self, writer, source, point, base, report):
        def careless(progress):
            with suppress(Exception):
                report(progress)

        return super().take_over(writer, source, point, base, careless)


class TakesNothing(Repository):
    """Says that it has a point, and leaves it to the source."""

    def take_over(self, writer, source, point, base, report):
        return TakenOver(point, 0)
