"""A libvirt plugin on the lab's libvirtd, and a small copy loop in the engine's place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vbackup.api import (
    Capture,
    CaptureRequest,
    HypervisorContext,
    Kind,
    MachineDescription,
    Marker,
    Quiesce,
    Range,
    RestoreDisk,
    RestoreRequest,
    Run,
    cover,
    split,
)
from vbackup.testing.lab.libvirtd import Libvirtd
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions

OWNER = "0123456789abcdef" * 2
OTHER_OWNER = "fedcba9876543210" * 2
MIB = 1 << 20

Hypervisors = Callable[..., Libvirt]


@dataclass
class Copy:
    """What a restore point would hold."""

    description: MachineDescription
    disks: dict[str, bytearray]
    marker: Marker | None
    files: dict[str, bytes]
    notes: list[str]
    quiesced: bool
    full_reasons: dict[str, str | None] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    """Bytes of data, zero and unchanged by disk."""


def copy_all(capture: Capture, base: Copy | None = None) -> Copy:
    """Copy a capture as the engine does: what is unchanged comes from ``base``."""
    copy = Copy(capture.machine, {}, capture.marker, dict(capture.files), list(capture.notes), capture.quiesced)
    for disk in (*capture.disks, *([capture.memory] if capture.memory is not None else [])):
        copy.full_reasons[disk.key] = disk.full_reason
        whole = disk.full_reason is not None or base is None
        data = bytearray(disk.size) if whole else bytearray(base.disks[disk.key])
        wanted = []
        copy.read[disk.key] = 0
        for extent in cover(disk.extents(full=whole), disk.size):
            if extent.kind is Kind.ZERO:
                data[extent.offset : extent.end] = bytes(extent.length)
            elif extent.kind is Kind.DATA:
                wanted.append(Range(extent.offset, extent.length))
                copy.read[disk.key] += extent.length
        for block in disk.read(split(wanted, 4 * MIB)):
            data[block.offset : block.offset + len(block.data)] = block.data
        copy.disks[disk.key] = data
    capture.check()
    return copy


def backup(
    hypervisor: Libvirt,
    name: str,
    base: Copy | None = None,
    *,
    owner: str = OWNER,
    quiesce: Quiesce = Quiesce.NO,
    exclude: frozenset[str] = frozenset(),
) -> Copy:
    """Capture, copy and commit."""
    request = CaptureRequest(owner, base.marker if base else None, quiesce, exclude)
    with hypervisor.capture(name, request) as capture:
        copy = copy_all(capture, base)
    if copy.marker is not None:
        hypervisor.commit(name, owner, copy.marker)
    return copy


def restore(hypervisor: Libvirt, copy: Copy, request: RestoreRequest) -> tuple[str, list[str]]:
    """Put a copy back; returns what `finish` says and the notes."""
    formats = {disk.key: disk.format for disk in copy.description.disks}
    disks = [
        RestoreDisk(key, len(data), formats.get(key, "raw"), is_memory=key == "memory")
        for key, data in copy.disks.items()
    ]
    with hypervisor.restore(copy.description, disks, copy.files, request) as restoration:
        for key, sink in restoration.disks.items():
            sink.write(runs(copy.disks[key]))
        said = restoration.finish()
        return said, list(restoration.notes)


def runs(data: bytearray) -> list[Run]:
    """Cut a disk into runs of 1 MiB at most, zeros as such."""
    found = []
    for offset in range(0, len(data), MIB):
        piece = bytes(data[offset : offset + MIB])
        found.append(Run(offset, len(piece), None if piece.count(0) == len(piece) else piece))
    return found


def kill_guards(parent: int) -> None:
    """SIGKILL the processes that guard the captures of a process, which lives."""
    for pid in guards(parent):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def guards(parent: int) -> list[int]:
    """Return the processes that guard the captures of a process."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # threads and processes end meanwhile
            pids = (task / "children").read_text().split()
            found += [int(p) for p in pids if b"vbackup_libvirt.child" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return found


@pytest.fixture
def make_hypervisor(libvirtd: Libvirtd, tmp_path: Path) -> Hypervisors:
    """Make a plugin on the lab's libvirtd."""
    del libvirtd

    def make(uri: str = Libvirtd.uri, **options: Any) -> Libvirt:
        options.setdefault("scratch_reserve", 1 << 20)
        state = tmp_path / "state"
        return Libvirt(LibvirtOptions(uri=uri, **options), HypervisorContext("lab", state))

    return make


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where new machines' disks go."""
    directory = tmp_path / "images"
    directory.mkdir()
    return directory


@pytest.fixture
def hypervisor(make_hypervisor: Hypervisors, images: Path) -> Libvirt:
    """The plugin with a small reserve and a storage directory of the test's own."""
    return make_hypervisor(storage=images)
