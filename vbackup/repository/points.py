"""Restore points as objects: small, sealed, written last.

``points/ID`` is the sealed JSON of a `Point`; its id is part of what is authenticated, so that a store cannot hand
out one point as another.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from vbackup.api import AlreadyExists, Corrupt, Damage, NotFound, PluginError, Point, Transport
from vbackup.repository.cache import Cache
from vbackup.repository.layout import POINTS
from vbackup.repository.sealing import Keys
from vbackup.repository.store import bounded

KIND = "point"
MAX_POINT = 32 << 20
_ID = re.compile(r"[0-9a-f]{32}")


def point_key(point_id: str) -> str:
    """Return a point's object key."""
    return f"{POINTS}/{point_id}"


def put_point(transport: Transport, keys: Keys, point: Point) -> None:
    """Write a point; from here on it exists. Raises `AlreadyExists`; `PluginError` for one that could not be read."""
    try:
        document = point.model_dump_json().encode()
        Point.model_validate_json(document)
    except ValueError as error:  # pydantic's errors are such
        raise PluginError(f"{point.machine}: the hypervisor plugin gave what cannot be stored: {error}") from error
    if len(document) > MAX_POINT:
        raise PluginError(f"{point.machine}: its description has {len(document)} bytes, of {MAX_POINT} at the most")
    sealed = keys.seal(KIND, bytes.fromhex(point.id), document)
    try:
        transport.put(point_key(point.id), sealed, if_absent=transport.can_put_if_absent)
    except AlreadyExists as error:
        raise AlreadyExists(f"restore point {point.id} is there already") from error


def get_point(transport: Transport, point_id: str) -> bytes:
    """Get a point's object. Raises: `Corrupt`, `NotFound`."""
    return bounded(transport, point_key(point_id), MAX_POINT + 1024)


def open_point(keys: Keys, point_id: str, sealed: bytes) -> Point:
    """Open a stored point. Raises `Corrupt` naming it."""
    try:
        point = Point.model_validate_json(keys.open(KIND, bytes.fromhex(point_id), sealed))
    except Corrupt as error:
        raise Corrupt(f"restore point {point_id} is damaged: {error.message}") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Corrupt(f"restore point {point_id} holds a document that is not valid (at {where})") from None
    if point.id != point_id:
        raise Corrupt(f"restore point {point_id} is stored under another one's name")
    return point


def load_points(transport: Transport, keys: Keys, cache: Cache) -> tuple[list[Point], list[Damage]]:
    """Return all points that can be read, oldest first, and the damage of the others."""
    names = [info.key.removeprefix(f"{POINTS}/") for info in transport.list(POINTS)]
    ids = {name for name in names if _ID.fullmatch(name)}
    cached = cache.points()
    points: list[Point] = []
    damage: list[Damage] = []
    fresh: dict[str, bytes] = {}
    for point_id in ids:
        try:
            sealed = cached.get(point_id)
            if sealed is None:
                sealed = get_point(transport, point_id)
            points.append(open_point(keys, point_id, sealed))
            if point_id not in cached:
                fresh[point_id] = sealed
        except NotFound:
            continue  # deleted since it was listed
        except Corrupt as error:
            damage.append(Damage(point_id, "", "", 0, 0, error.message))
    cache.set_points(fresh, set(cached) - ids | {d.point for d in damage})
    return sorted(points, key=lambda point: (point.time, point.id)), damage
