from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.sshd import Sshd
from vbackup_sftp.transport import Sftp, SftpOptions


@pytest.fixture
def root(sshd: Sshd) -> Iterator[Path]:
    """An empty directory on the server."""
    with tempfile.TemporaryDirectory(dir=sshd.root) as directory:
        yield Path(directory)


@pytest.fixture
def options(sshd: Sshd, root: Path) -> Callable[..., SftpOptions]:
    """Make options for that directory, with others if need be; None leaves one out."""

    def make(path: Path = root, server: Sshd = sshd, **more: Any) -> SftpOptions:
        given = {"host": "127.0.0.1", "port": server.port, "path": path, "user": "root", "timeout": 20}
        given |= {"identity": server.identity, "known_hosts": server.known_hosts} | more
        return SftpOptions.model_validate({key: value for key, value in given.items() if value is not None})

    return make


@pytest.fixture
def sftp(options: Callable[..., SftpOptions]) -> Iterator[Callable[..., Sftp]]:
    """Make transports from such options; all are closed in the end."""
    made: list[Sftp] = []

    def make(*arguments: Any, **more: Any) -> Sftp:
        made.append(Sftp(options(*arguments, **more)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()
