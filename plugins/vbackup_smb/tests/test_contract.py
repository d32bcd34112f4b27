"""The transport ``smb`` keeps the contract on a real Samba server."""

from __future__ import annotations

import socket
from contextlib import closing
from functools import partial

import pytest

from tests.servers.daemon import Daemons
from tests.servers.samba import Samba
from vbackup.testing.transport_contract import (
    FailureContract,
    HostsContract,
    ServerContract,
    SilentContract,
    TransportContract,
)
from vbackup_smb.transport import Smb


class TestSmb(HostsContract, TransportContract):
    many = 1_000  # each put is an fsync or three

    @pytest.fixture
    def opens(self, options):
        return partial(Smb, options())

    @pytest.fixture(autouse=True)
    def _leaves_no_temporary_file(self, request, root):
        yield
        if "killed" not in request.node.name:
            assert not list(root.glob(".tmp-*"))


class TestOutages(ServerContract):
    @pytest.fixture
    def server(self):
        with Daemons("samba") as daemons:
            yield Samba(daemons)

    @pytest.fixture
    def transport(self, server, smb):
        return smb("", server)


class TestSilence(SilentContract):
    @pytest.fixture
    def silent(self, smb):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield smb(port=listener.getsockname()[1], timeout=1)


class TestFailures(FailureContract):
    @pytest.fixture(params=["directory", "share"])
    def missing(self, request, smb):
        return smb("missing") if request.param == "directory" else smb(share="missing")

    @pytest.fixture
    def denied(self, smb, secret):
        secret.write_text("wrong")
        return smb()

    @pytest.fixture(params=["share", "user", "file system"])
    def read_only(self, request, smb, samba, root):
        with closing(smb()) as owner:
            owner.put("a/b", b"there")
        if request.param == "share":
            return smb(share="readonly")
        if request.param == "user":
            for path, mode in ((root / "a/b", 0o644), (root / "a", 0o755), (root, 0o755)):
                path.chmod(mode)
            return smb(share="nobody")
        samba.mount("--bind", root, root)
        samba.mount("-o", "remount,ro,bind", root)
        return smb()

    @pytest.fixture
    def full(self, smb, samba, root):
        samba.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", root)
        return smb()
