"""A target, as one was written for API version 1: each block is an object, each point a document."""

import json
import os
from contextlib import contextmanager

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
    VBackupError,
    hookimpl,
)

VBACKUP_API_VERSION = 1
BLOCK = 64 << 10


class OldTarget:
    name = "old-target"
    options = Options
    encodes = False
    needs_files = False

    def __init__(self, options, context):
        self._transport = context.transport
        self._alias = context.alias

    @property
    def id(self):
        return self._transport.get("target").decode()

    def init(self):
        self._transport.create()
        try:
            self._transport.put("target", os.urandom(16).hex().encode(), if_absent=True)
        except AlreadyExists:
            raise AlreadyExists(f"target {self._alias} is there already") from None

    @contextmanager
    def writer(self):
        yield OldWriter(self._transport)

    def points(self):
        found = [self._document(info.key) for info in self._transport.list("points")]
        return sorted((Point.model_validate(each["point"]) for each in found), key=lambda point: point.time)

    def damaged_points(self):
        return []

    def description(self, point):
        return MachineDescription.model_validate(self._document(f"points/{point.id}")["machine"])

    def extents(self, point, disk, since=None):
        size, blocks = self._disk(point, disk)
        for number, key in enumerate(blocks):
            kind = Kind.DATA if key else Kind.ZERO
            yield Extent(number * BLOCK, min(BLOCK, size - number * BLOCK), kind)

    def read(self, point, disk, ranges):
        _, blocks = self._disk(point, disk)
        for offset, length in ranges:
            data = b""
            while len(data) < length:
                number, begin = divmod(offset + len(data), BLOCK)
                whole = self._transport.get(blocks[number]) if blocks[number] else bytes(BLOCK)
                data += whole[begin : begin + length - len(data)]
            yield Block(offset, data)

    def file(self, point, name):
        return self._transport.get(point.files[name]["key"])

    def verify(self, points, progress):
        damage = []
        for point in points:
            for disk in point.disks:
                for number, key in enumerate(disk.content["blocks"]):
                    try:
                        progress(len(self._transport.get(key)) if key else BLOCK)
                    except VBackupError as error:
                        lost = Damage(point.id, point.machine, disk.key, number * BLOCK, BLOCK, error.message)
                        damage.append(lost)
        return damage

    def check(self, order, progress):
        return CheckReport()

    def delete(self, points):
        self.forget([point.id for point in points])

    def forget(self, ids):
        for point in ids:
            self._transport.delete(f"points/{point}")

    def protected(self):
        return {}

    def protect(self, point, reason):
        raise NotFound("this target protects nothing")

    def unprotect(self, point):
        pass

    def prune(self, order):
        return PruneReport()

    def close(self):
        pass

    def _document(self, key):
        try:
            return json.loads(self._transport.get(key))
        except ValueError as error:
            raise Corrupt(f"object {key} is no document") from error

    def _disk(self, point, key):
        for disk in point.disks:
            if disk.key == key:
                return disk.size, disk.content["blocks"]
        raise NotFound(f"point {point.id} has no disk {key}")


class OldWriter:
    block_size = BLOCK
    notes = ()

    def __init__(self, transport):
        self._transport = transport

    def check(self):
        pass

    def base_problem(self, base):
        return None

    def disk(self, size, base):
        return OldDiskWriter(self._transport, size, base)

    def file(self, data):
        key = f"files/{os.urandom(16).hex()}"
        self._transport.put(key, data)
        return {"key": key}

    def commit(self, point, description):
        document = {"point": point.model_dump(mode="json"), "machine": description.model_dump(mode="json")}
        self._transport.put(f"points/{point.id}", json.dumps(document).encode(), if_absent=True)


class OldDiskWriter:
    def __init__(self, transport, size, base):
        self._transport = transport
        self._base = base.content["blocks"] if base else []
        self._blocks = [None] * -(-size // BLOCK)
        self._stored = self._zero = 0

    def write(self, offset, data):
        for at in range(0, len(data), BLOCK):
            key = f"data/{os.urandom(16).hex()}"
            self._transport.put(key, bytes(data[at : at + BLOCK]))
            self._blocks[(offset + at) // BLOCK] = key
        self._stored += len(data)

    def zero(self, offset, length):
        self._zero += length

    def unchanged(self, offset, length):
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        self._blocks[first:end] = self._base[first:end]

    def same(self, offset, data):
        number = offset // BLOCK
        key = self._base[number] if number < len(self._base) else None
        return bytes(data) == (self._transport.get(key) if key else bytes(len(data)))

    def last_data(self, offset, length):
        for number in reversed(range(offset // BLOCK, -(-(offset + length) // BLOCK))):
            if number < len(self._base) and self._base[number]:
                return number * BLOCK
        return None

    def finish(self):
        return {"blocks": self._blocks}, self.progress()

    def progress(self):
        return DiskCounts(self._stored, self._stored, self._zero, 0)


@hookimpl
def vbackup_register_targets(register):
    register(OldTarget)
