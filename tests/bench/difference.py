"""What changed between two raw disks of the same size, in blocks of 4 KiB, and writing it to a guest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from vbackup.testing.lab.guest import Guest

MIB = 1 << 20
BLOCK = 4 << 10
DIRTY = 64 << 10
"""What a bit of a dirty bitmap stands for, which QEMU chooses by default."""
LIMIT = 8 * MIB
"""No guest writes more at once."""


def cut(old: Path, new: Path, pieces: Path, dirty: Path) -> None:
    """Put what differs into the directory ``pieces``, each a file named by its offset.

    ``dirty`` becomes a JSON list of (offset, length): the same as a dirty bitmap tells it.
    """
    blocks = list(_different(old, new))
    pieces.mkdir()
    with new.open("rb") as file:
        for offset, length in _joined(blocks, BLOCK):
            (pieces / str(offset)).write_bytes(os.pread(file.fileno(), length, offset))
    bits = sorted({block // DIRTY * DIRTY for block in blocks})
    dirty.write_text(json.dumps(list(_joined(bits, DIRTY))))


def write(guest: Guest, pieces: Path) -> None:
    """Write all pieces to a disk, as the guest would."""
    found = sorted(pieces.iterdir(), key=lambda piece: int(piece.name))
    guest.qemu_io("vda", *(f"write -s {piece} {piece.name} {piece.stat().st_size}" for piece in found), "flush")


def _different(old: Path, new: Path) -> Iterator[int]:
    """Yield the offsets of blocks."""
    with old.open("rb") as before, new.open("rb") as after:
        for start in range(0, old.stat().st_size, MIB):
            left, right = before.read(MIB), after.read(MIB)
            if left != right:
                yield from (
                    start + at for at in range(0, MIB, BLOCK) if left[at : at + BLOCK] != right[at : at + BLOCK]
                )


def _joined(blocks: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of neighbours together."""
    start = blocks[0]
    for block, following in pairwise([*blocks, -1]):
        if following != block + size or following - start >= LIMIT:
            yield start, block + size - start
            start = following
