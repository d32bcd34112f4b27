"""QEMU's programs: ``qemu-img``, and ``qemu-storage-daemon`` for machines that are off."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import Busy, NoSpace, Unavailable, Unsupported
from vbackup_qmp.options import DiskOptions

LOG = "log"
_HINT = "apt install qemu-utils qemu-system-common"
_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")
"""Ends a program when the thread that started it does, in order or not."""


def qemu_img(*args: str | Path) -> str:
    """Run ``qemu-img`` and return what it prints. Raises: `NoSpace`, `Busy`, `Unavailable`, `Unsupported`."""
    return _run("qemu-img", *args)


def _run(program: str, *args: str | Path) -> str:
    try:
        done = subprocess.run([program, *map(str, args)], capture_output=True, check=False, errors="replace")
    except FileNotFoundError:
        raise Unsupported(f"there is no {program}", hint=_HINT) from None
    if not done.returncode:
        return done.stdout
    said = done.stderr.strip()
    if "No space left" in said:
        raise NoSpace(said)
    if "Failed to get" in said and "lock" in said:
        raise Busy(said, hint="a machine runs on it", transient=False)
    raise Unavailable(said, transient=False)


def version(program: str) -> str:
    """Return what a program says that it is. Raises: `Unsupported` when it is not there."""
    return _run(program, "--version").partition("\n")[0]


def require_unused(path: Path) -> None:
    """Raise `Busy` while a QEMU runs on the image at ``path``: it keeps a lock on the file."""
    _run("qemu-io", "-f", "raw", "-c", "quit", path)  # it opens it for writing, and does not write


@contextmanager
def storage_daemon(disks: Mapping[str, DiskOptions], directory: Path) -> Iterator[Path]:
    """Have QEMU's storage daemon open the images of a machine that is off, by node-names; yields its monitor's socket.

    Until it is left no machine can start on them: the daemon has QEMU's locks. ``directory`` is a private one.
    """
    path = directory / "monitor"
    with socket.socket(socket.AF_UNIX) as listener, (directory / LOG).open("wb") as log:
        listener.bind(str(path))
        listener.listen()  # so it can be called at once, and answers when it is ready
        argv = ["qemu-storage-daemon", "--chardev", f"socket,id=m,fd={listener.fileno()},server=on,wait=off"]
        argv += ["--monitor", "chardev=m"]
        for node, disk in disks.items():
            file = {"driver": "host_device" if disk.path.is_block_device() else "file", "filename": str(disk.path)}
            argv += ["--blockdev", json.dumps({"driver": disk.format, "node-name": node, "file": file})]
        try:
            child = subprocess.Popen(
                [*_WITH_US, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()],
                start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise Unsupported("there is no setpriv", hint="apt install util-linux") from None
    try:
        yield path
    finally:
        child.terminate()  # in order: it stores the bitmaps
        child.wait()


def why_not(name: str, directory: Path) -> Busy | Unavailable:
    """Return why the storage daemon does not answer, from its log in ``directory``."""
    said = (directory / LOG).read_text(errors="replace").strip()
    if "lock" in said:
        return Busy(f"{name}: its images are in use, and yet nobody listens at its monitor: {said}")
    return Unavailable(f"{name}: its images cannot be opened: {said}", hint=_HINT, transient=False)
