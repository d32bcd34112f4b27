"""Bit-exactness on vSphere: 500 random steps, each way of reading, and every restore point gives back its moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import back_up, digest, repository
from tests.vcsim.simulator import Simulator
from tests.vsphere.world import World
from vbackup_local.transport import Local

WAYS = ("vddk", "datastore", "nfc")
STEPS = 510
"""Of all ways together."""


@pytest.mark.parametrize("way", WAYS)
def test_every_restore_point_is_bit_exact_and_nothing_is_left(
    way: str, tmp_path: Path, make_vcsim: Callable[..., Simulator], pytestconfig: pytest.Config
) -> None:
    """Writes, resizes, resets, renames, power cycles, lost sessions and the user's own snapshots."""
    seed = pytestconfig.getoption("seed") or random.randrange(1 << 32)
    print(f"--seed {seed}")
    rng = random.Random(f"{seed} {way}")
    simulator = make_vcsim()
    world = World(simulator, way, tmp_path, rng)
    transport = Local(Local.options.model_validate({"path": tmp_path / "store"}))
    target = repository(transport, tmp_path / "cache", chunk_size=64 << 10)
    target.init()
    moments = []
    actions, weights = zip(*world.steps, strict=True)
    for _ in range(STEPS // len(WAYS)):
        if rng.random() > 0.25:
            rng.choices(actions, weights)[0]()
            continue
        point = back_up(target, world.hypervisor, world.name)
        moments.append((point, world.moment()))
        assert {disk.key: digest(target, point, disk) for disk in point.disks} == moments[-1][1], point.warnings
        assert world.strangers == []
    for point, moment in moments:
        assert {disk.key: digest(target, point, disk) for disk in point.disks} == moment
    assert target.verify(target.points(), lambda size: None) == []
    incremental = [disk for point, _ in moments for disk in point.disks if disk.full_reason is None]
    assert bool(incremental) == (way != "nfc"), "tracking was never used"
    world.hypervisor.close()
    target.close()
    transport.close()
    world.drop()
    assert simulator.leaks() == {}
