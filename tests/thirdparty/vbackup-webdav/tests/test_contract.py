"""The contract of transports, against a real Apache httpd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from apache import Apache
from vbackup_webdav.options import WebDavOptions
from vbackup_webdav.transport import WebDav

from vbackup.api import SecretRef, Transport
from vbackup.testing.transport_contract import (
    DeniedContract,
    FullContract,
    HostsContract,
    MissingPlaceContract,
    ReadOnlyContract,
    Server,
    ServerContract,
    SilentContract,
    TransportContract,
)


class TestWebDav(HostsContract, TransportContract):
    """All that holds for every transport, also from several processes."""

    many = 1_000

    @pytest.fixture
    def opens(self, apache: Apache) -> partial[WebDav]:
        options = apache.options(apache.new_name())
        with closing(WebDav(options)) as transport:
            transport.create()
        return partial(WebDav, options)


class TestFailures(MissingPlaceContract, DeniedContract, ReadOnlyContract):
    """What goes wrong at a place."""

    @pytest.fixture
    def missing(self, apache: Apache) -> Iterator[Transport]:
        with closing(WebDav(apache.options(apache.new_name()))) as transport:
            yield transport

    @pytest.fixture
    def denied(self, apache: Apache, tmp_path: Path) -> Iterator[Transport]:
        wrong = tmp_path / "wrong"
        wrong.touch(mode=0o600)
        wrong.write_text("guessed")
        name = apache.new_name()
        with closing(WebDav(apache.options(name))) as owner:
            owner.create()
        with closing(WebDav(apache.options(name, password=SecretRef(file=wrong)))) as transport:
            yield transport

    @pytest.fixture
    def read_only(self, apache: Apache) -> Iterator[Transport]:
        name = apache.new_name()
        with closing(WebDav(apache.options(name))) as owner:
            owner.create()
            owner.put("a/b", b"there")
        with closing(WebDav(apache.options(f"/readonly{name}"))) as transport:
            yield transport


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of a few MiB")
class TestFull(FullContract):
    """A server whose file system is full."""

    @pytest.fixture
    def full(self) -> Iterator[Transport]:
        with Apache(mebibytes=8) as server, closing(WebDav(server.options(server.new_name()))) as transport:
            transport.create()
            yield transport


class TestKilled(ServerContract):
    """A server that is killed and comes back."""

    listed = 300

    @pytest.fixture
    def transport(self, apache: Apache) -> Iterator[Transport]:
        with closing(WebDav(apache.options(apache.new_name(), timeout=5))) as transport:
            transport.create()
            yield transport

    @pytest.fixture
    def server(self, apache: Apache) -> Server:
        return apache


class TestSilent(SilentContract):
    """Something that takes connections and never answers."""

    @pytest.fixture
    def silent(self) -> Iterator[Transport]:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as deaf:
            options = WebDavOptions(url=f"http://127.0.0.1:{deaf.getsockname()[1]}/dav", timeout=0.5)
            with closing(WebDav(options)) as transport:
                yield transport
