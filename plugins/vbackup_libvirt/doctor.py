"""What ``vbackup doctor`` tells of a libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vbackup.api import Finding, Level, VBackupError
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.node import Node
from vbackup_qemu import libnbd

_OLDEST = (8, 0, 0)


def check(node: Node) -> Sequence[Finding]:
    """See `vbackup.api.Hypervisor.check`."""
    return [
        _finding("libvirt-python", _library),
        _finding("libnbd", _nbd),
        *_connection(node),
        _finding("qemu-img", lambda: _program(node, "qemu-img")),
        _finding("qemu-nbd", lambda: _program(node, "qemu-nbd")),
        _finding("scratch directory", lambda: _scratch(node)),
    ]


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, Level.OK, look())
    except VBackupError as error:
        return Finding(what, Level.ERROR, error.message, error.hint)


def _library() -> str:
    return _version(library().getVersion())


def _nbd() -> str:
    libnbd.load()
    return "found"


def _program(node: Node, name: str) -> str:
    return node.host.run([name, "--version"]).stdout.decode().splitlines()[0]


def _connection(node: Node) -> Iterator[Finding]:
    try:
        connection = node.connection.get()
        with translated(f"asking {node.connection.uri} for its version"):
            libvirtd, qemu = connection.getLibVersion(), connection.getVersion()
    except VBackupError as error:
        yield Finding(node.connection.uri, Level.ERROR, error.message, error.hint)
        return
    detail = f"libvirt {_version(libvirtd)}, QEMU {_version(qemu)}"
    if libvirtd < _OLDEST[0] * 1_000_000 + _OLDEST[1] * 1_000 + _OLDEST[2]:
        yield Finding(node.connection.uri, Level.WARNING, detail, "vbackup is tested with libvirt 9 and newer")
    else:
        yield Finding(node.connection.uri, Level.OK, detail)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _scratch(node: Node) -> str:
    path = node.scratch.as_posix()
    node.host.run(["mkdir", "-p", "-m", "0711", "--", path])
    node.host.run(["test", "-w", path])
    return f"{path}: {node.host.free_bytes(path)} bytes free, {node.options.scratch_reserve} of them are the reserve"
