"""A hypervisor, as one was written for API version 1: each file ``NAME.raw`` in a directory is a machine."""

from contextlib import contextmanager
from pathlib import Path

from vbackup.api import (
    AlreadyExists,
    Block,
    DiskDescription,
    Extent,
    Finding,
    Kind,
    Level,
    MachineDescription,
    MachineRef,
    NotFound,
    Options,
    Unsupported,
    clock,
    hookimpl,
)

VBACKUP_API_VERSION = 1


class OldOptions(Options):
    path: Path


class OldHypervisor:
    name = "old-hypervisor"
    options = OldOptions
    writes_files = False

    def __init__(self, options, context):
        self._path = options.path
        self._alias = context.alias

    def machines(self):
        return [MachineRef(path.stem, f"old-{path.stem}", running=False) for path in sorted(self._path.glob("*.raw"))]

    @contextmanager
    def capture(self, machine, request):
        path = self._path / f"{machine}.raw"
        if not path.exists():
            raise NotFound(f"there is no machine {machine} on {self._alias}")
        if request.moment is not None:
            request.moment()
        with path.open("rb") as file:
            yield OldCapture(machine, file, path.stat().st_size)

    def commit(self, machine, owner, marker):
        pass

    def sweep(self, owner):
        return []

    @contextmanager
    def restore(self, machine, disks, files, request):
        path = self._path / f"{request.name or machine.name}.raw"
        if path.exists() and not request.overwrite:
            raise AlreadyExists(f"machine {path.stem} is there already")
        yield OldRestoration(disks, path)

    def answers(self, machine):
        raise Unsupported(f"machine {machine} has no agent")

    def check(self):
        return [Finding(str(self._path), Level.OK, "a directory")]

    def close(self):
        pass


class OldCapture:
    memory = None
    marker = None
    files = {}
    quiesced = False
    notes = ()

    def __init__(self, name, file, size):
        disk = DiskDescription(key="disk0", size=size, format="raw")
        self.machine = MachineDescription(name=name, id=f"old-{name}", disks=(disk,))
        self.time = clock.now()
        self.disks = [OldDisk(file, size)]

    def check(self):
        pass


class OldDisk:
    key = "disk0"
    full_reason = "changes are not tracked"

    def __init__(self, file, size):
        self._file = file
        self.size = size

    def extents(self, *, full):
        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read(self, ranges):
        for offset, length in ranges:
            self._file.seek(offset)
            yield Block(offset, self._file.read(length))


class OldRestoration:
    notes = ()

    def __init__(self, disks, path):
        self._path = path
        self._fresh = path.with_suffix(".new")
        self.disks = {disk.key: OldSink(self._fresh, disk.size) for disk in disks}

    def finish(self):
        self._fresh.replace(self._path)
        return f"machine {self._path.stem}"


class OldSink:
    def __init__(self, path, size):
        self._path = path
        self._size = size

    def write(self, runs):
        with self._path.open("wb") as file:
            file.truncate(self._size)
            for offset, _, data in runs:
                if data is not None:
                    file.seek(offset)
                    file.write(data)


@hookimpl
def vbackup_register_hypervisors(register):
    register(OldHypervisor)
