"""The firmware's variables (NVRAM): a file beside the machine's ``.vmx``."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from vbackup.api import VBackupError
from vbackup_vsphere.readers.files import DatastoreFile, split_path

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


def put(session: Session, vm: Any, datacenter: str, data: bytes) -> list[str]:
    """Replace a machine's variables; returns a note where that cannot be."""
    try:
        url = _file(session, vm, datacenter).url()
        with session.open("PUT", url, headers={"Content-Type": "application/octet-stream"}, body=data) as answer:
            answer.read()
    except VBackupError as error:
        return [f"its firmware variables could not be put back, so that it starts as a new machine does: {error}"]
    return []


def _file(session: Session, vm: Any, datacenter: str) -> DatastoreFile:
    """Return where a machine's variables belong; the file is there only once it was started."""
    values = session.get(vm, "config.files.vmPathName", "config.extraConfig")
    vmx = split_path(str(values.get("config.files.vmPathName")), datacenter)
    said = {one.key: str(one.value) for one in values.get("config.extraConfig", ())}
    name = said.get("nvram") or posixpath.splitext(vmx.path)[0] + ".nvram"
    return vmx.beside(posixpath.basename(name))
