"""The memory of a running machine, as a snapshot keeps it in a file of its own (``.vmem``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vbackup.api import Block, CaptureLost, Extent, Kind, NotFound, Range, SourceDisk, Unavailable, VBackupError
from vbackup_vsphere import folder
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.readers.files import split_path
from vbackup_vsphere.session import Session
from vbackup_vsphere.snapshot import Snapshot


class MemoryFile:
    """A `SourceDisk`: the content of the memory."""

    key = "memory"
    full_reason: str | None = "memory is always read in full"

    def __init__(self, session: Session, url: str, size: int, verify: Callable[[], None]) -> None:
        self.size = size
        self._session = session
        self._url = url
        self._verify = verify

    def extents(self, *, full: bool) -> Iterator[Extent]:  # noqa: ARG002 - nothing is known of what changed
        """See `SourceDisk.extents`."""
        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        for offset, length in ranges:
            try:
                yield Block(offset, self._piece(offset, length))
            except NotFound as error:
                self._verify()
                raise CaptureLost(f"the file of the memory is gone: {error.message}") from error

    def _piece(self, offset: int, length: int) -> bytes:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        data = bytearray()
        with self._session.open("GET", self._url, headers=wanted) as answer:
            if answer.status != 206:
                raise Unavailable(f"the file of the memory: {answer.status} instead of a part of it", transient=False)
            while len(data) < length and (piece := answer.read(length - len(data))):
                data += piece
        if len(data) != length:
            raise Unavailable(f"the file of the memory: {len(data)} bytes came instead of {length}")
        return bytes(data)


def kept(
    session: Session, plan: Plan, made: Snapshot, files: dict[str, bytes], notes: list[str], verify: Callable[[], None]
) -> SourceDisk | None:
    """Return what the snapshot ``made`` keeps of the memory, and add its device state to ``files`` as ``vmsn``.

    None and a note where it cannot be read: the disks are worth keeping all the same.
    """
    try:
        state, content = _files(session, plan, made)
        files["vmsn"] = folder.fetch(session, plan.datacenter, state.name)
        url = split_path(content.name, plan.datacenter).url()
        with session.open("HEAD", url) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
        if size <= 0:
            raise NotFound(f"{content.name} is empty")
    except VBackupError as error:
        files.pop("vmsn", None)
        notes.append(f"the memory is not captured: {error}")
        return None
    return MemoryFile(session, url, size, verify)


def _files(session: Session, plan: Plan, made: Snapshot) -> tuple[Any, Any]:
    """Return the ``FileInfo`` of the snapshot's device state and of its memory."""
    layout = session.get(plan.found.ref, "layoutEx.file", "layoutEx.snapshot")
    by_key = {one.key: one for one in layout.get("layoutEx.file", ())}
    ours = next((one for one in layout.get("layoutEx.snapshot", ()) if one.key == made.ref), None)
    state = by_key.get(ours.dataKey) if ours is not None else None
    content = by_key.get(ours.memoryKey) if ours is not None else None
    if state is None or content is None:
        raise NotFound("vSphere names no file that holds it")
    return state, content
