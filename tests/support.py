"""What tests of the repository and the engine share."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from blake3 import blake3

from vbackup.api import (
    Codec,
    Hypervisor,
    Kind,
    MachineRef,
    NotFound,
    Point,
    PointDisk,
    Quiesce,
    Range,
    RestoreRequest,
    Target,
    TargetContext,
    Transport,
    split,
)
from vbackup.engine.backup import BackUp
from vbackup.engine.restore import Restore
from vbackup.repository.keys import KEY_FILE_PREFIX
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.hypervisors import FakeDisk, FakeHypervisor, FakeMachine
from vbackup_aead.codecs import Aes256Gcm
from vbackup_zstd.codec import Zstd

CODECS: dict[str, type[Codec]] = {"zstd": Zstd, "aes-256-gcm": Aes256Gcm}
SECRET = KEY_FILE_PREFIX + b"bm90IHN0cmV0Y2hlZCwgc28gdGhhdCB0ZXN0cyBhcmUgZmFzdA=="


def codec(name: str) -> Codec:
    if name not in CODECS:
        raise NotFound(f"no codec {name}")
    return CODECS[name](CODECS[name].options())


def repository(
    transport: Transport,
    cache: Path,
    *,
    secret: bytes = SECRET,
    chunk_size: int = 64 << 10,
    codecs: tuple[str, ...] = tuple(CODECS),
) -> Repository:
    context = TargetContext("main", transport, [codec(name) for name in codecs], codec, lambda: secret, cache, cache)
    return Repository(RepositoryOptions(chunk_size=chunk_size), context)


def back_up(
    target: Target, hypervisor: Hypervisor, name: str, *, stop: threading.Event | None = None, memory: bool = False
) -> Point:
    """Make one point, as a job does."""
    machine = next((m for m in hypervisor.machines() if m.name == name), MachineRef(name, name, running=False))
    points = sorted((p for p in target.points() if p.machine_id == machine.id), key=lambda p: p.sequence)
    with target.writer() as writer:
        work = BackUp(
            hypervisor,
            "lab",
            "nightly",
            target.id,
            writer,
            Quiesce.TRY,
            stop or threading.Event(),
            lambda progress: None,
            memory=memory,
        )
        return work.run(machine, points[-1] if points else None).point


def restored(target: Target, point: Point) -> dict[str, bytes]:
    """Restore a point and return its disks' bytes."""
    place = FakeHypervisor()
    Restore(target, place, threading.Event(), lambda key, done, size: None).run(point, RestoreRequest(name="again"))
    return {key: bytes(disk.data) for key, disk in place.guests["again"].disks.items()}


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def guest(hypervisor: FakeHypervisor, name: str, *disks: bytes) -> FakeMachine:
    machine = FakeMachine({f"vd{chr(97 + i)}": FakeDisk(bytearray(data)) for i, data in enumerate(disks)})
    hypervisor.guests[name] = machine
    return machine


def digest(target: Target, point: Point, disk: PointDisk) -> str:
    """Hash a point's disk as a restore reads it."""
    hasher, position = blake3(), 0
    data = (Range(e.offset, e.length) for e in target.extents(point, disk.key) if e.kind is Kind.DATA)
    for block in target.read(point, disk.key, split(data, 4 << 20)):
        hasher.update(bytes(block.offset - position)).update(block.data)
        position = block.offset + len(block.data)
    return hasher.update(bytes(disk.size - position)).hexdigest()
