"""All of it by the real command: back up, change, back up, restore every point and compare it bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from machine import BLOCK, Lab, QemuMachine, Restored

from vbackup.testing.cycle import run_cycle
from vbackup.testing.site import Site

_MIB = 1 << 20


def test_backup_change_restore(lab: Lab, guest: QemuMachine) -> None:
    """A machine that runs, and is started again before the last run."""
    site = Site(lab.directory / "site", _configuration(lab))
    rng = random.Random(0)

    def change(number: int) -> None:
        for disk in guest.disks:
            guest.write(disk, rng.randrange(16) * BLOCK, rng.randbytes(BLOCK))
        if number == 2:
            guest.stop()
            guest.start()

    def read() -> Mapping[str, bytes]:
        return {disk: guest.read(disk) for disk in guest.disks}

    def restored(name: str) -> Mapping[str, bytes]:
        there = Restored(lab.directory / "storage" / name)
        return {disk: there.read(disk) for disk in there.disks}

    made = run_cycle(site, "web", change=change, read=read, restored=restored)
    assert made[1].read < _MIB, "only what changed is read"
    assert any("it was started again" in warning for warning in made[2].warnings)
    assert made[2].read < 3 * _MIB, "the qcow2 disk is not read again"

    now = read()
    guest.stop()
    guest.write("root", 0, b"lost" * 1024)
    guest.images["data"].path.unlink()
    site("restore", made[-1].point, "--overwrite", code=(0, 3))
    assert read() == now
    guest.start()
    refused = site("restore", made[-1].point, "--overwrite", code=1)
    assert refused.stderr == "vbackup: error: web is running\nhint: switch it off first\n"
    assert lab.leftovers() == []


def test_doctor_and_plugins(lab: Lab, guest: QemuMachine) -> None:
    """The command finds the plugin, and shows what it says."""
    site = Site(lab.directory / "site", _configuration(lab))
    site("init")
    assert guest.name in site("doctor").stdout
    assert "qmp" in site("plugins").stdout


def _configuration(lab: Lab) -> dict[str, object]:
    store: Path = lab.directory / "store"
    return {
        "hypervisors": {"lab": {"type": "qmp", **lab.options}},
        "transports": {"disk": {"type": "local", "path": str(store)}},
        "targets": {"main": {"type": "repository", "transport": "disk", "key": {"file": str(lab.directory / "key")}}},
        "jobs": {"nightly": {"machines": ["lab:*"], "target": "main"}},
    }
