"""Over TLS: the server is the one that is meant, or nothing is sent."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from apache import Apache
from vbackup_webdav.transport import WebDav

from vbackup.api import ConfigError, ObjectInfo, Unavailable


def test_objects_go_there_and_back(apache: Apache) -> None:
    with closing(WebDav(apache.options(apache.new_name(), tls=True))) as transport:
        transport.create()
        data = bytes(range(256)) * 4096 * 3
        transport.put("packs/a", data)
        assert transport.get("packs/a") == data
        assert transport.get("packs/a", 1_000_000, 300) == data[1_000_000:1_000_300]
        assert list(transport.list()) == [ObjectInfo("packs/a", len(data))]
        assert {finding.level for finding in transport.check()} == {"ok"}


def test_a_stranger_is_not_trusted(apache: Apache, tmp_path: Path) -> None:
    """Neither one of another authority, nor one of another name; there is no use in trying again."""
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other"
    command = ["openssl", "req", *kind.split(), "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "other")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    by_name = apache.options("/x", tls=True, url=f"https://localhost:{apache.tls_port}/x")
    for options in (apache.options("/x", tls=True, ca=tmp_path / "other"), by_name):
        with closing(WebDav(options)) as transport, pytest.raises(Unavailable, match="not trusted") as caught:
            transport.put("a", b"secret")
        assert not caught.value.transient
        assert caught.value.hint


def test_a_server_without_tls_is_told(apache: Apache) -> None:
    options = apache.options("/x", tls=True, url=f"https://127.0.0.1:{apache.port}/x")
    with closing(WebDav(options)) as transport, pytest.raises(Unavailable, match="does not speak TLS") as caught:
        transport.get("a")
    assert not caught.value.transient


def test_authorities_that_cannot_be_read(apache: Apache, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        options = apache.options("/x", tls=True, ca=tmp_path / name)
        with closing(WebDav(options)) as transport, pytest.raises(ConfigError, match=name):
            transport.get("a")
