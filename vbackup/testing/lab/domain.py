"""Domain XML for the lab's machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from vbackup.testing.lab.build import GuestFiles

OVMF = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class Disk:
    """One disk of a machine: made empty with ``size`` bytes unless ``path`` is there already."""

    target: str
    size: int = 64 << 20
    format: str = "qcow2"
    path: Path | None = None
    """None: a file of the machine's own."""
    bus: str = "virtio"
    device: str = "disk"
    readonly: bool = False
    block: bool = False
    """Whether `path` is a block device."""
    create: tuple[str, ...] = ()
    """More options for ``qemu-img create``, such as ``-o cluster_size=4k``."""


@dataclass(frozen=True)
class Machine:
    """What a machine of the lab is made of."""

    name: str
    directory: Path
    disks: tuple[Disk, ...]
    memory: int = 32
    """MiB"""
    kernel: GuestFiles | None = None
    uefi: bool = False
    tpm: bool = False
    extra_devices: str = ""
    metadata: str = ""

    @property
    def serial(self) -> Path:
        """Where the serial console goes."""
        return self.directory / "serial.log"

    def path(self, disk: Disk) -> Path:
        """Where a disk is."""
        return disk.path or self.directory / f"{disk.target}.{disk.format}"

    def xml(self) -> str:
        """Return the domain XML."""
        return f"""<domain type='qemu'>
  <name>{self.name}</name>{self.metadata}
  <memory unit='MiB'>{self.memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{"q35" if self.uefi else "pc"}'>hvm</type>{self._firmware()}{self._kernel()}
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(self._disk(disk) for disk in self.disks)}
    <controller type='usb' model='none'/>
    <serial type='file'><source path={quoteattr(str(self.serial))}/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>{self._tpm()}{self.extra_devices}
  </devices>
</domain>"""

    def _firmware(self) -> str:
        if not self.uefi:
            return ""
        return f"""
    <loader readonly='yes' type='pflash'>{OVMF}/OVMF_CODE_4M.fd</loader>
    <nvram template='{OVMF}/OVMF_VARS_4M.fd'/>"""

    def _kernel(self) -> str:
        if self.kernel is None:
            return ""
        return f"""
    <kernel>{self.kernel.kernel}</kernel><initrd>{self.kernel.initrd}</initrd>
    <cmdline>console=ttyS0 rdinit=/init quiet</cmdline>"""

    def _tpm(self) -> str:
        return "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>" if self.tpm else ""

    def _disk(self, disk: Disk) -> str:
        kind, attribute = ("block", "dev") if disk.block else ("file", "file")
        discard = " discard='unmap'" if disk.device == "disk" else ""
        return f"""<disk type='{kind}' device='{disk.device}'>
      <driver name='qemu' type='{disk.format}'{discard}/>
      <source {attribute}={quoteattr(str(self.path(disk)))}/>
      <target dev='{disk.target}' bus='{disk.bus}'/>{"<readonly/>" if disk.readonly else ""}
    </disk>"""
