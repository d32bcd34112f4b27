"""A machine as a restore point has it, and putting it back as the engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from vbackup.api import (
    CaptureRequest,
    Hypervisor,
    MachineDescription,
    Quiesce,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Run,
    SinkDisk,
)
from vbackup.testing.equal import assert_equal
from vbackup.testing.hypervisor_contract.backups import copy_disk
from vbackup.testing.hypervisor_contract.base import BLOCK, GuestUnderTest, pattern

_OWNER = "5a" * 16
"""Of a repository of its own: without a marker of theirs those of the others would be of no use."""

Find = Callable[[str], GuestUnderTest]
"""Returns a machine that was restored, by its name."""


@dataclass(frozen=True)
class Saved:
    """A point: the machine's description, its disks' bytes by key, and its files."""

    machine: MachineDescription
    disks: Mapping[str, bytes]
    files: Mapping[str, bytes]
    memory: bytes | None = None

    @property
    def wanted(self) -> Sequence[RestoreDisk]:
        """The disks as a restore is asked for them."""
        formats = {disk.key: disk.format for disk in self.machine.disks}
        disks = [RestoreDisk(key, len(data), formats[key]) for key, data in self.disks.items()]
        if self.memory is not None:
            disks.append(RestoreDisk("memory", len(self.memory), "raw", is_memory=True))
        return disks

    def open(self, hypervisor: Hypervisor, request: RestoreRequest) -> AbstractContextManager[Restoration]:
        """Return the context in which it is written."""
        return hypervisor.restore(self.machine, self.wanted, self.files, request)

    def restore(self, hypervisor: Hypervisor, request: RestoreRequest) -> str:
        """Put it back, each disk by a thread of its own; return what `Restoration.finish` says."""
        with self.open(hypervisor, request) as restoration:
            self.write(restoration.disks)
            return restoration.finish()

    def write(self, sinks: Mapping[str, SinkDisk]) -> None:
        """Write all that there are sinks for."""
        contents = dict(self.disks) if self.memory is None else {**self.disks, "memory": self.memory}
        with ThreadPoolExecutor() as pool:
            for written in [pool.submit(sink.write, runs(contents[key])) for key, sink in sinks.items()]:
                written.result()


def save(hypervisor: Hypervisor, guest: GuestUnderTest, *, memory: bool = False) -> Saved:
    """Back a machine up in full."""
    request = CaptureRequest(_OWNER, quiesce=Quiesce.NO, memory=memory)
    with hypervisor.capture(guest.name, request) as capture:
        disks = {disk.key: copy_disk(disk)[0] for disk in capture.disks}
        of_memory = copy_disk(capture.memory)[0] if capture.memory is not None else None
        files = {name: bytes(data) for name, data in capture.files.items()}
        capture.check()
    return Saved(capture.machine, disks, files, of_memory)


def changed(saved: Saved) -> Saved:
    """Return the same machine with other disks."""
    disks: Mapping[str, bytes] = {key: pattern(7) + data[BLOCK:] for key, data in saved.disks.items()}
    return Saved(saved.machine, disks, saved.files)


def runs(content: bytes) -> Iterator[Run]:
    """Cut a disk as the engine does: data in buffers of all kinds, zeros as such and as one."""
    kinds: tuple[type, ...] = (bytes, bytearray, memoryview)
    zeros = 0
    for number, offset in enumerate(range(0, len(content), BLOCK)):
        piece = content[offset : offset + BLOCK]
        if not any(piece):
            zeros += len(piece)
            continue
        if zeros:
            yield Run(offset - zeros, zeros, None)
            zeros = 0
        yield Run(offset, len(piece), kinds[number % 3](piece))
    if zeros:
        yield Run(len(content) - zeros, zeros, None)


def assert_like(guest: GuestUnderTest, saved: Saved) -> None:
    """Fail unless a machine has the disks of a point, in their order: the keys of a new machine may be others."""
    assert len(guest.disks) == len(saved.disks), "as many disks"
    for key, expected in zip(guest.disks, saved.disks.values(), strict=True):
        assert_equal(f"{guest.name}, {key}", guest.read(key), expected)


def files_in(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}
