"""A store that is slower than the machine: what is on its way waits at the source, not in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.servers.stores import MakeStore
from tests.support import noise

VBACKUP = Path(sys.executable).with_name("vbackup")
MIB = 1 << 20
SIZE = 512 * MIB
MOST = 320 * MIB
"""What the README says that a backup needs."""
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
sys.exit(code not in {0, 3})
"""
"""Runs a command from a process that is small: the peak of a child is never counted below that of its parent."""


def test_a_backup_to_a_slow_bucket_stays_small(tmp_path: Path, make_store: MakeStore) -> None:
    """The store takes a fraction of what the disk gives, and nothing of it can be compressed."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        for number in range(SIZE // (32 * MIB)):
            file.write(noise(32 * MIB, number))
    options = make_store("s3").options | {"limit": {"upload": "24MiB/s"}}
    config = tmp_path / "vbackup.yaml"
    config.write_text(
        f"""
hypervisors: {{files: {{type: image, machines: {{web: [{disk}]}}}}}}
transports: {{bucket: {json.dumps(options)}}}
targets: {{main: {{type: repository, transport: bucket, key: {{file: {tmp_path}/key}}}}}}
jobs: {{nightly: {{machines: ["files:*"], target: main}}}}
"""
    )
    env = os.environ | {"VBACKUP_STATE_DIR": f"{tmp_path}/state", "VBACKUP_CACHE_DIR": f"{tmp_path}/cache"}
    for command in ("init", "run"):
        argv = [sys.executable, "-c", MEASURED, str(VBACKUP), "-c", str(config), command]
        done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < MOST
