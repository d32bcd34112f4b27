"""A machine of bare QEMU: no operating system in it, its disks are written through QEMU as by a guest."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vbackup_qmp.hypervisor import QmpHypervisor
from vbackup_qmp.options import QmpOptions

from vbackup.api import HypervisorContext

BLOCK = 64 << 10


def run(*argv: str | Path) -> str:
    """Run a program to its end; return what it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def make(options: Mapping[str, Any], state: Path) -> QmpHypervisor:
    """Return a hypervisor; also in another process."""
    state.mkdir(parents=True, exist_ok=True)
    return QmpHypervisor(QmpOptions.model_validate(options), HypervisorContext("lab", state))


class Monitor:
    """Our own monitor: the plugin's is its alone."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # the greeting
        self._heard: list[dict[str, Any]] = []
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have a command carried out."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "event" in (answer := json.loads(self._lines.readline())):
            self._heard.append(answer)
        assert "return" in answer, answer
        return answer["return"]

    def wait(self, event: str, **data: Any) -> None:
        """Wait for an event that has these data, if it has not come yet."""
        while not any(event == each["event"] and each["data"].items() >= data.items() for each in self._heard):
            self._heard.append(json.loads(self._lines.readline()))

    def close(self) -> None:
        """Let go of it."""
        self._lines.close()
        self._socket.close()


@dataclass
class Image:
    """A disk of a machine."""

    path: Path
    format: str
    size: int
    create: Sequence[str] = ()

    def make(self, content: bytes) -> None:
        """Create it, with some content at its beginning."""
        raw = self.path.with_suffix(".content")
        raw.write_bytes(content)
        run("qemu-img", "create", "-q", "-f", self.format, *self.create, self.path, str(self.size))
        self.io(f"write -q -s {raw} 0 {len(content)}")
        raw.unlink()

    def io(self, command: str) -> None:
        """Have a qemu-io command carried out; nobody else writes to it."""
        run("qemu-io", "-f", self.format, "-d", "unmap", "-c", command, self.path)

    def read(self) -> bytes:
        """Return what the guest sees; all is flushed."""
        if self.format == "raw":
            return self.path.read_bytes()
        raw = self.path.with_suffix(".read")
        run("qemu-img", "convert", "-U", "-f", self.format, "-O", "raw", self.path, raw)
        try:
            return raw.read_bytes()
        finally:
            raw.unlink()


@dataclass
class QemuMachine:
    """A machine in a directory, which must have a short path; a `GuestUnderTest`."""

    directory: Path
    name: str
    images: dict[str, Image]
    paused: bool = True
    command: Sequence[str] = ("qemu-system-x86_64",)
    arguments: Sequence[str] = ()
    device: str = ""
    """More of its disks' devices."""
    process: subprocess.Popen[bytes] | None = None
    _monitor: Monitor | None = field(default=None, repr=False)

    @classmethod
    def small(cls, directory: Path, name: str = "web", *, starts: bool = True, **changes: Any) -> QemuMachine:
        """Make one with a qcow2 disk and a raw one, and switch it on."""
        directory.mkdir(parents=True, exist_ok=True)
        images = {
            "root": Image(directory / "root.qcow2", "qcow2", 3 << 20),
            "data": Image(directory / "data.raw", "raw", (2 << 20) + 512),
        }
        for number, image in enumerate(images.values()):
            image.make(bytes([number + 1]) * 5 * BLOCK)
        machine = cls(directory, name, images, **changes)
        if starts:
            machine.start()
        return machine

    @property
    def socket(self) -> Path:
        """The monitor for vbackup."""
        return self.directory / "qmp"

    @property
    def options(self) -> dict[str, Any]:
        """What stands under ``machines:`` for it."""
        disks = {key: {"path": str(image.path), "format": image.format} for key, image in self.images.items()}
        return {"socket": str(self.socket), "disks": disks}

    @property
    def disks(self) -> Sequence[str]:
        """The keys of its disks."""
        return list(self.images)

    @property
    def monitor(self) -> Monitor:
        """The monitor of the tests."""
        assert self._monitor is not None, "it is off"
        return self._monitor

    def start(self) -> None:
        """Switch it on."""
        if self.process is not None:
            return
        ours = self.directory / "tests"
        argv = [*self.command, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16", "-accel", "tcg"]
        argv += ["-name", self.name, *(["-S"] if self.paused else []), *self.arguments]
        for key, image in self.images.items():
            argv += ["-blockdev", json.dumps(self._node(key, image))]
            argv += ["-device", f"virtio-blk-pci,id=d-{key},drive={key}{self.device}"]
        with socket.socket(socket.AF_UNIX) as listener:
            ours.unlink(missing_ok=True)
            listener.bind(str(ours))
            listener.listen()
            argv += ["-chardev", f"socket,id=t,fd={listener.fileno()},server=on,wait=off"]
            argv += ["-mon", "chardev=t,mode=control"]
            argv += ["-qmp", f"unix:{self.socket},server=on,wait=off"]
            with (self.directory / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()]
                )
            self._monitor = Monitor(ours)  # it answers when all is there

    def _node(self, key: str, image: Image) -> dict[str, Any]:
        file = {"driver": "file", "filename": str(image.path), "discard": "unmap"}
        return {"driver": image.format, "node-name": key, "discard": "unmap", "file": file}

    def stop(self) -> None:
        """Switch it off: QEMU ends in order."""
        if self.process is not None:
            self.monitor.ask("quit")
            self._ended()

    def kill(self) -> None:
        """Kill its QEMU."""
        if self.process is not None:
            self.process.kill()
            self._ended()

    def _ended(self) -> None:
        assert self.process is not None
        self.process.wait()
        self.monitor.close()
        self.process = self._monitor = None

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write as the guest."""
        source = self.directory / "source"
        source.write_bytes(data)
        self._io(disk, f"write -q -s {source} {offset} {len(data)}")

    def zero(self, disk: str, offset: int, length: int) -> None:
        """Discard as the guest: on a raw file it reads as zeros, in a qcow2 image it does by -z."""
        self._io(disk, f"write -q -z -u {offset} {length}")

    def _io(self, disk: str, command: str) -> None:
        if self.process is None:
            self.images[disk].io(command)
            return
        device = f"/machine/peripheral/d-{disk}/virtio-backend"
        for each in (command, "flush"):
            said = self.monitor.ask("human-monitor-command", **{"command-line": f'qemu-io -d {device} "{each}"'})
            assert not said, said

    def read(self, disk: str) -> bytes:
        """Return what a disk holds now."""
        return self.images[disk].read()

    def bitmaps(self) -> list[str]:
        """The names of its dirty bitmaps."""
        return [
            f"{block['qdev']}/{bitmap['name']}"
            for block in self.monitor.ask("query-block")
            for bitmap in block["inserted"].get("dirty-bitmaps", [])
            if "name" in bitmap
        ]

    def leftovers(self) -> list[str]:
        """What captures make in its QEMU for a time."""
        if self.process is None:
            return []
        nodes = self.monitor.ask("query-named-block-nodes", flat=True)
        return [
            *(job["id"] for job in self.monitor.ask("query-jobs")),
            *(export["id"] for export in self.monitor.ask("query-block-exports")),
            *(node["node-name"] for node in nodes if node["node-name"].startswith("vbq-")),
            *(name for name in self.bitmaps() if "vbq-" in name),
        ]


@dataclass(frozen=True)
class Lab:
    """A hypervisor with machines, in a directory with a short path."""

    directory: Path
    machines: dict[str, QemuMachine]

    @property
    def options(self) -> dict[str, Any]:
        """The hypervisor's options."""
        return {
            "machines": {name: machine.options for name, machine in self.machines.items()},
            "scratch": str(self.directory / "scratch"),
            "storage": str(self.directory / "storage"),
            "reserve": 1 << 20,
        }

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.directory / "state"

    @property
    def opens(self) -> partial[QmpHypervisor]:
        """Makes an instance of it, in whatever process."""
        return partial(make, self.options, self.state)

    def leftovers(self) -> list[str]:
        """What captures and restores make for a time."""
        found = [name for machine in self.machines.values() for name in machine.leftovers()]
        found += [str(path) for path in (self.directory / "scratch").glob("*")]
        found += [path.name for path in self.state.glob("*.journal") if path.stat().st_size]
        found += [str(path) for path in self.directory.rglob(".*")]
        return found

    def close(self) -> None:
        """Kill what runs."""
        for machine in self.machines.values():
            machine.kill()


@dataclass(frozen=True)
class Restored:
    """A machine that was restored to a directory of its own; a `GuestUnderTest` that is only read."""

    directory: Path

    @property
    def name(self) -> str:
        """Its name."""
        return self.directory.name

    @property
    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.directory / "machine.json").read_text())
        return document

    @property
    def disks(self) -> Sequence[str]:
        """The keys of its disks."""
        return list(self._document["disks"])

    def read(self, disk: str) -> bytes:
        """Return what a disk holds."""
        found = self._document["disks"][disk]
        return Image(Path(found["path"]), found["format"], 0).read()

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Nobody does."""
        raise AssertionError(f"{self.name}/{disk}: {offset}+{len(data)}")
