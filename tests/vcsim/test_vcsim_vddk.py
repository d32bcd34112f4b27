"""The stand-in for nbdkit's plugin vddk serves what the snapshot has frozen, and refuses what VDDK refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.vcsim.client import Client
from tests.vcsim.simulator import Simulator

MIB = 1 << 20


def nbdkit(simulator: Simulator, run: str, *more: str, **changed: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the shell against the plugin; ``$uri`` is the disk."""
    vddk = simulator.vddk()
    words = {
        "libdir": vddk["libdir"],
        "server": simulator.host,
        "user": simulator.user,
        "password": f"+{simulator.root / 'password'}",
        "thumbprint": simulator.thumbprint(),
        **changed,
    }
    arguments = [f"{key}={value}" for key, value in words.items()]
    command = ["nbdkit", "-U", "-", *more, vddk["plugin"], *arguments, "--run", run]
    private = os.environ | {"TMPDIR": str(simulator.root)}  # where nbdkit leaves the directory of its socket
    return subprocess.run(command, capture_output=True, check=False, timeout=60, env=private)


def test_a_frozen_disk_is_read_with_its_holes(vcsim: Simulator, tmp_path: Path) -> None:
    moid = vcsim.add_vm("web", disks=[4 * MIB])
    vcsim.guest_write("web", 0, 2 * MIB + 512, b"frozen" * 100)
    base = vcsim.disks("web")[0]["file"]
    with Client(vcsim) as client:
        first = client.snapshot(client.vm(moid), "a")
        snapshot = client.snapshot(client.vm(moid), "b")
        layer = client.frozen_disks(snapshot)[0].backing.fileName
        frozen = vcsim.disk("web").read_bytes()
        vcsim.guest_write("web", 0, 0, b"later")
        what = {"vm": f"moref={moid}", "snapshot": snapshot._moId, "file": layer, "transports": "nbdssl:nbd"}
        image = tmp_path / "image"
        done = nbdkit(vcsim, f"nbdinfo --map $uri; nbdcopy $uri {image}", "-r", **what)
        assert done.returncode == 0, done.stderr
        rows = [line.split()[:3] for line in done.stdout.decode().splitlines()]
        data = [(int(start), int(length)) for start, length, kind in rows if kind == "0"]
        assert data == [(2 * MIB, 64 << 10)]
        assert image.read_bytes() == frozen
        assert f"snapshot={snapshot._moId} file={layer} readonly=1" in "\n".join(vcsim.vddk_log())
        assert b"was not found" in nbdkit(vcsim, "nbdinfo $uri", "-r", **what | {"file": base}).stderr
        assert vcsim.state()["peak"]["host_reads"] == {"DC0_C0_H0": 1}
        for snap in (snapshot, first):
            client.wait(snap.RemoveSnapshot_Task(False))
    assert not vcsim.leaks()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user": "nobody"}, "incorrect user name or password"),
        ({"thumbprint": "00:11"}, "thumbprint does not match"),
        ({"snapshot": "snapshot-0"}, "snapshot-0 was not found"),
        ({"vm": "moref=vm-0"}, "vm-0"),
        ({"vm": "web"}, "vm must be moref"),
        ({"colour": "red"}, "unknown parameter 'colour'"),
        ({}, "lock"),
    ],
)
def test_what_is_wrong_is_refused(vcsim: Simulator, changed: dict[str, str], message: str) -> None:
    moid = vcsim.add_vm("web", disks=[MIB])
    what = {"vm": f"moref={moid}", "file": vcsim.disks("web")[0]["file"], **changed}
    done = nbdkit(vcsim, "nbdinfo $uri", "-r", **what)
    assert done.returncode != 0
    assert message in done.stderr.decode()
    assert not vcsim.leaks()


def test_the_disk_of_a_machine_that_is_off_is_written(vcsim: Simulator, tmp_path: Path) -> None:
    moid = vcsim.add_vm("web", disks=[MIB], on=False)
    image = tmp_path / "image"
    image.write_bytes(bytes(range(256)) * 4096)
    what = {"vm": f"moref={moid}", "file": vcsim.disks("web")[0]["file"]}
    done = nbdkit(vcsim, f"nbdcopy {image} $uri", **what)
    assert done.returncode == 0, done.stderr
    assert vcsim.disk("web").read_bytes() == image.read_bytes()
    vcsim.deny("VirtualMachine.Provisioning.DiskRandomAccess")
    assert b"DiskRandomAccess" in nbdkit(vcsim, "nbdinfo $uri", **what).stderr
    assert nbdkit(vcsim, "nbdinfo $uri", "-r", **what).returncode == 0
