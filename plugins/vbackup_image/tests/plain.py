"""What the tests of the target share: a target in a directory, and backups by the engine."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vbackup.api import Hypervisor, MachineRef, NotFound, Point, Quiesce, RestoreRequest, Target, TargetContext
from vbackup.engine.backup import BackUp
from vbackup.engine.restore import Restore
from vbackup.testing.hypervisors import FakeDisk, FakeHypervisor, FakeMachine
from vbackup_image.points.layout import point_directory
from vbackup_image.points.target import ImageTarget
from vbackup_local.transport import Local

BLOCK = 64 << 10
FORMS: dict[str, dict[str, Any]] = {"qcow2": {}, "raw": {"format": "raw"}, "backing": {"backing": True}}


def no_codec(name: str) -> Any:
    raise NotFound(name)


def target_at(root: Path, **options: Any) -> ImageTarget:
    """A target in ``root``; its state is beside it."""
    transport = Local(Local.options.model_validate({"path": str(root)}))
    state = root.with_name(f"{root.name}-state")
    context = TargetContext("plain", transport, (), no_codec, bytes, state, state)
    return ImageTarget(ImageTarget.options.model_validate(options), context)


def back_up(target: Target, hypervisor: Hypervisor, name: str) -> Point:
    """Make one point, as a job does."""
    machine = next((m for m in hypervisor.machines() if m.name == name), MachineRef(name, name, running=False))
    points = sorted((p for p in target.points() if p.machine_id == machine.id), key=lambda p: p.sequence)
    with target.writer() as writer:
        work = BackUp(
            hypervisor, "lab", "nightly", target.id, writer, Quiesce.TRY, threading.Event(), lambda progress: None
        )
        return work.run(machine, points[-1] if points else None).point


def restored(target: Target, point: Point) -> dict[str, bytes]:
    """Restore a point and return its disks' bytes."""
    place = FakeHypervisor()
    Restore(target, place, threading.Event(), lambda key, done, size: None).run(point, RestoreRequest(name="again"))
    return {key: bytes(disk.data) for key, disk in place.guests["again"].disks.items()}


def guest(hypervisor: FakeHypervisor, name: str, *disks: bytes) -> FakeMachine:
    machine = FakeMachine({f"vd{chr(97 + i)}": FakeDisk(bytearray(data)) for i, data in enumerate(disks)})
    hypervisor.guests[name] = machine
    return machine


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def image(root: Path, point: Point, key: str = "vda") -> Path:
    """The file of a disk of a point."""
    (disk,) = (disk for disk in point.disks if disk.key == key)
    return point_directory(root, point) / f"{key}.{disk.content['format']}"


def bytes_of(path: Path) -> bytes:
    """What an image holds, by qemu-img alone."""
    flat = path.parents[3] / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-f", path.suffix[1:], "-O", "raw", path, flat], check=True)
    try:
        return flat.read_bytes()
    finally:
        flat.unlink()


def leftovers(root: Path) -> list[str]:
    """What is in the store and belongs to nothing."""
    state = root.with_name(f"{root.name}-state")
    strange = [str(path) for path in root.rglob("*") if ".writing" in path.parts[len(root.parts) + 1 :]]
    strange += [str(path) for path in (root / ".writing").glob("*")]
    return strange + [str(path) for path in state.glob("*")]


def check_all(target: ImageTarget, root: Path, moments: Sequence[tuple[Point, dict[str, bytes]]]) -> None:
    """Every point there is, and no other one, has the bytes of its moment: to vbackup and to qemu-img."""
    assert [point.id for point in target.points()] == [point.id for point, _ in moments]
    assert target.damaged_points() == []
    assert target.verify(target.points(), lambda size: None) == []
    for point, disks in moments:
        assert restored(target, point) == disks
        assert {key: bytes_of(image(root, point, key)) for key in disks} == disks
