"""Machines that live: whatever happens between the backups, each is bit exact and no more than one bitmap is left."""

from __future__ import annotations

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import libvirt
import pytest

from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, Copy, backup
from .test_stopped import image_bitmaps, write

SIZE = 32 * MIB
ROUNDS = 14


def some_writes(dice: random.Random) -> list[str]:
    """Return what a guest may do to a disk, as qemu-io commands."""
    commands = []
    for _ in range(dice.randrange(1, 6)):
        length = dice.choice([512, 4096, 65536, 3 * 65536, MIB])
        offset = dice.randrange(0, SIZE - length, 512)
        what = dice.choice([f"write -P {dice.randrange(1, 256)}", "write -z", "write -z -u", "discard", "write -P 0"])
        commands.append(f"{what} {offset} {length}")
    return commands


def now_on_disk(guest: Guest, key: str, to: Path) -> bytes:
    """Return what a disk holds, of a machine that is off or stands still."""
    if guest.domain.isActive():
        guest.qemu_io(key, "flush")
    source = guest.disks[key]
    subprocess.run(["qemu-img", "convert", "-U", "-f", source.suffix[1:], "-O", "raw", source, to], check=True)
    return to.read_bytes()


def something_happens(guest: Guest, dice: random.Random) -> str:
    """Have the machine switched, killed, or robbed of its metadata."""
    running = bool(guest.domain.isActive())
    event = dice.choice(["nothing", "nothing", "switch", "switch", "kill", "forget", "pull a bitmap"])
    if event == "switch":
        guest.destroy() if running else guest.start(paused=True)
    elif event == "kill" and running:
        guest.kill_qemu()
    elif event == "forget":
        for checkpoint in guest.domain.listAllCheckpoints():
            checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    elif event == "pull a bitmap" and not running:
        for name in image_bitmaps(guest.disks["vda"]):
            subprocess.run(["qemu-img", "bitmap", "--remove", guest.disks["vda"], name], check=True)
    return event


@pytest.mark.parametrize("seed", range(3))
def test_a_random_life(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, seed: int) -> None:
    """Writes, zeros, discards, power cycles, kills, lost metadata and bitmaps, in any order."""
    dice = random.Random(seed)
    guest = make_guest(disks=(Disk("vda", size=SIZE), Disk("vdb", size=SIZE, create=("-o", "cluster_size=4k"))))
    copy: Copy | None = None
    story, incremental = [], 0
    for _ in range(ROUNDS):
        for key in guest.disks:
            commands = some_writes(dice)
            story.append(f"{key}: {commands}")
            if guest.domain.isActive():
                guest.qemu_io(key, *commands)
            else:
                write(guest.disks[key], *commands)
        story.append(something_happens(guest, dice))
        copy = backup(hypervisor, guest.name, copy)
        story.append(str(copy.full_reasons))
        for key in guest.disks:
            assert copy.disks[key] == now_on_disk(guest, key, tmp_path / "now"), "\n".join(story)
        incremental += list(copy.full_reasons.values()).count(None)
        assert len(guest.checkpoints) == 1, "\n".join(story)
    assert incremental > ROUNDS, "\n".join(story)


def test_many_machines_at_once(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """By one plugin, from several threads, running and off."""
    guests = [make_guest() for _ in range(4)]
    for number, guest in enumerate(guests):
        write(guest.disks["vda"], f"write -P {number + 1} 0 16M")
    for guest in guests[:2]:
        guest.start(paused=True)
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda guest: backup(hypervisor, guest.name), guests))
        copies = list(
            pool.map(lambda both: backup(hypervisor, both[0].name, both[1]), zip(guests, copies, strict=True))
        )
    for guest, copy in zip(guests, copies, strict=True):
        assert copy.full_reasons == {"vda": None}
        assert copy.disks["vda"] == now_on_disk(guest, "vda", tmp_path / "now")
