"""Targets, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

from contextlib import contextmanager

from stranger_tame import Shelf

from vbackup.api import Block, Extent, Kind


class Constructor(Shelf):
    """its constructor raised RuntimeError: no"""

    def __init__(self, options, context):
        raise RuntimeError("no")


class Id(Shelf):
    """id raised SystemExit: 0"""

    @property
    def id(self):
        raise SystemExit(0)


class IdThatIsNone(Shelf):
    """its id is '../../etc', not 32 hex digits"""

    @property
    def id(self):
        return "../../etc"


class PointsRaises(Shelf):
    """points raised RuntimeError: no"""

    def points(self):
        raise RuntimeError("no")


class PointsNothing(Shelf):
    """points gave nothing (None), not several of Point"""

    def points(self):
        return None


class PointsDocuments(Shelf):
    """points gave a value of type dict among what must be of type Point"""

    def points(self):
        return [{"id": "a"}]


class WriterRaises(Shelf):
    """writer raised RuntimeError: no"""

    def writer(self):
        raise RuntimeError("no")


class WriterNothing(Shelf):
    """writer raised AttributeError"""

    def writer(self):
        return None


class WriterNoBlocks(Shelf):
    """block_size is 0, which no disk can be given in"""

    @contextmanager
    def writer(self):
        with super().writer():

            class Odd:
                block_size = 0

            yield Odd()


class CommitRaises(Shelf):
    """commit web raised ZeroDivisionError"""

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            writer.commit = lambda *of: 1 / 0
            yield writer


class FinishNothing(Shelf):
    """finish of a disk gave nothing (None), not the content and counts"""

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            disk = writer.disk

            def odd(size, base):
                made = disk(size, base)
                made.finish = lambda: None
                return made

            writer.disk = odd
            yield writer


class WriteRaises(Shelf):
    """raised KeyError: 'gone'"""

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            disk = writer.disk

            def odd(size, base):
                made = disk(size, base)

                def write(*of):
                    raise KeyError("gone")

                made.write = write
                return made

            writer.disk = odd
            yield writer


class CommitsNothing(Shelf):
    """target main (plugin 'wild') does not have the restore point that it took"""

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            writer.commit = lambda *of: None
            yield writer


class ReadsDescriptionNothing(Shelf):
    """description gave nothing (None), not MachineDescription"""

    def description(self, point):
        return None


class ReadsExtentsRaises(Shelf):
    """extents of disk vda raised RuntimeError: no"""

    def extents(self, point, disk, since=None):
        raise RuntimeError("no")


class ReadsExtentsAHole(Shelf):
    """disk vda gave extent 4096+1044480, which does not continue at 0"""

    def extents(self, point, disk, since=None):
        return iter([Extent(4096, 1044480, Kind.ZERO)])


class ReadsExtentsTooFew(Shelf):
    """disk vda gave extents that end at 4096 of 1048576 bytes"""

    def extents(self, point, disk, since=None):
        return iter([Extent(0, 4096, Kind.ZERO)])


class ReadsReadRaisesLate(Shelf):
    """read of disk vda raised RuntimeError: late"""

    def read(self, point, disk, ranges):
        blocks = super().read(point, disk, ranges)
        yield next(blocks)
        raise RuntimeError("late")


class ReadsReadNothing(Shelf):
    """disk vda ended before all was read that was asked for"""

    def read(self, point, disk, ranges):
        return iter([])


class ReadsReadShort(Shelf):
    """disk vda gave 0+32768 where 0+65536 was next"""

    def read(self, point, disk, ranges):
        for offset, length in ranges:
            yield Block(offset, bytes(length // 2))


class ReadsFileText(Shelf):
    """file gave a value of type str, not bytes"""

    def file(self, point, name):
        return "settings"
