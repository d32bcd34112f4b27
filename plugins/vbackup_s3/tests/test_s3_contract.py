"""The transport ``s3`` keeps the contract, on a real Ceph gateway."""

from __future__ import annotations

import socket
from contextlib import closing
from functools import partial

import pytest

from vbackup.testing import transport_contract as contract
from vbackup_s3.options import S3Options
from vbackup_s3.transport import S3

from .conftest import opened, restricted


class TestS3(contract.HostsContract, contract.TransportContract):
    many = 3_500  # four pages

    @pytest.fixture
    def opens(self, place):
        return partial(S3, S3Options.model_validate(place(prefix="some/prefix")))


class TestKilled(contract.ServerContract):
    @pytest.fixture
    def server(self, radosgw):
        return radosgw

    @pytest.fixture
    def transport(self, server, place):
        with closing(opened(place(timeout=20))) as transport:
            yield transport


class TestLocks(contract.LockContract):
    @pytest.fixture
    def lockable(self, place):
        with closing(opened(place(lock=True, prefix="here"))) as transport:
            yield transport


class TestFailures(contract.FailureContract):
    @pytest.fixture
    def missing(self, radosgw, place):
        return opened(place(bucket="no-such-bucket"))

    @pytest.fixture
    def denied(self, place, tmp_path):
        (tmp_path / "wrong").touch(0o600)
        (tmp_path / "wrong").write_bytes(b"wrong")
        return opened(place(secret_access_key={"file": tmp_path / "wrong"}))

    @pytest.fixture
    def read_only(self, radosgw, place, tmp_path):
        options = place()
        opened(options).put("a/b", b"there")
        return opened(options | restricted(radosgw, options, tmp_path, "s3:GetObject", "s3:ListBucket"))

    @pytest.fixture
    def full(self, radosgw, place):
        options = place()
        radosgw.limit(options["bucket"], 4 << 20)
        return opened(options)


class TestSilent(contract.SilentContract):
    @pytest.fixture
    def silent(self, place):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield opened(place(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=1))
