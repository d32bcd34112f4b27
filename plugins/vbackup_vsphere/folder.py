"""Small files on datastores, read whole over HTTPS."""

from __future__ import annotations

from vbackup.api import Unavailable, Unsupported
from vbackup_vsphere.readers.files import split_path
from vbackup_vsphere.session import Session

LIMIT = 64 << 20
"""Bytes below which a file may be kept beside the disks."""

_PIECE = 1 << 20


def fetch(session: Session, datacenter: str, file: str) -> bytes:
    """Return a file's content. Raises: `Unsupported` when it is too large; `NotFound`, `Unavailable`."""
    data = bytearray()
    with session.open("GET", split_path(file, datacenter).url()) as answer:
        while piece := answer.read(_PIECE):
            data += piece
            if len(data) >= LIMIT:
                raise Unsupported(f"{file} is larger than {LIMIT >> 20} MiB")
        told = answer.headers.get("Content-Length")
    if told is not None and int(told) != len(data):
        raise Unavailable(f"{file}: {len(data)} bytes came instead of {told}")
    return bytes(data)
