"""A directory on an SSH server as a transport, by SFTP 3 with OpenSSH's extensions.

See draft-ietf-secsh-filexfer-02 and PROTOCOL of OpenSSH. Everything but the calls themselves is `FileStore`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from vbackup.api import Options, SecretRef
from vbackup_files import FileStore
from vbackup_sftp.files import SftpFiles


class SftpOptions(Options):
    """Options of ``type: sftp``."""

    host: str = Field(min_length=1, description="name or address of the SSH server")
    port: int = Field(default=22, ge=1, le=65535, description="where it listens")
    path: PurePosixPath = Field(description="an absolute path there; `vbackup init` makes the last directory of it")
    user: str = Field(min_length=1, description="who logs in")
    identity: Path | None = Field(default=None, description="a private key; without it and `password`, ssh-agent's")
    passphrase: SecretRef | None = Field(default=None, description="of the private key")
    password: SecretRef | None = Field(default=None, description="instead of a key")
    known_hosts: Path = Field(default=Path("~/.ssh/known_hosts"), description="the file of host keys that are trusted")
    host_key: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*$",
        description='the only host key that is trusted, instead of `known_hosts`: "ssh-ed25519 AAAA..."',
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="seconds until a request without answer has failed")

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: PurePosixPath) -> PurePosixPath:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.identity and self.password:
            raise ValueError("give `identity` or `password`, not both")
        if self.passphrase and not self.identity:
            raise ValueError("`passphrase` belongs to `identity`, which is missing")
        return self

    @property
    def place(self) -> str:
        """The directory as messages name it."""
        port = "" if self.port == 22 else f":{self.port}"
        return f"sftp://{self.user}@{self.host}{port}{self.path}"


class Sftp(FileStore):
    """See the module. Connections are made when they are needed."""

    name: ClassVar[str] = "sftp"
    options: ClassVar[type[BaseModel]] = SftpOptions
    has_files: ClassVar[bool] = False

    def __init__(self, options: SftpOptions) -> None:
        super().__init__(options.place, SftpFiles(options))
