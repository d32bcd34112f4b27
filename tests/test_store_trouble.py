"""Stores that are full, read-only or not there, seen through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

VBACKUP = Path(sys.executable).with_name("vbackup")


class Site:
    """A configuration whose store is a small file system of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mount = place / "mount"
        self.mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "vbackup-test", self.mount], check=True)
        self.disk = place / "disk.raw"
        self.disk.write_bytes(os.urandom(1 << 20))
        (place / "vbackup.yaml").write_text(
            f"""
hypervisors: {{files: {{type: image, machines: {{web: [{self.disk}]}}}}}}
transports: {{disk: {{type: local, path: {self.mount}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {place}/key}}}}}}
jobs: {{nightly: {{machines: ["files:*"], target: main}}}}
"""
        )
        self.env = os.environ | {"VBACKUP_STATE_DIR": f"{place}/state", "VBACKUP_CACHE_DIR": f"{place}/cache"}

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [VBACKUP, "-c", self.place / "vbackup.yaml", *argv]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def points(self) -> int:
        return len(json.loads(self("--json", "list").stdout))

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.mount], check=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    assert made("init").returncode == 0
    assert made("run").returncode == 0
    yield made
    subprocess.run(["umount", made.mount], check=True)


def test_a_full_store_fails_the_run_and_harms_nothing(site: Site) -> None:
    """No point of the failed run, the one before is whole, and with more space the next run is well."""
    site.disk.write_bytes(os.urandom(20 << 20))
    full = site("run")
    assert full.returncode == 1
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert site.points() == 1
    assert site("verify").returncode == 0
    site.remount("size=64m")
    assert site("run").returncode == 0
    assert site("verify").returncode == 0
    assert site.points() == 2


def test_a_read_only_store_fails_the_run_and_can_be_restored_from(site: Site) -> None:
    site.disk.write_bytes(os.urandom(1 << 20))
    site.remount("ro")
    denied = site("run")
    assert denied.returncode == 1
    assert "Read-only file system" in denied.stderr
    restored = site.place / "restored.raw"
    assert site("restore", "web@latest", "--disk", f"disk0={restored}").returncode == 0
    assert restored.stat().st_size == 1 << 20


def test_a_store_that_is_not_mounted_is_not_taken_for_an_empty_one(site: Site) -> None:
    subprocess.run(["umount", site.mount], check=True)
    gone = site("run")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "vbackup-test", site.mount], check=True)
    assert gone.returncode == 1
    assert "is not there" in gone.stderr
    assert "mounted?" in gone.stderr


def test_a_restore_without_space_leaves_nothing_behind(site: Site) -> None:
    small = site.mount / "restored.raw"
    site.disk.write_bytes(b"\1" * (30 << 20))
    assert site("run").returncode == 0
    full = site("restore", "web@latest", "--disk", f"disk0={small}")
    assert full.returncode == 1
    assert "space" in full.stderr
    assert [path.name for path in site.mount.iterdir()] == ["store"]


def test_a_restore_does_not_overwrite_unless_told_to(site: Site) -> None:
    there = site.place / "there.raw"
    there.write_bytes(b"precious")
    refused = site("restore", "web@latest", "--disk", f"disk0={there}")
    assert refused.returncode == 1
    assert there.read_bytes() == b"precious"
    assert site("restore", "web@latest", "--disk", f"disk0={there}", "--overwrite").returncode == 0
    assert there.read_bytes() == site.disk.read_bytes()


def test_a_device_that_is_too_small_is_refused_before_a_byte_is_written(site: Site) -> None:
    backing = site.place / "small.img"
    backing.write_bytes(b"\7" * (512 << 10))
    loop = subprocess.check_output(["losetup", "-f", "--show", backing], text=True).strip()
    try:
        refused = site("restore", "web@latest", "--disk", f"disk0={loop}", "--overwrite")
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    assert refused.returncode == 1
    assert loop in refused.stderr
    assert set(backing.read_bytes()) == {7}


def test_a_machine_whose_image_is_gone_fails_alone(site: Site) -> None:
    other = site.place / "other.raw"
    other.write_bytes(b"x" * 4096)
    config = site.place / "vbackup.yaml"
    config.write_text(config.read_text().replace("machines: {web:", f"machines: {{gone: [{site.place}/no.raw], web:"))
    report = site("--json", "run")
    assert report.returncode == 1
    machines = json.loads(report.stdout.splitlines()[-1])["machines"]
    outcome = {machine["machine"]: machine["error"] for machine in machines}
    assert outcome["web"] is None or not outcome["web"]
    assert "no.raw" in str(outcome["gone"])
