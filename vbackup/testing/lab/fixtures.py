"""The lab as pytest fixtures, there wherever vbackup is installed; what they need is imported when one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vbackup.testing.lab.factory import GuestFactory
    from vbackup.testing.lab.libvirtd import Libvirtd


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """Our own libvirtd at ``qemu:///system``, one per worker; see `Libvirtd`."""
    from vbackup.testing.lab.libvirtd import Libvirtd

    with Libvirtd() as daemon:
        yield daemon


@pytest.fixture
def no_libvirtd(libvirtd: Libvirtd) -> Iterator[None]:
    """For a test whose subprocess has a lab of its own: where the lab may not mount, there can be only one."""
    libvirtd.close()
    yield
    libvirtd.open()


@pytest.fixture
def make_guest(libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestFactory]:
    """A function that makes machines; see `GuestFactory`."""
    from vbackup.testing.lab.factory import GuestFactory

    factory = GuestFactory(libvirtd, tmp_path_factory.mktemp("machines"))
    yield factory
    factory.remove_all()
