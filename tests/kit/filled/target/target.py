"""Each disk of each point is an object of its own, and so is each point: nothing is shared, nothing can break."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError
from vbackup_shelf.writer import ShelfWriter

from vbackup.api import (
    AlreadyExists,
    Block,
    CheckOrder,
    CheckReport,
    Corrupt,
    Damage,
    Extent,
    Kind,
    MachineDescription,
    NotFound,
    Options,
    Point,
    PruneOrder,
    PruneReport,
    Range,
    TargetContext,
    merge,
)


class ShelfOptions(Options):
    """Options of ``type: shelf``."""

    block_size: int = Field(default=65536, ge=4096, le=4194304, description="bytes that are compared at once")


class ShelfTarget:
    """Whole disks on a shelf."""

    name: ClassVar[str] = "shelf"
    options: ClassVar[type[BaseModel]] = ShelfOptions
    encodes: ClassVar[bool] = False
    needs_files: ClassVar[bool] = False

    def __init__(self, options: ShelfOptions, context: TargetContext) -> None:
        self._block = options.block_size
        self._store = context.transport

    @property
    def id(self) -> str:
        """It stands on the shelf."""
        return self._store.get("shelf").decode()

    def init(self) -> None:
        """Make the id."""
        if any(self._store.list("shelf")):
            raise AlreadyExists("there is a shelf already")
        self._store.put("shelf", uuid.uuid4().hex.encode(), if_absent=True)

    @contextmanager
    def writer(self) -> Iterator[ShelfWriter]:
        """What is not committed stays as garbage."""
        _ = self.id
        yield ShelfWriter(self._store, self._block, self._blob)

    def points(self) -> list[Point]:
        """Look at all of them."""
        _ = self.id
        good = [point for _, point in self._documents() if point is not None]
        return sorted(good, key=lambda point: (point.time, point.id))

    def damaged_points(self) -> list[Damage]:
        """Those that make no sense."""
        return [Damage(id_, "", "", 0, 0, "it is no point") for id_, point in self._documents() if point is None]

    def description(self, point: Point) -> MachineDescription:
        """It is kept beside the point."""
        return MachineDescription.model_validate(json.loads(self._store.get(f"points/{point.id}"))["description"])

    def extents(self, point: Point, disk: str, since: Point | None = None) -> Iterator[Extent]:
        """Compare block by block."""
        data = self._disk(point, disk)
        has_it = since is not None and any(each.key == disk for each in since.disks)
        return merge(self._extents(data, self._disk(since, disk) if since is not None and has_it else None))

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """Cut them out."""
        data = self._disk(point, disk)
        for offset, length in ranges:
            yield Block(offset, data[offset : offset + length])

    def file(self, point: Point, name: str) -> bytes:
        """It is an object like a disk."""
        if name not in point.files:
            raise NotFound(f"point {point.id} has no file {name}")
        return self._blob(point.files[name])

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """Read all that is needed."""
        damage = []
        for point in points:
            for disk in point.disks:
                try:
                    progress(len(self._blob(disk.content)))
                except (NotFound, Corrupt) as error:
                    if any(self._store.list(f"points/{point.id}")):
                        damage.append(Damage(point.id, point.machine, disk.key, 0, disk.size, error.message))
        return damage

    def check(self, order: CheckOrder, progress: Callable[[int], None]) -> CheckReport:
        """Read all, or see whether all is there."""
        sizes = {info.key: info.size for info in self._store.list()}
        read: list[int] = []

        def count(size: int) -> None:
            read.append(size)
            progress(size)

        damage = self.verify(self.points(), count) if order.read_data else []
        missing = [
            f"object {key} is missing"
            for point in self.points()
            for disk in point.disks
            if (key := disk.content["blob"]) not in sizes and any(self._store.list(f"points/{point.id}"))
            and not any(self._store.list(key))
        ]  # fmt: skip
        stored = sum(size for key, size in sizes.items() if key.startswith("blobs/"))
        return CheckReport(tuple(missing), tuple(damage), objects=len(sizes), stored=stored, read=sum(read))

    def delete(self, points: Sequence[Point]) -> None:
        """The point first, then what it had."""
        self.forget([point.id for point in points])
        for point in points:
            for content in (*(disk.content for disk in point.disks), *point.files.values()):
                self._store.delete(content["blob"])

    def forget(self, ids: Sequence[str]) -> None:
        """The point only."""
        for id_ in ids:
            self._store.delete(f"points/{id_}")
            self._store.delete(f"protected/{id_}")

    def protected(self) -> Mapping[str, str]:
        """Each is an object."""
        keys = [info.key for info in self._store.list("protected")]
        return {key.removeprefix("protected/"): self._store.get(key).decode() for key in keys}

    def protect(self, point: Point, reason: str) -> None:
        """Make it one."""
        self._store.put(f"protected/{point.id}", reason.encode())

    def unprotect(self, point: Point) -> None:
        """Make it none."""
        self._store.delete(f"protected/{point.id}")

    def prune(self, order: PruneOrder) -> PruneReport:
        """Deleting has given back all but what failed runs left, which stays here."""
        return PruneReport()

    def close(self) -> None:
        """Nothing is open."""

    def _documents(self) -> Iterator[tuple[str, Point | None]]:
        for info in list(self._store.list("points")):
            try:
                document = json.loads(self._store.get(info.key))
                yield info.key.removeprefix("points/"), Point.model_validate(document["point"])
            except NotFound:
                continue  # deleted meanwhile
            except (ValueError, KeyError, TypeError, ValidationError):
                yield info.key.removeprefix("points/"), None

    def _disk(self, point: Point, key: str) -> bytes:
        for disk in point.disks:
            if disk.key == key:
                return self._blob(disk.content)
        raise NotFound(f"point {point.id} has no disk {key}")

    def _blob(self, content: Mapping[str, Any]) -> bytes:
        data = self._store.get(content["blob"])
        if hashlib.sha256(data).hexdigest() != content["sha256"]:
            raise Corrupt(f"object {content['blob']} is not what was written")
        return data

    def _extents(self, data: bytes, other: bytes | None) -> Iterator[Extent]:
        for offset in range(0, len(data), self._block):
            part = data[offset : offset + self._block]
            if other is not None and part == other[offset : offset + len(part)]:
                kind = Kind.UNCHANGED
            else:
                kind = Kind.DATA if any(part) else Kind.ZERO
            yield Extent(offset, len(part), kind)
