from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator, Mapping
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
    Range,
    RestoreDisk,
    RestoreRequest,
    Run,
    align,
    split,
)
from vbackup_image.plugin import ImageHypervisor
from vbackup_qemu import image
from vbackup_qemu.host import LocalHost

MIB = 1 << 20
SIZE = 4 * MIB
BLOCK = 64 << 10
OWNER = "0123456789abcdef" * 2


@dataclass
class Site:
    """A directory of images, and what a repository would hold of them."""

    directory: Path
    options: dict[str, Any]
    copies: dict[str, bytes] = field(default_factory=dict)
    marker: Marker | None = None
    read: int = 0

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def hypervisor(self) -> ImageHypervisor:
        self.state.mkdir(mode=0o700, exist_ok=True)
        options = ImageHypervisor.options.model_validate(self.options)
        return ImageHypervisor(options, HypervisorContext("files", self.state))

    def request(self, **changes: Any) -> CaptureRequest:
        return CaptureRequest(**{"owner": OWNER, "since": self.marker} | changes)

    def backup(self, machine: str = "web", *, commit: bool = True, **changes: Any) -> Capture:
        """Copy like the engine: only what changed, over what is there already."""
        hypervisor = self.hypervisor()
        self.read = 0
        with hypervisor.capture(machine, self.request(**changes)) as capture:
            for disk in capture.disks:
                self._copy(disk)
            capture.check()
            if commit:
                self.marker = capture.marker
        if commit and capture.marker is not None:
            hypervisor.commit(machine, OWNER, capture.marker)
        return capture

    def _copy(self, disk: Any) -> None:
        copy = bytearray(self.copies.get(disk.key, b"").ljust(disk.size, b"\xff")[: disk.size])
        wanted = []
        for extent in align(disk.extents(full=False), BLOCK, disk.size):
            if extent.kind is Kind.ZERO:
                copy[extent.offset : extent.end] = bytes(extent.length)
            elif extent.kind is Kind.DATA:
                wanted.append(Range(extent.offset, extent.length))
        for block in disk.read(split(wanted, MIB)):
            copy[block.offset : block.offset + len(block.data)] = block.data
            self.read += len(block.data)
        self.copies[disk.key] = bytes(copy)

    def restore(
        self, request: RestoreRequest, disks: Mapping[str, str], files: Mapping[str, bytes] | None = None
    ) -> str:
        """Restore the copies of some disks (key -> format)."""
        machine = MachineDescription(name="web", id="web")
        wanted = [RestoreDisk(key, len(self.copies[key]), kind) for key, kind in disks.items()]
        with self.hypervisor().restore(machine, wanted, files or {}, request) as restoration:
            for key, sink in restoration.disks.items():
                sink.write(runs(self.copies[key]))
            return restoration.finish()

    def leftovers(self) -> list[str]:
        return sorted(p.name for p in self.state.iterdir()) + [
            p.name for p in self.directory.iterdir() if p.name.startswith(".")
        ]


def runs(content: bytes) -> Iterator[Run]:
    for offset in range(0, len(content), BLOCK):
        piece = content[offset : offset + BLOCK]
        yield Run(offset, len(piece), piece if any(piece) else None)


def qemu_io(path: Path, *commands: str, kind: str = "qcow2") -> None:
    argv = ["qemu-io", "-f", kind]
    for command in commands:
        argv += ["-c", command]
    subprocess.run([*argv, str(path)], check=True, capture_output=True)


def content(path: Path, kind: str = "qcow2") -> bytes:
    """All bytes of an image, by another way than ours."""
    raw = path.with_suffix(".flat")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", str(path), str(raw)], check=True)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def make(path: Path, kind: str = "qcow2", seed: int = 1) -> Path:
    image.create(LocalHost(), path, kind, SIZE)
    for index in random.Random(seed).sample(range(64), 20):
        qemu_io(path, f"write -P {index + 1} {index * BLOCK} {BLOCK}", kind=kind)
    return path


@pytest.fixture
def helpers() -> Any:
    """The functions above, for the test modules."""

    class Helpers:
        pass

    for function in (qemu_io, content, make, runs):
        setattr(Helpers, function.__name__, staticmethod(function))
    return Helpers


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A machine ``web`` with one qcow2 disk, and a storage directory."""
    disk = make(tmp_path / "web.qcow2")
    (tmp_path / "storage").mkdir()
    return Site(tmp_path, {"machines": {"web": [str(disk)]}, "storage": str(tmp_path / "storage")})


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device of 8 MiB full of garbage."""
    file = tmp_path / "loop.bin"
    file.write_bytes(b"\xee" * (8 << 20))
    argv = ["losetup", "--show", "-f", str(file)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def bitmaps() -> Callable[[Path], list[str]]:
    def names(path: Path) -> list[str]:
        return sorted(image.info(LocalHost(), path, "qcow2").bitmaps)

    return names
