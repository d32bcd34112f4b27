"""What stands under ``type: webdav``."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from vbackup.api import Options, SecretRef


class WebDavOptions(Options):
    """Options of ``type: webdav``."""

    url: str = Field(description="`https://host/path` of a collection; `vbackup init` makes the last part of the path")
    user: str | None = Field(default=None, min_length=1, pattern=r"^[^:\x00-\x1f\x7f]+$", description="who logs in")
    password: SecretRef | None = Field(default=None, description="goes with `user`")
    ca: Path | None = Field(
        default=None, description="a PEM file of the certificate authorities to trust instead of the system's"
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="seconds without an answer until a request failed")

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://host/path or https://host/path")
        if parts.username is not None:
            raise ValueError("must not name the user: there are `user` and `password` for that")
        if parts.query or parts.fragment:
            raise ValueError("must have neither a query nor a fragment")
        if not url.isascii() or any(letter <= " " for letter in url):
            raise ValueError("must have other letters than those of ASCII, and spaces, as %XX")
        if parts.port == 0:  # asking for it raises ValueError if it is none
            raise ValueError("must have a port that can be connected to")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _all_of_it(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("`user` and `password` go together")
        if self.ca is not None and not self.url.startswith("https:"):
            raise ValueError("`ca` goes with https:// only")
        return self
