"""libvirt's backup job: QEMU serves the moment of its start over NBD until the job is ended.

https://libvirt.org/formatbackup.html, ``virDomainBackupBegin``. What guests overwrite meanwhile is saved to scratch
files before. In pull mode a job that was cancelled looks like one that succeeded, so a job's result is never asked for.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from vbackup.api import Busy, CaptureLost, ConfigError, NotFound, VBackupError
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.node import Machine
from vbackup_undo.maker import Maker

MAKER_FILE = "maker.json"
"""Beside the scratch files, so that a run that finds the job knows whose it is."""

_DIRECTORY = re.compile(r"[0-9a-f]{16}")
_SOCKET = "nbd"
_MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 bytes, with the null
_END_SECONDS = 120.0
_LOOK = 0.005  # seconds; a look costs less than one, and most jobs end at once


def new_directory(base: PurePosixPath) -> PurePosixPath:
    """Return a name that never was for a job's private directory."""
    return base / secrets.token_hex(8)


def bitmap_of(key: str) -> str:
    """Return the name of the bitmap that QEMU exports for a disk."""
    return f"backup-{key}"


@dataclass(frozen=True, slots=True)
class BackupJob:
    """Our backup job on a machine, with its private directory ``scratch``."""

    machine: Machine
    scratch: PurePosixPath

    @property
    def socket(self) -> PurePosixPath:
        """Where QEMU listens."""
        path = self.scratch / _SOCKET
        if len(str(path)) > _MAX_SOCKET_PATH:
            raise ConfigError(f"{path} is too long a path for a socket", hint="choose a shorter `scratch`")
        return path

    def begin(self, keys: Collection[str], since: Mapping[str, str], checkpoint: Element | None) -> None:
        """Start the job for the disks ``keys``; ``since`` names the checkpoint of those that are read by difference."""
        all_keys = [disk.get("dev", "") for disk in self.machine.xml().iterfind("devices/disk/target")]
        backup = ET.tostring(self._describe(all_keys, keys, since), encoding="unicode")
        made = None if checkpoint is None else ET.tostring(checkpoint, encoding="unicode")
        self.machine.ask("starting the backup", lambda domain: domain.backupBegin(backup, made, 0))

    def _describe(self, all_keys: Collection[str], keys: Collection[str], since: Mapping[str, str]) -> Element:
        root = Element("domainbackup", mode="pull")
        SubElement(root, "server", transport="unix", socket=str(self.socket))
        disks = SubElement(root, "disks")
        for key in all_keys:
            if key not in keys:
                SubElement(disks, "disk", name=key, backup="no")
                continue
            disk = SubElement(disks, "disk", name=key, backup="yes", type="file", exportname=key, backupmode="full")
            if key in since:
                disk.attrib |= {"backupmode": "incremental", "incremental": since[key], "exportbitmap": bitmap_of(key)}
            SubElement(disk, "driver", type="qcow2")
            SubElement(disk, "scratch", file=str(self.scratch / f"{key}.qcow2"))
        return root

    def is_active(self) -> bool:
        """Whether it is the one that runs on the machine."""
        return active_socket(self.machine) == str(self.socket)

    def end(self) -> None:
        """End it, if it runs, and wait until it is gone."""
        try:
            if not self.is_active():
                return
            self.machine.ask("ending the backup job", lambda domain: domain.abortJob())
        except NotFound:
            return
        except VBackupError:
            if self.is_active():
                raise
        pause, deadline = threading.Event(), time.monotonic() + _END_SECONDS
        while self.is_active():
            if time.monotonic() > deadline:
                raise CaptureLost(f"{self.machine.name}: its backup job does not end", hint="`virsh domjobabort`")
            pause.wait(_LOOK)

    def maker(self) -> Maker | None:
        """Return who started it, if that can be told."""
        path = str(self.scratch / MAKER_FILE)
        try:
            return Maker.parse(self.machine.node.host.read_file(path).decode(errors="replace"))
        except NotFound:
            return None


def active_socket(machine: Machine) -> str | None:
    """Return the socket of the backup job that runs on a machine, empty when it has none; None without a job."""
    libvirt = library()
    domain = machine.domain
    with translated(f"{machine.name}: looking for a backup job"):
        try:
            text = domain.backupGetXMLDesc(0)
        except libvirt.libvirtError as error:
            gone = {libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID}
            if error.get_error_code() in gone:
                return None
            raise
    server = ET.fromstring(text).find("server")  # noqa: S314 - libvirt wrote it
    return "" if server is None else server.get("socket", "")


def make_way(machine: Machine) -> list[str]:
    """End a backup job that a dead run of ours has left. Raises: `Busy` when anything else is at work.

    Returns phrases for what was done.
    """
    socket = active_socket(machine)
    if socket is None:
        _refuse_other_work(machine)
        return []
    job = BackupJob(machine, PurePosixPath(socket).parent)
    ours = _DIRECTORY.fullmatch(job.scratch.name) is not None and socket == str(job.socket)
    maker = job.maker() if ours else None
    if maker is None:
        raise Busy(f"{machine.name} is being backed up by another program", hint="`virsh domjobinfo` shows it")
    if not (maker.is_dead() or maker.is_this()):
        hint = "if that has ended, where it cannot be seen from here: `virsh domjobabort`"
        raise Busy(f"{machine.name} is being backed up by {maker}", hint=hint)
    job.end()
    machine.node.host.remove_tree(str(job.scratch))
    return [f"ended the backup job that {maker} had left"]


def _refuse_other_work(machine: Machine) -> None:
    kind = machine.ask("looking for jobs", lambda domain: domain.jobInfo()[0])
    if kind != library().VIR_DOMAIN_JOB_NONE:
        raise Busy(f"{machine.name} is being migrated, saved or dumped", hint="`virsh domjobinfo` shows it")
    for target in machine.xml().iterfind("devices/disk/target"):
        key = target.get("dev", "")
        domain = machine.domain
        with translated(f"{machine.name}: looking for jobs on disk {key}"):
            info = domain.blockJobInfo(key, 0)
        if info:
            raise Busy(f"{machine.name}: a block job runs on disk {key}", hint=f"`virsh blockjob {machine.name} {key}`")
