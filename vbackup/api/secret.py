"""References to secrets: the configuration says where a secret is, never what it is."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from vbackup.api.doctor import Finding, Level
from vbackup.api.errors import AccessDenied, ConfigError, NotFound, Unavailable
from vbackup.api.options import Options

MAX_BYTES = 64 << 10
COMMAND_SECONDS = 60
KINDS = ("env", "file", "credential", "command")
_log = logging.getLogger(__name__)


class SecretRef(Options):
    """Where a secret is: exactly one of the keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the name of an environment variable"
    )
    file: Path | None = Field(default=None, description="a file; one newline at its end is not part of the secret")
    credential: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$", description="the name of a systemd credential"
    )
    command: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="a program and its arguments, run without a shell; prints the secret"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:
        # What stands here by mistake may be the secret itself, even as a key: no message may repeat any of it.
        kinds = {"kinds": ", ".join(KINDS)}
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "secret", "must say where the secret is (one of {kinds}), never the secret itself", kinds
            )
        if len(value) != 1 or next(iter(value)) not in KINDS or next(iter(value.values())) is None:
            raise PydanticCustomError("secret", "must have exactly one of the keys {kinds}", kinds)
        return value

    def __str__(self) -> str:
        """Name the reference, as messages do."""
        if self.command is not None:
            return f"command {self.command[0]}"
        return next(f"{kind} {value}" for kind in KINDS if (value := getattr(self, kind)) is not None)

    def resolve(self) -> bytes:
        """Fetch the secret.

        Raises: `NotFound` (nothing there), `AccessDenied`, `ConfigError` (empty or too large), `Unavailable` (the
        command failed). All name the reference, none the value.
        """
        secret = self._fetch()
        if not secret:
            raise ConfigError(f"the secret from {self} is empty")
        if len(secret) > MAX_BYTES:
            raise ConfigError(f"the secret from {self} is larger than {MAX_BYTES >> 10} KiB")
        return secret

    def findings(self) -> list[Finding]:
        """Say what is wrong with how the secret is kept, for ``vbackup doctor``."""
        if self.file is None or not self.file.exists():
            return []
        mode = stat.S_IMODE(self.file.stat().st_mode)
        if not mode & 0o027:
            return []
        return [
            Finding(
                what=f"secret file {self.file}",
                level=Level.WARNING,
                detail=f"others may read it, or its group may write it (mode {mode:04o})",
                hint=f"chmod 600 {self.file}",
            )
        ]

    def _fetch(self) -> bytes:
        if self.env is not None:
            if self.env not in os.environ:
                raise NotFound(f"the environment variable {self.env}, which should hold a secret, is not set")
            return os.environb[os.fsencode(self.env)]
        if self.file is not None:
            for finding in self.findings():
                _log.warning("%s: %s (%s)", finding.what, finding.detail, finding.hint)
            return self._read(self.file)
        if self.credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise NotFound(f"{self}: no credentials were given", hint="Run under systemd with LoadCredential=.")
            return self._read(Path(directory) / self.credential)
        return self._run(self.command or ())

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return re.sub(rb"\r?\n\Z", b"", file.read(MAX_BYTES + 3))
        except FileNotFoundError:
            raise NotFound(f"the secret from {self} is not there") from None
        except PermissionError:
            raise AccessDenied(f"the secret from {self} may not be read by this user") from None
        except OSError as error:
            raise ConfigError(f"the secret from {self} cannot be read: {error.strerror}") from None

    def _run(self, command: tuple[str, ...]) -> bytes:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
            )
        except FileNotFoundError:
            raise NotFound(f"{command[0]}, which should print a secret, is not there") from None
        except OSError as error:
            raise ConfigError(f"{command[0]}, which should print a secret, cannot run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]}, which should print a secret, took over {COMMAND_SECONDS} s") from None
        if done.returncode != 0:
            # Its stderr is not shown: who knows what it prints there.
            raise Unavailable(
                f"{command[0]}, which should print a secret, ended with exit code {done.returncode}", transient=False
            )
        return re.sub(rb"\r?\n\Z", b"", done.stdout)
