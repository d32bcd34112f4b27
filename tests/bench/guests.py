"""Two guests' disks, built from Debian's packages, and what happened to the first one overnight.

Packages are unpacked onto ext4, one after the other in the order of their installation, with the large files of a
server between them. The second guest is of the same distribution, with other packages in another order. The change is
made on a copy of the first disk; its blocks of 4 KiB that differ are what a running guest has written since.
Everything is kept in ``.lab/bench`` until this file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import database, difference
from tests.bench.measure import noise
from vbackup.testing.lab.build import CACHE

MIB = 1 << 20
LOG = "Nov 23 02:{:02d}:{:02d} guest systemd[1]: Started session {} of user operator, pid {}.\n"


@dataclass(frozen=True)
class Recipe:
    """What the disks are made of; sizes in MiB. Packages come with all that they depend on."""

    first: str
    later: str
    second: str
    disk: int
    database: int
    noise: int
    """Zeros are of the same size."""
    log: int
    writes: int
    """Of the database, overnight."""


FULL = Recipe(
    first="linux-image-amd64 systemd openssh-server postgresql-15 apache2 php vim python3 python3-numpy git"
    " build-essential openjdk-17-jre-headless",
    later="redis-server haproxy gdb tmux",
    second="emacs-nox git build-essential mariadb-server nginx php-fpm python3 openssh-server systemd"
    " linux-image-amd64",
    disk=6 << 10, database=256, noise=150, log=30, writes=1000,
)  # fmt: skip
SMALL = Recipe("vim git python3", "tmux", "nginx python3", disk=1 << 10, database=32, noise=16, log=4, writes=100)


@dataclass(frozen=True)
class Disks:
    """Disks as raw files, each in a directory of its own so that all have the same name, and as images for guests."""

    place: Path

    def raw(self, which: str) -> Path:
        """The disk of the ``first`` guest, of the ``second``, or of the first one when it has ``changed``."""
        return self.place / which / "disk.raw"

    def image(self, which: str) -> Path:
        """The same for a guest, as qcow2; there is none of ``changed``. Copy it, never write to it."""
        return self.place / f"{which}.qcow2"

    @property
    def dirty(self) -> Path:
        """Where the change is; see `difference.cut`."""
        return self.place / "dirty.json"

    @property
    def pieces(self) -> Path:
        """What the change is."""
        return self.place / "pieces"

    def sizes(self) -> dict[str, int]:
        """Bytes of data of each disk, and of the change."""
        found = {which: self.raw(which).stat().st_blocks * 512 for which in ("first", "changed", "second")}
        return found | {"change": sum(length for _, length in json.loads(self.dirty.read_bytes()))}


def disks(*, small: bool) -> Disks:
    """Return the disks, built when they are missing."""
    recipe = SMALL if small else FULL
    sources = (Path(__file__), Path(database.__file__), Path(difference.__file__))
    digest = hashlib.sha256(repr(recipe).encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()
    kind = "small" if small else "full"
    place = CACHE / "bench" / f"{kind}-{digest[:16]}"
    if not place.exists():
        for old in place.parent.glob(f"{kind}-*"):
            shutil.rmtree(old)
        half = place.parent / "building"
        shutil.rmtree(half, ignore_errors=True)
        _build(half, recipe)
        half.rename(place)
    return Disks(place)


def _build(place: Path, recipe: Recipe) -> None:
    print("building guests from Debian packages", flush=True)
    made = Disks(place)
    debs = place.parent / "debs"
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    _run("apt-get", "update", "-qq")
    first, second = (_packages(debs, wanted) for wanted in (recipe.first, recipe.second))
    random.Random(2).shuffle(second)
    for which, packages, seed in (("first", first, 1), ("second", second, 2)):
        with _formatted(made.raw(which), recipe.disk, seed) as tree:
            _install(tree, packages[: len(packages) // 2])
            _server(tree, recipe, seed)
            _install(tree, packages[len(packages) // 2 :])
    for which in ("first", "second"):
        _image(made.raw(which), made.image(which))
    made.raw("changed").parent.mkdir()
    _run("cp", made.raw("first"), made.raw("changed"))
    with _mounted(made.raw("changed")) as tree:
        _install(tree, [deb for deb in _packages(debs, f"{recipe.first} {recipe.later}") if deb not in first])
        database.update(tree / "srv/database", recipe.writes)
        _log(tree / "var/log/syslog", recipe.log // 4, seed=3)
    difference.cut(made.raw("first"), made.raw("changed"), made.pieces, made.dirty)


def _packages(debs: Path, wanted: str) -> list[Path]:
    """Download packages and all that they depend on; return them in the order in which an empty machine gets them."""
    apt = ["apt-get", "install", "-qq", "--no-install-recommends", "-o", "Dir::State::status=/dev/null"]
    there = ["-o", f"Dir::Cache::archives={debs}", "-o", "APT::Sandbox::User=root"]
    _run(*apt, *there, "-y", "--download-only", *wanted.split())
    planned = subprocess.run([*apt, "-s", *wanted.split()], check=True, text=True, stdout=subprocess.PIPE).stdout
    found = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", planned, re.MULTILINE)
    return [debs / f"{name}_{version.replace(':', '%3a')}_{kind}.deb" for name, version, kind in found]


@contextmanager
def _formatted(raw: Path, size: int, seed: int) -> Iterator[Path]:
    raw.parent.mkdir(parents=True)
    with raw.open("wb") as file:
        file.truncate(size * MIB)
    identity = f"0000000{seed}-0000-4000-8000-000000000000"
    _run("mkfs.ext4", "-q", "-U", identity, "-E", f"hash_seed={identity},lazy_itable_init=0", raw)
    with _mounted(raw) as tree:
        yield tree


@contextmanager
def _mounted(raw: Path) -> Iterator[Path]:
    tree = raw.with_name("tree")
    tree.mkdir()
    _run("mount", "-o", "loop", raw, tree)
    try:
        yield tree
    finally:
        _run("umount", tree)
        tree.rmdir()


def _install(tree: Path, packages: Sequence[Path]) -> None:
    for package in packages:
        _run("dpkg-deb", "-x", package, tree)


def _server(tree: Path, recipe: Recipe, seed: int) -> None:
    """Add what takes most of the space on a server."""
    for name in ("srv", "var/log"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    database.create(tree / "srv/database", recipe.database * MIB, seed)
    noise(tree / "srv/archive.bin", recipe.noise * MIB, seed)
    with (tree / "srv/zeros").open("wb") as file:
        for _ in range(recipe.noise):
            file.write(bytes(MIB))
    _log(tree / "var/log/syslog", recipe.log, seed)


def _log(path: Path, size: int, seed: int) -> None:
    rng, left = random.Random(seed), size * MIB
    with path.open("a") as file:
        while left > 0:
            minute, second, session, pid = (rng.randrange(limit) for limit in (60, 60, 1 << 16, 1 << 22))
            left -= file.write(LOG.format(minute, second, session, pid))


def _image(raw: Path, image: Path) -> None:
    """Make a qcow2 in which zeros that were written are there, as when a guest has written them."""
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    zero = bytes(MIB)
    with raw.open("rb") as file:
        for at in range(0, raw.stat().st_size, MIB):
            if os.lseek(file.fileno(), at, os.SEEK_HOLE) >= at + MIB and os.pread(file.fileno(), MIB, at) == zero:
                _run("qemu-io", "-f", "qcow2", "-c", f"write -P 0 {at} {MIB}", image)


def _run(*command: str | Path) -> None:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PATH": path})
