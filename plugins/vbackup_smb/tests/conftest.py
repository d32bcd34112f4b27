from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.samba import PASSWORD, USER, Samba
from vbackup.api import SecretRef
from vbackup_smb.transport import Smb, SmbOptions


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the password."""
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(PASSWORD)
    return file


@pytest.fixture
def root(samba: Samba) -> Iterator[Path]:
    """An empty directory in the share."""
    with tempfile.TemporaryDirectory(dir=samba.share) as directory:
        yield Path(directory)


@pytest.fixture
def options(samba: Samba, root: Path, secret: Path) -> Callable[..., SmbOptions]:
    """Make options for that directory, with others if need be."""

    def make(path: str = root.name, server: Samba = samba, **more: Any) -> SmbOptions:
        given = {"server": "127.0.0.1", "port": server.port, "share": "store", "path": path, "timeout": 20}
        return SmbOptions.model_validate(given | {"user": USER, "password": SecretRef(file=secret)} | more)

    return make


@pytest.fixture
def smb(options: Callable[..., SmbOptions]) -> Iterator[Callable[..., Smb]]:
    """Make transports from such options; all are closed in the end."""
    made: list[Smb] = []

    def make(*arguments: Any, **more: Any) -> Smb:
        made.append(Smb(options(*arguments, **more)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()
