"""A machine of the lab, and what tests do to it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import libvirt_qemu

from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup.testing.lab.namespace import LabError

_numbers = itertools.count()
_QEMU_IO_DID = re.compile(r"(wrote|read|discard) (\d+)/\2 bytes at offset|\d.* ops; |[0-9a-f]{8}:  ")


class Guest:
    """A machine under our libvirtd, by its name; whoever made it.

    Each call opens a connection of its own, so that libvirtd may be restarted at any time between calls.
    """

    def __init__(self, libvirtd: Libvirtd, name: str) -> None:
        self.libvirtd = libvirtd
        self.name = name

    @classmethod
    def define(cls, libvirtd: Libvirtd, machine: Machine) -> Guest:
        """Make a machine's disks and define it; it is off."""
        machine.directory.mkdir(parents=True, exist_ok=True)
        for disk in machine.disks:
            _create(machine.path(disk), disk)
        with libvirtd.connection() as connection:
            connection.defineXML(machine.xml())
        return cls(libvirtd, machine.name)

    # What it is

    @property
    def domain(self) -> libvirt.virDomain:
        """The libvirt domain, on a new connection that lives as long as it."""
        return self.libvirtd.connect().lookupByName(self.name)

    @property
    def exists(self) -> bool:
        """Whether it is defined or running."""
        with self.libvirtd.connection() as connection:
            return self.name in [domain.name() for domain in connection.listAllDomains()]

    @property
    def uuid(self) -> str:
        """Its UUID."""
        return str(self.domain.UUIDString())

    def xml(self, flags: int = 0) -> ET.Element:
        """Its XML, live while it runs."""
        return ET.fromstring(self.domain.XMLDesc(flags))

    @property
    def disks(self) -> dict[str, Path]:
        """Where its disks are now, by target (``vda``)."""
        found = {}
        for disk in self.xml().iterfind("devices/disk"):
            source, target = disk.find("source"), disk.find("target")
            if source is not None and target is not None:
                found[target.attrib["dev"]] = Path(source.get("file") or source.attrib["dev"])
        return found

    @property
    def checkpoints(self) -> list[str]:
        """The names of its checkpoints."""
        return sorted(checkpoint.getName() for checkpoint in self.domain.listAllCheckpoints())

    @property
    def bitmaps(self) -> dict[str, list[str]]:
        """The names of the dirty bitmaps of each disk of a running machine, persistent or not, by target."""
        nodes = json.loads(libvirt_qemu.qemuMonitorCommand(self.domain, '{"execute": "query-named-block-nodes"}', 0))
        found: dict[str, list[str]] = {}
        for target, path in self.disks.items():
            names = {
                bitmap["name"]
                for node in nodes["return"]
                if node["file"] == str(path)
                for bitmap in node.get("dirty-bitmaps", [])
                if "name" in bitmap
            }
            found[target] = sorted(names)
        return found

    # Its life

    def start(self, *, paused: bool = False) -> None:
        """Switch it on."""
        self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)

    def pause(self) -> None:
        """Stop its processors."""
        self.domain.suspend()

    def resume(self) -> None:
        """Let its processors go on."""
        self.domain.resume()

    def destroy(self) -> None:
        """Pull the plug, if it runs."""
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.destroy()

    def shutdown(self) -> None:
        """Have the guest switch itself off cleanly and wait for it."""
        with contextlib.suppress(libvirt.libvirtError):  # one that is quick takes its agent along
            self.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
        until(lambda: not self.domain.isActive(), f"{self.name} to switch itself off")

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())

    def kill_qemu(self) -> None:
        """SIGKILL its QEMU, wait until it is gone and libvirt has noticed."""
        handle = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [])
        os.close(handle)
        until(lambda: not self.domain.isActive(), f"libvirt to notice the end of {self.name}")

    def undefine(self) -> None:
        """Forget it, with its firmware variables, TPM state and checkpoint metadata; the disks stay."""
        self.domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            | libvirt.VIR_DOMAIN_UNDEFINE_TPM
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        )

    def remove(self) -> None:
        """`destroy` and `undefine`, if it is there."""
        self.destroy()
        if self.exists:
            self.undefine()

    # Inside

    def wait_ready(self, seconds: float = 300) -> None:
        """Wait until its guest agent answers; it has mounted its data by then."""
        until(lambda: self.agent_answers, f"{self.name} to boot", seconds)

    @property
    def agent_answers(self) -> bool:
        """Whether the guest agent answers now."""
        try:
            self.agent("guest-ping")
        except libvirt.libvirtError:
            return False
        return True

    def agent(self, command: str, **arguments: Any) -> Any:
        """Ask the guest agent (``guest-fsfreeze-status`` ...) and return its answer."""
        request = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(libvirt_qemu.qemuAgentCommand(self.domain, request, 30, 0))["return"]

    def exec(self, script: str) -> str:
        """Run a shell script in the guest and return what it prints. Raises `LabError` if it fails."""
        self.wait_ready()  # a restarted libvirtd takes a moment to find the agent again
        argument = {"path": "/bin/sh", "arg": ["-ec", script], "capture-output": True}
        pid = self.agent("guest-exec", **argument)["pid"]
        status: dict[str, Any] = {}

        def exited() -> bool:
            status.update(self.agent("guest-exec-status", pid=pid))
            return bool(status["exited"])

        until(exited, f"{script!r} in {self.name}", 120)
        said = {key: base64.b64decode(status.get(key, "")).decode() for key in ("out-data", "err-data")}
        if status.get("exitcode") != 0:
            raise LabError(f"{script!r} in {self.name}: {status} {said}")
        return said["out-data"]

    @property
    def found(self) -> str:
        """What the guest found when it booted, in lines: the last one of its log, sha256 of ``/data/keep/*``."""
        return self.exec("cat /run/found")

    def qemu_io(self, target: str, *commands: str) -> str:
        """Run qemu-io commands (``write -P 0xaa 0 1M``) on a disk, as the guest would; it runs or is paused.

        Returns what qemu-io says. Raises `LabError` if it says anything else than that a command was carried out.
        """
        domain, device, log = self.domain, self._device(target), Path(f"/var/log/libvirt/qemu/{self.name}.log")

        def monitor(command: str) -> None:
            line = f'qemu-io -d {device} "{command}"'
            libvirt_qemu.qemuMonitorCommand(domain, line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)

        begin, end = (f'command "{name}-{next(_numbers)}" not found\n' for name in ("begin", "end"))
        for command in (begin.split('"')[1], *commands, end.split('"')[1]):
            monitor(command)
        # The monitor hides errors; QEMU's standard output has them, but in a buffer that only more output flushes.
        while end not in log.read_text():
            monitor("help")
        said = log.read_text().partition(begin)[2].partition(end)[0]
        if failed := [line for line in said.splitlines() if not _QEMU_IO_DID.match(line)]:
            raise LabError(f"qemu-io {commands} on {target} of {self.name}: {failed}")
        return said

    def _device(self, target: str) -> str:
        for disk in self.xml().iterfind("devices/disk"):
            name, alias = disk.find("target"), disk.find("alias")
            if name is not None and alias is not None and name.get("dev") == target:
                back = "/virtio-backend" if name.get("bus") == "virtio" else ""
                return f"/machine/peripheral/{alias.get('name')}{back}"
        raise LabError(f"{self.name} has no disk {target} that runs")


def _create(path: Path, disk: Disk) -> None:
    if path.exists() or disk.block:
        return
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", disk.format, *disk.create, path, str(disk.size)],
        check=True,
        capture_output=True,
    )


def copy_disk(source: Path, to: Path) -> Path:
    """Copy an image, sparse."""
    to.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, to], check=True)
    return to
