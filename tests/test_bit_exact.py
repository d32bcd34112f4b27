"""Bit-exactness: disks go through random histories, and every restore point ever made gives back its moment.

``pytest tests/test_bit_exact.py --steps 10000 --seed 1`` for more than the few hundred steps of ``make test``;
``--steps 0`` goes on until it is interrupted.
"""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest
from blake3 import blake3

from tests.servers.stores import REMOTE, MakeStore
from tests.support import back_up, digest, repository
from vbackup.api import Hypervisor, HypervisorContext, Point
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup_image.plugin import ImageHypervisor
from vbackup_libvirt.hypervisor import Libvirt

SIZE = 24 << 20
MOST = 40 << 20
GRAIN = 4096


class Model:
    """A disk image and, beside it, what it must hold."""

    def __init__(self, path: Path, image_format: str, rng: random.Random) -> None:
        self.path, self.format, self.rng = path, image_format, rng
        self.model = bytearray(SIZE)

    def qemu_io(self, command: str) -> None:
        """While nothing else has it open."""
        subprocess.run(
            ["qemu-io", "-f", self.format, "-d", "unmap", "-c", command, self.path], check=True, capture_output=True
        )

    def reread(self) -> None:
        """What a killed QEMU had not written yet is lost: take what is there."""
        raw = self.path.with_suffix(".reread")
        subprocess.run(["qemu-img", "convert", "-f", self.format, "-O", "raw", self.path, raw], check=True)
        self.model = bytearray(raw.read_bytes())
        raw.unlink()

    def command(self) -> str:
        """Make up a write; the model has it already."""
        rng, size = self.rng, len(self.model)
        kind = rng.choices(["write", "zero", "unmap", "discard"], [5, 2, 2, 2])[0]
        grain = 65536 if kind == "discard" else rng.choice([512, GRAIN, 65536])
        offset = rng.randrange(size // grain) * grain
        length = min(rng.choice([1, 2, 7, 40]) * grain, (size - offset) // grain * grain)
        pattern = rng.randrange(1, 256)
        self.model[offset : offset + length] = bytes([pattern if kind == "write" else 0]) * length
        how = {"write": f"write -P {pattern}", "zero": "write -z", "unmap": "write -z -u", "discard": "discard"}[kind]
        return f"{how} {offset} {length}"

    def new_size(self) -> int:
        """Choose a size to grow to; the model is grown."""
        size = min(len(self.model) + self.rng.choice([512, 65536, 1 << 20, (1 << 20) + 512]), MOST)
        self.model.extend(bytes(size - len(self.model)))
        return size


class ImageWorld:
    """An image file that nothing runs on."""

    def __init__(self, image_format: str, tmp_path: Path, rng: random.Random) -> None:
        self.disk = Model(tmp_path / f"disk.{image_format}", image_format, rng)
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, self.disk.path, str(SIZE)], check=True)
        machines = {"machine": [{"path": str(self.disk.path), "format": image_format}]}
        options = ImageHypervisor.options.model_validate({"machines": machines})
        self.hypervisor: Hypervisor = ImageHypervisor(options, HypervisorContext("files", tmp_path / "state"))
        (tmp_path / "state").mkdir()
        self.name = "machine"
        self.torn = False
        self.steps: list[tuple[Callable[[], None], int]] = [(self.write, 8), (self.grow, 1), (self.shrink, 1)]

    def write(self) -> None:
        self.disk.qemu_io(self.disk.command())

    def grow(self) -> None:
        self._resize(self.disk.new_size())

    def shrink(self) -> None:
        del self.disk.model[SIZE:]
        self._resize(SIZE)

    def _resize(self, size: int) -> None:
        subprocess.run(
            ["qemu-img", "resize", "-q", "--shrink", "-f", self.disk.format, self.disk.path, str(size)], check=True
        )


