"""Builds a disk that boots by itself, by BIOS, UEFI or Secure Boot, on whatever controller: Debian's kernel and GRUB.

The other guest (`build`) gets its kernel from libvirt, which no other hypervisor does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from tests.lab import build

HERE = Path(__file__).parent
PACKAGES = (
    "shim-signed",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "grub-common",
    "mtools",
    "dosfstools",
    "qemu-guest-agent",
    "busybox-static",
)
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console"),
    *("ahci", "ata_piix", "nvme", "vmw_pvscsi", "mptspi", "sd_mod"),
    *("e1000e", "e1000", "vmxnet3"),
    *("crc32c_generic", "ext4"),
)
"""In the order of loading; what they depend on comes before them."""
MIB = 1 << 20
SECTOR = 512
ESP, DATA, SIZE = (1 * MIB, 96 * MIB), (97 * MIB, 31 * MIB), 128 * MIB
"""(offset, length) of the partitions for the firmware and for the guest's data."""
COMMAND_LINE = "console=ttyS0 rdinit=/init quiet"


def bootable_disk() -> Path:
    """Return the disk, a qcow2, built when it is missing or its recipe has changed. Copy it, never write to it."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + (HERE / "bootable-init").read_bytes()).hexdigest()[:16]
    place = build.CACHE / f"bootable-{recipe}.qcow2"
    build.CACHE.mkdir(exist_ok=True)
    with (build.CACHE / "bootable.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            half = build.CACHE / "building-bootable"
            shutil.rmtree(half, ignore_errors=True)
            _build(half).rename(place)
            shutil.rmtree(half)
    return place


def _build(place: Path) -> Path:
    unpacked = place / "unpacked"
    unpacked.mkdir(parents=True)
    kernel = _kernel()
    build._run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", kernel, *PACKAGES, cwd=place)
    for package in place.glob("*.deb"):
        build._run("dpkg", "-x", package, unpacked)
    order = _order(unpacked)
    root = place / "root"
    _assemble(unpacked, root, order)
    (root / "lib/order").write_text("\n".join(order) + "\n")
    build._archive(root, place / "initrd.img")
    shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), place / "vmlinuz")
    return _disk(place, unpacked)


def _kernel() -> str:
    """The package that the newest kernel is in, with all drivers."""
    build._kernel_package()  # sees to apt's lists
    said = build._output("apt-cache", "depends", "linux-image-amd64")
    return re.search(r"Depends: (linux-image-\S+)", said)[1]


def _module(unpacked: Path, name: str) -> Path:
    names = (name.replace("_", "-"), name.replace("-", "_"), name)
    return next(path for option in names for path in unpacked.glob(f"lib/modules/**/{option}.ko"))


def _assemble(unpacked: Path, root: Path, order: list[str]) -> None:
    for name in ("bin", "sbin", "proc", "sys", "dev", "lib", "tmp", "run"):
        (root / name).mkdir(parents=True)
    agent = unpacked / "usr/sbin/qemu-ga"
    for program, to in ((unpacked / "bin/busybox", "bin"), (agent, "sbin")):
        shutil.copy(program, root / to)
    for library in re.findall(r"/\S+", build._output("ldd", agent).replace(f"{agent}:", "")):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    for name in order:
        shutil.copy(_module(unpacked, name), root / f"lib/{name}.ko")
    shutil.copy(HERE / "bootable-init", root / "init")
    (root / "sbin/shutdown").write_text(build.SHUTDOWN)
    for program in (root / "init", root / "sbin/shutdown"):
        program.chmod(0o755)


def _order(unpacked: Path) -> list[str]:
    """Return the modules with all that they need, each after what it needs."""
    order: list[str] = []

    def add(name: str) -> None:
        found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + _module(unpacked, name).read_bytes())
        needed = found[1].decode() if found else ""
        for other in filter(None, needed.split(",")):
            add(other)
        if name not in order:
            order.append(name)

    for name in MODULES:
        add(name)
    return order


def _disk(place: Path, unpacked: Path) -> Path:
    raw = place / "disk.raw"
    grub = _core(place, unpacked)
    boot = (unpacked / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    table = b"".join(
        struct.pack("<B3xB3xII", 0x80 if kind == 0xEF else 0, kind, offset // SECTOR, length // SECTOR)
        for kind, (offset, length) in ((0xEF, ESP), (0x83, DATA))
    )
    with raw.open("wb") as file:
        os.truncate(file.fileno(), SIZE)
        file.write(boot[:440] + bytes(6) + table + bytes(32) + b"\x55\xaa")
        file.write(grub)
        assert file.tell() <= ESP[0]
    data = place / "data.ext4"
    (place / "content").mkdir()
    (place / "content/mine").write_text("what is mine\n")
    with data.open("wb") as file:
        os.truncate(file.fileno(), DATA[1])
    build._run("mke2fs", "-q", "-t", "ext4", "-d", place / "content", data)
    for part, (offset, _) in ((_esp(place, unpacked), ESP), (data, DATA)):
        build._run(
            "dd", f"if={part}", f"of={raw}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse", "status=none"
        )
    build._run("qemu-img", "convert", "-O", "qcow2", raw, place / "disk.qcow2")
    return place / "disk.qcow2"


def _core(place: Path, unpacked: Path) -> bytes:
    """Return what BIOS runs: GRUB, to be put right behind the first sector."""
    (place / "bios.cfg").write_text(f"set root=(hd0,msdos1)\n{_entry()}boot\n")
    core, modules = place / "core.img", ("biosdisk", "part_msdos", "fat", "linux", "normal", "configfile")
    argv = [
        "-O",
        "i386-pc",
        "-d",
        unpacked / "usr/lib/grub/i386-pc",
        "-p",
        "(hd0,msdos1)/grub",
        "-c",
        place / "bios.cfg",
    ]
    build._run(unpacked / "usr/bin/grub-mkimage", *argv, "-o", core, *modules)
    return core.read_bytes()


def _entry() -> str:
    return f"linux /vmlinuz {COMMAND_LINE}\ninitrd /initrd.img\n"


def _esp(place: Path, unpacked: Path) -> Path:
    esp = place / "esp.fat"
    with esp.open("wb") as file:
        os.truncate(file.fileno(), ESP[1])
    build._run(unpacked / "sbin/mkfs.fat", "-F", "32", esp)
    (place / "grub.cfg").write_text(f"search --file --set=root /vmlinuz\n{_entry()}boot\n")
    files = {
        "EFI/BOOT/BOOTX64.EFI": unpacked / "usr/lib/shim/shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": unpacked / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        "EFI/debian/grub.cfg": place / "grub.cfg",
        "vmlinuz": place / "vmlinuz",
        "initrd.img": place / "initrd.img",
    }
    tools = unpacked / "usr/bin/mtools"
    build._run(tools, "-c", "mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian")
    for name, source in files.items():
        build._run(tools, "-c", "mcopy", "-i", esp, source, f"::{name}")
    return esp
