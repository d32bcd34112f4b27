"""Options of ``type: nfs``."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from vbackup.api import Options

_HOST = re.compile(r"[a-z0-9_][a-z0-9._-]*|[0-9a-f:.]*:[0-9a-f:.]*(%[a-z0-9._-]+)?", re.ASCII | re.IGNORECASE)
_SPACE, _DELETE = 0x20, 0x7F


class Export(NamedTuple):
    """A directory of a server."""

    server: str
    """A name or address, without brackets."""
    path: str
    """Absolute; it does not end in ``/``, except for ``/`` itself."""

    @property
    def url(self) -> str:
        """As it is named in messages."""
        return f"nfs://{self._host}{self.path}"

    @property
    def source(self) -> str:
        """As mount(8) names it."""
        return f"{self._host}:{self.path}"

    @property
    def parent(self) -> Export:
        """The directory that it is in."""
        return self._replace(path=self.path.rpartition("/")[0] or "/")

    @property
    def name(self) -> str:
        """Its last segment."""
        return self.path.rpartition("/")[2]

    @property
    def _host(self) -> str:
        return f"[{self.server}]" if ":" in self.server else self.server


class NfsOptions(Options):
    """Options of ``type: nfs``."""

    url: str = Field(description="nfs://SERVER/EXPORT/PATH; `vbackup init` makes the last directory of it")
    client: Literal["auto", "kernel", "userspace"] = Field(
        default="auto", description="the kernel's NFS client where there is one and it may be used, else libnfs"
    )
    version: Literal[3, 4] | None = Field(default=None, description="of the protocol; libnfs speaks 3 only")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="of the server, if its rpcbind is not to be asked"
    )
    mount_port: int | None = Field(default=None, ge=1, le=65535, description="the same for NFSv3's mount protocol")
    timeout: float = Field(default=60, ge=1, le=3600, description="seconds that the server may take for one request")
    uid: int | None = Field(default=None, ge=0, description="the user that the server sees, with libnfs; default: ours")
    gid: int | None = Field(default=None, ge=0, description="the same for the group")

    @field_validator("url")
    @classmethod
    def _complete(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "nfs" or not parts.hostname or not parts.path.startswith("/"):
            raise ValueError("must be nfs://SERVER/PATH")
        if parts.query or parts.fragment or "@" in parts.netloc or parts.netloc.rpartition("]")[2].count(":"):
            raise ValueError("must be nfs://SERVER/PATH; port, version, uid and gid are options of their own")
        if not _HOST.fullmatch(parts.hostname):
            raise ValueError("must have the name or the address of a server: nfs://SERVER/PATH")
        if any(ord(character) < _SPACE or ord(character) == _DELETE for character in url + unquote(parts.path)):
            raise ValueError("must not have control characters")
        if ".." in unquote(parts.path).split("/"):
            raise ValueError("must not have `..` in its path")
        return url

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.client == "kernel" and (self.uid is not None or self.gid is not None):
            raise ValueError("`uid` and `gid` need `client: userspace`: the kernel sends the user of this process")
        if self.client == "userspace" and self.version == 4:
            raise ValueError("`version: 4` needs `client: kernel`: libnfs writes with version 3 only")
        return self

    @property
    def export(self) -> Export:
        """What ``url`` names."""
        parts = urlsplit(self.url)
        segments = [segment for segment in unquote(parts.path).split("/") if segment not in ("", ".")]
        return Export(parts.hostname or "", "/" + "/".join(segments))
