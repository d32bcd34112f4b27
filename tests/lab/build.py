"""Builds the smallest real guest: Debian's cloud kernel, busybox and the QEMU guest agent, and an ext4 data disk."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".lab"
MODULES = (
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
)
SHUTDOWN = "#!/bin/sh\nsync; umount /data; poweroff -f\n"


@dataclass(frozen=True)
class GuestFiles:
    """What a guest boots from. Shared by all guests: copy `disk`, never write to it."""

    kernel: Path
    initrd: Path
    disk: Path
    """qcow2 of 1 GiB: ext4 with about 90 MB of files."""


def guest_files() -> GuestFiles:
    """Return the guest's files, built when they are missing or when this file or ``init`` has changed."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + (HERE / "init").read_bytes()).hexdigest()[:16]
    place = CACHE / f"guest-{recipe}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            half = CACHE / "building"
            shutil.rmtree(half, ignore_errors=True)
            _build(half)
            half.rename(place)
            for old in set(CACHE.glob("guest-*")) - {place}:
                shutil.rmtree(old)
    return GuestFiles(place / "vmlinuz", place / "initrd.img", place / "disk.qcow2")


def _build(place: Path) -> None:
    unpacked, root = place / "unpacked", place / "root"
    unpacked.mkdir(parents=True)
    _download(place)
    for package in place.glob("*.deb"):
        _run("dpkg", "-x", package, unpacked)
        package.unlink()
    _assemble(unpacked, root)
    _archive(root, place / "initrd.img")
    shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), place / "vmlinuz")
    _data_disk(unpacked / "lib", place / "disk.qcow2")
    shutil.rmtree(unpacked)
    shutil.rmtree(root)


def _download(place: Path) -> None:
    sandbox = "APT::Sandbox::User=root"  # as root, apt would fetch as another user, who may not write here
    packages = [_kernel_package(), "qemu-guest-agent", "busybox-static"]
    _run("apt-get", "download", "-q", "-o", sandbox, *packages, cwd=place)


def _kernel_package() -> str:
    """The package that the newest kernel is in; images of Debian often come without apt's lists."""
    wanted = ("apt-cache", "depends", "linux-image-cloud-amd64")
    try:
        said = _output(*wanted)
    except subprocess.CalledProcessError:
        _run("apt-get", "update", "-q")
        said = _output(*wanted)
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if found is None:
        raise FileNotFoundError(f"apt does not say which kernel linux-image-cloud-amd64 is: {said!r}")
    return found[1]


def _assemble(unpacked: Path, root: Path) -> None:
    for name in ("bin", "sbin", "proc", "sys", "dev", "lib", "tmp", "data", "run"):
        (root / name).mkdir(parents=True)
    agent = unpacked / "usr/sbin/qemu-ga"
    shutil.copy(unpacked / "bin/busybox", root / "bin")
    shutil.copy(agent, root / "sbin")
    # The agent's libraries are those of QEMU's own packages, which are installed here.
    for library in re.findall(r"/\S+", _output("ldd", agent).replace(f"{agent}:", "")):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    for module in MODULES:
        shutil.copy(next(unpacked.glob(f"lib/modules/**/{module}.ko")), root / "lib")
    shutil.copy(HERE / "init", root / "init")
    (root / "sbin/shutdown").write_text(SHUTDOWN)
    for program in ("init", "sbin/shutdown"):
        (root / program).chmod(0o755)


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


def _data_disk(content: Path, disk: Path) -> None:
    raw = disk.with_suffix(".raw")
    with raw.open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    _run("mke2fs", "-q", "-t", "ext4", "-d", content, raw)
    _run("qemu-img", "convert", "-O", "qcow2", raw, disk)
    raw.unlink()


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL, env=os.environ | {"PATH": path})
