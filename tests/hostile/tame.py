"""A stranger's plugin with which all is well, one class for each role: those that misbehave differ in one thing."""

import threading
import zlib
from contextlib import contextmanager

from vbackup.api import *  # noqa: F403
from vbackup.api import Corrupt, Options, hookimpl
from vbackup.engine.parallel import Gate  # noqa: F401
from vbackup.jobs.inprocess import InProcess
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup_local.transport import Local

GUESTS = {}
GO = threading.Event()
"""What those wait for that hang."""


class Source:
    def __init__(self, inner):
        self.inner = inner
        self.key = inner.key
        self.size = inner.size
        self.full_reason = inner.full_reason

    def extents(self, *, full):
        return self.inner.extents(full=full)

    def read(self, ranges):
        return self.inner.read(ranges)


class Lab(FakeHypervisor):
    name = "tame"
    Disk = Source

    def __init__(self, options, context):
        super().__init__()
        self.guests = GUESTS

    @contextmanager
    def capture(self, machine, request):
        with super().capture(machine, request) as capture:
            capture.disks = [self.Disk(disk) for disk in capture.disks]
            self.spoil(capture)
            yield capture

    def spoil(self, capture):
        """Change what was captured."""


class Disk(Local):
    name = "tame"


class Zlib:
    name = "tame"
    options = Options
    encrypts = False

    def __init__(self, options):
        pass

    def encode(self, data, context):
        return zlib.compress(data)

    def decode(self, data, context, max_size):
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise Corrupt("not what zlib made") from error


class Shelf(Repository):
    name = "tame"


class Threads(InProcess):
    name = "tame"


@hookimpl
def vbackup_register_hypervisors(register):
    register(Lab)


@hookimpl
def vbackup_register_transports(register):
    register(Disk)