class LibvirtWorld:
    """A machine under libvirt that runs, stops, reboots and crashes."""

    def __init__(self, image_format: str, tmp_path: Path, rng: random.Random, guest: Guest) -> None:
        self.guest, self.rng = guest, rng
        self.name = guest.name
        self.disk = Model(guest.disks["vda"], image_format, rng)
        self.running = self.torn = False
        options = Libvirt.options.model_validate({"scratch_reserve": 1 << 20})
        (tmp_path / "state").mkdir()
        self.hypervisor: Hypervisor = Libvirt(options, HypervisorContext("lab", tmp_path / "state"))
        self.steps: list[tuple[Callable[[], None], int]] = [
            (self.write, 24), (self.grow, 1), (self.switch, 3), (self.reset, 1), (self.kill, 1),
        ]  # fmt: skip

    def write(self) -> None:
        command = self.disk.command()
        if self.running:
            self.guest.qemu_io("vda", command)
        else:
            self.disk.qemu_io(command)

    def grow(self) -> None:
        if self.torn:  # QEMU refuses while a bitmap is inconsistent; the next backup removes it
            return
        size = self.disk.new_size()
        if self.running:
            self.guest.domain.blockResize("vda", size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        else:
            subprocess.run(["qemu-img", "resize", "-q", "-f", self.disk.format, self.disk.path, str(size)], check=True)

    def switch(self) -> None:
        if self.running:
            self.guest.domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        else:
            self.guest.start(paused=True)
        self.running = not self.running

    def reset(self) -> None:
        if self.running:
            self.guest.domain.reset()

    def kill(self) -> None:
        if self.running:
            self.guest.kill_qemu()
            self.disk.reread()
            self.running, self.torn = False, True


WORLDS = ["image-qcow2", "image-raw", "libvirt-qcow2", "libvirt-raw", "libvirt-qcow2-small"]
WORLDS += [f"image-qcow2-{kind}" for kind in REMOTE]
"""Hypervisor, format, and chunks that are small, or what the store is if it is no directory."""


@pytest.mark.parametrize("world", WORLDS)
def test_every_restore_point_ever_made_is_bit_exact(
    world: str, tmp_path: Path, make_store: MakeStore, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    """Writes, zeroes, discards, resizes, power cycles and crashes; nothing of it may ever show in a restore."""
    seed = pytestconfig.getoption("seed") or random.randrange(1 << 32)
    steps = pytestconfig.getoption("steps")
    print(f"--seed {seed}")
    rng = random.Random(f"{seed} {world}")
    kind, image_format, *more = world.split("-")
    if kind == "image":
        stage: ImageWorld | LibvirtWorld = ImageWorld(image_format, tmp_path, rng)
    else:
        factory: GuestFactory = request.getfixturevalue("make_guest")
        guest = factory(disks=(Disk("vda", size=SIZE, format=image_format),))
        stage = LibvirtWorld(image_format, tmp_path, rng, guest)
    store = make_store(more[0] if more and more[0] in REMOTE else "local")
    chunk_size = 16 << 10 if more == ["small"] else 128 << 10
    transport = store.transport()
    target = repository(transport, tmp_path / "cache", chunk_size=chunk_size)
    target.init()
    moments: list[tuple[Point, str]] = []
    actions, weights = zip(*stage.steps, strict=True)
    share = -(-steps // len(WORLDS))
    for _ in range(share) if steps else itertools.count():
        if rng.random() < 0.25:
            point = back_up(target, stage.hypervisor, stage.name)
            stage.torn = False
            moments.append((point, blake3(stage.disk.model).hexdigest()))
            assert moments[-1][1] == digest(target, point, point.disks[0]), (seed, len(moments), point.disks)
        else:
            rng.choices(actions, weights)[0]()
    for number, (point, moment) in enumerate(moments):
        assert moment == digest(target, point, point.disks[0]), (seed, number)
    assert target.verify(target.points(), lambda size: None) == []
    if image_format == "qcow2":
        assert any(point.disks[0].full_reason is None for point, _ in moments), "tracking was never used"
    stage.hypervisor.close()
    target.close()
    transport.close()
