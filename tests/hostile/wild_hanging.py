"""Plugins of all roles, each of which hangs in one call, which is in its docstring. See `Place.let_loose`."""

from contextlib import contextmanager

from stranger_tame import GO, Disk, Lab, Shelf, Source


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
