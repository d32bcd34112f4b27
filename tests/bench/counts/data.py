"""A disk to count with: always the same bytes, of all kinds that disks hold."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from vbackup.repository.layout import DEFAULT_CHUNK_SIZE

CHUNK = DEFAULT_CHUNK_SIZE
CHUNKS = 3072
"""192 MiB."""
CHANGES = 32
CHANGE = 96 << 10
"""Bytes of each change: 3 MiB in all."""
_KINDS = ("text", "noise", "text", "again", "text", "zero", "text", "noise")
_HALVED = bytes(byte % 16 for byte in range(256))
_SECTOR = 512


def disk(path: Path) -> None:
    """Write the disk as a raw file: half of its chunks compress, others do not, or are zeros, or were there before."""
    rng = random.Random(1)
    noise = before = b""
    with path.open("wb") as file:
        for number in range(CHUNKS):
            kind = _KINDS[number % len(_KINDS)]
            if kind == "again":
                data = before
            elif kind == "zero":
                data = bytes(CHUNK)
            else:
                noise = rng.randbytes(CHUNK)
                data = noise.translate(_HALVED) if kind == "text" else noise
            if number % 16 == 0:
                before = data
            file.write(data)


def tracked(raw: Path, path: Path) -> None:
    """Make a qcow2 image of it, in which QEMU can keep track of changes."""
    _qemu("img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))


def change(path: Path) -> None:
    """Write to places all over a qcow2 image; most of them are parts of two chunks."""
    rng = random.Random(2)
    content = path.with_name("change")
    content.write_bytes(rng.randbytes(CHANGE))
    places = (rng.randrange((CHUNKS * CHUNK - CHANGE) // _SECTOR) * _SECTOR for _ in range(CHANGES))
    writes = [part for at in places for part in ("-c", f"write -q -s {content} {at} {CHANGE}")]
    _qemu("io", "-f", "qcow2", *writes, str(path))


def _qemu(tool: str, *arguments: str) -> None:
    subprocess.run([f"qemu-{tool}", *arguments], check=True, stdout=subprocess.DEVNULL)
