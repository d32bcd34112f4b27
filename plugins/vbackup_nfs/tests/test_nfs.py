"""The transport ``nfs`` keeps the contract on a real nfs-ganesha, by libnfs in this process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.servers.ganesha import Ganesha
from vbackup.testing.transport_contract import (
    FailureContract,
    HostsContract,
    ServerContract,
    SilentContract,
    TransportContract,
)
from vbackup_nfs.options import NfsOptions
from vbackup_nfs.transport import Nfs

MIB = 1 << 20


def options(url: str, **more: Any) -> NfsOptions:
    return NfsOptions(**{"url": url, "client": "userspace", "timeout": 20} | more)


@pytest.fixture
def path(ganesha: Ganesha) -> str:
    """An empty directory of the server."""
    return ganesha.new("rw")


@pytest.fixture
def nfs(ganesha: Ganesha, path: str) -> Iterator[Callable[..., Nfs]]:
    """Make transports on that directory, or another one, with other options if need be; all are closed in the end."""
    made: list[Nfs] = []

    def make(where: str = path, **more: Any) -> Nfs:
        made.append(Nfs(options(ganesha.url(where), **more)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


class TestNfs(HostsContract, TransportContract):
    @pytest.fixture
    def opens(self, ganesha, path):
        return partial(Nfs, options(ganesha.url(path)))

    @pytest.fixture(autouse=True)
    def _leaves_no_temporary_file(self, request, ganesha, path):
        yield
        if "killed" not in request.node.name:
            assert not list(ganesha.directory(path).glob(".tmp-*"))


class TestOutages(ServerContract):
    @pytest.fixture
    def server(self, ganesha):
        return ganesha

    @pytest.fixture
    def transport(self, nfs):
        return nfs()


class TestSilence(SilentContract):
    @pytest.fixture(params=["rpcbind", "mount", "server"])
    def silent(self, request, ganesha):
        """Whichever of the three services it is that takes connections only."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            if request.param == "rpcbind":
                transport = Nfs(options("nfs://127.0.0.1/store", timeout=1, port=port, mount_port=port))
            elif request.param == "mount":
                transport = Nfs(options("nfs://127.0.0.1/store", timeout=1, mount_port=port))
            else:
                ganesha.freeze()
                transport = Nfs(options(ganesha.url("rw"), timeout=1))
            yield transport
            if request.param == "server":
                ganesha.thaw()
            transport.close()


class TestFailures(FailureContract):
    @pytest.fixture
    def missing(self, nfs):
        return nfs("rw/missing")

    @pytest.fixture(params=["squashed", "user"])
    def denied(self, request, ganesha, nfs, path):
        if request.param == "user":
            ganesha.directory(path).chmod(0o700)
            return nfs(uid=1234, gid=1234)
        path = ganesha.new("squashed")
        ganesha.directory(path).chmod(0o700)
        return nfs(path)

    @pytest.fixture
    def read_only(self, nfs):
        return nfs("ro")

    @pytest.fixture
    def full(self, ganesha, nfs):
        path = ganesha.new("small")
        transport = nfs(path)
        yield transport
        for info in transport.list():
            transport.delete(info.key)
