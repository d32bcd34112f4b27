"""64 machines at once: the limits hold, and nothing leaks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support import noise
from tests.vcsim.simulator import Simulator
from tests.vsphere.test_across import VBACKUP

COUNT = 64
HOSTS = ("DC0_C0_H0", "DC0_C0_H1", "DC0_H0")
PER_HOST = 3
PER_DATASTORE = 4


def test_64_machines_at_once(make_vcsim: Callable[..., Simulator], tmp_path: Path) -> None:
    simulator = make_vcsim(vm=0, ds=2)
    for number in range(COUNT):
        name = f"vm-{number:02}"
        simulator.add_vm(name, disks=[2 << 20], host=HOSTS[number % 3], datastore=f"LocalDS_{number % 2}")
        simulator.guest_write(name, 0, 0, noise(1 << 20, number))
    vc = json.dumps(
        {"type": "vsphere", "tracking": "enable", **simulator.options(per_host=PER_HOST, per_datastore=PER_DATASTORE)}
    )
    config = tmp_path / "vbackup.yaml"
    config.write_text(f"""
hypervisors: {{vc: {vc}}}
transports: {{disk: {{type: local, path: {tmp_path}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {tmp_path}/key}}}}}}
jobs: {{all: {{machines: ["vc:*"], target: main, parallel: {COUNT}}}}}
""")
    environment = os.environ | {"VBACKUP_STATE_DIR": str(tmp_path / "s"), "VBACKUP_CACHE_DIR": str(tmp_path / "c")}
    for command in (["init"], ["run"], ["run"], ["verify"]):
        done = subprocess.run([VBACKUP, "-c", config, *command], env=environment, capture_output=True, text=True)
        assert done.returncode in {0, 3}, done.stdout + done.stderr
    assert simulator.leaks() == {}
    peak = simulator.state()["peak"]
    assert set(peak["host_snapshots"]) == set(HOSTS)
    assert 1 < max(peak["host_snapshots"].values()) <= PER_HOST
    assert 0 < max(peak["host_machines"].values()) <= PER_HOST
    assert 0 < max(peak["datastore_machines"].values()) <= PER_DATASTORE
    assert peak["sessions"] == 1
    points = subprocess.run(
        [VBACKUP, "-c", config, "--json", "list"], env=environment, capture_output=True, text=True, check=True
    )
    assert len(json.loads(points.stdout)) == 2 * COUNT
