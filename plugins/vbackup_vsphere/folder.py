"""Small files on datastores, read whole over HTTPS."""

from __future__ import annotations

from vbackup.api import Unavailable, Unsupported
from vbackup_vsphere.readers.files import split_path
from vbackup_vsphere.session import Session

LIMIT = 64 << 20
"""Bytes below which a file may be kept beside the disks."""

_PIECE = 1 << 20
_WHOLE = 200


def fetch(session: Session, datacenter: str, file: str, size: int | None) -> bytes:
    """Return a file's content. ``size`` is what ``layoutEx`` says that it has; None or below 0 when it does not.

    Raises: `Unsupported` when it is too large; `NotFound`, `Unavailable`.
    """
    data = bytearray()
    with session.open("GET", split_path(file, datacenter).url()) as answer:
        if answer.status != _WHOLE:
            raise Unavailable(f"{file}: {answer.status} instead of the file", transient=False)
        while piece := answer.read(_PIECE):
            data += piece
            if len(data) >= LIMIT:
                raise Unsupported(f"{file} is larger than {LIMIT >> 20} MiB")
        told = answer.headers.get("Content-Length")
    expected = {told, None if size is None or size < 0 else str(size)} - {None, str(len(data))}
    if expected:
        raise Unavailable(f"{file}: {len(data)} bytes came instead of {expected.pop()}")
    return bytes(data)
