"""Restore points as objects: small, sealed, written last.

``points/ID`` has two parts. The *head* is what all key holders may see: what is needed to list, to find what changed,
and to prune. The *body* is the machine's description: only those that may read can open it. ::

    magic (8) | origin length (2) | origin | head length (4) | sealed head (JSON) | sealed body (JSON)

The head's seal binds the point's id and its origin, the body's seal binds the head: a store cannot hand out one point,
or a part of one, as another.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from vbackup.api import AlreadyExists, Corrupt, MachineDescription, PluginError, Point, Transport
from vbackup.repository.bounded import bounded
from vbackup.repository.chunks import Chain, Chains
from vbackup.repository.layout import POINTS
from vbackup.repository.sealing import Keys

KIND = "point"
MAX_POINT = 64 << 20
MAGIC = b"VBPOINT1"
_START = struct.Struct("<8sH")
_LENGTH = struct.Struct("<I")
ID = re.compile(r"[0-9a-f]{32}")


class Head(BaseModel):
    """What all key holders may see of a point."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    point: Point


class Stored(NamedTuple):
    """A stored point in its parts, nothing of it opened."""

    origin: bytes
    head: bytes
    body: bytes

    @property
    def session(self) -> bytes:
        """The id of the session that wrote it."""
        return self.origin[:16]


def point_key(point_id: str) -> str:
    """Return a point's object key."""
    return f"{POINTS}/{point_id}"


def write_point(keys: Keys, chain: Chain, head: Head, description: MachineDescription) -> bytes:
    """Return a point's object. Raises `PluginError` for one that could not be read back."""
    point = head.point
    try:
        document, machine = head.model_dump_json().encode(), description.model_dump_json().encode()
        Head.model_validate_json(document)
        MachineDescription.model_validate_json(machine)
    except ValueError as error:  # pydantic's errors are such
        raise PluginError(f"{point.machine}: the hypervisor plugin gave what cannot be stored: {error}") from error
    if len(document) + len(machine) > MAX_POINT - (1 << 20):
        raise PluginError(f"{point.machine}: its description has {len(machine)} bytes, which is too much")
    name = bytes.fromhex(point.id)
    origin = chain.encoded_origin
    sealed = keys.seal(KIND, name + origin, document)
    body = chain.seal_body(name + blake3(sealed).digest(), machine)
    return b"".join((_START.pack(MAGIC, len(origin)), origin, _LENGTH.pack(len(sealed)), sealed, body))


def put_point(transport: Transport, point_id: str, data: bytes) -> None:
    """Store a point; from here on it exists. Raises `AlreadyExists`."""
    try:
        transport.put(point_key(point_id), data, if_absent=transport.can_put_if_absent)
    except AlreadyExists as error:
        raise AlreadyExists(f"restore point {point_id} is there already") from error


def get_point(transport: Transport, point_id: str) -> Stored:
    """Get a point's object. Raises: `Corrupt`, `NotFound`."""
    return split_point(point_id, bounded(transport, point_key(point_id), MAX_POINT))


def split_point(point_id: str, data: bytes) -> Stored:
    """Take a stored point apart. Raises `Corrupt`."""
    try:
        magic, origin_length = _START.unpack_from(data)
        at = _START.size + origin_length
        (head_length,) = _LENGTH.unpack_from(data, at)
    except struct.error:
        raise Corrupt(f"restore point {point_id} is truncated") from None
    start = at + _LENGTH.size
    if magic != MAGIC or start + head_length > len(data):
        raise Corrupt(f"restore point {point_id} is truncated or is none")
    return Stored(data[_START.size : at], data[start : start + head_length], data[start + head_length :])


def open_head(keys: Keys, point_id: str, origin: bytes, head: bytes) -> Head:
    """Open a stored point's head. Raises `Corrupt` naming it."""
    try:
        opened = Head.model_validate_json(keys.open(KIND, bytes.fromhex(point_id) + origin, head))
    except Corrupt as error:
        raise Corrupt(f"restore point {point_id} is damaged: {error.message}") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Corrupt(f"restore point {point_id} holds a document that is not valid (at {where})") from None
    if opened.point.id != point_id:
        raise Corrupt(f"restore point {point_id} is stored under another one's name")
    return opened


def read_description(chains: Chains, point_id: str, stored: Stored) -> MachineDescription:
    """Open a stored point's body. Raises: `Corrupt` naming the point, `WrongKey`."""
    name = bytes.fromhex(point_id) + blake3(stored.head).digest()
    try:
        return MachineDescription.model_validate_json(chains.of(stored.origin).open_body(name, stored.body))
    except Corrupt as error:
        raise Corrupt(f"the description in restore point {point_id} is damaged: {error.message}") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Corrupt(f"restore point {point_id} holds a description that is not valid (at {where})") from None
