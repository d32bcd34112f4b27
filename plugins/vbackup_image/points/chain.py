"""Image files that have another point's file below them.

The name of a backing file is always ``../../MACHINE/POINT/FILE``: every file is two levels below the root, while it is
written and after, so that the name holds throughout and when the root is moved. No other name is ever followed: a
hostile one could lead anywhere.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from vbackup.api import Corrupt, NotFound
from vbackup_image.points.layout import open_file
from vbackup_image.points.locks import point_lock
from vbackup_qemu.host import Host, translated
from vbackup_qemu.image import operand

LONGEST = 30
"""Files of one disk that may lie one on another; then a full one begins anew."""

_HEADER = struct.Struct(">4sIQI")  # QEMU, docs/interop/qcow2.txt: magic, version, backing_file_offset, its size
_MAGIC = b"QFI\xfb"
_INCOMPATIBLE = struct.Struct(">Q")
_INCOMPATIBLE_AT = 72
_DATA_FILE = 1 << 2
_NAME = re.compile(r"\.\./\.\./([A-Za-z0-9_~][A-Za-z0-9._~-]*)/([0-9A-Za-z-]+)/([A-Za-z0-9][A-Za-z0-9._:-]*\.qcow2)")


def backing(path: Path) -> Path | None:
    """Return the file below an image, None for a full one. Raises: `Corrupt`, also for one that is missing."""
    try:
        descriptor = open_file(path)
    except NotFound as error:
        raise Corrupt(f"{path} is missing") from error
    with translated(f"reading {path}"), os.fdopen(descriptor, "rb") as file:
        head = file.read(_INCOMPATIBLE_AT + _INCOMPATIBLE.size)
        if path.suffix != ".qcow2":
            return None
        if len(head) < _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
            raise Corrupt(f"{path} is cut off")
        magic, version, offset, size = _HEADER.unpack_from(head)
        (incompatible,) = _INCOMPATIBLE.unpack_from(head, _INCOMPATIBLE_AT)
        if magic != _MAGIC or version != 3 or incompatible & _DATA_FILE or size > 1023:
            raise Corrupt(f"{path} is not the qcow2 file that was written")
        if not offset:
            return None
        file.seek(offset)
        name = file.read(size).decode(errors="replace")
    found = _NAME.fullmatch(name)
    if found is None:
        raise Corrupt(f"{path} has a backing file that vbackup never gave it: {name!r}")
    return path.parents[2].joinpath(*found.groups())


def held_layers(stack: ExitStack, path: Path) -> list[Path]:
    """Hold the points of an image and of all below it, for the time of ``stack``; return the files, topmost first.

    Raises: `Busy`, `NotFound` if its point is gone, `Corrupt` if one below is.
    """
    stack.enter_context(point_lock(path.parent))
    layers = [path]
    while (below := backing(layers[-1])) is not None:
        if below in layers or len(layers) > 10 * LONGEST:
            raise Corrupt(f"the backing files of {path} go round in a circle")
        try:
            stack.enter_context(point_lock(below.parent))
        except NotFound as error:
            raise Corrupt(f"{below}, the backing file of {layers[-1]}, is missing") from error
        layers.append(below)
    return layers


def name_for(below: Path) -> str:
    """Return the name by which any file at its level has ``below`` as its backing file."""
    return f"../../{'/'.join(below.parts[-3:])}"


def create_on(host: Host, path: Path, below: Path, size: int) -> None:
    """Make an empty image that reads as ``below``."""
    host.write_file(path, b"", 0o600)
    below_options = ("-b", name_for(below), "-F", "qcow2")
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", *below_options, "--", operand(path), str(size)])


def rebase(host: Host, path: Path, below: Path | None) -> None:
    """Put another file (or none) below an image, which reads the same after as before."""
    below_options = ("-b", name_for(below), "-F", "qcow2") if below is not None else ("-b", "")
    host.run(["qemu-img", "rebase", "-f", "qcow2", *below_options, "--", operand(path)])


def layers_below(path: Path) -> Iterator[Path]:
    """Yield the files below an image, uppermost first, up to one that is missing or damaged."""
    seen = {path}
    layer = _backing_if_readable(path)
    while layer is not None and layer not in seen:
        seen.add(layer)
        yield layer
        layer = _backing_if_readable(layer)


def _backing_if_readable(path: Path) -> Path | None:
    try:
        return backing(path)
    except Corrupt:
        return None
