"""Measure compressing codecs on 64 KiB chunks of real files: ``python tests/bench/codec_levels.py [DIRECTORY ...]``.

Prints a table in Markdown: the size that is left, and MiB of plain bytes per second of one processor.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vbackup.api import Codec, CodecContext
from vbackup_lz4.codec import Lz4
from vbackup_stdcodecs.codecs import Deflate
from vbackup_zstd.codec import Zstd

CHUNK = 64 << 10
BLOCK = 4096
MIB = 1 << 20
CONTEXT = CodecContext(bytes(32), bytes(12), b"")
CODECS = [
    *((f"zstd {level}", Zstd(Zstd.options(level=level))) for level in (-5, -1, 1, 2, 3, 4, 6, 9)),
    ("lz4 0", Lz4(Lz4.options())),
    ("deflate 6", Deflate(Deflate.options())),
]


def chunks(directories: Sequence[str], total: int) -> list[bytes]:
    """Files in a random, repeatable order, laid out as on a disk in blocks of 4 KiB, cut into chunks."""
    files = sorted(path for directory in directories for path in Path(directory).rglob("*") if _is_plain(path))
    random.Random(1).shuffle(files)
    disk = bytearray()
    for path in files:
        if len(disk) >= total:
            break
        with path.open("rb") as stream:
            content = stream.read(2 * MIB)  # no file is to have much of the whole
        disk += content + bytes(-len(content) % BLOCK)
    return [bytes(disk[start : start + CHUNK]) for start in range(0, len(disk) - CHUNK + 1, CHUNK)]


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def rate(function: Callable[[bytes], bytes], items: Sequence[bytes], plain: int) -> float:
    """The best of three passes, in MiB of plain bytes per second of processor time."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        for item in items:
            function(item)
        best = min(best, time.thread_time() - start)
    return plain / MIB / best


def measure(codec: Codec, plain: Sequence[bytes]) -> tuple[float, float, float]:
    """Return the part that is left, and the rates of encoding and decoding."""
    encoded = [codec.encode(chunk, CONTEXT) for chunk in plain]
    size = sum(map(len, plain))
    encode = rate(lambda chunk: codec.encode(chunk, CONTEXT), plain, size)
    decode = rate(lambda chunk: codec.decode(chunk, CONTEXT, CHUNK), encoded, size)
    return sum(map(len, encoded)) / size, encode, decode


def main() -> None:
    plain = chunks(sys.argv[1:] or ["/usr/lib", "/usr/share", "/usr/bin"], 128 * MIB)
    print(f"{len(plain)} chunks of {CHUNK >> 10} KiB\n")
    print("| codec | left | encode MiB/s | decode MiB/s |")
    print("|---|---|---|---|")
    for name, codec in CODECS:
        left, encode, decode = measure(codec, plain)
        print(f"| {name} | {left:.1%} | {encode:.0f} | {decode:.0f} |")


if __name__ == "__main__":
    main()
