from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Lab, QemuMachine
from vbackup_qmp.hypervisor import QmpHypervisor


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="qmp-") as directory:
        yield Path(directory)


@pytest.fixture
def lab(short: Path) -> Iterator[Lab]:
    """A hypervisor with one machine, ``web``, which is on."""
    lab = Lab(short, {})
    try:
        lab.machines["web"] = QemuMachine.small(short / "web")
        yield lab
    finally:
        lab.close()


@pytest.fixture
def guest(lab: Lab) -> QemuMachine:
    """The machine."""
    return lab.machines["web"]


@pytest.fixture
def hypervisor(lab: Lab, guest: QemuMachine) -> QmpHypervisor:
    """The hypervisor, with what the lab has by now."""
    return lab.opens()


@pytest.fixture
def small_disk(short: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    path = short / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6M", "vbackup-qmp", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def device(short: Path) -> Iterator[Path]:
    """A block device of 2 MiB, full of old bytes."""
    (short / "backing").write_bytes(b"\xdd" * (2 << 20))
    done = subprocess.run(["losetup", "--show", "-f", short / "backing"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"there are no block devices to be had here: {done.stderr.strip()}")
    path = Path(done.stdout.strip())
    try:
        yield path
    finally:
        subprocess.run(["losetup", "-d", path], check=True)
