"""Servers that are killed while a backup runs: away for a while the job waits, away for too long it fails and leaves
nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.stores import REMOTE, MakeStore, Server
from tests.support import noise
from vbackup.testing.lab.libvirtd import until
from vbackup_iscsi.options import IscsiOptions

VBACKUP = Path(sys.executable).with_name("vbackup")
SIZE = 64 << 20
OUTAGE_SECONDS = 20


class Site:
    """A machine of noise, and a store on a server."""

    def __init__(self, place: Path, make_store: MakeStore, kind: str) -> None:
        self.place = place
        self.store = make_store(kind)
        assert self.store.server is not None
        self.server: Server = self.store.server
        self.disk = place / "disk.raw"
        self.disk.write_bytes(noise(SIZE, 1))
        self.env = os.environ | {"VBACKUP_STATE_DIR": f"{place}/state", "VBACKUP_CACHE_DIR": f"{place}/cache"}
        self.configure()
        self("init")

    def configure(self, **more: Any) -> None:
        """Set options of the transport beside its own."""
        (self.place / "vbackup.yaml").write_text(
            f"""
hypervisors: {{files: {{type: image, machines: {{web: [{self.disk}]}}}}}}
transports: {{store: {json.dumps(self.store.options | more)}}}
targets: {{main: {{type: repository, transport: store, key: {{file: {self.place}/key}}}}}}
jobs: {{nightly: {{machines: ["files:*"], target: main}}}}
"""
        )

    def command(self, *argv: str) -> list[str]:
        return [str(VBACKUP), "-c", str(self.place / "vbackup.yaml"), *argv]

    def __call__(self, *argv: str) -> str:
        done = subprocess.run(self.command(*argv), env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 3}, done.stderr
        return done.stdout

    def begun(self) -> subprocess.Popen[str]:
        """Start a run; return when part of its data is stored and more is to come."""
        with (self.place / "stderr").open("w") as stderr:
            run = subprocess.Popen(self.command("run"), env=self.env, stdout=stderr, stderr=stderr, text=True)
        until(lambda: run.poll() is not None or self.packs(), "the first pack")
        assert run.poll() is None, self.said
        return run

    def packs(self) -> bool:
        transport = self.store.transport()
        try:
            return any(transport.list("packs"))
        finally:
            transport.close()

    @property
    def said(self) -> str:
        return (self.place / "stderr").read_text()

    def points(self) -> list[dict[str, Any]]:
        return list(json.loads(self("--json", "list")))

    def traces(self) -> list[str]:
        """What is mounted and attached, and the programs that do it; others may use other LUNs meanwhile."""
        here = "/run/vbackup/nfs"
        if self.store.options["type"] == "iscsi":
            here = f"/run/vbackup/iscsi/{IscsiOptions.model_validate(self.store.plain).digest}"
        mounts = Path("/proc/self/mounts").read_text()
        loops = subprocess.check_output(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], text=True)
        programs = subprocess.run(["pgrep", "-fa", here], capture_output=True, text=True, check=False).stdout
        return [line for line in f"{mounts}\n{loops}\n{programs}".splitlines() if here in line]


@pytest.fixture(params=REMOTE)
def site(request: pytest.FixtureRequest, tmp_path: Path, make_store: MakeStore) -> Site:
    return Site(tmp_path, make_store, request.param)


def test_a_job_outlives_its_server(site: Site) -> None:
    """It stands still while the server is away, and goes on; all is whole."""
    site.configure(limit={"upload": "6MiB/s"})
    run = site.begun()
    site.server.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(OUTAGE_SECONDS)
    site.server.start()
    assert run.wait(120) in {0, 3}, site.said
    site.configure()
    site("verify")
    assert len(site.points()) == 1


def test_a_server_that_stays_away_fails_the_job_and_the_next_one_is_cheap(site: Site) -> None:
    """The message says what is away; nothing stays mounted, attached or locked; what was stored counts."""
    site.configure(limit={"upload": "6MiB/s"}, retry={"deadline": "4s"})
    run = site.begun()
    site.server.kill()
    try:
        assert run.wait(120) == 1, site.said
    finally:
        site.server.start()
    assert "Traceback" not in site.said
    assert "web" in site.said
    assert site.traces() == []
    site.configure()
    site("run")
    (point,) = site.points()
    assert point["stored"] < SIZE * 0.8
    site("verify")
    assert site.traces() == []
