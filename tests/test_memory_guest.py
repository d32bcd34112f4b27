"""A real guest that counts is backed up with its memory, lost, and goes on counting: with the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import until

VBACKUP = Path(sys.executable).with_name("vbackup")
COUNTER = "i=0; while true; do i=$((i + 1)); echo $i >>/run/counts; usleep 20000; done"
LAST = "tail -n 1 /run/counts"
GAPS = "awk '$1 != NR' /run/counts | wc -l"
"""Lines of the count that are not their own number: none, unless a number was left out or came twice."""


def test_a_guest_goes_on_counting(make_guest: GuestFactory, tmp_path: Path) -> None:
    """It counts in memory alone, 50 times a second: a gap, a reboot or a step back would show."""
    guest = make_guest("counting", boot=True, memory=128)
    guest.start()
    guest.wait_ready()
    guest.exec(f"({COUNTER}) >/dev/null 2>&1 & cat /proc/sys/kernel/random/boot_id >/run/boot")
    until(lambda: int(guest.exec(LAST)) > 20, "the guest to count")
    before = int(guest.exec(LAST))
    config = tmp_path / "vbackup.yaml"
    config.write_text(f"""
hypervisors: {{lab: {{type: libvirt, storage: {tmp_path}/restored, scratch_reserve: 1048576}}}}
transports: {{disk: {{type: local, path: {tmp_path}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {tmp_path}/key}}}}}}
jobs: {{nightly: {{machines: ["lab:counting"], target: main, memory: yes}}}}
""")
    (tmp_path / "restored").mkdir()
    environment = os.environ | {"VBACKUP_STATE_DIR": str(tmp_path / "s"), "VBACKUP_CACHE_DIR": str(tmp_path / "c")}

    def vbackup(*arguments: str) -> str:
        done = subprocess.run(
            [VBACKUP, "-c", config, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        return done.stdout

    vbackup("init")
    vbackup("run")
    after = int(guest.exec(LAST))
    until(lambda: int(guest.exec(LAST)) > after + 20, "the guest to count on, beyond what is captured")
    guest.kill_qemu()
    vbackup("restore", "counting@latest", "--overwrite", "--start")
    guest.wait_ready()
    went_on = int(guest.exec(LAST))
    assert went_on > before
    assert guest.exec(GAPS).strip() == "0"
    assert guest.exec("cat /run/boot").strip() == guest.exec("cat /proc/sys/kernel/random/boot_id").strip()
    until(lambda: int(guest.exec(LAST)) > went_on, "the restored guest to go on")
    (point,) = json.loads(vbackup("--json", "list"))
    assert point["memory"]
    vbackup("verify")
