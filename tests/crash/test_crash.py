"""Dying at every operation of the store and of the hypervisor, for real: SIGKILL, then a look at what is left."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.servers.stores import MakeStore, Store
from tests.vcsim.simulator import Simulator
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import until

SIZE = 8 << 20


class Dying:
    """vbackup commands that can be killed at the n-th operation; see `tests.crash.dying`."""

    def __init__(self, config: Path, environment: dict[str, str], transport: str) -> None:
        self._config = str(config)
        self._transport = transport
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.dying"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __call__(self, *argv: str, kind: str = "store", die_at: int = 0) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        kind = self._transport if kind == "store" else kind
        request = {"argv": ["-c", self._config, *argv], "kind": kind, "die_at": die_at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def fine(self, *argv: str) -> dict[str, Any]:
        """Run a command that must succeed, with warnings at the worst."""
        answer = self(*argv)
        assert answer["status"] in {0, 3}, (argv, answer["output"])
        return answer

    def close(self) -> None:
        self._process.communicate()


class Stage:
    """A site with one machine; ``leftovers`` says what is there that should not be."""

    def __init__(self, tmp_path: Path, store: Store, hypervisor: str) -> None:
        self.tmp_path = tmp_path
        self.store = store
        config = tmp_path / "vbackup.yaml"
        config.write_text(
            f"""
hypervisors: {{lab: {hypervisor}}}
transports: {{disk: {store.entry}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {tmp_path}/key}}}}}}
jobs: {{nightly: {{machines: ["lab:machine"], target: main, quiesce: no}}}}
"""
        )
        (tmp_path / "state").mkdir()
        environment = os.environ | {
            "VBACKUP_STATE_DIR": str(tmp_path / "state"),
            "VBACKUP_CACHE_DIR": str(tmp_path / "cache"),
        }
        self.run = Dying(config, environment, store.options["type"])

    def fill(self, pattern: int) -> None:
        """Write to the machine's disk, as the guest."""
        raise NotImplementedError  # pragma: no cover - each stage below does

    def exists(self, name: str) -> bool:
        """Whether a restored machine is there, whole."""
        raise NotImplementedError  # pragma: no cover

    def remove(self, name: str) -> None:
        """Remove a restored machine."""
        raise NotImplementedError  # pragma: no cover

    def points(self) -> list[dict[str, Any]]:
        answer = self.run.fine("--json", "list")
        return list(json.loads(answer["output"][answer["output"].index("[") :]))

    def leftovers(self) -> list[str]:
        """After a run that went well."""
        transport = self.store.transport()
        strange = [info.key for info in transport.list() if not info.key.rpartition("/")[2].replace("_", "").isalnum()]
        transport.close()
        journals = [str(p) for p in (self.tmp_path / "state" / "hypervisors").rglob("*") if p.is_file()]
        return [*strange, *(j for j in journals if Path(j).stat().st_size)]


class ImageStage(Stage):
    """A qcow2 file."""

    def __init__(self, tmp_path: Path, store: Store) -> None:
        self.disk = tmp_path / "machine.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.disk, str(SIZE)], check=True)
        super().__init__(
            tmp_path, store, f"{{type: image, storage: {tmp_path}/restored, machines: {{machine: [{self.disk}]}}}}"
        )
        (tmp_path / "restored").mkdir()

    def fill(self, pattern: int) -> None:
        commands = [
            "-c",
            f"write -P {pattern} {pattern * 65536 % SIZE} 64k",
            "-c",
            f"write -z {pattern % 7 * 65536} 4k",
        ]
        # The qemu-nbd of a killed vbackup ends in its own time, and holds the image until then.
        until(lambda: not subprocess.run(["qemu-io", *commands, self.disk], capture_output=True).returncode, "qemu-nbd")

    def exists(self, name: str) -> bool:
        return (self.tmp_path / "restored" / f"{name}-disk0.qcow2").exists()

    def remove(self, name: str) -> None:
        (self.tmp_path / "restored" / f"{name}-disk0.qcow2").unlink()

    def leftovers(self) -> list[str]:
        info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", self.disk]))
        bitmaps = info["format-specific"]["data"].get("bitmaps", [])
        return [*super().leftovers(), *(["bitmaps", str(bitmaps)] if len(bitmaps) != 1 else [])]


class LibvirtStage(Stage):
    """A machine that runs."""

    def __init__(self, tmp_path: Path, store: Store, make_guest: GuestFactory) -> None:
        self.guest: Guest = make_guest("machine", disks=(Disk("vda", size=SIZE),))
        self.guest.start(paused=True)
        self.make_guest = make_guest
        (tmp_path / "restored").mkdir()
        super().__init__(
            tmp_path,
            store,
            f"{{type: libvirt, uri: 'qemu:///system', scratch_reserve: 1048576, storage: {tmp_path}/restored}}",
        )

    def fill(self, pattern: int) -> None:
        self.guest.qemu_io(
            "vda", f"write -P {pattern} {pattern * 65536 % SIZE} 64k", f"write -z {pattern % 7 * 65536} 4k"
        )

    def exists(self, name: str) -> bool:
        return self.make_guest.adopt(name).exists

    def remove(self, name: str) -> None:
        guest = self.make_guest.adopt(name)
        (disk,) = guest.disks.values()
        guest.remove()
        disk.unlink()

    def leftovers(self) -> list[str]:
        found = super().leftovers()
        if len(self.guest.checkpoints) != 1 or self.guest.bitmaps["vda"] != self.guest.checkpoints:
            found.append(f"checkpoints {self.guest.checkpoints}, bitmaps {self.guest.bitmaps}")
        if self.guest.domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            found.append("a job")
        scratch = Path("/var/lib/libvirt/qemu/vbackup")
        return [*found, *(str(path) for path in scratch.glob("*"))]


