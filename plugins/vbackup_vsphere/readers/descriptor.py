"""The descriptor of a VMDK: a small text beside the file that has the bytes.

Source: VMware, "Virtual Disk Format 5.0", "The Descriptor File".
"""

from __future__ import annotations

import re

from vbackup.api import Unsupported

MAX_DESCRIPTOR = 64 << 10
"""Bytes; a descriptor has some hundreds."""

_SETTING = re.compile(r'\s*(?P<key>[A-Za-z0-9_.]+)\s*=\s*"?(?P<value>[^"]*)"?\s*')
_EXTENT = re.compile(
    r"\s*(?P<access>RW|RDONLY|NOACCESS)\s+(?P<sectors>\d{1,15})\s+(?P<kind>[A-Z0-9]+)"
    r'(?:\s+"(?P<file>[^"]+)"(?:\s+(?P<start>\d+))?)?\s*'
)
_NO_PARENT = "ffffffff"


def extent_file(descriptor: bytes, size: int) -> str:
    """Return the name of the file, beside the descriptor, that has the disk's ``size`` bytes and nothing else.

    Raises: `Unsupported` for any other kind of disk, with the reason.
    """
    if len(descriptor) > MAX_DESCRIPTOR or b"\0" in descriptor:
        raise Unsupported("the host gives no descriptor of it")
    try:
        lines = descriptor.decode().splitlines()
    except UnicodeDecodeError as error:
        raise Unsupported("its descriptor is no text") from error
    settings = {m["key"].lower(): m["value"] for line in lines if (m := _SETTING.fullmatch(line))}
    extents = [m for line in lines if (m := _EXTENT.fullmatch(line))]
    if "createtype" not in settings:
        raise Unsupported("the host gives no descriptor of it")
    if settings["createtype"].lower() != "vmfs":
        raise Unsupported(f"it is a disk of the type {settings['createtype'][:40]!r}, not a flat file")
    if settings.get("parentcid", _NO_PARENT).lower() != _NO_PARENT or "parentfilenamehint" in settings:
        raise Unsupported("its descriptor names a parent")
    if any(key.startswith("encryption") for key in settings):
        raise Unsupported("its descriptor says that it is encrypted")
    return _only(extents, size)


def _only(extents: list[re.Match[str]], size: int) -> str:
    if len(extents) != 1:
        raise Unsupported(f"it consists of {len(extents)} files")
    extent = extents[0]
    if extent["kind"] not in {"VMFS", "FLAT"} or extent["access"] != "RW" or int(extent["start"] or 0):
        raise Unsupported(f"its file is {extent['access']} {extent['kind']}, not flat")
    if int(extent["sectors"]) * 512 != size:
        raise Unsupported(f"its descriptor tells of {int(extent['sectors']) * 512} bytes, the disk has {size}")
    name = extent["file"] or ""
    if not name.isprintable() or "/" in name or name in {"", ".", ".."}:
        raise Unsupported("its descriptor names no file beside it")
    return name
