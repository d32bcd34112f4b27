"""nbdkit for the time of a context, on a private unix socket.

It never outlives us: it runs a command (``--run``) that waits for the end of its input, which comes when we close it or
are killed; that command removes the socket, and nbdkit ends with it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from vbackup.api import Unsupported
from vbackup_qemu.process import STOP_SECONDS, c_locale

PACKAGE = "apt-get install nbdkit, or dnf install nbdkit-server"
# nbdkit's own directory for a socket (`--unix -`) is left behind when a plugin starts nbdkit anew, as vddk does.
_RUN = 'echo ready; read -r _; rm -rf -- "${unixsocket%/*}"'
_SAID_LINES = 12
_SAID_LENGTH = 600
_PREFIX = re.compile(r"^nbdkit: |^[\w-]+\[\d+\]: |^error: ")
_ADVICE = "Use 'nbdkit --help'"


def is_installed() -> bool:
    """Whether there is an nbdkit."""
    return shutil.which("nbdkit") is not None


class Nbdkit:
    """A context manager: a running nbdkit. ``arguments`` are filters, plugin and parameters; never put a secret there.

    ``pass_fds`` are file descriptors that it inherits. ``what`` begins messages. Raises: `Unsupported` when it does
    not start, with what it said.
    """

    def __init__(self, arguments: Sequence[str], what: str, *, pass_fds: Sequence[int] = ()) -> None:
        self._what = what
        self._said: deque[str] = deque(maxlen=_SAID_LINES)
        self._directory = Path(tempfile.mkdtemp(prefix="vbackup-nbd-"))
        self.socket = self._directory / "socket"
        argv = ["nbdkit", "--unix", str(self.socket), "--run", _RUN, *arguments]
        try:
            # A session of its own: Ctrl-C is for us, who then end it in order.
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                pass_fds=pass_fds,
                env=c_locale(),
            )
        except FileNotFoundError as error:
            self._directory.rmdir()
            raise Unsupported(f"{what}: nbdkit is not installed", hint=PACKAGE) from error
        # What it says must be read all the time: a full pipe would stop it.
        self._listener = threading.Thread(target=self._listen, name="nbdkit", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def last_words(self) -> str:
        """End it, as `stop` does, and return, in one line, the end of what it said."""
        self.stop()  # only then all of it has been read
        return "; ".join(dict.fromkeys(self._said))[-_SAID_LENGTH:] or "nbdkit said nothing"

    def stop(self) -> None:
        """End it and wait until it is gone. It waits itself until whoever is connected has disconnected."""
        stdin, stdout = cast("IO[bytes]", self._popen.stdin), cast("IO[bytes]", self._popen.stdout)
        if stdout.closed:
            return
        stdin.close()
        stopper = threading.Timer(STOP_SECONDS, os.killpg, (self._popen.pid, signal.SIGKILL))
        stopper.start()
        try:
            while stdout.read(1 << 12):  # it and its child hold this open as long as they live
                pass
            self._popen.wait()
        finally:
            stopper.cancel()
            stdout.close()
            self._listener.join()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _await_ready(self) -> None:
        if not cast("IO[bytes]", self._popen.stdout).readline():
            raise Unsupported(f"{self._what}: {self.last_words()}")

    def _listen(self) -> None:
        with cast("IO[bytes]", self._popen.stderr) as stderr:
            for line in stderr:
                text = line.decode(errors="replace").strip()
                while (cut := _PREFIX.sub("", text)) != text:
                    text = cut
                if text and not text.startswith(_ADVICE):
                    self._said.append(text)
