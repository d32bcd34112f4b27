"""A share that speaks SMB 3 as a transport (MS-SMB2). Everything but the calls themselves is `FileStore`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field, field_validator

from vbackup.api import Options, SecretRef
from vbackup_files import FileStore
from vbackup_smb.files import SmbFiles

_NAME = r'[^\\/:*?"<>|\x00-\x1f]+'


class SmbOptions(Options):
    """Options of ``type: smb``."""

    server: str = Field(pattern=rf"^{_NAME}$", description="name or address of the server")
    port: int = Field(default=445, ge=1, le=65535, description="where it listens")
    share: str = Field(pattern=rf"^{_NAME}$", description="the name of the share")
    path: str = Field(
        default="",
        pattern=rf"^({_NAME}(/{_NAME})*)?$",
        description="a directory in the share, such as backups/vms; `vbackup init` makes the last part of it",
    )
    user: str = Field(min_length=1, description="who logs in")
    domain: str | None = Field(default=None, min_length=1, description="the domain of that user, if there is one")
    password: SecretRef = Field(description="of that user")
    encrypt: bool = Field(
        default=True, description="let nobody read what is sent; without it everything is signed only"
    )
    timeout: float = Field(default=60, ge=1, le=3600, description="seconds until a request without answer has failed")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if {".", ".."} & set(path.split("/")):
            raise ValueError("must not have . or .. in it")
        return path

    @property
    def place(self) -> str:
        """The directory as messages name it."""
        port = "" if self.port == 445 else f":{self.port}"
        return f"smb://{self.user}@{self.server}{port}/{self.share}{self.path and '/'}{self.path}"


class Smb(FileStore):
    """See the module. Connections are made when they are needed."""

    name: ClassVar[str] = "smb"
    options: ClassVar[type[BaseModel]] = SmbOptions
    has_files: ClassVar[bool] = False

    def __init__(self, options: SmbOptions) -> None:
        super().__init__(options.place, SmbFiles(options))
