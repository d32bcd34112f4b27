"""A file like a database's: pages of rows, which compress to about a half."""

from __future__ import annotations

import random
import struct
from pathlib import Path

PAGE = 8 << 10
ROW = struct.Struct("<QQ48s64s")
"""Number, time, a hash or the like, and text."""
HEAD = struct.Struct("<IIQ")
WORDS = ("account", "amount", "approved", "branch", "cancelled", "customer", "delivered", "invoice", "order", "paid",
    "pending", "refund", "shipped")  # fmt: skip
START = 1_700_000_000
_SIZES = (4 << 10, 16 << 10)


def create(path: Path, size: int, seed: int) -> None:
    """Write a new one."""
    rng = random.Random(seed)
    texts = _texts(rng)
    with path.open("wb") as file:
        for number in range(size // PAGE):
            file.write(_page(rng, texts, number))


def update(path: Path, writes: int) -> None:
    """Overwrite 4 or 16 KiB at a time, at random places."""
    rng = random.Random(7)
    texts = _texts(rng)
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        for _ in range(writes):
            number, size = rng.randrange(pages - 2), rng.choice(_SIZES)
            file.seek(number * PAGE)
            file.write((_page(rng, texts, number) + _page(rng, texts, number + 1))[:size])


def _texts(rng: random.Random) -> list[bytes]:
    return [" ".join(rng.choices(WORDS, k=8)).encode()[:64] for _ in range(4096)]


def _page(rng: random.Random, texts: list[bytes], number: int) -> bytes:
    rows = (PAGE - HEAD.size) // ROW.size
    page = bytearray(HEAD.pack(number, rows, rng.getrandbits(64)))
    for row in range(rows):
        key = number * rows + row
        page += ROW.pack(key, START + key * 3, rng.randbytes(48), texts[rng.randrange(len(texts))])
    return bytes(page.ljust(PAGE, b"\0"))
