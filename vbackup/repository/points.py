"""Restore points as objects: small, sealed, written last.

``points/ID`` has two parts. The *head* is what all key holders may see: what is needed to list, to find what changed,
and to prune. The *body* is the machine's description: only those that may read can open it. ::

    magic (8) | origin length (2) | origin | head length (4) | sealed head (JSON) | body
    body: origin length (2) | origin | sealed description (JSON)

The head's seal binds the repository, the point's id and its origin, and the head names the BLAKE3 of the body: a store
cannot hand out one point, or a part of one, as another. The body's own seal binds the family and the point's id: so a
copy of the point in another repository of the family has the same body, as it is, made by a host that cannot open it.
The body's origin is the session that sealed it, and of length 0 when that is the point's own.
"""

from __future__ import annotations

import contextlib
import re
import struct
from typing import NamedTuple

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import AlreadyExists, Corrupt, MachineDescription, NotFound, PluginError, Point, Transport
from vbackup.repository.bounded import bounded
from vbackup.repository.chunks import Chain, Chains
from vbackup.repository.layout import POINTS
from vbackup.repository.sealing import Keys

KIND = "point"
MAX_POINT = 64 << 20
MAGIC = b"VBPOINT1"
_START = struct.Struct("<8sH")
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<H")
ID = re.compile(r"[0-9a-f]{32}")


class Head(BaseModel):
    """What all key holders may see of a point."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    point: Point
    body: str = Field(pattern=r"^[0-9a-f]{64}$", description="the BLAKE3 of the body")


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


def write_body(chain: Chain, point: Point, description: MachineDescription) -> bytes:
    """Return the body of a point. Raises `PluginError` for one that could not be read back."""
    return _BODY.pack(0) + chain.seal_body(bytes.fromhex(point.id), _document(description, point))


def body_elsewhere(stored: Stored) -> bytes:
    """Return the body that a copy of a stored point has in another repository of the family."""
    own, sealed = split_body(stored.body)
    origin = own or stored.origin
    return _BODY.pack(len(origin)) + origin + sealed


def write_point(keys: Keys, chain: Chain, point: Point, body: bytes) -> bytes:
    """Return a point's object. Raises `PluginError` for one that could not be read back."""
    document = _document(Head(point=point, body=blake3(body).hexdigest()), point)
    if len(document) + len(body) > MAX_POINT - (1 << 20):
        raise PluginError(f"{point.machine}: its description has {len(body)} bytes, which is too much")
    origin = chain.encoded_origin
    sealed = keys.seal(KIND, bytes.fromhex(point.id) + origin, document)
    return b"".join((_START.pack(MAGIC, len(origin)), origin, _LENGTH.pack(len(sealed)), sealed, body))


def _document(model: BaseModel, point: Point) -> bytes:
    try:
        document = model.model_dump_json().encode()
        type(model).model_validate_json(document)
    except ValueError as error:  # pydantic's errors are such
        raise PluginError(f"{point.machine}: the hypervisor plugin gave what cannot be stored: {error}") from error
    return document


def put_point(transport: Transport, point_id: str, data: bytes, *, if_absent: bool) -> None:
    """Store a point; from here on it exists. ``if_absent``: the store can tell. Raises `AlreadyExists`."""
    key = point_key(point_id)
    try:
        if not if_absent:
            with contextlib.suppress(NotFound):
                transport.size(key)
                raise AlreadyExists(key)  # noqa: TRY301 - as the store would
        transport.put(key, data, if_absent=if_absent)
    except AlreadyExists as error:
        raise AlreadyExists(
            f"restore point {point_id} is there already",
            hint="if it is not listed, a run that was ended has left it: `vbackup prune` removes it",
        ) from error


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


def split_body(body: bytes) -> tuple[bytes, bytes]:
    """Return the origin of a body (empty: the point's own) and the sealed description. Raises `Corrupt`."""
    try:
        (length,) = _BODY.unpack_from(body)
    except struct.error:
        raise Corrupt("it is truncated") from None
    return body[_BODY.size : _BODY.size + length], body[_BODY.size + length :]


def check_body(head: Head, stored: Stored) -> None:
    """Raise `Corrupt` unless a stored point's body is the one that its head names."""
    if blake3(stored.body).hexdigest() != head.body:
        raise Corrupt(f"the description in restore point {head.point.id} is damaged: it is not what was stored")


def read_description(keys: Keys, chains: Chains, point_id: str, stored: Stored) -> MachineDescription:
    """Open a stored point's body. Raises: `Corrupt` naming the point, `WrongKey`."""
    check_body(open_head(keys, point_id, stored.origin, stored.head), stored)
    try:
        origin, sealed = split_body(stored.body)
        opened = chains.of(origin or stored.origin).open_body(bytes.fromhex(point_id), sealed)
        return MachineDescription.model_validate_json(opened)
    except Corrupt as error:
        raise Corrupt(f"the description in restore point {point_id} is damaged: {error.message}") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Corrupt(f"restore point {point_id} holds a description that is not valid (at {where})") from None
