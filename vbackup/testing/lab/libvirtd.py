"""A libvirtd of our own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import libvirt

from vbackup.testing.lab import namespace
from vbackup.testing.lab.namespace import LabError

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
swtpm_user = "root"
swtpm_group = "root"
"""
LIBVIRTD_CONF = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until ``condition()`` holds, looking often; `LabError` names ``what`` when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:.0f} s in vain for {what}")
        select.select([], [], [], 0.02)


class Libvirtd:
    """Our libvirtd at ``qemu:///system`` of this process and its children, with nothing in it at first.

    Leaving the context ends it and all its machines; so does the death of this process, whichever way it dies.
    """

    uri = "qemu:///system"

    def __init__(self) -> None:
        self.root = Path()
        """The directory that holds all that is libvirt's."""
        self.pid = 0
        """libvirtd's process id, for tests that do it harm."""
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> None:
        """Begin. Raises `LabError`, `OSError`."""
        if os.geteuid() != 0:
            raise LabError("the lab runs libvirt's system daemon and mounts: run it as root")
        self.root = Path(tempfile.mkdtemp(prefix="vbackup-lab-"))
        try:
            lock = namespace.enter(self.root)
        except (OSError, LabError):
            shutil.rmtree(self.root)
            raise
        Path("/var/lib/libvirt/images").mkdir(mode=0o711)  # Debian's package makes it; libvirtd does the rest
        Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        Path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
        with (self.root / "keeper.log").open("w") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "vbackup.testing.lab.keeper", str(self.root), "--libvirt"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[] if lock is None else [lock],
                start_new_session=True,  # Ctrl-C is for us; the keeper follows when we are done
            )
        if lock is not None:
            os.close(lock)  # the keeper has it now, until it has cleaned up
        self.start()

    def close(self) -> None:
        """End everything, guards of killed backups among it: they would go on for an hour, without a libvirtd."""
        _end_guards()
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None

    def spawn(self, command: list[str]) -> int:
        """Start a process that ends with the lab at the latest; return its id."""
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        print(json.dumps(command), file=self._keeper.stdin, flush=True)
        return int(self._keeper.stdout.readline())

    def start(self) -> None:
        """Start libvirtd and wait until it answers. Machines that still run are found again by it."""
        self.pid = self.spawn(["libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"])
        until(self._answers, f"libvirtd to answer; see {self.root}/keeper.log")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End libvirtd alone, by a signal; its machines go on running."""
        handle = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(handle, how)
            if not select.select([handle], [], [], 30)[0]:
                raise LabError("libvirtd does not end")
        finally:
            os.close(handle)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """`stop`, then `start`."""
        self.stop(how)
        self.start()

    def connect(self) -> libvirt.virConnect:
        """Return a new connection."""
        return libvirt.open(self.uri)

    @contextlib.contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """A connection for the time of the context."""
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()

    def _answers(self) -> bool:
        if not Path(f"/proc/{self.pid}").exists():
            raise LabError("libvirtd ended: " + (self.root / "keeper.log").read_text()[-2000:])
        try:
            self.connect().close()
        except libvirt.libvirtError:
            return False
        return True


def _end_guards() -> None:
    """End the guards that live in this lab, which is told by its mount namespace."""
    here = Path("/proc/self/ns/mnt").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"vbackup_libvirt.child" in command and (process / "ns/mnt").readlink() == here:
                os.kill(int(process.name), signal.SIGKILL)


def quiet() -> None:
    """Keep libvirt from printing errors that are raised anyway."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


quiet()
