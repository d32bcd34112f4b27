"""The memory of a running machine, as a snapshot keeps it in a file of its own (``.vmem``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from vbackup.api import Block, Extent, Kind, NotFound, Range, SourceDisk, Unavailable, VBackupError
from vbackup_vsphere import folder
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.readers.datastore import DatastoreReader, Requests
from vbackup_vsphere.readers.files import DatastoreFile, split_path
from vbackup_vsphere.session import Session
from vbackup_vsphere.snapshot import Snapshot


class MemoryFile:
    """A `SourceDisk`: the content of the memory."""

    key = "memory"
    full_reason: str | None = "memory is always read in full"

    def __init__(self, requests: Requests, size: int, verify: Callable[[], None]) -> None:
        self.size = size
        self._reader = DatastoreReader(requests)
        self._verify = verify

    def extents(self, *, full: bool) -> Iterator[Extent]:  # noqa: ARG002 - nothing is known of what changed
        """See `SourceDisk.extents`."""
        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        try:
            yield from self._reader.read(ranges)
        except VBackupError:
            self._verify()  # when the snapshot is gone, that is why
            raise


def kept(
    session: Session,
    plan: Plan,
    made: Snapshot,
    files: dict[str, bytes],
    notes: list[str],
    verify: Callable[[], None],
    stack: ExitStack,
) -> SourceDisk | None:
    """Return what the snapshot ``made`` keeps of the memory, and add its device state to ``files`` as ``vmsn``.

    It can be read until ``stack`` ends. None and a note where it cannot be: the disks are worth keeping all the same.
    """
    try:
        state, content = _files(session, plan, made)
        data = folder.fetch(session, plan.datacenter, state.name, state.size)
        file = split_path(content.name, plan.datacenter)
        size = _size(session, file, content)
    except VBackupError as error:
        notes.append(f"the memory is not captured: {error}")
        return None
    files["vmsn"] = data
    requests = stack.enter_context(Requests(session, file, size, f"the memory of {plan.found.name}"))
    return MemoryFile(requests, size, verify)


def _size(session: Session, file: DatastoreFile, info: Any) -> int:
    """Return how many bytes a file has, by the host's answer and its ``FileInfo``."""
    with session.open("HEAD", file.url()) as answer:
        told = answer.headers.get("Content-Length") or ""
    if not told.isdecimal() or not int(told):
        raise Unavailable(f"{info.name}: the host says that it has {told or 'unknown'} bytes", transient=False)
    size = int(told)
    if info.size is not None and info.size >= 0 and info.size != size:
        raise Unavailable(f"{info.name}: the host tells of {size} bytes instead of {info.size}", transient=False)
    return size


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
