"""What may stand in the YAML."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from vbackup_webdav.options import WebDavOptions
from vbackup_webdav.transport import WebDav

from vbackup.api import ConfigError, SecretRef, Unavailable

LOGIN = {"user": "u", "password": {"env": "P"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/a"}, "must be http"),
        ({"url": "https:///a"}, "must be http"),
        ({"url": "https://u:p@host/a"}, "must not name the user"),
        ({"url": "https://host/a?b"}, "query"),
        ({"url": "https://host/ä"}, "%XX"),
        ({"url": "https://host:0/a"}, "port"),
        ({"url": "https://host:99999/a"}, "[Pp]ort"),
        ({"url": "https://host/a", "user": "u"}, "go together"),
        ({"url": "https://host/a", "password": {"env": "P"}}, "go together"),
        ({"url": "http://host/a", "ca": "/ca.pem"}, "https"),
        ({"url": "https://host/a", **LOGIN, "user": "a:b"}, "pattern"),
        ({"url": "https://host/a", "timeout": 0}, "greater than 0"),
        ({"url": "https://host/a", "verify": False}, "[Ee]xtra"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WebDavOptions.model_validate(options)


@pytest.mark.parametrize("url", ["https://host", "https://host/", "http://[::1]:8080/a/b/", "https://host/a%20b"])
def test_taken(url: str) -> None:
    assert WebDavOptions.model_validate({"url": url, **LOGIN}).url == url.rstrip("/")


@pytest.mark.parametrize("password", [b"\xff", b"a\nb"])
def test_a_password_that_cannot_be_sent_is_not_repeated(tmp_path: Path, password: bytes) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_bytes(password + b"canary")
    options = WebDavOptions(url="http://127.0.0.1:1/x", user="u", password=SecretRef(file=file))
    with closing(WebDav(options)) as transport, pytest.raises(ConfigError) as caught:
        transport.get("a")
    assert "canary" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_name_without_an_address() -> None:
    transport = WebDav(WebDavOptions(url="http://nowhere.invalid/x"))
    with closing(transport), pytest.raises(Unavailable, match="no address") as caught:
        transport.get("a")
    assert caught.value.hint
