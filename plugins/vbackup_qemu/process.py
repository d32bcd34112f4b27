"""Programs that were run, here or elsewhere, and what their failures mean."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Self, cast

from vbackup.api import AccessDenied, Busy, NoSpace, NotFound, Unavailable, Unsupported, VBackupError

STOP_SECONDS = 120
"""How long a program may take to end; QEMU writes out its caches and bitmaps before."""

_MEANINGS: tuple[tuple[str, type[VBackupError]], ...] = (
    ("No such file or directory", NotFound),
    ("Permission denied", AccessDenied),
    ("Read-only file system", AccessDenied),
    ("Operation not permitted", AccessDenied),
    ("No space left on device", NoSpace),
    ("Disk quota exceeded", NoSpace),
    (" lock\n", Busy),
    ("Is another process using the image", Busy),
)
"""What programs say (in the C locale) and which error that is."""


_NOT_INSTALLED = 127


def c_locale() -> dict[str, str]:
    """Return the environment for a program whose messages we must understand."""
    return os.environ | {"LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended."""

    stdout: bytes
    stderr: str
    returncode: int


def failure(what: str, stderr: str) -> VBackupError:
    """Return the error that a program's ``stderr`` stands for; ``what`` says what was to be done, to what."""
    text = stderr.strip() or "it said nothing"
    for phrase, kind in _MEANINGS:
        if phrase in stderr:
            return kind(f"{what}: {text}")
    return VBackupError(f"{what}: {text}")


_QEMU = "apt-get install qemu-utils, or dnf install qemu-img"
_PACKAGES = {
    "qemu-img": _QEMU,
    "qemu-nbd": _QEMU,
    "ssh": "apt-get install openssh-client, or dnf install openssh-clients",
}


def missing(program: str, where: str) -> Unsupported:
    """Return the error for a program that is not installed."""
    return Unsupported(f"{program} is not installed on {where}", hint=_PACKAGES.get(program, ""))


class Process:
    """A running program that is told to end by closing its standard input, so that it also ends when we die."""

    def __init__(self, argv: Sequence[str], what: str) -> None:
        self._what = what
        # A session of its own: Ctrl-C is for us, who then end it in order.
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=c_locale(),
        )
        self._stdout = cast("IO[bytes]", self._popen.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line(self) -> str:
        """Wait for one line of output; raises what its standard error means if it ends without one."""
        line: bytes = self._stdout.readline()
        if not line:
            _, stderr = self._popen.communicate()
            text = stderr.decode(errors="replace")
            if self._popen.returncode == _NOT_INSTALLED:
                raise Unsupported(f"{self._what}: {text.strip()}", hint=_QEMU)
            raise failure(self._what, text)
        return line.decode(errors="replace").rstrip("\n")

    def stop(self) -> None:
        """Close its input and wait until it, and whoever else holds its output, has ended."""
        if self._stdout.closed:
            return
        try:
            self._popen.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._popen.kill()
            raise Unavailable(f"{self._what}: it does not end", hint="look at its storage; then end it") from error
