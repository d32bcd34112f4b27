"""Stores on real servers, as a configuration names them: for tests that must hold whatever the store is."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from vbackup.api import Transport
from vbackup.registry import Registry

REMOTE = ("s3", "nfs", "iscsi")


class Server(Protocol):
    """One that a test may do harm to."""

    def kill(self) -> None:
        """End it by SIGKILL."""

    def start(self) -> None:
        """Start it again, with all that it had, and wait until it answers."""

    def entry(self) -> dict[str, Any]:
        """Return the options of a transport on a new place, empty and there unless only `Transport.create` makes it."""

    def remove(self, options: dict[str, Any]) -> None:
        """Remove that place."""


@dataclass(frozen=True)
class Store:
    """A place for objects, empty and for one test only."""

    options: dict[str, Any]
    """An entry of ``transports:``; secrets in it are files."""
    server: Server | None = field(default=None, compare=False)

    @property
    def plain(self) -> dict[str, Any]:
        """What the transport's class is made with."""
        return {key: value for key, value in self.options.items() if key != "type"}

    @property
    def entry(self) -> str:
        """As YAML, in one line."""
        return json.dumps(self.options)

    def transport(self) -> Transport:
        """Return a new transport, with no retries around it."""
        return make_transport(self.options)


def make_transport(options: dict[str, Any]) -> Transport:
    """Return the transport of an entry."""
    cls = registry().transports[options["type"]]
    return cls(cls.options.model_validate({key: value for key, value in options.items() if key != "type"}))


registry = functools.cache(Registry.load)
MakeStore = Callable[[str], Store]


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Return a store of a kind: ``local``, or on the worker's own server of that kind."""
    with contextlib.ExitStack() as end:

        def make(kind: str) -> Store:
            if kind == "local":
                return Store({"type": "local", "path": str(tmp_path / "store")})
            server = request.getfixturevalue(SERVERS[kind])
            options = server.entry()
            end.callback(server.remove, options)
            return Store({"type": kind, **options}, server)

        yield make


SERVERS = {"s3": "radosgw", "nfs": "ganesha", "iscsi": "tgtd", "sftp": "sshd", "smb": "samba"}
