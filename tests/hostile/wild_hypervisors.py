"""Hypervisors, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

from contextlib import contextmanager

from stranger_tame import Lab, Source

from vbackup.api import Block, Extent, Kind, MachineDescription, MachineRef, Unavailable


class RaisesInConstructor(Lab):
    """its constructor raised RuntimeError: no"""

    def __init__(self, options, context):
        raise RuntimeError("no")


class RaisesInMachines(Lab):
    """machines raised RuntimeError: no"""

    def machines(self):
        raise RuntimeError("no")


class ExitsInMachines(Lab):
    """machines raised SystemExit: 0"""

    def machines(self):
        raise SystemExit(0)


class InterruptsInMachines(Lab):
    """machines raised KeyboardInterrupt"""

    def machines(self):
        raise KeyboardInterrupt


class RaisesABaseException(Lab):
    """machines raised Gone: away"""

    class Gone(BaseException):
        pass

    def machines(self):
        raise self.Gone("away")


class RaisesWhatCannotBeShown(Lab):
    """machines raised Mute (which cannot be shown)"""

    class Mute(Exception):  # noqa: N818 - any name will do
        def __str__(self):
            raise ValueError("ha")

    def machines(self):
        raise self.Mute


class RaisesAnErrorWithoutAText(Lab):
    """machines raised Unavailable"""

    def machines(self):
        raise Unavailable(None)


class RaisesAnErrorOfItsOwnMaking(Lab):
    """machines raised Odd"""

    class Odd(Unavailable):
        def __init__(self):
            self.code = 3

    def machines(self):
        raise self.Odd


class RaisesInCapture(Lab):
    """capture of web raised RuntimeError: no"""

    def capture(self, machine, request):
        raise RuntimeError("no")


class RaisesInEntering(Lab):
    """capture of web raised OSError: [Errno 5] bad\\x1b[31m"""

    @contextmanager
    def capture(self, machine, request):
        raise OSError(5, "bad\x1b[31m")
        yield


class RaisesInLeaving(Lab):
    """the end of the capture of web raised RuntimeError: late"""

    ends = 3  # the point was durable already

    @contextmanager
    def capture(self, machine, request):
        with super().capture(machine, request) as capture:
            yield capture
        raise RuntimeError("late")


class RaisesInTime(Lab):
    """capture.time raised AttributeError"""

    def spoil(self, capture):
        del capture.time


class RaisesInCheck(Lab):
    """capture.check raised ZeroDivisionError"""

    def spoil(self, capture):
        capture.check = lambda: 1 / 0


class RaisesInExtents(Lab):
    """extents of disk vda raised SystemExit: bye"""

    class Disk(Source):
        def extents(self, *, full):
            raise SystemExit("bye")


class RaisesInRead(Lab):
    """read of disk vda raised RuntimeError: no"""

    class Disk(Source):
        def read(self, ranges):
            raise RuntimeError("no")


class RaisesInReadLate(Lab):
    """read of disk vda raised RuntimeError: later"""

    class Disk(Source):
        def read(self, ranges):
            blocks = self.inner.read(ranges)
            yield next(blocks)
            raise RuntimeError("later")


class RaisesInClosingWhatItReads(Lab):
    """read of disk vda raised RuntimeError: at the end"""

    class Disk(Source):
        def read(self, ranges):
            try:
                yield from self.inner.read(ranges)
            finally:
                raise RuntimeError("at the end")


class MachinesNothing(Lab):
    """machines gave nothing (None), not several of MachineRef"""

    def machines(self):
        return None


class MachinesNames(Lab):
    """machines gave a value of type str among what must be"""

    def machines(self):
        return ["web"]


class MachinesNumbers(Lab):
    """machines gave a machine whose name, id or folder is no text: 7"""

    def machines(self):
        return [MachineRef(7, "id-web", running=True)]


class MachinesRunning(Lab):
    """machines gave 'web' with `running` or `labels` of another type"""

    def machines(self):
        return [MachineRef("web", "id-web", running="yes")]


class MachinesLabels(Lab):
    """machines gave 'web' with `running` or `labels` of another type"""

    def machines(self):
        return [MachineRef("web", "id-web", running=True, labels={"a": 1})]


class MachinesAPath(Lab):
    """it lists a machine named '../web', which is no name"""

    def machines(self):
        return [MachineRef("../web", "id-web", running=True)]


class MachinesOfSeveralLines(Lab):
    """machines gave a name of several lines: 'web\\nvbackup: error: all is lost'"""

    def machines(self):
        return [MachineRef("web\nvbackup: error: all is lost", "id-web", running=True)]


class MachinesTerminal(Lab):
    """it lists a machine named '\\x1b]0;owned\\x07', which is no name"""

    def machines(self):
        return [MachineRef("\x1b]0;owned\x07", "id-web", running=True)]


class NoContext(Lab):
    """capture of web raised AttributeError"""

    def capture(self, machine, request):
        return None


class NoCapture(Lab):
    """capture.machine raised AttributeError"""

    @contextmanager
    def capture(self, machine, request):
        yield None


class AnotherMachine(Lab):
    """captured machine 'id-other', and not 'id-web'"""

    def spoil(self, capture):
        capture.machine = capture.machine.model_copy(update={"id": "id-other"})


class NoDescription(Lab):
    """capture.machine gave a value of type dict"""

    def spoil(self, capture):
        capture.machine = {"name": "web"}


class UncheckedDescription(Lab):
    """capture.machine raised ValidationError"""

    def spoil(self, capture):
        capture.machine = MachineDescription.model_construct(name="a/b", id="id-web")


class TimeWithoutZone(Lab):
    """capture.time has no time zone"""

    def spoil(self, capture):
        capture.time = capture.time.replace(tzinfo=None)


class TimeAsText(Lab):
    """capture.time gave a value of type str, not datetime"""

    def spoil(self, capture):
        capture.time = "now"


class QuiescedAsNumber(Lab):
    """capture.quiesced gave a value of type int, not bool"""

    def spoil(self, capture):
        capture.quiesced = 1


class DisksNothing(Lab):
    """capture.disks gave nothing (None)"""

    def spoil(self, capture):
        capture.disks = None


class DisksOfOneKey(Lab):
    """capture.disks has two disks of one key: vda, vda"""

    def spoil(self, capture):
        capture.disks *= 2


class KeyThatIsAPath(Lab):
    """a disk has the key '../vda', which is none"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.key = "../vda"


class SizeTrue(Lab):
    """disk vda has a size of True, which is no number of bytes"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.size = True


class SizeNegative(Lab):
    """disk vda has a size of -1"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.size = -1


class SizeLessThanTheExtents(Lab):
    """disk vda gave extent 786432+262144, which ends beyond its 1044480 bytes"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.size -= 4096


class SizeMoreThanTheExtents(Lab):
    """disk vda gave extents that end at 1048576 of 1052672 bytes"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.size += 4096


class FullReason(Lab):
    """full_reason of disk vda is a value of type int, not a text or None"""

    class Disk(Source):
        def __init__(self, inner):
            super().__init__(inner)
            self.full_reason = 3


class FilesNames(Lab):
    """capture.files has the name '../x', which is none"""

    def spoil(self, capture):
        capture.files = {"../x": b""}


class FilesText(Lab):
    """capture.files has a value of type str for nvram"""

    def spoil(self, capture):
        capture.files = {"nvram": "text"}


class FilesAList(Lab):
    """capture.files raised ValueError"""

    def spoil(self, capture):
        capture.files = [b"x"]


class MarkerNoJSON(Lab):
    """capture.marker cannot be stored as JSON"""

    def spoil(self, capture):
        capture.marker = {"at": object()}


class MarkerNotANumber(Lab):
    """capture.marker cannot be stored as JSON"""

    def spoil(self, capture):
        capture.marker = {"at": float("nan")}


class MarkerItself(Lab):
    """capture.marker cannot be stored as JSON"""

    def spoil(self, capture):
        capture.marker = {}
        capture.marker["me"] = capture.marker


class MarkerText(Lab):
    """capture.marker is a value of type str, not a mapping"""

    def spoil(self, capture):
        capture.marker = "bitmap"


class MarkerLarge(Lab):
    """which is too much"""

    def spoil(self, capture):
        capture.marker = {"x": "y" * (2 << 20)}


class NotesAText(Lab):
    """capture.notes gave a value of type str"""

    def spoil(self, capture):
        capture.notes = "one"


class ExtentsNothing(Lab):
    """extents of disk vda raised TypeError"""

    class Disk(Source):
        def extents(self, *, full):
            return None


class ExtentsNone(Lab):
    """disk vda gave extents that end at 0 of 1048576 bytes"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([])


class ExtentsPairs(Lab):
    """disk vda gave a value of type tuple that is no extent"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([(0, 1048576)])


class ExtentsTextForAKind(Lab):
    """that is no extent of a `Kind`"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, self.size, "data")])


class ExtentsFractions(Lab):
    """disk vda gave extent 0.0+1048576.0"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0.0, 1048576.0, Kind.DATA)])


class ExtentsOverlap(Lab):
    """disk vda gave extent 4096+1044480, which does not continue at 65536"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, 65536, Kind.DATA), Extent(4096, 1044480, Kind.DATA)])


class ExtentsHole(Lab):
    """disk vda gave extent 131072+917504, which does not continue at 65536"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, 65536, Kind.DATA), Extent(131072, 917504, Kind.DATA)])


class ExtentsEmptyOne(Lab):
    """disk vda gave extent 0+0"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, 0, Kind.DATA)])


class ExtentsDescending(Lab):
    """disk vda gave extent 65536+983040, which does not continue at 0"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(65536, 983040, Kind.DATA), Extent(0, 65536, Kind.DATA)])


class ExtentsTooLong(Lab):
    """which ends beyond its 1048576 bytes"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, 2 * self.size, Kind.DATA)])


class ExtentsUnchangedInAFullRead(Lab):
    """says unchanged where all was asked for"""

    class Disk(Source):
        def extents(self, *, full):
            return iter([Extent(0, self.size, Kind.UNCHANGED)])


class BlocksNothing(Lab):
    """read of disk vda raised TypeError"""

    class Disk(Source):
        def read(self, ranges):
            return None


class BlocksNone(Lab):
    """disk vda ended before all was read that was asked for"""

    class Disk(Source):
        def read(self, ranges):
            return iter([])


class BlocksOneTooFew(Lab):
    """disk vda ended before all was read that was asked for"""

    class Disk(Source):
        def read(self, ranges):
            return iter(list(self.inner.read(ranges))[:-1])


class BlocksOneTooMany(Lab):
    """disk vda gave 0+4 where nothing more was asked for"""

    class Disk(Source):
        def read(self, ranges):
            yield from self.inner.read(ranges)
            yield Block(0, b"more")


class BlocksShort(Lab):
    """disk vda gave 0+786431 where 0+786432 was next"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset, bytes(length - 1))


class BlocksLong(Lab):
    """disk vda gave 0+786433 where 0+786432 was next"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset, bytes(length + 1))


class BlocksElsewhere(Lab):
    """disk vda gave 512+786432 where 0+786432 was next"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset + 512, bytes(length))


class BlocksText(Lab):
    """with a value of type str for data, not a block of bytes"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset, "x" * length)


class BlocksOfNothing(Lab):
    """with nothing (None) for data, not a block of bytes"""

    class Disk(Source):
        def read(self, ranges):
            for offset, _ in ranges:
                yield Block(offset, None)


class BlocksAList(Lab):
    """with a value of type list for data, not a block of bytes"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset, [0] * length)


class BlocksPairs(Lab):
    """disk vda gave a value of type tuple, not a block of bytes"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield (offset, bytes(length))


class BlocksNumbers(Lab):
    """disk vda gave memory that is not of single bytes"""

    class Disk(Source):
        def read(self, ranges):
            for offset, length in ranges:
                yield Block(offset, memoryview(bytes(length * 4)).cast("I"))


class BlocksNotAskedForToTheEnd(Lab):
    """disk vda ended before all was read that was asked for"""

    class Disk(Source):
        def read(self, ranges):
            list(ranges)
            return iter([])


class LeavesADiskOutWithoutAWord(Lab):
    """disk vdb is not captured, and the hypervisor plugin does not say why"""

    ends = 3

    def spoil(self, capture):
        other = capture.machine.disks[0].model_copy(update={"key": "vdb"})
        capture.machine = capture.machine.model_copy(update={"disks": (*capture.machine.disks, other)})


class LeavesADiskOutAndNamesALongerOne(Lab):
    """disk vd is not captured, and the hypervisor plugin does not say why"""

    ends = 3

    def spoil(self, capture):
        first = capture.machine.disks[0]
        others = [first.model_copy(update={"key": key}) for key in ("vd", "vdb")]
        capture.machine = capture.machine.model_copy(update={"disks": (first, *others)})
        capture.notes = ["disk vdb is left out: it is read-only"]


class CapturesUnderAnotherName(Lab):
    """lists it as web, and captured it as other"""

    ends = 3

    def spoil(self, capture):
        capture.machine = capture.machine.model_copy(update={"name": "other"})


class HasTwoMachinesOfOneId(Lab):
    """hypervisor lab (type wild): it lists machines with the same id 'id-web': other, web; their restore points"""

    def machines(self):
        (web,) = super().machines()
        return [web, MachineRef("other", web.id, running=False)]
