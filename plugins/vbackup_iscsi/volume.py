"""What is on a LUN: our file system, nothing, or somebody else's data."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from vbackup.api import Unavailable, Unsupported
from vbackup_iscsi import filesystem
from vbackup_iscsi.header import Device, Label
from vbackup_iscsi.order import Order

_SMALLEST = 400 << 20
"""mkfs.xfs makes nothing below 300 MB."""


def examine(device: Device, order: Order) -> None:
    """Return if the LUN may be used as ordered. Nothing is written.

    Raises: `Unavailable` where it is blank and shall not be formatted, or has shrunk; `Unsupported` where it is too
    small, or holds what is not ours.
    """
    label = device.label()
    if label is not None and label.whole:
        if device.size < label.size:
            raise Unavailable(
                f"{order.place} has shrunk: it was formatted with {label.size} bytes and has {device.size} bytes now",
                hint="give the LUN its size back; what is on it may be damaged",
                transient=False,
            )
        return
    if not _is_blank(device):
        if order.format and order.force:
            return
        found = filesystem.found_on(device.path) or "data of an unknown kind"
        raise Unsupported(
            f"{order.place} holds {found}, and not a store of vbackup",
            hint="vbackup needs a LUN of its own; correct portal, target or lun, or have this one wiped",
        )
    if not order.format:
        raise Unavailable(f"{order.place} is blank", hint="format it with `vbackup init`", transient=False)
    if device.size < _SMALLEST:
        raise Unsupported(f"{order.place} is too small: {device.size} bytes", hint=f"{_SMALLEST} bytes are needed")


def format_if_asked(device: Device, blocks: Path, order: Order) -> None:
    """Make the file system on ``blocks``, all of the LUN but the header, unless there is one; its label comes last."""
    label = device.label()
    if label is not None and label.whole:
        return
    examine(device, order)  # another host may have been here before it became ours
    if not _is_blank(device):
        device.wipe()
    label = Label(device.size, secrets.token_hex(16), whole=False)
    device.write_label(label)
    filesystem.make(blocks)
    device.write_label(replace(label, whole=True))


def _is_blank(device: Device) -> bool:
    return device.is_blank() and not filesystem.found_on(device.path)
