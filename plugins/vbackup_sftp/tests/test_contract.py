"""The transport ``sftp`` keeps the contract on a real OpenSSH server."""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from functools import partial

import pytest

from tests.servers.daemon import Daemons
from tests.servers.sshd import Sshd
from vbackup.testing.transport_contract import (
    FailureContract,
    HostsContract,
    ServerContract,
    SilentContract,
    TransportContract,
)
from vbackup_sftp.transport import Sftp


class TestSftp(HostsContract, TransportContract):
    many = 2_000  # 20 pages; each put and delete is an fsync or three

    @pytest.fixture
    def opens(self, options):
        return partial(Sftp, options())

    @pytest.fixture(autouse=True)
    def _leaves_no_temporary_file(self, request, root):
        yield
        if "killed" not in request.node.name:
            assert not list(root.glob(".tmp-*"))


class TestOutages(ServerContract):
    @pytest.fixture
    def server(self):
        with Daemons("sshd") as daemons:
            yield Sshd(daemons)

    @pytest.fixture
    def transport(self, server, sftp):
        (server.root / "store").mkdir()
        return sftp(server.root / "store", server)


class TestSilence(SilentContract):
    @pytest.fixture
    def silent(self, sftp):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield sftp(port=listener.getsockname()[1], timeout=1)


class TestFailures(FailureContract):
    @pytest.fixture
    def missing(self, sftp, root):
        return sftp(root / "missing")

    @pytest.fixture
    def denied(self, sftp, tmp_path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
        return sftp(identity=tmp_path / "key")

    @pytest.fixture(params=["user", "file system", "server"])
    def read_only(self, request, sftp, sshd, root):
        with closing(sftp()) as owner:
            owner.put("a/b", b"there")
        if request.param == "user":
            (root / "a").chmod(0o755)
            (root / "a/b").chmod(0o644)
            root.chmod(0o755)
            yield sftp(user="nobody")
        elif request.param == "file system":
            sshd.mount("--bind", root, root)
            sshd.mount("-o", "remount,ro,bind", root)
            yield sftp()
        else:
            with Daemons("sshd") as daemons:
                yield sftp(root, Sshd(daemons, "internal-sftp -R"))

    @pytest.fixture
    def full(self, sftp, sshd, root):
        sshd.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", root)
        return sftp()
