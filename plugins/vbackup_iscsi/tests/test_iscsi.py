"""The transport ``iscsi`` keeps the contract on a real tgtd, through the userspace initiator."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.servers.tgtd import Tgtd
from vbackup.testing.transport_contract import (
    DeniedContract,
    FullContract,
    HostsContract,
    MissingPlaceContract,
    ServerContract,
    SilentContract,
    TransportContract,
)
from vbackup_iscsi.options import IscsiOptions, Timing
from vbackup_iscsi.transport import Iscsi

TIMING = Timing(settle=0.2)


@pytest.fixture(scope="module")
def attached(tgtd: Tgtd, run_dir: Path) -> Iterator[Iscsi]:
    """A LUN that stays attached for the tests of this module."""
    options = IscsiOptions.model_validate(tgtd.entry() | {"client": "userspace"})
    with closing(Iscsi(options, runtime=run_dir, timing=TIMING)) as transport:
        transport.create()
        yield transport


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/run", prefix="vbackup-test-") as directory:
        yield Path(directory)


@pytest.fixture
def opens(attached: Iscsi, run_dir: Path) -> Callable[[], Iscsi]:
    assert list(attached.list("nothing")) == []  # a test before may have had it cut off
    for path in attached.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return partial(Iscsi, attached._options, runtime=run_dir, timing=TIMING)


class TestIscsi(HostsContract, TransportContract):
    many = 3_000  # each put is an fsync or three

    @pytest.fixture
    def opens(self, opens):
        return opens


class TestServer(ServerContract):
    """Its operations fail when the lease ends: it is a short one."""

    @pytest.fixture
    def transport(self, host, formatted):
        return host.open(formatted)

    @pytest.fixture
    def server(self, tgtd):
        return tgtd


class TestMissingPlace(MissingPlaceContract):
    @pytest.fixture
    def missing(self, host, lun):
        return host.open(lun)


class TestDenied(DeniedContract):
    @pytest.fixture
    def denied(self, tgtd, host, formatted, monkeypatch):
        monkeypatch.setenv("WRONG", "not-the-secret")
        return host.open(formatted, chap={"user": tgtd.user, "password": {"env": "WRONG"}})


class TestSilent(SilentContract):
    @pytest.fixture
    def silent(self, host, lun):
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield host.open(lun, portal=f"127.0.0.1:{server.getsockname()[1]}")


class TestFull(FullContract):
    @pytest.fixture
    def full(self, opens):
        with closing(opens()) as transport:
            with (transport.root / ".ballast").open("wb") as ballast:
                ballast.truncate(filled(ballast.fileno()) - (24 << 20))
            yield transport


def filled(file: int) -> int:
    """Take all space for a file; return its bytes. What XFS says that it has is less for a while after a deletion."""
    size, step = 0, 4 << 20
    try:
        while True:
            os.posix_fallocate(file, size, step)
            size += step
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    return size
