"""Reads and writes a disk with VMware's VDDK, behind nbdkit's plugin ``vddk``: any datastore, chains, allocation.

Source: nbdkit-vddk-plugin(1). VDDK may not be redistributed: who wants it downloads it and says where it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

from vbackup.api import Block, CaptureLost, Extent, Range, Unavailable, Unsupported
from vbackup_qemu.nbd import ALLOCATION, NbdClient, allocation
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.options import VddkOptions
from vbackup_vsphere.readers import nbdkit
from vbackup_vsphere.readers.base import DiskReader, Frozen
from vbackup_vsphere.session import Session

T = TypeVar("T")

NOT_CONFIGURED = "no VDDK is configured"
SILENCE = 300.0
"""Seconds: opening a disk and flushing one can take VDDK minutes on a busy host."""

# VDDK takes whole sectors only, and hosts run out of memory for NFC with requests above 2 MiB.
_FILTERS = ("--filter=cacheextents", "--filter=blocksize")
_LIMITS = ("minblock=512", "maxdata=2M")
_HTTPS = 443
_LIBRARY = "lib64/libvixDiskLib.so*"


class Vddk:
    """The way ``vddk``."""

    name: ClassVar[str] = "vddk"

    def __init__(self, options: VddkOptions | None) -> None:
        self._options = options

    def why_not(self, frozen: Frozen, disk: VmDisk) -> str | None:
        """See `Way.why_not`."""
        del frozen, disk
        return why_not(self._options)

    @contextmanager
    def open(self, frozen: Frozen, disk: VmDisk) -> Iterator[DiskReader]:
        """See `Way.open`."""
        what = f"disk {disk.key} of {frozen.machine}"
        place = [f"vm=moref={frozen.vm}", f"snapshot={frozen.snapshot}", f"file={disk.file}"]
        with _connected(frozen.session, self._options, place, disk.size, what, read_only=True) as (client, server):
            yield VddkReader(client, server)


class VddkReader:
    """A `DiskReader` of what nbdkit serves."""

    is_sequential = False

    def __init__(self, client: NbdClient, server: nbdkit.Nbdkit) -> None:
        self._client = client
        self._server = server

    def extents(self) -> Iterator[Extent] | None:
        """See `DiskReader.extents`."""
        if ALLOCATION not in self._client.contexts:
            return None
        return self._checked(allocation(self._client))

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `DiskReader.read`."""
        return self._checked(self._client.read(ranges))

    def _checked(self, items: Iterator[T]) -> Iterator[T]:
        with _told(self._client, self._server):
            yield from items


@contextmanager
def open_for_writing(session: Session, vm: str, file: str, size: int, what: str) -> Iterator[NbdClient]:
    """Give a disk of a machine that is off, to be written; ``vm`` is its managed object id, ``file`` its VMDK.

    ``size`` in bytes is what the disk must have, ``what`` begins messages. Raises: `Unsupported` when VDDK is not
    configured, or does not open it.
    """
    reason = why_not(session.options.vddk)
    if reason is not None:
        raise Unsupported(f"{what} cannot be written in its place: {reason}")
    place = [f"vm=moref={vm}", f"file={file}"]
    connected = _connected(session, session.options.vddk, place, size, what, read_only=False)
    with connected as (client, server), _told(client, server):
        yield client


def why_not(options: VddkOptions | None) -> str | None:
    """Return why VDDK cannot be used at all, as a phrase."""
    if options is None:
        return NOT_CONFIGURED
    if not any(options.libdir.glob(_LIBRARY)):
        return f"there is no {_LIBRARY} in {options.libdir}"
    if not nbdkit.is_installed():
        return "nbdkit is not installed"
    return None


@contextmanager
def _connected(
    session: Session, options: VddkOptions | None, place: list[str], size: int, what: str, *, read_only: bool
) -> Iterator[tuple[NbdClient, nbdkit.Nbdkit]]:
    if options is None:
        raise Unsupported(f"{what}: {NOT_CONFIGURED}")
    user, password, thumbprint = session.vddk_credentials()
    with _in_memory(password) as descriptor:
        arguments = [
            *(("--readonly",) if read_only else ()),
            *_FILTERS,
            options.plugin,
            *_LIMITS,
            f"libdir={options.libdir.resolve()}",
            f"server={session.host}",
            *((f"port={session.port}",) if session.port != _HTTPS else ()),
            f"user={user}",
            f"password=+/proc/self/fd/{descriptor}",
            f"thumbprint={thumbprint}",
            *((f"transports={options.transports}",) if options.transports else ()),
            *place,
        ]
        with nbdkit.Nbdkit(arguments, what, pass_fds=[descriptor]) as server:
            try:
                client = NbdClient(server.socket, contexts=(ALLOCATION,), label=what, silence=SILENCE)
            except Unavailable as error:  # the plugin logs in when somebody connects
                raise Unsupported(f"{what}: VDDK does not open it: {server.last_words()}") from error
            with client:
                if client.size != size:
                    raise Unsupported(f"{what}: VDDK shows {client.size} bytes, the disk has {size}")
                yield client, server


@contextmanager
def _told(client: NbdClient, server: nbdkit.Nbdkit) -> Iterator[None]:
    """Add what nbdkit said to the errors of a connection to it, which they end."""
    try:
        yield
    except (Unavailable, CaptureLost) as error:
        client.close()
        message = f"{error.message}: {server.last_words()}"
        raise type(error)(message, hint=error.hint, transient=error.transient) from error


@contextmanager
def _in_memory(password: bytes) -> Iterator[int]:
    """Give the descriptor of a file that is only in memory.

    The plugin starts nbdkit anew to set its library path, and may then read the password again: a pipe would be empty.
    """
    descriptor = os.memfd_create("vbackup")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(password)
        yield descriptor
    finally:
        os.close(descriptor)
