"""A group on both hypervisors, larger than what one host may have copied at once: one moment, and back in order."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import noise
from tests.vcsim.simulator import Simulator
from tests.vsphere.test_across import POOL, VBACKUP
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory

CONFIG = """
hypervisors:
  lab: {{type: libvirt, storage: {place}/restored, scratch_reserve: 1048576}}
  vc: {vc}
transports: {{disk: {{type: local, path: {place}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {place}/key}}}}}}
groups:
  shop:
    machines:
      - {{machine: "lab:db"}}
      - {{machine: "vc:app-1"}}
      - {{machine: "vc:app-2"}}
      - {{machine: "vc:app-3", ready: {{delay: 1s}}}}
jobs: {{nightly: {{machines: ["@shop"], target: main, quiesce: no, parallel: 1}}}}
"""


def test_a_group_across_both_hypervisors(
    make_guest: GuestFactory, make_vcsim: Callable[..., Simulator], tmp_path: Path
) -> None:
    make_guest("db", disks=(Disk("vda", size=4 << 20),)).start(paused=True)
    simulator = make_vcsim(vm=0)
    for number in (1, 2, 3):
        simulator.add_vm(f"app-{number}", disks=[4 << 20])
        simulator.guest_write(f"app-{number}", 0, 0, noise(1 << 20, number))
    (tmp_path / "restored").mkdir()
    vc = json.dumps({"type": "vsphere", **simulator.options(pool=POOL, tracking="enable", per_host=1)})
    config = tmp_path / "vbackup.yaml"
    config.write_text(CONFIG.format(place=tmp_path, vc=vc))
    environment = os.environ | {"VBACKUP_STATE_DIR": str(tmp_path / "s"), "VBACKUP_CACHE_DIR": str(tmp_path / "c")}

    def vbackup(*arguments: str) -> Any:
        done = subprocess.run(
            [VBACKUP, "-c", config, "--json", *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1]) if arguments[0] == "run" else json.loads(done.stdout or "null")

    vbackup("init")
    assert not vbackup("run")["failed"]
    assert not vbackup("run", "@shop")["failed"]
    points = vbackup("list")
    together = {point["together"] for point in points}
    assert len(points) == 8
    assert len(together) == 2
    assert "" not in together
    done = vbackup("restore", "@shop@latest", "--as", "*-copy")
    names = {vm["name"] for vm in simulator.state()["vms"]}
    assert {"app-1-copy", "app-2-copy", "app-3-copy"} <= names, done
    copy = make_guest.adopt("db-copy")
    assert copy.exists
    for number in (1, 2, 3):
        assert simulator.disk(f"app-{number}-copy").read_bytes() == simulator.disk(f"app-{number}").read_bytes()
    copy.remove()
    assert simulator.leaks() == {}
