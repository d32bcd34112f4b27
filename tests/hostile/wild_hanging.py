"""Plugins of all roles, each of which hangs in one call, which is in its docstring. See `Place.let_loose`."""

from contextlib import contextmanager

from stranger_tame import GO, Disk, Lab, Shelf, Source, Threads, Zlib


class Machines(Lab):
    """machines"""

    role = "hypervisors"

    def machines(self):
        GO.wait()
        return super().machines()


class Capture(Lab):
    """capture of web"""

    role = "hypervisors"

    @contextmanager
    def capture(self, machine, request):
        GO.wait()
        with super().capture(machine, request) as capture:
            yield capture


class Read(Lab):
    """read of disk vda"""

    role = "hypervisors"

    class Disk(Source):
        def read(self, ranges):
            GO.wait()
            return self.inner.read(ranges)


class ReadLate(Lab):
    """read of disk vda"""

    role = "hypervisors"

    class Disk(Source):
        def read(self, ranges):
            for block in self.inner.read(ranges):
                GO.wait()
                yield block


class Put(Disk):
    """put"""

    role = "transports"

    def put(self, key, data, *, if_absent=False):
        GO.wait()
        super().put(key, data, if_absent=if_absent)


class Get(Disk):
    """get repository"""

    role = "transports"

    def get(self, key, offset=0, length=None):
        GO.wait()
        return super().get(key, offset, length)


class Commit(Shelf):
    """commit web"""

    role = "targets"

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            commit = writer.commit

            def late(*of):
                GO.wait()
                commit(*of)

            writer.commit = late
            yield writer


class ExtentsLate(Lab):
    """extents of disk vda has not returned for"""

    role = "hypervisors"

    class Disk(Source):
        def extents(self, *, full):
            for extent in self.inner.extents(full=full):
                GO.wait()
                yield extent


class SinkWrite(Lab):
    """write of disk vda has not returned for"""

    role = "hypervisors"

    @contextmanager
    def restore(self, machine, disks, files, request):
        with super().restore(machine, disks, files, request) as restoration:
            sink = restoration.disks["vda"]
            write = sink.write

            def late(runs):
                yield next(runs)
                for run in runs:
                    GO.wait()
                    yield run

            sink.write = lambda runs: write(late(runs))
            yield restoration


class BlockWrite(Shelf):
    """write of a disk has not returned for"""

    role = "targets"

    @contextmanager
    def writer(self):
        with super().writer() as writer:
            disk = writer.disk

            def slow(size, base):
                made = disk(size, base)
                write = made.write

                def late(*of):
                    GO.wait()
                    write(*of)

                made.write = late
                return made

            writer.disk = slow
            yield writer


class Verify(Shelf):
    """verify has not reported any progress for"""

    role = "targets"

    def verify(self, points, progress):
        progress(0)
        GO.wait()
        return super().verify(points, progress)


class Check(Shelf):
    """check has not reported any progress for"""

    role = "targets"

    def check(self, order, progress):
        GO.wait()
        return super().check(order, progress)


class Prune(Shelf):
    """prune has not returned for"""

    role = "targets"

    def prune(self, order):
        GO.wait()
        return super().prune(order)


class Begins(Threads):
    """run has not begun or ended a task for"""

    role = "executors"

    def run(self, tasks, work, parallel):
        GO.wait()
        return super().run(tasks, work, parallel)


class Ends(Threads):
    """run has not begun or ended a task for"""

    role = "executors"

    def run(self, tasks, work, parallel):
        yield from super().run(tasks, work, parallel)
        GO.wait()


class Encode(Zlib):
    """encode has not returned for"""

    role = "codecs"

    def encode(self, data, context):
        GO.wait()
        return super().encode(data, context)
