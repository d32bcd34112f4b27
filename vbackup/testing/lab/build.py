"""Builds the smallest real guests: Debian's kernel, busybox and the QEMU guest agent, and an ext4 data disk.

One is started by QEMU with its kernel, which is quick; the other one boots from a disk of its own, through SeaBIOS and
syslinux, on virtio or on a SATA controller: wherever it is restored to.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(
    os.environ.get("VBACKUP_LAB") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vbackup-lab"
)
"""Where guests are kept that were built."""
MODULES = ("virtio_pci", "virtio_blk", "virtio_console")
ANYWHERE = (
    *MODULES,
    "virtio_scsi",
    "virtio_net",
    "ahci",
    "sd_mod",
    "e1000e",
    "crct10dif_generic",
    "crc32c_generic",
    "ext4",
)
BOOT = """DEFAULT linux
LABEL linux
  KERNEL vmlinuz
  INITRD initrd.img
  APPEND console=ttyS0 rdinit=/init quiet
"""
SHUTDOWN = "#!/bin/sh\nsync; umount /data; poweroff -f\n"


@dataclass(frozen=True)
class GuestFiles:
    """What a guest boots from. Shared by all guests: copy `disk`, never write to it."""

    kernel: Path
    initrd: Path
    disk: Path
    """qcow2 of 1 GiB: ext4 with about 90 MB of files."""


@dataclass(frozen=True)
class BootableDisks:
    """The disks of a guest that needs nothing but them. Shared by all guests: copy them, never write to them."""

    boot: Path
    """qcow2 of 64 MiB: FAT with syslinux, the kernel and all that the system is."""
    data: Path
    """qcow2 of 64 MiB: ext4."""


def guest_files() -> GuestFiles:
    """Return the guest's files, built when they are missing or when this file or ``init`` has changed."""
    place = _built("guest", _build)
    return GuestFiles(place / "vmlinuz", place / "initrd.img", place / "disk.qcow2")


def bootable_disks() -> BootableDisks:
    """Return the disks of the guest that boots from its own, built as `guest_files` are."""
    place = _built("bootable", _build_bootable)
    return BootableDisks(place / "boot.qcow2", place / "data.qcow2")


def _built(name: str, build: Callable[[Path], None]) -> Path:
    recipe = hashlib.sha256(Path(__file__).read_bytes() + (HERE / "init").read_bytes()).hexdigest()[:16]
    place = CACHE / f"{name}-{recipe}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            half = CACHE / "building"
            shutil.rmtree(half, ignore_errors=True)
            build(half)
            half.rename(place)
            for old in set(CACHE.glob(f"{name}-*")) - {place}:
                shutil.rmtree(old)
    return place


def _build(place: Path) -> None:
    with _unpacked(place, "linux-image-cloud-amd64") as unpacked:
        _system(place, unpacked, MODULES)
        _data_disk(unpacked / "lib", place / "disk.qcow2", 1 << 30)


def _build_bootable(place: Path) -> None:
    with _unpacked(place, "linux-image-amd64") as unpacked:
        _system(place, unpacked, ANYWHERE)
        _data_disk(unpacked / "etc", place / "data.qcow2", 64 << 20)
    _boot_disk(place)


@contextmanager
def _unpacked(place: Path, kernel: str) -> Iterator[Path]:
    unpacked = place / "unpacked"
    unpacked.mkdir(parents=True)
    _download(place, _kernel_package(kernel), "qemu-guest-agent", "busybox-static")
    for package in place.glob("*.deb"):
        _run("dpkg", "-x", package, unpacked)
        package.unlink()
    yield unpacked
    shutil.rmtree(unpacked)


def _system(place: Path, unpacked: Path, modules: Sequence[str]) -> None:
    root = place / "root"
    _assemble(unpacked, root, modules)
    _archive(root, place / "initrd.img")
    shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), place / "vmlinuz")
    shutil.rmtree(root)


def _boot_disk(place: Path) -> None:
    """A disk without partitions, which SeaBIOS boots as well; mtools and syslinux write to it with no mount."""
    raw, config = place / "boot.raw", place / "syslinux.cfg"
    config.write_text(BOOT)
    with raw.open("wb") as disk:
        os.truncate(disk.fileno(), 64 << 20)
    _run("mformat", "-i", raw, "-v", "BOOT", "-h", "16", "-s", "63", "-T", str((64 << 20) // 512), "::")
    for file in (place / "vmlinuz", place / "initrd.img", config):
        _run("mcopy", "-i", raw, file, f"::{file.name}")
    _run("syslinux", "--install", raw)
    _run("qemu-img", "convert", "-O", "qcow2", raw, place / "boot.qcow2")
    for file in (raw, config, place / "vmlinuz", place / "initrd.img"):
        file.unlink()


def _download(place: Path, *packages: str) -> None:
    sandbox = "APT::Sandbox::User=root"  # as root, apt would fetch as another user, who may not write here
    _run("apt-get", "download", "-q", "-o", sandbox, *packages, cwd=place)


def _kernel_package(name: str) -> str:
    """The package that the newest kernel is in; images of Debian often come without apt's lists."""
    wanted = ("apt-cache", "depends", name)
    try:
        said = _output(*wanted)
    except subprocess.CalledProcessError:
        _run("apt-get", "update", "-q")
        said = _output(*wanted)
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if found is None:
        raise FileNotFoundError(f"apt does not say which kernel {name} is: {said!r}")
    return found[1]


def _assemble(unpacked: Path, root: Path, modules: Sequence[str]) -> None:
    for name in ("bin", "sbin", "proc", "sys", "dev", "lib", "tmp", "data", "run"):
        (root / name).mkdir(parents=True)
    agent = unpacked / "usr/sbin/qemu-ga"
    shutil.copy(unpacked / "bin/busybox", root / "bin")
    shutil.copy(agent, root / "sbin")
    # The agent's libraries are those of QEMU's own packages, which are installed here.
    for library in re.findall(r"/\S+", _output("ldd", agent).replace(f"{agent}:", "")):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    order = _with_dependencies(unpacked, modules)
    for module in order:
        shutil.copy(module, root / "lib")
    (root / "lib/order").write_text("".join(f"{module.stem}\n" for module in order))
    shutil.copy(HERE / "init", root / "init")
    (root / "sbin/shutdown").write_text(SHUTDOWN)
    for program in ("init", "sbin/shutdown"):
        (root / program).chmod(0o755)


def _with_dependencies(unpacked: Path, wanted: Sequence[str]) -> list[Path]:
    """Return modules and those that they need, in the order of loading."""
    files = {path.stem.replace("-", "_"): path for path in unpacked.glob("lib/modules/**/*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:  # what is no file is built in
            return
        needed = re.search(rb"\0depends=([^\0]+)", path.read_bytes())
        for other in needed[1].decode().split(",") if needed else ():
            add(other)
        order.append(path)

    for name in wanted:
        add(name)
    return order


def _archive(root: Path, archive: Path) -> None:
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    cpio = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        input=names.encode(),
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
    )
    archive.write_bytes(gzip.compress(cpio.stdout, 1))


def _data_disk(content: Path, disk: Path, size: int) -> None:
    raw = disk.with_suffix(".raw")
    with raw.open("wb") as file:
        os.truncate(file.fileno(), size)
    _run("mke2fs", "-q", "-t", "ext4", "-d", content, raw)
    _run("qemu-img", "convert", "-O", "qcow2", raw, disk)
    raw.unlink()


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL, env=os.environ | {"PATH": path})
