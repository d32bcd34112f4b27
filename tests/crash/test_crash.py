"""Dying at every operation of the store and of the hypervisor, for real: SIGKILL, then a look at what is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.lab.domain import Disk
from tests.lab.fixtures import GuestFactory
from tests.lab.guest import Guest
from tests.lab.libvirtd import until

SIZE = 8 << 20


class Dying:
    """vbackup commands that can be killed at the n-th operation; see `tests.crash.dying`."""

    def __init__(self, config: Path, environment: dict[str, str]) -> None:
        self._config = str(config)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.dying"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __call__(self, *argv: str, kind: str = "store", die_at: int = 0) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
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

    def __init__(self, tmp_path: Path, hypervisor: str) -> None:
        import os

        self.tmp_path = tmp_path
        config = tmp_path / "vbackup.yaml"
        config.write_text(
            f"""
hypervisors: {{lab: {hypervisor}}}
transports: {{disk: {{type: local, path: {tmp_path}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {tmp_path}/key}}}}}}
jobs: {{nightly: {{machines: ["lab:machine"], target: main, quiesce: no}}}}
"""
        )
        (tmp_path / "state").mkdir()
        environment = os.environ | {
            "VBACKUP_STATE_DIR": str(tmp_path / "state"),
            "VBACKUP_CACHE_DIR": str(tmp_path / "cache"),
        }
        self.run = Dying(config, environment)

    def fill(self, pattern: int) -> None:
        """Write to the machine's disk, as the guest."""
        raise NotImplementedError  # pragma: no cover - the two below do

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
        store = [path for path in (self.tmp_path / "store").rglob("*") if path.is_file()]
        strange = [str(path) for path in store if not path.name.replace("_", "").isalnum()]
        journals = [str(p) for p in (self.tmp_path / "state" / "hypervisors").rglob("*") if p.is_file()]
        return [*(s for s in strange if ".tmp" not in s), *(j for j in journals if Path(j).stat().st_size)]


class ImageStage(Stage):
    """A qcow2 file."""

    def __init__(self, tmp_path: Path) -> None:
        self.disk = tmp_path / "machine.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.disk, str(SIZE)], check=True)
        super().__init__(
            tmp_path, f"{{type: image, storage: {tmp_path}/restored, machines: {{machine: [{self.disk}]}}}}"
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

    def __init__(self, tmp_path: Path, make_guest: GuestFactory) -> None:
        self.guest: Guest = make_guest("machine", disks=(Disk("vda", size=SIZE),))
        self.guest.start(paused=True)
        self.make_guest = make_guest
        (tmp_path / "restored").mkdir()
        super().__init__(
            tmp_path,
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


@pytest.fixture(params=["image", "libvirt"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "image":
        made: Stage = ImageStage(tmp_path)
    else:
        made = LibvirtStage(tmp_path, request.getfixturevalue("make_guest"))
    made.run.fine("init")
    yield made
    made.run.close()


@pytest.mark.parametrize("kind", ["store", "hypervisor"])
def test_the_first_backup_may_die_at_any_operation(stage: Stage, kind: str) -> None:
    """Nothing may come of it but garbage, and the next run is well."""
    stage.fill(1)
    deaths = 0
    while (died := stage.run("run", kind=kind, die_at=deaths + 1))["status"] == -9:
        deaths += 1
    assert died["status"] in {0, 3}, died["output"]
    assert deaths > 5
    stage.run.fine("verify")
    assert stage.leftovers() == []


@pytest.mark.parametrize("kind", ["store", "hypervisor"])
def test_a_later_backup_may_die_at_any_operation(stage: Stage, kind: str) -> None:
    """After each death the points before are whole, the next run is well, and nothing of ours is left."""
    stage.fill(1)
    stage.run.fine("run")
    (first,) = stage.points()
    deaths = 0
    while True:
        stage.fill(deaths % 254 + 1)
        died = stage.run("run", kind=kind, die_at=deaths + 1)
        if died["status"] != -9:
            break
        deaths += 1
        stage.run.fine("verify", first["id"])
        stage.run.fine("run")
        assert stage.leftovers() == [], f"after death at {kind} operation {deaths}"
    assert died["status"] in {0, 3}, died["output"]
    assert deaths > 5
    stage.run.fine("verify")


@pytest.mark.parametrize("kind", ["store", "hypervisor"])
def test_a_restore_may_die_at_any_operation(stage: Stage, kind: str) -> None:
    """After each death the same restore succeeds without help."""
    stage.fill(1)
    stage.run.fine("run")
    command = ("restore", "machine@latest", "--as", "again")
    deaths = 0
    while (died := stage.run(*command, kind=kind, die_at=deaths + 1))["status"] == -9:
        deaths += 1
        if not stage.exists("again"):
            stage.run.fine(*command)
        stage.remove("again")
    assert died["status"] in {0, 3}, died["output"]
    assert deaths > 5
    stage.remove("again")
    assert stage.leftovers() == []
    assert list((stage.tmp_path / "restored").iterdir()) == []