class VsphereStage(Stage):
    """A machine of the simulated vCenter, with a snapshot of its owner's."""

    def __init__(self, tmp_path: Path, store: Store, simulator: Simulator) -> None:
        self.simulator = simulator
        simulator.add_vm("machine", disks=[SIZE])
        simulator.snapshot("machine", "vbackup-not-ours")
        super().__init__(
            tmp_path, store, json.dumps({"type": "vsphere", **simulator.options(tracking="enable", read=["nfc"])})
        )

    def fill(self, pattern: int) -> None:
        self.simulator.guest_write("machine", 0, pattern * 65536 % SIZE, bytes([pattern]) * 65536)

    def exists(self, name: str) -> bool:
        return any(vm["name"] == name for vm in self.simulator.state()["vms"])

    def remove(self, name: str) -> None:
        self.simulator.destroy(name)

    def leftovers(self) -> list[str]:
        found = self.simulator.state()
        snapshots = [one["name"] for one in found["snapshots"].get("machine", [])]
        strange = [vm["name"] for vm in found["vms"] if vm["name"] not in {"machine", "again"}]
        return [
            *super().leftovers(),
            *(set(snapshots) ^ {"vbackup-not-ours"}),
            *found["consolidation_needed"],
            *strange,
        ]


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, make_store: MakeStore) -> Iterator[Stage]:
    """A machine on a store: ``image/local`` and the like."""
    hypervisor, kind = request.param.split("/")
    if hypervisor == "image":
        made: Stage = ImageStage(tmp_path, make_store(kind))
    elif hypervisor == "vsphere":
        made = VsphereStage(tmp_path, make_store(kind), request.getfixturevalue("make_vcsim")(vm=0))
    else:
        made = LibvirtStage(tmp_path, make_store(kind), request.getfixturevalue("make_guest"))
    made.run.fine("init")
    yield made
    made.run.close()


EVERY = [
    *itertools.product(["image/local", "libvirt/local"], ["store", "hypervisor"], [1]),
    *itertools.product(["image/s3", "image/nfs"], ["store"], [4]),
    ("image/iscsi", "store", 17),  # each command takes seconds to make sure that no other host has the LUN
]
"""Which stages die at which kind of operation, and how many operations lie between two deaths."""
VSPHERE = "vsphere/local", "hypervisor"


@pytest.mark.parametrize(("stage", "kind", "step"), [*EVERY, (*VSPHERE, 7)], indirect=["stage"])
def test_the_first_backup_may_die_at_any_operation(stage: Stage, kind: str, step: int) -> None:
    """Nothing may come of it but garbage, and the next run is well."""
    stage.fill(1)
    at = 1
    while (died := stage.run("run", kind=kind, die_at=at))["status"] == -9:
        at += step
        stage.fill(1)  # when what the dead one has started lets go of the disk
    assert died["status"] in {0, 3}, died["output"]
    assert at > 5
    stage.run.fine("verify")
    assert stage.leftovers() == []


@pytest.mark.parametrize(("stage", "kind", "step"), [*EVERY, (*VSPHERE, 1)], indirect=["stage"])
def test_a_later_backup_may_die_at_any_operation(stage: Stage, kind: str, step: int) -> None:
    """After each death the points before are whole, the next run is well, and nothing of ours is left."""
    stage.fill(1)
    stage.run.fine("run")
    (first,) = stage.points()
    at = 1
    while True:
        stage.fill(at % 254 + 1)
        died = stage.run("run", kind=kind, die_at=at)
        if died["status"] != -9:
            break
        at += step
        stage.run.fine("verify", first["id"])
        stage.run.fine("run")
        assert stage.leftovers() == [], f"after death at {kind} operation {at}"
    assert died["status"] in {0, 3}, died["output"]
    assert at > 5
    stage.run.fine("verify")


@pytest.mark.parametrize(("stage", "kind", "step"), [*EVERY, (*VSPHERE, 1)], indirect=["stage"])
def test_a_restore_may_die_at_any_operation(stage: Stage, kind: str, step: int) -> None:
    """After each death the same restore succeeds without help."""
    stage.fill(1)
    stage.run.fine("run")
    command = ("restore", "machine@latest", "--as", "again")
    at = 1
    while (died := stage.run(*command, kind=kind, die_at=at))["status"] == -9:
        at += step
        if not stage.exists("again"):
            stage.run.fine(*command)
        stage.remove("again")
    assert died["status"] in {0, 3}, died["output"]
    assert at > 5
    stage.remove("again")
    assert stage.leftovers() == []
    assert list((stage.tmp_path / "restored").glob("*")) == []
