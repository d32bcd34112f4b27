"""The lab as pytest fixtures, for the tests of this tree and of ``plugins/*/tests``; see README.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab import build
from tests.lab.domain import Disk, Machine
from tests.lab.guest import Guest, copy_disk
from tests.lab.libvirtd import Libvirtd

_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Let no test fail for the time that it takes on a busy machine."""
    settings.register_profile("vbackup", deadline=None)
    settings.load_profile("vbackup")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/test_bit_exact.py and tests/chaos."""
    parser.addoption("--steps", type=int, default=600, help="steps of random histories; 0: without end")
    parser.addoption("--seed", type=int, default=0, help="seed of random histories; 0: a new one each time")
    parser.addoption("--chaos-seconds", type=float, default=30, help="how long the chaos goes on")


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """Our own libvirtd at ``qemu:///system``, one per worker; see `Libvirtd`."""
    with Libvirtd() as daemon:
        yield daemon


@pytest.fixture
def no_libvirtd(libvirtd: Libvirtd) -> Iterator[None]:
    """For a test whose subprocess has a lab of its own: where the lab may not mount, there can be only one."""
    libvirtd.close()
    yield
    libvirtd.open()


@pytest.fixture(scope="session")
def guest_files() -> build.GuestFiles:
    """The real guest's kernel, initramfs and data disk, built once."""
    return build.guest_files()


class GuestFactory:
    """Makes machines for one test; they end with it."""

    def __init__(self, libvirtd: Libvirtd, directory: Path, request: pytest.FixtureRequest) -> None:
        self._libvirtd = libvirtd
        self._directory = directory
        self._request = request
        self._made: list[Guest] = []

    def __call__(
        self,
        name: str = "",
        *,
        boot: bool = False,
        bootable: bool = False,
        disks: tuple[Disk, ...] = (),
        memory: int | None = None,
        uefi: bool = False,
        tpm: bool = False,
        extra_devices: str = "",
        metadata: str = "",
    ) -> Guest:
        """Define a machine that is off.

        With ``boot`` it is the real guest, its data disk is ``vda`` and ``disks`` come on top; with ``bootable`` that
        which boots from ``vda`` and has its data on ``vdb``; without, it has no
        system, just ``disks`` (one empty qcow2 ``vda`` of 64 MiB if none are given): start it paused, it takes no time.
        """
        name = name or f"guest-{next(_numbers)}"
        place = self._directory / name
        files = None
        if boot:
            files = self._request.getfixturevalue("guest_files")
            assert isinstance(files, build.GuestFiles)
            disks = (Disk("vda", path=copy_disk(files.disk, place / "vda.qcow2")), *disks)
        if bootable:
            own = build.bootable_disks()
            boot_disk = Disk("vda", path=copy_disk(own.boot, place / "vda.qcow2"))
            disks = (boot_disk, Disk("vdb", path=copy_disk(own.data, place / "vdb.qcow2")), *disks)
        machine = Machine(
            name=name,
            directory=place,
            disks=disks or (Disk("vda"),),
            memory=memory or (192 if boot or bootable else 32),
            kernel=files,
            uefi=uefi,
            tpm=tpm,
            extra_devices=extra_devices,
            metadata=metadata,
        )
        guest = Guest.define(self._libvirtd, machine)
        self._made.append(guest)
        return guest

    def adopt(self, name: str) -> Guest:
        """Return a machine that something else has made, such as a restore; it ends with the test as well."""
        guest = Guest(self._libvirtd, name)
        self._made.append(guest)
        return guest

    def remove_all(self) -> None:
        """End them all."""
        for guest in self._made:
            guest.remove()


@pytest.fixture
def make_guest(
    libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[GuestFactory]:
    """A function that makes machines; see `GuestFactory`."""
    factory = GuestFactory(libvirtd, tmp_path_factory.mktemp("machines"), request)
    yield factory
    factory.remove_all()
