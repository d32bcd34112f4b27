"""The simplest target that is right: each disk of each point is an object. What breaks the contract is derived."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from contextlib import contextmanager
from typing import ClassVar

from pydantic import ValidationError

from vbackup.api import (
    AlreadyExists,
    Block,
    CheckReport,
    Corrupt,
    Damage,
    DiskCounts,
    Extent,
    Kind,
    MachineDescription,
    NotFound,
    Options,
    Point,
    PruneReport,
)

BLOCK = 64 << 10


class NaiveDisk:
    """A disk in memory, until it is finished."""

    def __init__(self, target, size, base):
        self.target = target
        self.data = bytearray(size)
        self.base = target.load(base.content) if base else None
        self.changed = set()
        self.counts = Counter()

    def write(self, offset, data):
        self.put(offset, data)

    def zero(self, offset, length):
        self.put(offset, bytes(length))
        self.counts["zero"] += length

    def unchanged(self, offset, length):
        self.data[offset : offset + length] = self.base[offset : offset + length]

    def put(self, offset, data):
        for at in range(0, len(data), BLOCK):
            part = bytes(data[at : at + BLOCK])
            self.data[offset + at : offset + at + len(part)] = part
            if not self.same(offset + at, part):
                self.changed.add(offset + at)
                self.counts["changed"] += len(part)

    def same(self, offset, data):
        return self.base is not None and self.base[offset : offset + BLOCK] == data

    def last_data(self, offset, length):
        starts = range(offset, min(offset + length, len(self.base or b"")), BLOCK)
        return max((start for start in starts if any(self.base[start : start + BLOCK])), default=None)

    def finish(self):
        return self.target.save(bytes(self.data)), self.progress()

    def progress(self):
        return DiskCounts(self.counts["changed"], len(self.data), self.counts["zero"], 0, tuple(self.changed)[:64])


class NaiveWriter:
    block_size = BLOCK
    notes = ()

    def __init__(self, target):
        self.target = target

    def check(self):
        pass

    def base_problem(self, base):
        try:
            self.target.load(base.content)
        except Corrupt as error:
            return error.message
        return None

    def disk(self, size, base):
        return self.target.disk_type(self.target, size, base)

    def file(self, data):
        return self.target.save(data)

    def commit(self, point, description):
        document = {"point": point.model_dump(mode="json"), "machine": description.model_dump(mode="json")}
        self.target.store.put(f"points/{point.id}", json.dumps(document).encode())


class Naive:
    name: ClassVar[str] = "naive"
    options = Options
    encodes: ClassVar[bool] = False
    needs_files: ClassVar[bool] = False
    disk_type = NaiveDisk
    writer_type = NaiveWriter

    def __init__(self, options, context):
        self.store = context.transport
        self.alias = context.alias

    @property
    def id(self):
        try:
            return self.store.get("target").decode()
        except NotFound as error:
            raise NotFound(f"target {self.alias} is not there", hint="run `vbackup init`") from error

    def init(self):
        self.store.create()
        try:
            self.store.put("target", uuid.uuid4().hex.encode(), if_absent=True)
        except AlreadyExists as error:
            raise AlreadyExists(f"target {self.alias} is there already") from error

    @contextmanager
    def writer(self):
        assert self.id
        yield self.writer_type(self)

    def save(self, data):
        content = {"key": f"data/{uuid.uuid4().hex}", "digest": hashlib.sha256(data).hexdigest()}
        self.store.put(content["key"], data)
        return content

    def load(self, content, what="an earlier disk"):
        try:
            data = self.store.get(content["key"])
        except (KeyError, NotFound) as error:
            raise Corrupt(f"{what} is gone") from error
        if hashlib.sha256(data).hexdigest() != content["digest"]:
            raise Corrupt(f"{what} is not what was written")
        return data

    def documents(self):
        """Yield ids, and points with descriptions, or errors."""
        assert self.id
        for info in self.store.list("points"):
            identity = info.key.rpartition("/")[2]
            try:
                document = json.loads(self.store.get(info.key))
                yield identity, (Point.model_validate(document["point"]), document["machine"])
            except NotFound:
                continue
            except (ValueError, KeyError, TypeError, ValidationError) as error:
                yield identity, Corrupt(str(error))

    def points(self):
        found = [what[0] for _, what in self.documents() if not isinstance(what, Corrupt)]
        return sorted(found, key=lambda point: (point.time, point.id))

    def damaged_points(self):
        return [Damage(i, "", "", 0, 0, w.message) for i, w in self.documents() if isinstance(w, Corrupt)]

    def description(self, point):
        return MachineDescription.model_validate(json.loads(self.store.get(f"points/{point.id}"))["machine"])

    def disk(self, point, key):
        for disk in point.disks:
            if disk.key == key:
                return self.load(disk.content, f"disk {key} of {point.machine}")
        raise NotFound(f"{point.machine} has no disk {key}")

    def extents(self, point, disk, since=None):
        data = self.disk(point, disk)
        for offset in range(0, len(data), BLOCK):
            part = data[offset : offset + BLOCK]
            yield Extent(offset, len(part), Kind.DATA if any(part) else Kind.ZERO)

    def read(self, point, disk, ranges):
        data = self.disk(point, disk)
        for offset, length in ranges:
            yield Block(offset, data[offset : offset + length])

    def file(self, point, name):
        if name not in point.files:
            raise NotFound(f"{point.machine} has no file {name}")
        return self.load(point.files[name], f"file {name} of {point.machine}")

    def verify(self, points, progress):
        there = {point.id for point in self.points()}
        damage = []
        for point in points:
            if point.id not in there:
                continue
            damage += self.damage_of(point)
            progress(sum(disk.size for disk in point.disks))
        return damage

    def damage_of(self, point):
        parts = [(disk.key, disk.size, disk.content) for disk in point.disks]
        parts += [(name, 0, content) for name, content in point.files.items()]
        for name, size, content in parts:
            try:
                self.load(content)
            except Corrupt as error:
                yield Damage(point.id, point.machine, name, 0, size, error.message)

    def check(self, order, progress):
        damage = self.verify(self.points(), progress if order.read_data else lambda size: None)
        read = sum(disk.size for point in self.points() for disk in point.disks) if order.read_data else 0
        return CheckReport(damage=tuple(damage), objects=len(list(self.store.list())), read=read)

    def delete(self, points):
        self.forget([point.id for point in points])

    def forget(self, ids):
        for identity in ids:
            self.store.delete(f"protected/{identity}")
            self.store.delete(f"points/{identity}")

    def protected(self):
        keys = [info.key for info in self.store.list("protected")]
        return {key.rpartition("/")[2]: self.store.get(key).decode() for key in keys}

    def protect(self, point, reason):
        self.store.put(f"protected/{point.id}", reason.encode())

    def unprotect(self, point):
        self.store.delete(f"protected/{point.id}")

    def prune(self, order):
        """Take nothing: whether something is garbage or a run's that is under way nobody knows here."""
        return PruneReport(stored=sum(info.size for info in self.store.list()))

    def close(self):
        pass
