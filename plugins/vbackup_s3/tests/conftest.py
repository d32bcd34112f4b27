"""Buckets on a real gateway, transports on them, and a server between the two that does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.radosgw import Radosgw
from vbackup_s3.options import S3Options
from vbackup_s3.transport import S3

from .between import Between

Place = Callable[..., dict[str, Any]]


def opened(options: dict[str, Any], **more: Any) -> S3:
    """Return a transport as a configuration would."""
    return S3(S3Options.model_validate(options | more))


def restricted(radosgw: Radosgw, options: dict[str, Any], tmp_path: Path, *actions: str) -> dict[str, Any]:
    """Return the credentials of a user who may do only ``actions`` in the bucket."""
    name, access, secret = radosgw.new_user()
    radosgw.allow(options["bucket"], name, *actions)
    return {"access_key_id": access, "secret_access_key": secret_file(tmp_path / access, secret)}


def secret_file(path: Path, secret: str) -> dict[str, str]:
    """Write a secret and return its reference."""
    path.touch(0o600)
    path.write_text(secret)
    return {"file": str(path)}


@pytest.fixture
def place(radosgw: Radosgw) -> Iterator[Place]:
    """Make options of a transport on a bucket of its own."""
    made = []

    def make(*, lock: bool = False, **more: Any) -> dict[str, Any]:
        options = radosgw.entry(lock=lock)
        made.append(options["bucket"])
        return options | more

    yield make
    for bucket in made:
        radosgw.give_back(bucket)


@pytest.fixture
def between(radosgw: Radosgw) -> Iterator[Between]:
    """Return a server before the gateway."""
    with Between(radosgw.endpoint) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
