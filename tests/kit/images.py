"""The contract of hypervisors on image files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.kit.fakes import MIB, noise
from vbackup.api import Busy, HypervisorContext
from vbackup.testing.hypervisor_contract import (
    Find,
    GuestUnderTest,
    HypervisorContract,
    Leftovers,
    LostGuestContract,
    MarkersContract,
    ProcessContract,
    TwoGuestsContract,
)
from vbackup_image.options import ImageOptions
from vbackup_image.plugin import ImageHypervisor
from vbackup_qemu import image
from vbackup_qemu.host import LocalHost


class ImageGuest(GuestUnderTest):
    """A machine of images, written by qemu-io and read by qemu-img."""

    def __init__(self, name: str, *paths: Path) -> None:
        self.name = name
        self._paths = {f"disk{number}": path for number, path in enumerate(paths)}
        self.disks = list(self._paths)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        self._paths[disk].with_suffix(".new").write_bytes(data)
        self._qemu_io(disk, f"write -q -s {self._paths[disk].with_suffix('.new')} {offset} {len(data)}")

    def zero(self, disk: str, offset: int, length: int) -> None:
        self._qemu_io(disk, f"write -q -z {offset} {length}")

    def read(self, disk: str) -> bytes:
        path = self._paths[disk]
        flat = path.with_suffix(".flat")
        subprocess.run(["qemu-img", "convert", "-f", path.suffix[1:], "-O", "raw", path, flat], check=True)
        content = flat.read_bytes()
        flat.unlink()
        return content

    def _qemu_io(self, disk: str, command: str) -> None:
        path = self._paths[disk]
        argv = ["qemu-io", "-f", path.suffix[1:], "-c", command, path]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if "lock" in done.stderr:
            raise Busy(done.stderr)
        assert done.returncode == 0, done.stderr


def open_images(kind: type[ImageHypervisor], directory: Path) -> ImageHypervisor:
    machines = {"web": [directory / "web.qcow2"], "db": [directory / "db.qcow2", directory / "data.qcow2"]}
    options = ImageOptions.model_validate({"machines": machines, "storage": directory / "storage"})
    return kind(options, HypervisorContext("files", directory / "state"))


class ImageContract(TwoGuestsContract, MarkersContract, LostGuestContract, ProcessContract, HypervisorContract):
    """Files that QEMU's locks keep as they are; ``kind`` is the hypervisor."""

    kind: type[ImageHypervisor] = ImageHypervisor
    writes_while_captured = False
    starts = False
    lists_new_machines = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        for name in ("state", "storage"):
            (tmp_path / name).mkdir(mode=0o700)
        for number, name in enumerate(["web", "db", "data"]):
            raw = tmp_path / "raw"
            raw.write_bytes(noise(MIB, number) + bytes(MIB))
            argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / f"{name}.qcow2"]
            subprocess.run(argv, check=True)
            raw.unlink()
        return tmp_path

    @pytest.fixture
    def hypervisor(self, place: Path) -> ImageHypervisor:
        return open_images(self.kind, place)

    @pytest.fixture
    def guest(self, place: Path) -> ImageGuest:
        return ImageGuest("web", place / "web.qcow2")

    @pytest.fixture
    def second(self, place: Path) -> ImageGuest:
        return ImageGuest("db", place / "db.qcow2", place / "data.qcow2")

    @pytest.fixture
    def leftovers(self, place: Path) -> Leftovers:
        def names() -> list[str]:
            hidden = [path.name for path in place.glob("**/.*")]
            return hidden + [path.name for path in (place / "state").iterdir()]

        return names

    @pytest.fixture
    def find(self, place: Path) -> Find:
        return lambda name: ImageGuest(name, *sorted((place / "storage").glob(f"{name}-*.qcow2")))

    @pytest.fixture
    def markers(self, place: Path) -> Callable[[], list[str]]:
        return lambda: list(image.info(LocalHost(), place / "web.qcow2", "qcow2").bitmaps)

    @pytest.fixture
    def lose(self, place: Path) -> Callable[[], None]:
        return (place / "web.qcow2").unlink

    @pytest.fixture
    def opens(self, place: Path) -> partial[ImageHypervisor]:
        return partial(open_images, self.kind, place)
