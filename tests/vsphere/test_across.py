"""Both hypervisors from one YAML file: machines go from one to the other and back, and boot with their data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.testing.lab import build
from vbackup.testing.lab.factory import GuestFactory

VBACKUP = Path(sys.executable).with_name("vbackup")
POOL = "/DC0/host/DC0_C0/Resources"
CONFIG = """
hypervisors:
  lab: {{type: libvirt, storage: {place}/restored, scratch_reserve: 1048576}}
  vc: {vc}
transports:
  disk: {{type: local, path: {place}/store}}
targets:
  main: {{type: repository, transport: disk, key: {{file: {place}/main.key}}}}
jobs:
  nightly: {{machines: ["lab:*", "vc:*"], target: main}}
"""


class Site:
    """One configuration for both, and the real command."""

    def __init__(self, place: Path, simulator: Simulator) -> None:
        self._config = place / "vbackup.yaml"
        (place / "restored").mkdir()
        vc = json.dumps({"type": "vsphere", "tracking": "enable", "pool": POOL, **simulator.options()})
        self._config.write_text(CONFIG.format(place=place, vc=vc))
        self._environment = os.environ | {
            "VBACKUP_STATE_DIR": str(place / "state"),
            "VBACKUP_CACHE_DIR": str(place / "cache"),
        }
        self("init")

    def __call__(self, *arguments: str) -> Any:
        """Run a command; return its JSON documents."""
        done = subprocess.run(
            [VBACKUP, "-c", self._config, "--json", *arguments], env=self._environment, capture_output=True, text=True
        )
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        self.said = done.stderr
        if arguments[0] == "run":
            return [json.loads(line) for line in done.stdout.splitlines()]
        return json.loads(done.stdout) if done.stdout else None


@pytest.fixture
def simulator(make_vcsim: Callable[..., Simulator]) -> Simulator:
    return make_vcsim(vm=0)


def test_there_and_back_again(make_guest: GuestFactory, simulator: Simulator, tmp_path: Path) -> None:
    """A guest of libvirt becomes one of vSphere, and that one one of libvirt again; one run backs up both."""
    guest = make_guest("traveller", bootable=True)
    guest.start()
    guest.wait_ready()
    guest.exec("mkdir -p /data/keep; dd if=/dev/urandom of=/data/keep/it bs=1M count=4 2>&1; sync")
    digest = guest.exec("sha256sum /data/keep/it").split()[0]
    site = Site(tmp_path, simulator)
    site("run", "lab:traveller")
    guest.destroy()
    there = site("restore", "traveller@latest", "--to", "vc", "--as", "abroad")
    assert any("SATA" in note or "sata" in note for note in there["notes"]), there["notes"]
    report = site("run")[-1]
    assert {(machine["hypervisor"], machine["machine"]) for machine in report["machines"]} == {
        ("lab", "traveller"),
        ("vc", "abroad"),
    }
    assert not report["failed"]
    stored = next(machine["stored"] for machine in report["machines"] if machine["machine"] == "abroad")
    assert stored < 4 << 20, "the same data was stored twice"
    site("restore", "abroad@latest", "--to", "lab", "--as", "home", "--start")
    home = make_guest.adopt("home")
    home.wait_ready()
    assert digest in home.found
    bus = {disk.attrib["bus"] for disk in home.xml().iterfind("devices/disk/target")}
    assert bus == {"virtio"}, "it was known to boot with virtio"


def test_a_machine_made_in_vsphere_boots_under_libvirt(
    make_guest: GuestFactory, simulator: Simulator, tmp_path: Path
) -> None:
    """Nothing is known of its drivers, so it gets devices that any system boots from."""
    own = build.bootable_disks()
    simulator.add_vm("native", disks=[64 << 20, 64 << 20], memory_mb=192, on=False)
    for disk, image in zip(simulator.disks("native"), (own.boot, own.data), strict=True):
        flat = simulator.disk("native", disk["key"])
        subprocess.run(["qemu-img", "convert", "-n", "-O", "raw", image, flat], check=True)
    site = Site(tmp_path, simulator)
    site("run", "vc:native")
    done = site("restore", "native@latest", "--to", "lab", "--start")
    guest = make_guest.adopt("native")
    guest.wait_ready()
    assert "my first boot" in guest.found
    assert "/dev/sd" in guest.exec("cat /proc/mounts")
    assert done["notes"]
