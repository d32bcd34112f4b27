"""Targets, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

from contextlib import contextmanager

from stranger_tame import Shelf

from vbackup.api import Block, DiskCounts, Extent, Kind, MachineDescription, Point, Unavailable


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


class Odd(Shelf):
    """The base of those whose disk writers are changed by `spoil`."""

    role = "none"

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            disk = writer.disk

            def odd(size, base):
                made = disk(size, base)
                self.spoil(made)
                return made

            writer.disk = odd
            yield writer


class CountsBelowNothing(Odd):
    """finish of a disk gave a DiskCounts whose stored is -1, not a number from 0 on"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({}, DiskCounts(0, -1, 0, 0))


class CountsNone(Odd):
    """finish of a disk gave a DiskCounts whose changed is nothing (None), not a number from 0 on"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({}, DiskCounts(None, 0, 0, 0))


class CountsTexts(Odd):
    """progress of a disk gave a DiskCounts whose duplicate is a value of type str, not a number from 0 on"""

    role = "targets"

    def spoil(self, disk):
        disk.progress = lambda: DiskCounts(0, 0, 0, "0")


class SamplesOfTexts(Odd):
    """finish of a disk gave a DiskCounts whose samples[1] is a value of type str, not a number from 0 on"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({}, DiskCounts(0, 0, 0, 0, (0, "4096")))


class SamplesTooMany(Odd):
    """finish of a disk gave 65 samples, and 64 is most"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({}, DiskCounts(0, 0, 0, 0, tuple(range(65))))


class ContentNoJson(Odd):
    """what finish of a disk gave cannot be stored as JSON: Object of type bytes is not JSON serializable"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({"map": b"id"}, DiskCounts(0, 0, 0, 0))


class ContentTooDeep(Odd):
    """what finish of a disk gave cannot be stored as JSON: recursion limit exceeded"""

    role = "targets"

    def spoil(self, disk):
        deep = []
        for _ in range(250):
            deep = [deep]
        disk.finish = lambda: ({"map": deep}, DiskCounts(0, 0, 0, 0))


class ContentHalfACharacter(Odd):
    """what finish of a disk gave cannot be stored as JSON: Error serializing to JSON: UnicodeEncodeError"""

    role = "targets"

    def spoil(self, disk):
        disk.finish = lambda: ({"map": "\ud800"}, DiskCounts(0, 0, 0, 0))


class WaitsForWords(Odd):
    """write of a disk raised Unavailable: gone, whose retry_after is '30', no number of seconds"""

    role = "targets"

    def spoil(self, disk):
        def write(*of):
            raise Unavailable("gone", retry_after="30")

        disk.write = write


class PointsUnchecked(Shelf):
    """points gave a Point that is none: ValidationError: time: Input should be a valid datetime"""

    def points(self):
        return [Point.model_construct(**{**vars(point), "time": "soon"}) for point in super().points()]


class PointsWithoutDisks(Shelf):
    """points gave a Point that is none: ValidationError: disks: Input should be a valid tuple"""

    def points(self):
        return [Point.model_construct(**(vars(point) | {"disks": None})) for point in super().points()]


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


class ReadsDescriptionUnchecked(Shelf):
    """description gave a MachineDescription that is none: ValidationError: name: Input should be a valid string; id"""

    def description(self, point):
        return MachineDescription.model_construct(name=None)


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
