"""Hypervisors that do one thing wrong when a machine is put back; its docstring is what the user is told."""

from contextlib import contextmanager

from stranger_tame import Lab


class Spoilt(Lab):
    """The base of the others: its restorations are changed by `spoil_restoration`."""

    role = "none"

    @contextmanager
    def restore(self, machine, disks, files, request):
        with super().restore(machine, disks, files, request) as restoration:
            self.spoil_restoration(restoration)
            yield restoration


class Sink:
    """Has one way to write."""

    def __init__(self, write):
        self.write = write


class Raises(Lab):
    """restore of again raised RuntimeError: no"""

    role = "hypervisors"

    def restore(self, machine, disks, files, request):
        raise RuntimeError("no")


class GivesNothing(Lab):
    """restore of again raised AttributeError"""

    role = "hypervisors"

    def restore(self, machine, disks, files, request):
        return None


class DisksOfNothing(Spoilt):
    """restoration.disks raised AttributeError"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.disks = None


class DisksLeftOut(Spoilt):
    """takes no disk vda of web"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.disks = {}


class TakesNothing(Spoilt):
    """write of disk vda returned before it had taken all of it"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.disks = {"vda": Sink(lambda runs: None)}


class TakesOne(Spoilt):
    """write of disk vda returned before it had taken all of it"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.disks = {"vda": Sink(next)}


class RaisesInWrite(Spoilt):
    """write of disk vda raised SystemExit: 0"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        def write(runs):
            next(runs)
            raise SystemExit(0)

        restoration.disks = {"vda": Sink(write)}


class WritesToWhatItIsGiven(Spoilt):
    """write of disk vda raised TypeError"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        def write(runs):
            for run in runs:
                if run.data is not None:
                    memoryview(run.data)[:1] = b"x"

        restoration.disks = {"vda": Sink(write)}


class RaisesInFinish(Spoilt):
    """finish raised RuntimeError: no"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        def finish():
            raise RuntimeError("no")

        restoration.finish = finish


class FinishesWithNothing(Spoilt):
    """finish gave nothing (None), not str"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.finish = lambda: None


class NotesOfOneText(Spoilt):
    """restoration.notes gave a value of type str, not several of str"""

    role = "hypervisors"

    def spoil_restoration(self, restoration):
        restoration.notes = "all is well"


class RaisesAtTheEnd(Lab):
    """the end of the restore of again raised RuntimeError: late"""

    role = "hypervisors"

    @contextmanager
    def restore(self, machine, disks, files, request):
        with super().restore(machine, disks, files, request) as restoration:
            yield restoration
        raise RuntimeError("late")


class SwallowsWhatGoesWrong(Lab):
    """write of disk vda raised RuntimeError: the disk is gone"""

    role = "hypervisors"

    @contextmanager
    def restore(self, machine, disks, files, request):
        def write(runs):
            raise RuntimeError("the disk is gone")

        try:
            with super().restore(machine, disks, files, request) as restoration:
                restoration.disks = {"vda": Sink(write)}
                yield restoration
        except Exception:  # noqa: BLE001 - the fault
            pass
