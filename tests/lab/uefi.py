"""The guest that boots from its own disk, made to boot by UEFI and Secure Boot too: Debian's signed shim and GRUB."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from vbackup.testing.lab.build import CACHE, bootable_disks

PACKAGES = ("shim-signed", "grub-efi-amd64-signed")
GRUB = """search --no-floppy --file --set=root /vmlinuz
linux /vmlinuz console=ttyS0 rdinit=/init quiet
initrd /initrd.img
boot
"""


def uefi_disk() -> Path:
    """Return the boot disk, a qcow2; it boots by BIOS as well. Shared by all guests: copy it, never write to it."""
    boot = bootable_disks().boot
    recipe = hashlib.sha256(Path(__file__).read_bytes() + str(boot).encode()).hexdigest()[:16]
    place = CACHE / f"uefi-{recipe}.qcow2"
    with (CACHE / "uefi.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            half = CACHE / "building-uefi"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            _build(half, boot).rename(place)
            shutil.rmtree(half)
            for old in set(CACHE.glob("uefi-*.qcow2")) - {place}:
                old.unlink()
    return place


def _build(place: Path, boot: Path) -> Path:
    _run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *PACKAGES, cwd=place)
    for package in place.glob("*.deb"):
        _run("dpkg", "-x", package, place)
    raw = place / "boot.raw"
    _run("qemu-img", "convert", "-O", "raw", boot, raw)
    (place / "grub.cfg").write_text(GRUB)
    files = {
        # What firmware starts that knows of no boot entry; it starts GRUB, which looks for its configuration in
        # EFI/debian.
        "EFI/BOOT/BOOTX64.EFI": place / "usr/lib/shim/shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": place / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        "EFI/debian/grub.cfg": place / "grub.cfg",
    }
    _run("mmd", "-i", raw, "::EFI", "::EFI/BOOT", "::EFI/debian")
    for name, source in files.items():
        _run("mcopy", "-i", raw, source, f"::{name}")
    _run("qemu-img", "convert", "-O", "qcow2", raw, place / "uefi.qcow2")
    return place / "uefi.qcow2"


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)
